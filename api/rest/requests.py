"""The bodies that REST accepts, parsed once into the service's own values; unknown keys are refused."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from typing import Annotated, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    Tag,
)

from api.dbt_filter import MAX_CHARACTERS, parse_dbt_filter
from api.errors import InvalidQuery
from api.filters import AllOf, AnyOf, Comparison, Filter, Not, Operator, Value, all_of
from api.periods import MAX_UNITS, CompareTo, DateRange, LastUnits, Preset, TimeRange, Unit, day
from api.query import MAX_COMPARISONS, MetricQuery, OrderBy

MAX_CURSOR = 500
Name = Annotated[str, Field(min_length=1, max_length=300)]
# Finite floats alone: the JSON reader takes no NaN, and 1e999 would become infinite.
FiniteFloat = Annotated[float, Field(strict=True, allow_inf_nan=False)]


def _day(value: object) -> date:
    try:
        return day(value if isinstance(value, str) else "")
    except ValueError as error:
        msg = "write a day as 2019-01-31"
        raise ValueError(msg) from error


# Else pydantic would take a number for seconds since 1970.
Day = Annotated[date, BeforeValidator(_day)]


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# JSON has one kind of number: 100.0 is 100 (but neither "100" nor true is).
WHOLE = BeforeValidator(_whole)

# Stop at the first fault: a body of one MB has room for half a million, and each costs 10 µs.
T = TypeVar("T")
Items = Annotated[tuple[T, ...], Field(fail_fast=True)]


class Body(BaseModel):
    """The strictness that every body shares."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _exact(values: Iterable[Value]) -> tuple[Value, ...]:
    return tuple(Decimal(repr(value)) if isinstance(value, float) else value for value in values)


class ComparisonBody(Body):
    """A field against values."""

    field: Name = Field(
        description=(
            "A dimension such as `product__category`, `metric_time__month` or `metric_time__extract_dow`; in having, "
            "a metric."
        )
    )
    op: Operator = Field(description="What to compare; text operators are case-sensitive.")
    values: Items[StrictStr | StrictBool | StrictInt | FiniteFloat] = Field(
        (), description="In the field's type; a day is `2019-01-31`. None for is_null and is_not_null."
    )

    def parsed(self) -> Filter:
        """The comparison as the service knows it."""
        return Comparison(field=self.field, operator=self.op, values=_exact(self.values))


class MetricFilterBody(Body):
    """A metric's value for each of an entity against values; the rows of the entities that satisfy it count.

    The value is that over all of the data: neither time_range nor other filters reach it, only what the metric's own
    definition says. Roles with row filters may not use it.
    """

    metric: Name = Field(description="The metric, not one that runs over time.")
    per: Items[Name] = Field(min_length=1, description="The one entity to compute it for, such as `customer`.")
    op: Operator
    values: Items[StrictInt | FiniteFloat] = Field((), description="Numbers; none for is_null and is_not_null.")

    def parsed(self) -> Filter:
        """The filter as the service knows it."""
        return Comparison(field=self.metric, operator=self.op, values=_exact(self.values), per=self.per)


class AnyOfBody(Body):
    """True where at least one part is."""

    any_of: Items[FilterBody] = Field(min_length=1)

    def parsed(self) -> Filter:
        """The group as the service knows it."""
        return AnyOf(tuple(part.parsed() for part in self.any_of))


class AllOfBody(Body):
    """True where every part is."""

    all_of: Items[FilterBody] = Field(min_length=1)

    def parsed(self) -> Filter:
        """The group as the service knows it."""
        return AllOf(tuple(part.parsed() for part in self.all_of))


class NotBody(Body):
    """True where the part is not."""

    not_: FilterBody = Field(alias="not")

    def parsed(self) -> Filter:
        """The negation as the service knows it."""
        return Not(self.not_.parsed())


def _kind(body: object) -> str:
    """Which kind a filter is, by its key; so an error names the fault of that one, not of all."""
    keys = body if isinstance(body, dict) else getattr(type(body), "model_fields", {})
    return next((key for key in ("any_of", "all_of", "not", "not_", "metric") if key in keys), "comparison").rstrip("_")


FilterBody = Annotated[
    Annotated[ComparisonBody, Tag("comparison")]
    | Annotated[MetricFilterBody, Tag("metric")]
    | Annotated[AnyOfBody, Tag("any_of")]
    | Annotated[AllOfBody, Tag("all_of")]
    | Annotated[NotBody, Tag("not")],
    Discriminator(_kind),
]


def _where_kind(body: object) -> str:
    return "text" if isinstance(body, str) else _kind(body)


WhereBody = Annotated[
    Annotated[ComparisonBody, Tag("comparison")]
    | Annotated[MetricFilterBody, Tag("metric")]
    | Annotated[AnyOfBody, Tag("any_of")]
    | Annotated[AllOfBody, Tag("all_of")]
    | Annotated[NotBody, Tag("not")]
    | Annotated[str, Tag("text"), Field(min_length=1, max_length=MAX_CHARACTERS)],
    Discriminator(_where_kind),
]


class DateRangeBody(Body):
    """Days, both ends included."""

    start: Day
    end: Day

    def parsed(self) -> TimeRange:
        """The range as the service knows it."""
        return DateRange(start=self.start, end=self.end)


class LastUnitsBody(Body):
    """The last units up to the as-of date."""

    last: Annotated[int, Field(ge=1, le=MAX_UNITS, strict=True), WHOLE]
    unit: Unit

    def parsed(self) -> TimeRange:
        """The range as the service knows it."""
        return LastUnits(count=self.last, unit=self.unit)


class PresetBody(Body):
    """A named range relative to the as-of date."""

    preset: Preset

    def parsed(self) -> TimeRange:
        """The range as the service knows it."""
        return self.preset


def _range_kind(body: object) -> str:
    """Which of the three a range is, by its key; so an error names the fault of that one, not of all three."""
    keys = body if isinstance(body, dict) else getattr(type(body), "model_fields", {})
    return next(
        (kind for key, kind in (("last", "last"), ("unit", "last"), ("preset", "preset")) if key in keys), "days"
    )


TimeRangeBody = Annotated[
    Annotated[DateRangeBody, Tag("days")]
    | Annotated[LastUnitsBody, Tag("last")]
    | Annotated[PresetBody, Tag("preset")],
    Discriminator(_range_kind),
]


class OrderByBody(Body):
    """Sort by a metric or group-by of the query."""

    field: Name
    descending: StrictBool = False

    def parsed(self) -> OrderBy:
        """The order as the service knows it."""
        return OrderBy(field=self.field, is_descending=self.descending)


class QueryBody(Body):
    """A question for metrics; at least one metric or group-by."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "metrics": ["total_revenue", "average_order_value"],
                    "group_by": ["metric_time__month"],
                    "where": [{"field": "product__category", "op": "in", "values": ["Apparel", "Nest-USA"]}],
                    "time_range": {"start": "2019-01-01", "end": "2019-03-31"},
                    "order_by": [{"field": "total_revenue", "descending": True}],
                    "limit": 100,
                }
            ]
        }
    )

    metrics: Items[Name] = Field((), description="Names of metrics; see `/v1/metrics`.")
    group_by: Items[Name] = Field(
        (),
        description=(
            "Dimensions; a time with its grain, as `metric_time__month`, or a part of its date, as "
            "`metric_time__extract_month`."
        ),
    )
    where: Items[WhereBody] = Field(
        (),
        description=(
            "Filters on dimensions, before aggregation; all must hold. A text is read as a filter of the dbt Semantic "
            "Layer: `{{ Dimension('customer__gender') }} = 'F'`."
        ),
    )
    having: Items[FilterBody] = Field(
        (), description="Filters on asked metrics and what compare_to adds, after aggregation; all must hold."
    )
    time_range: TimeRangeBody | None = Field(
        None, description="Days, or relative to the as-of date of the data; filters the metric's time."
    )
    compare_to: CompareTo | None = Field(
        None,
        description=(
            "Sets each metric `m` beside itself over the range before: `m__previous`, `m__change`, and "
            "`m__change_ratio`, the change over the previous value (null where that is null or 0). Needs a time_range."
        ),
    )
    order_by: Items[OrderByBody] = ()
    limit: Annotated[int, Field(ge=1, strict=True), WHOLE] | None = Field(None, description="Rows on this page.")
    offset: Annotated[int, Field(ge=0, le=2**53, strict=True), WHOLE] = Field(
        0, description="Rows to pass over; the order is stable."
    )
    cursor: str | None = Field(
        None,
        max_length=MAX_CURSOR,
        description=(
            "`next_cursor` of the page before, with the same question (limit may differ) and no offset. A new "
            "publication ends the walk with `cursor_expired`: all pages come from one version."
        ),
    )

    time_zone: str = Field(
        "UTC",
        min_length=1,
        max_length=100,
        description=(
            "IANA name. Times of day are shown in it, and read in it where they have no offset. Days, and whatever is "
            "grouped by day or more, are UTC days all the same, and relative ranges are relative to the as-of date."
        ),
        examples=["Europe/Berlin"],
    )

    def parsed(self) -> MetricQuery:
        """The question as the service knows it; raises `InvalidQuery` for a text that is no filter."""
        if len(self.where) > MAX_COMPARISONS:  # before any text is read, which costs more than to count
            raise InvalidQuery(
                f"{len(self.where)} filters are more than the {MAX_COMPARISONS} allowed",
                hint="Split the query.",
                code="query_too_complex",
            )
        texts = [parse_dbt_filter(part) for part in self.where if isinstance(part, str)]
        where = [part.parsed() for part in self.where if not isinstance(part, str)]
        having = [part.parsed() for part in self.having]
        return MetricQuery(
            metrics=self.metrics,
            group_by=self.group_by,
            where=all_of(*where, *(text.where for text in texts)),
            having=all_of(*having, *(text.having for text in texts)),
            time_range=self.time_range.parsed() if self.time_range else None,
            compare_to=self.compare_to,
            order_by=tuple(order.parsed() for order in self.order_by),
            limit=self.limit,
            offset=self.offset,
            cursor=self.cursor,
            time_zone=self.time_zone,
        )


class ExportBody(QueryBody):
    """A question for metrics, of which all rows are answered."""

    limit: Annotated[int, Field(ge=1, strict=True), WHOLE] | None = Field(
        None, description="Rows at most; without one, an answer that is too large breaks off."
    )
    offset: Annotated[int, Field(ge=0, le=0, strict=True), WHOLE] = Field(
        0, description="An export begins with the first row."
    )


# Every key of every body, to propose one for what is none.
KEYS = frozenset(field.alias or name for body in Body.__subclasses__() for name, field in body.model_fields.items())
