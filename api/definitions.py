"""How metrics, dimensions and entities are written down in dbt, for readers who know dbt's own words.

The `Catalog` says what may be asked; this says what stands behind a name: measures, expressions, filters, inputs. Both
are read from the same semantic manifest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from api.manifest import Json, owners_words, primary_entity


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A length of time: 7 days, one month."""

    count: int
    granularity: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureInput:
    """A measure as a metric uses it; `where` is dbt's filter text, and None where there is none."""

    name: str
    alias: str | None
    where: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricInput:
    """A metric as another one uses it."""

    name: str
    alias: str | None
    where: str | None
    offset_window: Window | None
    offset_to_grain: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricDefinition:
    """What a metric is made of; `expr` is SQL over the aliases of its inputs."""

    where: str | None
    measure: MeasureInput | None
    input_measures: tuple[MeasureInput, ...]
    numerator: MetricInput | None
    denominator: MetricInput | None
    expr: str | None
    window: Window | None
    grain_to_date: str | None
    metrics: tuple[MetricInput, ...]
    meta: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class DimensionDefinition:
    """A column as a dimension; `expr` is SQL, or the column's name. `finest_grain` is there for a time alone."""

    expr: str
    is_partition: bool
    finest_grain: str | None
    validity: tuple[bool, bool] | None
    meta: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityDefinition:
    """An entity in the semantic model that it is the key of, or else in the first that names it."""

    type: str
    role: str | None
    expr: str
    meta: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureDefinition:
    """An aggregation over a mart's column; `expr` is SQL, or the column's name."""

    name: str
    agg: str
    agg_time_dimension: str | None
    expr: str
    meta: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportDefinition:
    """Where dbt would write a saved query's answer."""

    name: str
    alias: str | None
    schema: str | None
    export_as: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedQueryDefinition:
    """What a saved query says besides its metrics and group-bys."""

    where: str | None
    exports: tuple[ExportDefinition, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Definitions:
    """Everything that is written down, by name; dimensions by full name (`customer__location`)."""

    metrics: Mapping[str, MetricDefinition] = field(default_factory=dict)
    dimensions: Mapping[str, DimensionDefinition] = field(default_factory=dict)
    entities: Mapping[str, EntityDefinition] = field(default_factory=dict)
    measures: Mapping[str, MeasureDefinition] = field(default_factory=dict)
    saved_queries: Mapping[str, SavedQueryDefinition] = field(default_factory=dict)

    def measures_of(self, metric: str) -> tuple[MeasureDefinition, ...]:
        """The measures that a metric is computed from; none for a metric that is not written down here."""
        known = self.metrics.get(metric)
        names = dict.fromkeys(item.name for item in known.input_measures) if known else {}
        return tuple(self.measures[name] for name in names if name in self.measures)

    def measures_of_all(self, metrics: Iterable[str]) -> tuple[MeasureDefinition, ...]:
        """The measures that the metrics are computed from, each once."""
        return tuple({item.name: item for name in metrics for item in self.measures_of(name)}.values())

    def without(self, hidden: Collection[str]) -> Definitions:
        """What is left for somebody who must not learn the hidden metrics' names; measures often have the same."""
        return replace(
            self,
            metrics={name: _narrowed(metric, hidden) for name, metric in self.metrics.items() if name not in hidden},
            measures={name: measure for name, measure in self.measures.items() if name not in hidden},
        )

    def without_sql(self) -> Definitions:
        """The same for somebody who does not see SQL: an expression is a name, and there are no filters."""
        return replace(
            self,
            metrics={name: _without_sql(metric) for name, metric in self.metrics.items()},
            dimensions={name: replace(item, expr=name.rpartition("__")[2]) for name, item in self.dimensions.items()},
            entities={name: replace(item, expr=name) for name, item in self.entities.items()},
            measures={name: replace(item, expr=name) for name, item in self.measures.items()},
            saved_queries={name: replace(item, where=None) for name, item in self.saved_queries.items()},
        )


def read_definitions(manifest: Json) -> Definitions:
    """The definitions in a semantic manifest."""
    models = manifest["semantic_models"]
    return Definitions(
        metrics={metric["name"]: _metric(metric) for metric in manifest["metrics"]},
        dimensions=dict(_dimensions(models)),
        entities=_entities(models),
        measures={item["name"]: _measure(item, model) for model in models for item in model["measures"]},
        saved_queries={query["name"]: _saved_query(query) for query in manifest["saved_queries"]},
    )


def _narrowed(metric: MetricDefinition, hidden: Collection[str]) -> MetricDefinition:
    def shown(item: MetricInput | None) -> MetricInput | None:
        return None if item is None or item.name in hidden else item

    return replace(
        metric,
        measure=None if metric.measure is None or metric.measure.name in hidden else metric.measure,
        input_measures=tuple(item for item in metric.input_measures if item.name not in hidden),
        numerator=shown(metric.numerator),
        denominator=shown(metric.denominator),
        metrics=tuple(item for item in metric.metrics if item.name not in hidden),
    )


def _without_sql(metric: MetricDefinition) -> MetricDefinition:
    def bare(item: MetricInput | None) -> MetricInput | None:
        return item and replace(item, where=None)

    return replace(
        metric,
        where=None,
        expr=None,
        measure=metric.measure and replace(metric.measure, where=None),
        input_measures=tuple(replace(item, where=None) for item in metric.input_measures),
        numerator=bare(metric.numerator),
        denominator=bare(metric.denominator),
        metrics=tuple(replace(item, where=None) for item in metric.metrics),
    )


def _metric(metric: Json) -> MetricDefinition:
    params = metric["type_params"]
    cumulative = params.get("cumulative_type_params") or {}
    numerator, denominator = params.get("numerator"), params.get("denominator")
    return MetricDefinition(
        where=_where(metric.get("filter")),
        measure=_measure_input(params["measure"]) if params.get("measure") else None,
        input_measures=tuple(_measure_input(item) for item in params.get("input_measures") or ()),
        numerator=_metric_input(numerator) if numerator else None,
        denominator=_metric_input(denominator) if denominator else None,
        expr=params.get("expr"),
        window=_window(cumulative.get("window") or params.get("window")),
        grain_to_date=cumulative.get("grain_to_date") or params.get("grain_to_date"),
        metrics=tuple(_metric_input(item) for item in params.get("metrics") or ()),
        meta=owners_words(metric),
    )


def _measure_input(item: Json) -> MeasureInput:
    return MeasureInput(name=item["name"], alias=item.get("alias"), where=_where(item.get("filter")))


def _metric_input(item: Json) -> MetricInput:
    return MetricInput(
        name=item["name"],
        alias=item.get("alias"),
        where=_where(item.get("filter")),
        offset_window=_window(item.get("offset_window")),
        offset_to_grain=item.get("offset_to_grain"),
    )


def _window(window: Json | None) -> Window | None:
    return Window(count=window["count"], granularity=window["granularity"]) if window else None


def _where(where: Json | None) -> str | None:
    """The filter's text; several that apply together are joined as one."""
    texts = [item["where_sql_template"] for item in (where or {}).get("where_filters") or ()]
    return " AND ".join(texts if len(texts) == 1 else (f"({text})" for text in texts)) or None


def _dimensions(models: Iterable[Json]) -> Iterator[tuple[str, DimensionDefinition]]:
    for model in models:
        entity = primary_entity(model)
        for item in model["dimensions"]:
            params = item.get("type_params") or {}
            validity = params.get("validity_params")
            yield (
                f"{entity}__{item['name']}",
                DimensionDefinition(
                    expr=item["expr"] or item["name"],
                    is_partition=bool(item.get("is_partition")),
                    finest_grain=params.get("time_granularity"),
                    validity=(bool(validity["is_start"]), bool(validity["is_end"])) if validity else None,
                    meta=owners_words(item),
                ),
            )


def _entities(models: Iterable[Json]) -> dict[str, EntityDefinition]:
    found: dict[str, EntityDefinition] = {}
    for model in models:
        for item in model["entities"]:
            if item["name"] not in found or item["type"] in ("primary", "unique"):
                found[item["name"]] = EntityDefinition(
                    type=item["type"], role=item.get("role"), expr=item["expr"] or item["name"], meta=owners_words(item)
                )
    return found


def _measure(item: Json, model: Json) -> MeasureDefinition:
    return MeasureDefinition(
        name=item["name"],
        agg=item["agg"],
        agg_time_dimension=item.get("agg_time_dimension") or (model.get("defaults") or {}).get("agg_time_dimension"),
        expr=item["expr"] or item["name"],
        meta=owners_words(item),
    )


def _saved_query(query: Json) -> SavedQueryDefinition:
    exports = tuple(
        ExportDefinition(
            name=item["name"],
            alias=item["config"].get("alias"),
            schema=item["config"].get("schema_name"),
            export_as=item["config"]["export_as"],
        )
        for item in query.get("exports") or ()
    )
    return SavedQueryDefinition(where=_where(query["query_params"].get("where")), exports=exports)
