"""What may be asked: metrics, dimensions and their values, entities, saved queries."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response

from api.catalog import speaks_of
from api.errors import InvalidQuery
from api.query import MAX_METRICS
from api.rest import formats, problems
from api.rest.access import Caller, Layer
from api.rest.contract import leads_to, links
from api.rest.paging import Cursor, Limit, page, whole
from api.rest.resources import (
    DimensionResource,
    EntityResource,
    LineageResource,
    Listing,
    MetricResource,
    SavedQueryResource,
    ValuesResource,
)

router = APIRouter(prefix="/v1", tags=["catalog"])

Search = Annotated[
    str | None,
    Query(min_length=1, max_length=200, description="Part of a name, label or description.", examples=["revenue"]),
]
Metrics = Annotated[
    str | None,
    Query(
        min_length=1, max_length=2_000, description="Names of metrics, separated by commas.", examples=["total_revenue"]
    ),
]
MetricName = Annotated[str, Path(min_length=1, max_length=300, examples=["total_revenue"])]
DimensionName = Annotated[
    str,
    Path(
        min_length=1,
        max_length=300,
        description="The full name; a time with its grain, as `metric_time__month`.",
        examples=["customer__location"],
    ),
]


@router.get(
    "/metrics",
    responses=links(
        leads_to("get_metric", "What the first metric means and joins to", metric="$response.body#/data/0/name"),
        leads_to("list_dimensions", "What the first metric joins to", metrics="$response.body#/data/0/name"),
        leads_to("get_lineage", "What the first metric is made of", metric="$response.body#/data/0/name"),
        leads_to("list_metrics", "The next page", cursor="$response.body#/meta/next_cursor"),
    ),
)
async def list_metrics(
    layer: Layer, caller: Caller, search: Search = None, limit: Limit = 100, cursor: Cursor = None
) -> Listing[MetricResource]:
    """The metrics, in name order."""
    metrics = layer.catalog(caller).metrics.values()
    found = [MetricResource.of(metric) for metric in metrics if search is None or speaks_of(metric, search)]
    return page(found, key=lambda metric: metric.name, limit=limit, cursor=cursor)


@router.get(
    "/metrics/{metric}",
    responses=problems.describe(404)
    | links(
        leads_to(
            "list_dimension_values",
            "The values of its first dimension",
            dimension="$response.body#/dimensions/0",
            metrics="$request.path.metric",
        ),
        leads_to("get_lineage", "What it is made of", metric="$request.path.metric"),
    ),
)
async def get_metric(layer: Layer, caller: Caller, metric: MetricName) -> MetricResource:
    """A metric, with its definition and the dimensions that join."""
    return MetricResource.of(layer.catalog(caller).metric(metric))


@router.get("/lineage/{metric}", responses=problems.describe(404))
async def get_lineage(layer: Layer, caller: Caller, metric: MetricName) -> LineageResource:
    """Where a metric comes from: metrics, semantic models, dbt models, sources. Needs a role that sees SQL."""
    return LineageResource.of(await layer.lineage(caller, metric))


@router.get(
    "/dimensions",
    responses=problems.describe(404)
    | links(
        leads_to("list_dimension_values", "The values of the first dimension", dimension="$response.body#/data/0/name"),
        leads_to("list_dimensions", "The next page", cursor="$response.body#/meta/next_cursor"),
    ),
)
async def list_dimensions(
    layer: Layer, caller: Caller, metrics: Metrics = None, limit: Limit = 100, cursor: Cursor = None
) -> Listing[DimensionResource]:
    """The dimensions, in name order; with `metrics`, those that all of them have in common."""
    common = layer.catalog(caller).common_dimensions(names(metrics))
    return page(map(DimensionResource.of, common), key=lambda item: item.name, limit=limit, cursor=cursor)


@router.get("/dimensions/{dimension}/values", response_model=ValuesResource, responses=problems.describe(404, 504))
async def list_dimension_values(
    layer: Layer,
    caller: Caller,
    dimension: DimensionName,
    metrics: Metrics = None,
    search: Annotated[
        str | None, Query(min_length=1, max_length=200, description="Part of the value.", examples=["C"])
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1_000, description="Values at most.", examples=[3])] = 100,
) -> Response:
    """The values of a dimension, in order; with `metrics`, those that have rows of them."""
    answer = await layer.dimension_values(caller, dimension, metrics=names(metrics), search=search, limit=limit)
    return Response(formats.encode(ValuesResource.of(answer)), media_type=formats.JSON)


@router.get("/entities")
async def list_entities(layer: Layer, caller: Caller) -> Listing[EntityResource]:
    """The entities that measures and dimensions belong to."""
    return whole([EntityResource.of(entity) for entity in layer.catalog(caller).entities.values()])


@router.get(
    "/saved-queries",
    responses=links(leads_to("run_saved_query", "The answer of the first one", name="$response.body#/data/0/name")),
)
async def list_saved_queries(layer: Layer, caller: Caller) -> Listing[SavedQueryResource]:
    """The named questions."""
    return whole([SavedQueryResource.of(saved) for saved in layer.catalog(caller).saved_queries.values()])


def names(commas: str | None) -> tuple[str, ...]:
    """The names that stand between commas."""
    found = tuple(name for part in (commas or "").split(",") if (name := part.strip(" ")))
    if len(found) > MAX_METRICS:
        raise InvalidQuery(f"{len(found)} metrics are more than the {MAX_METRICS} allowed", hint="Name fewer.")
    return found
