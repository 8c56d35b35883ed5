"""The parts of a definition in the schema: what metrics, dimensions and entities are made of."""

from __future__ import annotations

import strawberry

from api import definitions
from api.graphql.vocabulary import (
    AggregationType,
    ExportDestinationType,
    JsonValue,
    TimeGranularity,
)


@strawberry.type(name="WhereFilter")
class WhereFilterNode:
    """A filter as dbt writes it."""

    where_sql_template: str

    @classmethod
    def of(cls, text: str | None) -> WhereFilterNode | None:
        """The filter, None where there is none."""
        return None if text is None else cls(where_sql_template=text)


@strawberry.type(name="MetricTimeWindow")
class WindowNode:
    """A length of time."""

    count: int
    granularity: TimeGranularity | None
    time_granularity: str

    @classmethod
    def of(cls, window: definitions.Window | None) -> WindowNode | None:
        """The window, None where there is none."""
        if window is None:
            return None
        return cls(count=window.count, granularity=grain(window.granularity), time_granularity=window.granularity)


@strawberry.type(name="MetricInputMeasure")
class MeasureInputNode:
    """A measure as a metric uses it."""

    name: str
    alias: str | None
    filter: WhereFilterNode | None

    @classmethod
    def of(cls, item: definitions.MeasureInput) -> MeasureInputNode:
        """The measure as answered."""
        return cls(name=item.name, alias=item.alias, filter=WhereFilterNode.of(item.where))


@strawberry.type(name="InputMetric")
class MetricInputNode:
    """A metric as another one uses it."""

    name: str
    alias: str | None
    filter: WhereFilterNode | None
    offset_window: WindowNode | None
    offset_to_grain: TimeGranularity | None
    offset_to_grain_granularity: str | None

    @classmethod
    def of(cls, item: definitions.MetricInput) -> MetricInputNode:
        """The metric as answered."""
        return cls(
            name=item.name,
            alias=item.alias,
            filter=WhereFilterNode.of(item.where),
            offset_window=WindowNode.of(item.offset_window),
            offset_to_grain=grain(item.offset_to_grain),
            offset_to_grain_granularity=item.offset_to_grain,
        )


@strawberry.type(name="MetricTypeParams")
class MetricTypeParamsNode:
    """What a metric is made of; which parts there are depends on its type."""

    measure: MeasureInputNode | None = None
    input_measures: list[MeasureInputNode]
    numerator: MetricInputNode | None = None
    denominator: MetricInputNode | None = None
    expr: str | None = None
    window: WindowNode | None = None
    grain_to_date: TimeGranularity | None = None
    metrics: list[MetricInputNode] | None = None

    @classmethod
    def of(cls, metric: definitions.MetricDefinition) -> MetricTypeParamsNode:
        """What the metric is made of."""
        return cls(
            measure=MeasureInputNode.of(metric.measure) if metric.measure else None,
            input_measures=[MeasureInputNode.of(item) for item in metric.input_measures],
            numerator=MetricInputNode.of(metric.numerator) if metric.numerator else None,
            denominator=MetricInputNode.of(metric.denominator) if metric.denominator else None,
            expr=metric.expr,
            window=WindowNode.of(metric.window),
            grain_to_date=grain(metric.grain_to_date),
            metrics=[MetricInputNode.of(item) for item in metric.metrics],
        )


@strawberry.type(name="MetricConfig")
class MetricConfigNode:
    """`config` of a metric."""

    meta: JsonValue


@strawberry.type(name="DimensionConfig")
class DimensionConfigNode:
    """`config` of a dimension."""

    meta: JsonValue


@strawberry.type(name="EntityConfig")
class EntityConfigNode:
    """`config` of an entity."""

    meta: JsonValue


@strawberry.type(name="MeasureConfig")
class MeasureConfigNode:
    """`config` of a measure."""

    meta: JsonValue


@strawberry.type(name="FileSlice")
class FileSliceNode:
    """Lines of a file."""

    filename: str
    content: str
    start_line_number: int
    end_line_number: int


@strawberry.type(name="Metadata")
class MetadataNode:
    """Where something is written down; dbt keeps it out of the manifest that is served, so it is always null."""

    repo_file_path: str
    file_slice: FileSliceNode


@strawberry.type(name="SemanticModel")
class SemanticModelNode:
    """A semantic model, by name."""

    name: str


@strawberry.type(name="DimensionValidityParams")
class ValidityNode:
    """Whether a time begins or ends a row's validity."""

    is_start: bool
    is_end: bool


@strawberry.type(name="DimensionTypeParams")
class DimensionTypeParamsNode:
    """What only a time dimension has."""

    time_granularity: TimeGranularity
    validity_params: ValidityNode | None

    @classmethod
    def of(cls, dimension: definitions.DimensionDefinition | None) -> DimensionTypeParamsNode | None:
        """What the dimension has; None where it is no time."""
        finest = grain(dimension.finest_grain) if dimension else None
        if dimension is None or finest is None:
            return None
        validity = (
            ValidityNode(is_start=dimension.validity[0], is_end=dimension.validity[1]) if dimension.validity else None
        )
        return cls(time_granularity=finest, validity_params=validity)


@strawberry.type(name="Measure")
class MeasureNode:
    """An aggregation over a mart's column."""

    name: str
    agg: AggregationType
    agg_time_dimension: str | None
    expr: str
    config: MeasureConfigNode | None

    @classmethod
    def of(cls, measure: definitions.MeasureDefinition) -> MeasureNode:
        """The measure as answered."""
        return cls(
            name=measure.name,
            agg=AggregationType(measure.agg),
            agg_time_dimension=measure.agg_time_dimension,
            expr=measure.expr,
            config=MeasureConfigNode(meta=JsonValue(measure.meta)),
        )


@strawberry.type(name="ExportConfig")
class ExportConfigNode:
    """Where an export goes."""

    alias: str | None
    schema: str | None
    export_as: ExportDestinationType


@strawberry.type(name="Export")
class ExportNode:
    """What dbt would write of a saved query."""

    name: str
    config: ExportConfigNode

    @classmethod
    def of(cls, item: definitions.ExportDefinition) -> ExportNode:
        """The export as answered."""
        config = ExportConfigNode(alias=item.alias, schema=item.schema, export_as=ExportDestinationType(item.export_as))
        return cls(name=item.name, config=config)


def grain(name: str | None) -> TimeGranularity | None:
    """The grain of that name, None for none and for one that a project has made up."""
    known = {item.value: item for item in TimeGranularity}
    return known.get(name or "")


def grains(names: tuple[str, ...]) -> list[TimeGranularity]:
    """The grains of those names."""
    return [TimeGranularity(name) for name in names]
