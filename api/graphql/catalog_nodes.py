"""What may be asked, as the schema shows it: metrics, dimensions, entities, saved queries."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Annotated, TypeAlias

import strawberry

from api.catalog import METRIC_TIME, Catalog, Dimension, DimensionKind, Metric, SavedQuery
from api.definitions import Definitions
from api.graphql.definition_nodes import (
    DimensionConfigNode,
    DimensionTypeParamsNode,
    EntityConfigNode,
    ExportNode,
    MeasureNode,
    MetadataNode,
    MetricConfigNode,
    MetricTypeParamsNode,
    SemanticModelNode,
    WhereFilterNode,
    grain,
    grains,
)
from api.graphql.vocabulary import DatePart, DimensionType, EntityType, JsonValue, MetricType, TimeGranularity


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What exists for a caller: what may be asked, and how it is written down."""

    catalog: Catalog
    definitions: Definitions

    def metrics(self) -> list[MetricNode]:
        """Every metric, in name order."""
        return [MetricNode.of(metric, self) for metric in self.catalog.metrics.values()]

    def dimensions(self, metrics: Collection[str]) -> list[DimensionNode]:
        """The dimensions that join to all the metrics, keys of entities left out; all for no metric."""
        return [DimensionNode.of(item, self) for item in self._common(metrics) if item.kind is not DimensionKind.ENTITY]

    def entities(self, metrics: Collection[str]) -> list[EntityNode]:
        """The entities whose keys join to all the metrics; all for no metric."""
        return [EntityNode.of(item, self) for item in self._common(metrics) if item.kind is DimensionKind.ENTITY]

    def measures(self, metrics: Collection[str]) -> list[MeasureNode]:
        """The measures that the metrics are computed from, each once; of all metrics for none."""
        names = [self.catalog.metric(name).name for name in metrics] or self.catalog.metrics
        return [MeasureNode.of(item) for item in self.definitions.measures_of_all(names)]

    def shared_grains(self, metrics: Collection[str]) -> tuple[str, ...]:
        """The grains at which all the metrics can be asked over time."""
        return next((item.grains for item in self._common(metrics) if item.name == METRIC_TIME), ())

    def joined_to(self, dimensions: Collection[str]) -> list[MetricNode]:
        """The metrics that every one of the dimensions joins to."""
        names = [self.catalog.group_by(name).dimension.name for name in dimensions]
        metrics = self.catalog.metrics.values()
        return [MetricNode.of(metric, self) for metric in metrics if all(name in metric.grains for name in names)]

    def saved_queries(self) -> list[SavedQueryNode]:
        """Every saved query."""
        return [SavedQueryNode.of(saved, self) for saved in self.catalog.saved_queries.values()]

    def _common(self, metrics: Collection[str]) -> Iterable[Dimension]:
        return self.catalog.common_dimensions(metrics)


@strawberry.type(name="Metric")
class MetricNode:
    """A number with a name and a meaning."""

    known: strawberry.Private[Known]
    found: strawberry.Private[Metric]
    name: str
    description: str | None
    type: MetricType
    label: str | None
    requires_metric_time: bool

    @classmethod
    def of(cls, metric: Metric, known: Known) -> MetricNode:
        """The metric as answered."""
        return cls(
            known=known,
            found=metric,
            name=metric.name,
            description=metric.description,
            type=MetricType(metric.kind),
            label=metric.label,
            requires_metric_time=metric.requires_metric_time,
        )

    @strawberry.field
    def type_params(self) -> MetricTypeParamsNode:
        """What it is made of, as far as the caller may know."""
        defined = self.known.definitions.metrics.get(self.name)
        return MetricTypeParamsNode.of(defined) if defined else MetricTypeParamsNode(input_measures=[])

    @strawberry.field
    def filter(self) -> WhereFilterNode | None:
        """The filter that is part of it; null for a role that does not see SQL."""
        defined = self.known.definitions.metrics.get(self.name)
        return WhereFilterNode.of(defined.where if defined else None)

    @strawberry.field
    def dimensions(self) -> list[DimensionNode]:
        """The dimensions that join to it."""
        return self.known.dimensions((self.name,))

    @strawberry.field
    def measures(self) -> list[MeasureNode]:
        """The measures that it is computed from."""
        return self.known.measures((self.name,))

    @strawberry.field
    def entities(self) -> list[EntityNode]:
        """The entities whose keys join to it."""
        return self.known.entities((self.name,))

    @strawberry.field
    def queryable_granularities(self) -> list[TimeGranularity]:
        """The grains at which it can be asked over time."""
        return grains(self.found.grains.get(METRIC_TIME, ()))

    @strawberry.field
    def queryable_time_granularities(self) -> list[str]:
        """The grains at which it can be asked over time."""
        return upper(self.found.grains.get(METRIC_TIME, ()))

    @strawberry.field
    def config(self) -> MetricConfigNode | None:
        """What its owner wrote about it: unit, owner, synonyms."""
        defined = self.known.definitions.metrics.get(self.name)
        return MetricConfigNode(meta=JsonValue(defined.meta)) if defined else None

    @strawberry.field
    def metadata(self) -> MetadataNode | None:
        """Where it is written down; always null here."""
        return None

    @strawberry.field
    def semantic_models(self) -> list[SemanticModelNode] | None:
        """The semantic models whose measures it aggregates."""
        return [SemanticModelNode(name=name) for name in self.found.models]


@strawberry.type(name="Dimension")
class DimensionNode:
    """Something to group or filter by, under its full name."""

    known: strawberry.Private[Known]
    found: strawberry.Private[Dimension]
    name: str
    qualified_name: str
    description: str | None
    type: DimensionType
    label: str | None

    @classmethod
    def of(cls, dimension: Dimension, known: Known) -> DimensionNode:
        """The dimension as answered, with the grains that it has here."""
        return cls(
            known=known,
            found=dimension,
            name=dimension.name,
            qualified_name=dimension.name,
            description=dimension.description,
            type=DimensionType(dimension.kind.value),
            label=dimension.label,
        )

    @strawberry.field
    def is_partition(self) -> bool:
        """Whether dbt partitions its table by it."""
        defined = self.known.definitions.dimensions.get(self.name)
        return bool(defined and defined.is_partition)

    @strawberry.field
    def expr(self) -> str | None:
        """Its SQL; its name for a role that does not see SQL, and for a column."""
        defined = self.known.definitions.dimensions.get(self.name)
        return defined.expr if defined else self.name

    @strawberry.field
    def type_params(self) -> DimensionTypeParamsNode | None:
        """What only a time has."""
        return DimensionTypeParamsNode.of(self.known.definitions.dimensions.get(self.name))

    @strawberry.field
    def queryable_granularities(self) -> list[TimeGranularity]:
        """The grains that it can be grouped by; none unless it is a time."""
        return grains(self.found.grains)

    @strawberry.field
    def queryable_time_granularities(self) -> list[str]:
        """The grains that it can be grouped by; none unless it is a time."""
        return upper(self.found.grains)

    @strawberry.field
    def config(self) -> DimensionConfigNode | None:
        """What its owner wrote about it."""
        defined = self.known.definitions.dimensions.get(self.name)
        return DimensionConfigNode(meta=JsonValue(defined.meta)) if defined else None

    @strawberry.field
    def metadata(self) -> MetadataNode | None:
        """Where it is written down; always null here."""
        return None

    @strawberry.field
    def semantic_model(self) -> SemanticModelNode | None:
        """The semantic model that it is a column of; metric_time has none."""
        return SemanticModelNode(name=self.found.model) if self.found.model else None


@strawberry.type(name="Entity")
class EntityNode:
    """A thing that measures and dimensions belong to; its name groups by its key."""

    known: strawberry.Private[Known]
    found: strawberry.Private[Dimension]
    name: str
    description: str | None
    type: EntityType
    role: str | None
    expr: str | None

    @classmethod
    def of(cls, entity: Dimension, known: Known) -> EntityNode:
        """The entity as answered."""
        defined = known.definitions.entities[entity.name]
        return cls(
            known=known,
            found=entity,
            name=entity.name,
            description=entity.description,
            type=EntityType(defined.type),
            role=defined.role or "",  # dbt's own client makes the text "None" of a null
            expr=defined.expr,
        )

    @strawberry.field
    def config(self) -> EntityConfigNode | None:
        """What its owner wrote about it."""
        return EntityConfigNode(meta=JsonValue(self.known.definitions.entities[self.name].meta))

    @strawberry.field
    def semantic_model(self) -> SemanticModelNode | None:
        """The semantic model that it is the key of, or one that names it."""
        return SemanticModelNode(name=self.found.model) if self.found.model else None


EntityDimension: TypeAlias = Annotated[EntityNode | DimensionNode, strawberry.union("EntityDimension")]


@strawberry.type(name="SavedQueryMetricParam")
class SavedQueryMetricNode:
    """A metric of a saved query."""

    name: str


@strawberry.type(name="SavedQueryGroupByParam")
class SavedQueryGroupByNode:
    """A group-by of a saved query."""

    name: str
    grain: TimeGranularity | None
    time_granularity: str | None
    date_part: DatePart | None


@strawberry.type(name="SavedQueryQueryParams")
class SavedQueryParamsNode:
    """What a saved query asks for."""

    metrics: list[SavedQueryMetricNode]
    group_by: list[SavedQueryGroupByNode]
    where: WhereFilterNode | None


@strawberry.type(name="SavedQuery")
class SavedQueryNode:
    """A named question."""

    name: str
    description: str | None
    label: str | None
    query_params: SavedQueryParamsNode
    exports: list[ExportNode]

    @classmethod
    def of(cls, saved: SavedQuery, known: Known) -> SavedQueryNode:
        """The saved query as answered."""
        defined = known.definitions.saved_queries.get(saved.name)
        return cls(
            name=saved.name,
            description=saved.description,
            label=saved.label,
            query_params=SavedQueryParamsNode(
                metrics=[SavedQueryMetricNode(name=name) for name in saved.metrics],
                group_by=[_group_by(text, known.catalog) for text in saved.group_by],
                where=WhereFilterNode.of(defined.where if defined else None),
            ),
            exports=[ExportNode.of(item) for item in defined.exports] if defined else [],
        )

    @strawberry.field
    def metadata(self) -> MetadataNode | None:
        """Where it is written down; always null here."""
        return None


def _group_by(text: str, catalog: Catalog) -> SavedQueryGroupByNode:
    asked = catalog.group_by(text)
    is_grained = text != asked.dimension.name  # a time without a grain has its finest one, which nobody wrote
    return SavedQueryGroupByNode(
        name=asked.dimension.name,
        grain=grain(asked.grain) if is_grained else None,
        time_granularity=asked.grain if is_grained else None,
        date_part=DatePart(asked.date_part) if asked.date_part else None,
    )


def upper(names: Iterable[str]) -> list[str]:
    """Grains as dbt writes them."""
    return [name.upper() for name in names]
