"""The catalog as rows, with the columns that dbt's metadata calls have; their names are in upper case there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TypeAlias, TypeVar

import pyarrow as pa

from api.catalog import Catalog, Dimension, DimensionKind, Metric, SavedQuery
from api.definitions import Definitions, MeasureDefinition

Rows: TypeAlias = pa.Table
T = TypeVar("T")


def metrics(catalog: Catalog, *, search: str | None = None) -> Rows:
    """Every metric whose name, label or description contains the text, upper and lower case alike."""
    found = [
        metric for metric in catalog.metrics.values() if _has(search, metric.name, metric.label, metric.description)
    ]
    return _metric_rows(found)


def metrics_for(catalog: Catalog, group_by: Collection[str]) -> Rows:
    """The metrics that can be asked by all of these; `UnknownName` for a group-by that there is not."""
    names = {catalog.group_by(text).dimension.name for text in group_by}
    return _metric_rows(metric for metric in catalog.metrics.values() if names <= metric.grains.keys())


def dimensions(catalog: Catalog, metrics: Collection[str], *, search: str | None = None) -> Rows:
    """The dimensions that join to all of the metrics, entities left out."""
    found = [
        dimension
        for dimension in catalog.common_dimensions(metrics)
        if dimension.kind is not DimensionKind.ENTITY and _has(search, dimension.name, dimension.label)
    ]
    return _rows(found, _DIMENSION)


def entities(catalog: Catalog, metrics: Collection[str], *, search: str | None = None) -> Rows:
    """The entities whose keys join to all of the metrics."""
    found = [
        dimension
        for dimension in catalog.common_dimensions(metrics)
        if dimension.kind is DimensionKind.ENTITY and _has(search, dimension.name, dimension.label)
    ]
    return _rows(found, _ENTITY)


def measures(catalog: Catalog, definitions: Definitions, metrics: Collection[str]) -> Rows:
    """The measures that the metrics are computed from, each once; of all metrics for none."""
    names = [catalog.metric(name).name for name in metrics] or catalog.metrics
    return _rows(definitions.measures_of_all(names), _MEASURE)


def granularities(catalog: Catalog, metrics: Collection[str]) -> Rows:
    """The grains at which the times of all of the metrics can be grouped, each once, the finest first."""
    shared = [grain for dimension in catalog.common_dimensions(metrics) for grain in dimension.grains]
    return pa.table({"NAME": pa.array([grain.upper() for grain in dict.fromkeys(shared)], pa.string())})


def saved_queries(catalog: Catalog, definitions: Definitions) -> Rows:
    """Every saved query; its filter is null for roles that do not see SQL."""
    filters = {name: item.where for name, item in definitions.saved_queries.items()}
    columns = _SAVED_QUERY | {"WHERE_FILTER": lambda saved: filters.get(saved.name)}
    return _rows(sorted(catalog.saved_queries.values(), key=lambda saved: saved.name), columns)


def _metric_rows(found: Iterable[Metric]) -> Rows:
    return _rows(sorted(found, key=lambda metric: metric.name), _METRIC)


_METRIC: dict[str, Callable[[Metric], str | None]] = {
    "NAME": lambda metric: metric.name,
    "DESCRIPTION": lambda metric: metric.description,
    "LABEL": lambda metric: metric.label,
    "TYPE": lambda metric: metric.kind.upper(),
    "UNIT": lambda metric: metric.unit,
    "DIMENSIONS": lambda metric: ", ".join(sorted(metric.grains)),
    "QUERYABLE_GRANULARITIES": lambda metric: ", ".join(metric.grains.get("metric_time", ())).upper(),
}
_DIMENSION: dict[str, Callable[[Dimension], str | None]] = {
    "NAME": lambda dimension: dimension.name,
    "DESCRIPTION": lambda dimension: dimension.description,
    "LABEL": lambda dimension: dimension.label,
    "TYPE": lambda dimension: dimension.kind.upper(),
    "QUERYABLE_GRANULARITIES": lambda dimension: ", ".join(dimension.grains).upper(),
}
_ENTITY: dict[str, Callable[[Dimension], str | None]] = {
    "NAME": lambda dimension: dimension.name,
    "DESCRIPTION": lambda dimension: dimension.description,
    "LABEL": lambda dimension: dimension.label,
}
_SAVED_QUERY: dict[str, Callable[[SavedQuery], str | None]] = {
    "NAME": lambda saved: saved.name,
    "DESCRIPTION": lambda saved: saved.description,
    "LABEL": lambda saved: saved.label,
    "METRICS": lambda saved: ", ".join(saved.metrics),
    "GROUP_BY": lambda saved: ", ".join(saved.group_by),
}
_MEASURE: dict[str, Callable[[MeasureDefinition], str | None]] = {
    "NAME": lambda measure: measure.name,
    "AGG_TIME_DIMENSION": lambda measure: measure.agg_time_dimension,
    "AGG": lambda measure: measure.agg.upper(),
    "EXPR": lambda measure: measure.expr,
}


def _rows(found: Iterable[T], columns: Mapping[str, Callable[[T], str | None]]) -> Rows:
    kept = list(found)
    return pa.table({name: pa.array(map(value, kept), pa.string()) for name, value in columns.items()})


def _has(search: str | None, *texts: str) -> bool:
    return search is None or any(search.lower() in text.lower() for text in texts)
