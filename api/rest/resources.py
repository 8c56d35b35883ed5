"""What REST answers: each shape is declared here alone, for the contract and for what is sent."""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from typing import Any, Generic, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from api.answer import Answer, Page
from api.cache import Origin, Reason
from api.catalog import Dimension, DimensionKind, Entity, Metric, SavedQuery, ValueType
from api.compiler import Column, CompiledQuery
from api.periods import DateRange
from api.publication import PublicationInfo, SourceFreshness
from api.service import MetricLineage

T = TypeVar("T")

# A value on the wire: a day or time is a text, a decimal a number with all its digits.
Cell: TypeAlias = str | bool | int | float


class Resource(BaseModel):
    """Everything that is answered."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ListMeta(Resource):
    """How much of the list this is."""

    total: int = Field(description="Items that match, on all pages.")
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last.")


class Listing(Resource, Generic[T]):
    """One page of a list."""

    data: list[T]
    meta: ListMeta


class MetricResource(Resource):
    """A metric, with what counts and what does not."""

    name: str
    label: str
    description: str
    type: str = Field(description="simple, ratio, derived, cumulative or conversion.")
    unit: str | None
    owner: str | None
    synonyms: list[str]
    requires_metric_time: bool = Field(description="Whether it must be grouped by metric_time.")
    dimensions: list[str] = Field(description="Full names of the dimensions that join.")

    @classmethod
    def of(cls, metric: Metric) -> MetricResource:
        """The metric as answered."""
        return cls(
            name=metric.name,
            label=metric.label,
            description=metric.description,
            type=metric.kind,
            unit=metric.unit,
            owner=metric.owner,
            synonyms=list(metric.synonyms),
            requires_metric_time=metric.requires_metric_time,
            dimensions=list(metric.grains),
        )


class DimensionResource(Resource):
    """A dimension to group and filter by."""

    name: str
    label: str
    description: str
    kind: DimensionKind
    type: ValueType = Field(description="The type of its values.")
    entity: str | None
    grains: list[str] = Field(description="For a time: append one, as in `metric_time__month`.")
    date_parts: list[str] = Field(
        description="For a time: append one, as in `metric_time__extract_month`; a number, dow 1 on Monday to 7."
    )
    synonyms: list[str]
    value_synonyms: dict[str, list[str]] = Field(
        description="What people call some of the values, by value; truth values are `true` and `false`."
    )

    @classmethod
    def of(cls, dimension: Dimension) -> DimensionResource:
        """The dimension as answered."""
        return cls(
            name=dimension.name,
            label=dimension.label,
            description=dimension.description,
            kind=dimension.kind,
            type=dimension.type,
            entity=dimension.entity,
            grains=list(dimension.grains),
            date_parts=list(dimension.date_parts),
            synonyms=list(dimension.synonyms),
            value_synonyms={value: list(words) for value, words in dimension.value_synonyms},
        )


class EntityResource(Resource):
    """A thing that measures and dimensions belong to."""

    name: str
    description: str
    semantic_models: list[str]

    @classmethod
    def of(cls, entity: Entity) -> EntityResource:
        """The entity as answered."""
        return cls(name=entity.name, description=entity.description, semantic_models=list(entity.models))


class SavedQueryResource(Resource):
    """A named question; its answer is at `/v1/saved-queries/{name}/results`."""

    name: str
    label: str
    description: str
    metrics: list[str]
    group_by: list[str]

    @classmethod
    def of(cls, saved: SavedQuery) -> SavedQueryResource:
        """The saved query as answered."""
        return cls(
            name=saved.name,
            label=saved.label,
            description=saved.description,
            metrics=list(saved.metrics),
            group_by=list(saved.group_by),
        )


class ColumnResource(Resource):
    """A column of an answer; the type of a metric is known once it ran."""

    name: str
    label: str
    kind: str = Field(
        description="categorical, time, entity or metric; with compare_to also previous, change and change_ratio."
    )
    type: ValueType | None
    unit: str | None
    grain: str | None
    date_part: str | None

    @classmethod
    def of(cls, column: Column) -> ColumnResource:
        """The column as answered."""
        return cls(
            name=column.name,
            label=column.label,
            kind=column.kind,
            type=column.type,
            unit=column.unit,
            grain=column.grain,
            date_part=column.date_part,
        )


class TimeRangeResource(Resource):
    """Days, both ends included."""

    start: date
    end: date


class PlanOrigin(StrEnum):
    """Whether the shape was compiled before."""

    HIT = "hit"
    MISS = "miss"

    @classmethod
    def of(cls, *, is_from_cache: bool) -> PlanOrigin:
        """The word for it."""
        return cls.HIT if is_from_cache else cls.MISS


class CacheResource(Resource):
    """What was at hand already."""

    plan: PlanOrigin = Field(description="`hit`: the shape was compiled before; `miss`.")
    result: Origin = Field(
        description="`hit`: kept; `shared`: run for somebody else just then; `miss`; `bypass`: no-cache."
    )
    reason: Reason = Field(
        description=(
            "Why: `kept` since an earlier run; `under_way` for somebody else; `asked_anew` by no-cache; `first_time` "
            "that this process runs it, for this publication and these rows; `dropped`, as others took its room; "
            "`too_large` to be kept."
        )
    )


class TimingsResource(Resource):
    """Milliseconds spent."""

    compile_ms: float
    run_ms: float
    total_ms: float


class AnswerMeta(Resource):
    """Where an answer comes from, and whether it is all."""

    query_id: str
    row_count: int
    truncated: bool = Field(description="Whether more rows follow; fetch them with next_cursor.")
    next_cursor: str | None = Field(
        description="Pass it as `cursor`, with the same question, for the next page; null when nothing follows."
    )
    limit: int
    offset: int
    publication: str
    as_of: date = Field(description="The day that everything relative is relative to.")
    time_zone: str = Field(description="Where the times of day are shown; days are UTC days.")
    time_range: TimeRangeResource | None = Field(description="The days that time_range meant.")
    compared_with: TimeRangeResource | None = Field(description="The earlier days that compare_to meant.")
    cost: int | None = Field(
        description="Rows that the query was estimated to read and join; null unless the role has a budget."
    )
    withheld_groups: int | None = Field(
        description="Groups that tell of too few customers; null unless the role has a floor that concerns the answer."
    )
    cache: CacheResource
    timings: TimingsResource


class PageMeta(AnswerMeta):
    """Where an answer comes from, and which part of it this is; `row_count` counts the rows of this page."""

    page: int
    page_count: int = Field(description="One at least, even without rows.")
    page_size: int = Field(description="Rows on each page but the last.")
    total_rows: int


def meta_of(answer: Answer) -> dict[str, Any]:
    """What the answer says of itself, ready for the encoder: an `AnswerMeta`, a `PageMeta` for a part of a stored one.

    Not made as one: that takes longer than all the rest of answering from memory.
    """
    told = {
        "query_id": answer.query_id,
        "row_count": answer.table.num_rows,
        "truncated": answer.is_truncated,
        "next_cursor": answer.next_cursor,
        "limit": answer.limit,
        "offset": answer.offset,
        "publication": answer.publication,
        "as_of": answer.as_of,
        "time_zone": answer.time_zone,
        "time_range": _days(answer.time_range),
        "compared_with": _days(answer.compared_with),
        "cost": answer.cost,
        "withheld_groups": answer.withheld.groups if answer.withheld else None,
        "cache": {
            "plan": PlanOrigin.of(is_from_cache=answer.is_plan_cached),
            "result": answer.result_origin,
            "reason": answer.result_reason,
        },
        "timings": answer.timings,
    }
    return told | _placed(answer.page) if answer.page else told


def _placed(page: Page) -> dict[str, int]:
    return {"page": page.number, "page_count": page.count, "page_size": page.rows, "total_rows": page.total_rows}


def _days(days: DateRange | None) -> TimeRangeResource | None:
    return TimeRangeResource(start=days.start, end=days.end) if days else None


class AnswerResource(Resource):
    """Rows as objects; a decimal is a JSON number with all its digits."""

    data: list[dict[str, Cell | None]]
    columns: list[ColumnResource]
    meta: AnswerMeta


class PageResource(AnswerResource):
    """One page of an answer's rows."""

    meta: PageMeta


class CompiledResource(Resource):
    """The SQL that would run, and the values bound to it."""

    sql: str
    parameters: dict[str, Cell]
    columns: list[ColumnResource]
    plan: PlanOrigin = Field(description="`hit` if the shape was compiled before, else `miss`.")
    cost: int | None = Field(description="Rows that the query is estimated to read, join, group and sort.")

    @classmethod
    def of(cls, compiled: CompiledQuery) -> CompiledResource:
        """The compiled query as answered, ready for the encoder, which knows decimals and days."""
        parameters: dict[str, Any] = dict(compiled.parameters)
        return cls.model_construct(
            sql=compiled.sql,
            parameters=parameters,
            columns=[ColumnResource.of(column) for column in compiled.columns],
            plan=PlanOrigin.of(is_from_cache=compiled.is_from_cache),
            cost=compiled.cost,
        )


class LineageEdge(Resource):
    """A node of the dbt project and one that it reads."""

    node: str
    reads: str


class LineageResource(Resource):
    """Where a metric comes from, down to the sources."""

    metric: str
    metrics: list[str] = Field(description="The metrics that it is computed from.")
    semantic_models: list[str]
    edges: list[LineageEdge]

    @classmethod
    def of(cls, lineage: MetricLineage) -> LineageResource:
        """The lineage as answered."""
        return cls(
            metric=lineage.metric.name,
            metrics=list(lineage.metrics),
            semantic_models=list(lineage.models),
            edges=[LineageEdge(node=node, reads=read) for node, read in lineage.edges],
        )


class PublicationResource(Resource):
    """A version of data and definitions."""

    version: str
    current: bool
    created_at: datetime
    as_of: date
    data_through: date
    tables: dict[str, int] = Field(description="Rows of each mart.")
    tests_passed: int
    tests_warned: int
    fingerprint: str = Field(description="A hash of the files and definitions that it was made of.")

    @classmethod
    def of(cls, info: PublicationInfo, *, current: str) -> PublicationResource:
        """The publication as answered."""
        return cls(**info.model_dump(exclude={"sources", "snowflake_schema"}), current=info.version == current)


class FreshnessResource(Resource):
    """How fresh the current publication is, source by source."""

    publication: str
    published_at: datetime
    as_of: date
    data_through: date
    sources: list[SourceFreshness]


class Health(Resource):
    """Whether it lives, or is ready."""

    status: str
    publication: str | None = None


class ValuesMeta(Resource):
    """Of which dimension, and whether these are all."""

    dimension: str
    truncated: bool
    publication: str


class ValuesResource(Resource):
    """The values of a dimension, in its own type."""

    data: list[Cell]
    meta: ValuesMeta

    @classmethod
    def of(cls, answer: Answer) -> ValuesResource:
        """The first column of the answer, nulls left out, ready for the encoder."""
        meta = ValuesMeta(
            dimension=answer.columns[0].name, truncated=answer.is_truncated, publication=answer.publication
        )
        values = [value for value in answer.table.column(0).to_pylist() if value is not None]
        return cls.model_construct(data=values, meta=meta)
