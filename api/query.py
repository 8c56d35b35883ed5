"""The question: a frozen value, and the check that makes it answerable against a catalog."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import date

from api.catalog import METRIC_TIME, Catalog, Dimension, DimensionKind, GroupBy, Metric, ValueType, nearest
from api.comparison import Earlier, compared_columns, earlier
from api.errors import InvalidQuery
from api.filters import Comparison, Filter, all_of, comparisons, depth, rewrite, typed
from api.periods import CompareTo, DateRange, TimeRange, Unit, days, whole_units
from api.zones import zone

MAX_METRICS = 10
MAX_GROUP_BYS = 8
MAX_COMPARISONS = 20
MAX_VALUES = 1_000
MAX_DEPTH = 10  # the SQL parser gives up at some 30 groups within each other


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderBy:
    """Sort by an asked metric or group-by; nulls come last either way."""

    field: str
    is_descending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricQuery:
    """Which metrics, grouped and filtered how. Names and values as the caller wrote them, unchecked."""

    metrics: tuple[str, ...] = ()
    group_by: tuple[str, ...] = ()
    where: Filter | None = None
    having: Filter | None = None
    time_range: TimeRange | None = None
    compare_to: CompareTo | None = None
    order_by: tuple[OrderBy, ...] = ()
    limit: int | None = None
    offset: int = 0
    cursor: str | None = None
    time_zone: str = "UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedQuery:
    """A question that the catalog can answer: names resolved, values typed, the range in days.

    `fields` are the dimensions of `where` and, with a time range, `metric_time__day`; `where` may name metrics besides,
    and `having` names columns of the answer.
    """

    metrics: tuple[Metric, ...]
    group_by: tuple[GroupBy, ...]
    where: Filter | None
    fields: tuple[GroupBy, ...]
    having: Filter | None
    time_range: DateRange | None
    earlier: Earlier | None
    order_by: tuple[OrderBy, ...]
    limit: int
    offset: int
    time_zone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PageLimits:
    """Rows answered when none are asked for, and rows at most."""

    default_rows: int
    max_rows: int

    def at_most(self, rows: int | None) -> PageLimits:
        """These limits, or tighter ones."""
        return self if rows is None else PageLimits(default_rows=self.default_rows, max_rows=min(self.max_rows, rows))


def check(query: MetricQuery, catalog: Catalog, *, as_of: date, limits: PageLimits) -> CheckedQuery:
    """The question with every name found, every value typed and every combination known to join.

    Raises
    ------
    UnknownName
        A metric or dimension that the catalog does not have, or a time zone that there is not.
    InvalidQuery
        Too much, twice the same, a dimension that does not join, a wrong grain, operator, value, range or order.
    """
    _check_size(query)
    metrics = tuple(catalog.metric(name) for name in query.metrics)
    group_by = tuple(_joined(catalog, name, query.metrics) for name in query.group_by)
    _refuse_repeats(query.metrics, noun="metric")
    _refuse_repeats((item.column for item in group_by), noun="group-by")
    time_range = days(query.time_range, as_of) if query.time_range else None
    where = _checked_where(query, catalog)
    filtered = tuple(catalog.group_by(leaf.field) for leaf in comparisons(where) if not leaf.per)
    fields = (*filtered, _joined(catalog, f"{METRIC_TIME}__day", query.metrics)) if time_range else filtered
    _check_time(metrics, group_by, fields=fields)
    before = _earlier(query, time_range, metrics=metrics, group_by=group_by, filtered=filtered)
    for range_ in (time_range, before and before.days):
        if range_:
            _check_whole_periods(metrics, group_by, time_range=range_, as_of=as_of)
    columns = (*query.metrics, *(compared_columns(query.metrics) if before else ()))
    order_by = tuple(_checked_order(order, columns, group_by) for order in query.order_by)
    _refuse_repeats((order.field for order in order_by), noun="order by")
    return CheckedQuery(
        metrics=metrics,
        group_by=group_by,
        where=where,
        fields=fields,
        having=_checked_having(query, columns),
        time_range=time_range,
        earlier=before,
        order_by=order_by,
        limit=_checked_limit(query, limits),
        offset=query.offset,
        time_zone=query.time_zone,
    )


def with_rows(checked: CheckedQuery, rows: Filter, catalog: Catalog) -> CheckedQuery:
    """The question over the rows that count for its caller alone.

    Parameters
    ----------
    rows
        The caller's row filter; the server's own, so its fields need not be visible to the caller.
    catalog
        The whole catalog.

    Raises
    ------
    InvalidQuery
        There is no metric whose rows could be filtered, and the group-bys belong to something else than the filter.
    """
    metrics = tuple(metric.name for metric in checked.metrics)
    asked = tuple(catalog.group_by(leaf.field) for leaf in comparisons(rows))
    if not metrics and any(
        field.dimension.entity != item.dimension.entity for field in asked for item in checked.group_by
    ):
        raise InvalidQuery(
            "Your role sees some rows only, and without a metric these values have no rows",
            hint="Name a metric beside the group-bys.",
            code="metric_required",
        )

    def typed_row(leaf: Comparison) -> Comparison:
        field = _joined(catalog, leaf.field, metrics)
        return typed(leaf, field=field.column, type_=field.type)

    where = all_of(checked.where, rewrite(rows, typed_row))
    fields = (*checked.fields, *(_joined(catalog, leaf.field, metrics) for leaf in comparisons(rows)))
    return replace(checked, where=where, fields=fields)


def _check_size(query: MetricQuery) -> None:
    if not query.metrics and not query.group_by:
        raise InvalidQuery("The query asks for nothing", hint="Name at least one metric or group-by.")
    leaves = [*comparisons(query.where), *comparisons(query.having)]
    counts = (
        (len(query.metrics) + sum(bool(leaf.per) for leaf in leaves), MAX_METRICS, "metrics, in filters too,"),
        (len(query.group_by), MAX_GROUP_BYS, "group-bys"),
        (len(leaves), MAX_COMPARISONS, "filters"),
        (sum(len(leaf.values) for leaf in leaves), MAX_VALUES, "filter values"),
        (max(depth(query.where), depth(query.having)), MAX_DEPTH, "filter groups within each other"),
    )
    for count, most, noun in counts:
        if count > most:
            raise InvalidQuery(
                f"{count} {noun} are more than the {most} allowed", hint="Split the query.", code="query_too_complex"
            )


def _refuse_repeats(names: Iterable[str], *, noun: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidQuery(f"The {noun} {name} is asked for twice", hint="Name it once.", code="duplicate_name")
        seen.add(name)


def _joined(catalog: Catalog, text: str, metrics: Collection[str]) -> GroupBy:
    """The dimension of that name, known to join to all the metrics at its grain."""
    if text in catalog.metrics:
        raise InvalidQuery(
            f"{text} is a metric, not a dimension", hint="Name it under metrics, or filter it with having."
        )
    asked = catalog.group_by(text)
    common = {dimension.name: dimension for dimension in catalog.common_dimensions(metrics)}
    if asked.dimension.name not in common or (asked.dimension.name == METRIC_TIME and not metrics):
        raise _does_not_join(catalog, asked.dimension, metrics=metrics, common=common)
    shared = common[asked.dimension.name].grains
    if asked.date_part is not None and asked.date_part not in common[asked.dimension.name].date_parts:
        raise InvalidQuery(
            f"{', '.join(metrics)} cannot be asked by parts of dates such as {asked.column}",
            hint="What looks back in time has none; group by a grain.",
            code="invalid_date_part",
        )
    if asked.grain is not None and asked.grain not in shared:
        if text != asked.dimension.name:
            raise InvalidQuery(
                f"{asked.dimension.name} has no grain {asked.grain!r} for {', '.join(metrics)}",
                hint=f"Their shared grains are {', '.join(shared)}.",
                code="invalid_grain",
            )
        return GroupBy(dimension=asked.dimension, grain=shared[0])
    return asked


def _does_not_join(
    catalog: Catalog, dimension: Dimension, *, metrics: Collection[str], common: Collection[str]
) -> InvalidQuery:
    if not metrics:
        return InvalidQuery(
            "metric_time is the time of a metric, and no metric is asked for",
            hint="Name a metric, or group by calendar_date.",
            code="dimension_not_joinable",
        )
    strangers = [name for name in metrics if dimension.name not in catalog.metric(name).grains]
    return InvalidQuery(
        f"{dimension.name} does not join to {', '.join(strangers)}",
        hint=f"Dimensions common to all the metrics: {', '.join(sorted(common)) or 'none'}.",
        code="dimension_not_joinable",
    )


def _check_time(metrics: Iterable[Metric], group_by: Collection[GroupBy], *, fields: Iterable[GroupBy]) -> None:
    """Refuse what would silently be wrong without time: a look back, or the sum of a running total's values."""
    if any(item.dimension.name == METRIC_TIME and item.grain for item in group_by):
        return
    is_time_filtered = any(item.dimension.kind is DimensionKind.TIME for item in fields)
    needing = [
        metric.name for metric in metrics if metric.requires_metric_time or (metric.accumulates and is_time_filtered)
    ]
    if needing:
        raise InvalidQuery(
            f"{', '.join(needing)} runs over time, so the answer must be grouped by time",
            hint="Add a group-by such as metric_time__month.",
            code="metric_time_required",
        )


def _earlier(
    query: MetricQuery,
    asked: DateRange | None,
    *,
    metrics: Iterable[Metric],
    group_by: Iterable[GroupBy],
    filtered: Iterable[GroupBy],
) -> Earlier | None:
    if query.compare_to is None:
        return None
    if query.time_range is None or asked is None:
        raise InvalidQuery(
            f"{query.compare_to} needs a time range to lie before",
            hint='Add time_range, {"preset": "this_month"} for instance.',
            code="time_range_required",
        )
    return earlier(query.compare_to, query.time_range, asked, metrics=metrics, group_by=group_by, filtered=filtered)


def _check_whole_periods(
    metrics: Iterable[Metric], group_by: Iterable[GroupBy], *, time_range: DateRange, as_of: date
) -> None:
    """Refuse a range that cuts a period which is compared with a whole one; the one that still runs may be cut."""
    comparing = [metric.name for metric in metrics if metric.compares_periods]
    for item in group_by:
        if not comparing or item.dimension.name != METRIC_TIME or item.grain is None:
            continue
        whole = whole_units(time_range, Unit(item.grain))
        if whole.start != time_range.start or (whole.end != time_range.end and time_range.end < as_of):
            raise InvalidQuery(
                f"{', '.join(comparing)} compares whole periods, but {time_range.start} to {time_range.end} cuts one",
                hint=f"Ask for whole {item.grain}s, {whole.start} to {whole.end} for instance.",
                code="partial_period",
            )


def _checked_where(query: MetricQuery, catalog: Catalog) -> Filter | None:
    asked_zone = zone(query.time_zone)

    def checked(leaf: Comparison) -> Comparison:
        if leaf.per:
            return _checked_metric_filter(leaf, query, catalog)
        asked = _joined(catalog, leaf.field, query.metrics)
        return typed(leaf, field=asked.column, type_=asked.type, zone=asked_zone)

    return rewrite(query.where, checked) if query.where else None


def _checked_metric_filter(leaf: Comparison, query: MetricQuery, catalog: Catalog) -> Comparison:
    """The filter, known to have one value for each entity of the rows that it filters."""
    metric = catalog.metric(leaf.field)
    entities = {name for name in metric.grains if catalog.dimension(name).kind is DimensionKind.ENTITY}
    if len(leaf.per) != 1 or catalog.dimension(leaf.per[0]).name not in entities:
        raise InvalidQuery(
            f"A filter on {metric.name} takes one entity to compute it per, not {', '.join(leaf.per)[:200]}",
            hint=f"Name one of: {', '.join(sorted(entities))}.",
            code="invalid_metric_filter",
        )
    if metric.requires_metric_time:
        raise InvalidQuery(
            f"{metric.name} runs over time, so a {leaf.per[0]} has no single value of it",
            hint="Filter by another metric.",
            code="metric_time_required",
        )
    _joined(catalog, leaf.per[0], query.metrics)
    return typed(leaf, field=metric.name, type_=ValueType.DECIMAL)


def _checked_having(query: MetricQuery, columns: Collection[str]) -> Filter | None:
    def checked(leaf: Comparison) -> Comparison:
        if leaf.field not in columns or leaf.per:
            raise InvalidQuery(
                f"having filters the asked metrics, and {leaf.field[:200]} is not one of them",
                hint="Use where for anything else, or add the metric; what compare_to adds needs compare_to.",
                code="invalid_having",
            )
        return typed(leaf, field=leaf.field, type_=ValueType.DECIMAL)

    return rewrite(query.having, checked) if query.having else None


def _checked_order(order: OrderBy, computed: Collection[str], group_by: Iterable[GroupBy]) -> OrderBy:
    grouped = tuple(group_by)
    asked = [item.dimension.name for item in grouped]
    # A time without its grain is enough where it is asked for at one grain alone.
    columns = {item.dimension.name: item.column for item in grouped if asked.count(item.dimension.name) == 1}
    columns |= {column: column for column in (*computed, *(item.column for item in grouped))}
    if order.field not in columns:
        similar = nearest(order.field, columns)
        raise InvalidQuery(
            f"The order names {order.field[:200]!r}, which the query does not ask for",
            hint=f"Order by one of: {', '.join(similar or columns)}.",
            code="invalid_order",
        )
    return OrderBy(field=columns[order.field], is_descending=order.is_descending)


def _checked_limit(query: MetricQuery, limits: PageLimits) -> int:
    limit = min(limits.default_rows, limits.max_rows) if query.limit is None else query.limit
    if not 1 <= limit <= limits.max_rows or query.offset < 0:
        raise InvalidQuery(
            f"A page has 1 to {limits.max_rows} rows, and its offset is not negative",
            hint="Fetch more rows page by page, with the cursor of the page before.",
            code="invalid_limit",
        )
    if query.cursor is not None and query.offset:
        raise InvalidQuery(
            "The cursor says already where the page begins", hint="Leave offset out.", code="cursor_with_offset"
        )
    return limit
