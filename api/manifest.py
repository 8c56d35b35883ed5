"""Reads dbt's semantic manifest into a `Catalog`.

The JSON's shape is dbt's to define (`semantic_manifest.json` of dbt 1.11); it is read here and nowhere else.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from api.catalog import (
    GRAINS,
    METRIC_TIME,
    Catalog,
    Dimension,
    DimensionKind,
    Entity,
    Joins,
    Metric,
    SavedQuery,
    ValueType,
    date_parts,
)
from api.errors import InvalidQuery
from api.saved import filtered_fields

Json: TypeAlias = Mapping[str, Any]

# Answers the types of named expressions over a relation.
ColumnTypes: TypeAlias = Callable[[str, Mapping[str, str]], Mapping[str, ValueType]]

_METRIC_TIME = Dimension(
    name=METRIC_TIME,
    label="Time",
    description=(
        "The time that each metric counts by: the transaction date for sales, the day of spend for marketing, "
        "the first purchase for customers. Use it whenever metrics of several kinds stand side by side."
    ),
    kind=DimensionKind.TIME,
    type=ValueType.DATE,
    entity=None,
    grains=GRAINS,
    date_parts=date_parts(GRAINS),
)


def read_catalog(manifest: Json, *, joins: Callable[[str], Joins], column_types: ColumnTypes) -> Catalog:
    """The catalog of a manifest.

    Parameters
    ----------
    joins
        The dimensions that join to a metric, by the metric's name.
    column_types
        The types of a relation's expressions, as the warehouse knows them.
    """
    models = manifest["semantic_models"]
    dimensions = {METRIC_TIME: _METRIC_TIME}
    for model in models:
        dimensions |= {dimension.name: dimension for dimension in _dimensions(model, column_types)}
    dimensions |= _keys(models, column_types)
    metrics = {metric["name"]: metric for metric in manifest["metrics"]}
    populations = _populations(metrics, models)
    return Catalog(
        metrics={
            name: replace(
                _metric(metric, metrics, models, joins(name), dimensions),
                populations=_populations_of(metric, metrics, populations),
            )
            for name, metric in sorted(metrics.items())
        },
        dimensions=dict(sorted(dimensions.items())),
        entities=_entities(models),
        saved_queries={query["name"]: _saved_query(query) for query in manifest["saved_queries"]},
    )


def _dimensions(model: Json, column_types: ColumnTypes) -> Iterator[Dimension]:
    entity = primary_entity(model)
    if entity is None:
        return
    types = column_types(_relation(model), {item["name"]: item["expr"] or item["name"] for item in model["dimensions"]})
    for item in model["dimensions"]:
        is_time = item["type"] == "time"
        grains = _grains_from(item["type_params"]["time_granularity"]) if is_time else ()
        meta = owners_words(item)
        yield Dimension(
            name=f"{entity}__{item['name']}",
            label=item.get("label") or _words(item["name"]),
            description=(item["description"] or "").strip(),
            kind=DimensionKind.TIME if is_time else DimensionKind.CATEGORICAL,
            type=types[item["name"]],
            entity=entity,
            model=model["name"],
            grains=grains,
            date_parts=date_parts(grains),
            synonyms=tuple(meta.get("synonyms", ())),
            value_synonyms=tuple((value, tuple(words)) for value, words in meta.get("value_synonyms", {}).items()),
        )


def _keys(models: list[Json], column_types: ColumnTypes) -> dict[str, Dimension]:
    """Every entity as a dimension of its key; the model in which it is primary speaks for it."""
    keys: dict[str, Dimension] = {}
    for model, item in _entity_items(models):
        is_home = item["type"] in ("primary", "unique")
        if item["name"] in keys and not is_home:
            continue
        types = column_types(_relation(model), {"key": item["expr"] or item["name"]})
        keys[item["name"]] = Dimension(
            name=item["name"],
            label=item.get("label") or _words(item["name"]),
            description=(item["description"] or "").strip(),
            kind=DimensionKind.ENTITY,
            type=types["key"],
            entity=item["name"],
            model=model["name"],
            synonyms=tuple(owners_words(item).get("synonyms", ())),
        )
    return keys


def _metric(
    metric: Json, metrics: Mapping[str, Json], models: list[Json], joins: Joins, dimensions: Mapping[str, Dimension]
) -> Metric:
    meta = owners_words(metric)
    parts = tuple(_parts(metric, metrics))
    offsets = {unit for part in parts for unit in _offset_units(part)}
    measured_by = tuple(_measured_by(metric, models))
    # Some joins exist but mean nothing for the metric; its definition then lists the entities that do.
    entities = meta.get("group_by_entities")
    grains = {
        name: tuple(grain for grain in GRAINS if grain in joins[name])
        for name, dimension in dimensions.items()
        if name in joins and (entities is None or (dimension.entity or name) in entities)
    }
    accumulates = any(part["type"] == "cumulative" for part in parts)
    if METRIC_TIME in grains:
        grains[METRIC_TIME] = tuple(grain for grain in grains[METRIC_TIME] if _compares(grain, offsets))
    return Metric(
        name=metric["name"],
        label=metric["label"] or _words(metric["name"]),
        description=(metric["description"] or "").strip(),
        kind=metric["type"],
        unit=meta.get("unit"),
        owner=meta.get("owner"),
        synonyms=tuple(meta.get("synonyms", ())),
        inputs=tuple(dict.fromkeys(item["name"] for item in _inputs(metric))),
        models=tuple(model["name"] for model in measured_by),
        own_times=tuple(time for model in measured_by for time in _times(model)),
        requires_metric_time=bool(offsets) or any(_has_window(part) for part in parts),
        accumulates=accumulates,
        compares_periods=bool(offsets),
        has_date_parts=not accumulates and not offsets,
        grains=grains,
    )


def _parts(metric: Json, metrics: Mapping[str, Json]) -> Iterator[Json]:
    """The metric and, down to the simple ones, every metric that it is computed from."""
    yield metric
    for item in _inputs(metric):
        yield from _parts(metrics[item["name"]], metrics)


def _populations(metrics: Mapping[str, Json], models: list[Json]) -> dict[str, str]:
    """For each simple metric, the first one by name that counts the same rows at the same time."""
    homes = {measure["name"]: (model, measure) for model in models for measure in model["measures"]}
    first: dict[str, str] = {}
    found: dict[str, str] = {}
    for name, metric in sorted(metrics.items()):
        used = metric["type_params"].get("measure")
        if metric["type"] != "simple" or not used:
            continue
        model, measure = homes[used["name"]]
        if measure.get("non_additive_dimension"):  # looks at the last rows of a group alone
            continue
        time = measure.get("agg_time_dimension") or (model.get("defaults") or {}).get("agg_time_dimension")
        rows = json.dumps([model["name"], time, metric.get("filter"), used.get("filter")], sort_keys=True)
        found[name] = first.setdefault(rows, name)
    return found


def _populations_of(metric: Json, metrics: Mapping[str, Json], populations: Mapping[str, str]) -> tuple[str, ...]:
    parts = tuple(_parts(metric, metrics))
    simple = [part["name"] for part in parts if part["type"] == "simple"]
    looks_beyond = any(part["type"] in ("cumulative", "conversion") for part in parts)
    looks_elsewhere = any(
        item.get("filter") or item.get("offset_window") or item.get("offset_to_grain")
        for part in parts
        for item in _inputs(part)
    ) or any(part.get("filter") for part in parts if part["type"] != "simple")
    if looks_beyond or looks_elsewhere or not all(name in populations for name in simple):
        return ()
    return tuple(dict.fromkeys(populations[name] for name in simple))


def _inputs(metric: Json) -> Iterator[Json]:
    """The metrics that this one is computed from."""
    params = metric["type_params"]
    yield from (params[part] for part in ("numerator", "denominator") if params.get(part))
    yield from params.get("metrics") or ()
    cumulative = params.get("cumulative_type_params") or {}
    if cumulative.get("metric"):
        yield cumulative["metric"]


def _has_window(metric: Json) -> bool:
    window = metric["type_params"].get("cumulative_type_params") or {}
    return bool(window.get("window") or window.get("grain_to_date"))


def _offset_units(metric: Json) -> Iterator[str]:
    for item in _inputs(metric):
        if item.get("offset_window"):
            yield item["offset_window"]["granularity"]
        if item.get("offset_to_grain"):
            yield item["offset_to_grain"]


# The grains whose periods an offset of that unit maps onto each other: a month back is no whole number of weeks.
_COMPARABLE: Mapping[str, tuple[str, ...]] = {
    "day": ("day",),
    "week": ("day", "week"),
    "month": ("day", "month"),
    "quarter": ("day", "month", "quarter"),
    "year": ("day", "month", "quarter", "year"),
}


def _compares(grain: str, offsets: Iterable[str]) -> bool:
    return all(grain in _COMPARABLE[unit] for unit in offsets)


def _measured_by(metric: Json, models: list[Json]) -> Iterator[Json]:
    used = {measure["name"] for measure in metric["type_params"].get("input_measures") or ()}
    yield from (model for model in models if used & {measure["name"] for measure in model["measures"]})


def _times(model: Json) -> Iterator[str]:
    yield from (f"{primary_entity(model)}__{item['name']}" for item in model["dimensions"] if item["type"] == "time")


def _entities(models: list[Json]) -> dict[str, Entity]:
    homes: dict[str, list[str]] = {}
    descriptions: dict[str, str] = {}
    for model, item in _entity_items(models):
        homes.setdefault(item["name"], []).append(model["name"])
        descriptions[item["name"]] = descriptions.get(item["name"]) or item["description"] or ""
    return {
        name: Entity(name=name, description=descriptions[name], models=tuple(homes[name])) for name in sorted(homes)
    }


def _entity_items(models: list[Json]) -> Iterator[tuple[Json, Json]]:
    for model in models:
        for item in model["entities"]:
            yield model, item


def _saved_query(query: Json) -> SavedQuery:
    params = query["query_params"]
    where = tuple(item["where_sql_template"] for item in (params.get("where") or {}).get("where_filters", ()))
    try:
        fields = filtered_fields(where)
    except InvalidQuery as error:
        error.detail = f"The saved query {query['name']} has a filter that is not understood: {error.detail}"
        raise
    return SavedQuery(
        name=query["name"],
        label=query["label"] or _words(query["name"]),
        description=query["description"] or "",
        metrics=tuple(params["metrics"]),
        group_by=tuple(_field(text)[0] for text in params["group_by"]),
        where=where,
        fields=fields,
        order_by=tuple(_field(text) for text in params.get("order_by") or ()),
        limit=params.get("limit"),
    )


def _field(text: str) -> tuple[str, bool]:
    """A field's name, and whether it is descending.

    `metric_time__month` for `TimeDimension('metric_time', 'month')` and for `Dimension('metric_time').grain('month')`;
    a plain name stays as it is. It descends with `.descending(True)`, or with a minus before it.
    """
    node: ast.expr = ast.parse(text.strip().removeprefix("-"), mode="eval").body
    is_descending, suffix = text.strip().startswith("-"), ""
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        given = [ast.literal_eval(argument) for argument in node.args]
        match node.func.attr:
            case "descending":
                is_descending = bool(given[0]) if given else True
            case "grain":
                suffix = f"__{given[0]}"
            case "date_part":
                suffix = f"__extract_{given[0]}"
        node = node.func.value
    if not isinstance(node, ast.Call):
        return ast.unparse(node), is_descending
    return "__".join(str(ast.literal_eval(argument)) for argument in node.args) + suffix, is_descending


def primary_entity(model: Json) -> str | None:
    """The entity that a row of the semantic model is; None where its rows are nothing by themselves."""
    named = model.get("primary_entity")
    return named or next((item["name"] for item in model["entities"] if item["type"] == "primary"), None)


def _relation(model: Json) -> str:
    return str(model["node_relation"]["relation_name"])


def _grains_from(finest: str) -> tuple[str, ...]:
    """The offered grains that are no finer than the column; a column finer than an hour offers them all."""
    return GRAINS[GRAINS.index(finest) :] if finest in GRAINS else GRAINS


def owners_words(item: Json) -> Json:
    """`config.meta` of anything in the manifest: unit, owner, synonyms."""
    return (item.get("config") or {}).get("meta") or {}


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()
