"""For operators: what is published and how fresh, whether the service lives and is ready."""

from __future__ import annotations

import asyncio
from typing import cast

from fastapi import APIRouter, Request, Response

from api.rest.access import Caller, Layer
from api.rest.paging import whole
from api.rest.resources import FreshnessResource, Health, Listing, PublicationResource
from api.telemetry import CONTENT_TYPE, Telemetry

router = APIRouter(tags=["operations"])


@router.get("/v1/publications")
async def list_publications(layer: Layer, caller: Caller) -> Listing[PublicationResource]:
    """The versions that are kept, newest first."""
    del caller
    kept = await asyncio.to_thread(layer.publications)
    current = layer.publication().version
    return whole([PublicationResource.of(info, current=current) for info in kept])


@router.get("/v1/freshness")
async def get_freshness(layer: Layer, caller: Caller) -> FreshnessResource:
    """When each source was loaded, and the last day its data speaks of."""
    del caller
    info = layer.publication()
    return FreshnessResource(
        publication=info.version,
        published_at=info.created_at,
        as_of=info.as_of,
        data_through=info.data_through,
        sources=list(info.sources),
    )


@router.get("/healthz")
async def get_health() -> Health:
    """Whether the process lives; needs no key."""
    return Health(status="ok")


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"description": "Series for Prometheus.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    },
)
async def get_telemetry(request: Request) -> Response:
    """What Prometheus reads; needs no key, as it names no principal, no metric and no value."""
    telemetry = cast("Telemetry", request.app.state.telemetry)
    return Response(telemetry.exposition(), media_type=CONTENT_TYPE)


@router.get(
    "/readyz",
    responses={503: {"model": Health, "description": "Nothing is published yet, or the service is stopping."}},
)
async def get_readiness(layer: Layer, request: Request, response: Response) -> Health:
    """Whether queries can be answered; needs no key."""
    if request.app.state.traffic.is_stopping or not layer.is_ready:
        response.status_code = 503
        return Health(status="not ready")
    return Health(status="ready", publication=layer.publication().version)
