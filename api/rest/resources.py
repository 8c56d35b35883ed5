"""What REST answers: the shapes of the resources, as the contract shows them."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from api.catalog import Dimension, Entity, Metric, SavedQuery
from api.publication import PublicationInfo, SourceFreshness
from api.service import MetricLineage

T = TypeVar("T")


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
    kind: str = Field(description="categorical, time or entity.")
    type: str = Field(description="The type of its values.")
    entity: str | None
    grains: list[str] = Field(description="For a time: append one, as in `metric_time__month`.")
    synonyms: list[str]

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
            synonyms=list(dimension.synonyms),
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
    kind: str
    type: str | None
    unit: str | None
    grain: str | None


class TimeRangeResource(Resource):
    """Days, both ends included."""

    start: date
    end: date


class CacheResource(Resource):
    """What was at hand already."""

    plan: str = Field(description="`hit`: the shape was compiled before; `miss`.")
    result: str = Field(
        description="`hit`: kept; `shared`: run for somebody else just then; `miss`; `bypass`: no-cache."
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
    truncated: bool = Field(description="Whether more rows follow; fetch them with offset.")
    limit: int
    offset: int
    publication: str
    as_of: date = Field(description="The day that everything relative is relative to.")
    time_range: TimeRangeResource | None = Field(description="The days that time_range meant.")
    cost: int | None = Field(
        description="Rows that the query was estimated to read and join; null unless the role has a budget."
    )
    withheld_groups: int | None = Field(
        description="Groups that tell of too few customers; null unless the role has a floor that concerns the answer."
    )
    cache: CacheResource
    timings: TimingsResource


class AnswerResource(Resource):
    """Rows as objects; a decimal is a JSON number with all its digits."""

    data: list[dict[str, Any]]
    columns: list[ColumnResource]
    meta: AnswerMeta


class CompiledResource(Resource):
    """The SQL that would run, and the values bound to it."""

    sql: str
    parameters: dict[str, Any]
    columns: list[ColumnResource]
    plan: str = Field(description="`hit` if the shape was compiled before, else `miss`.")
    cost: int = Field(description="Rows that the query is estimated to read, join, group and sort.")


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
        return cls(**info.model_dump(exclude={"sources"}), current=info.version == current)


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

    data: list[str | bool | int | float | Decimal | date | datetime]
    meta: ValuesMeta
