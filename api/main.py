"""The application: the only place where the parts meet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from importlib.metadata import version

import structlog
from fastapi import FastAPI

from api.cache import ResultCache
from api.errors import SemanticLayerError
from api.keys import ApiKeys, hash_secret, open_state
from api.observer import open_observer
from api.opened import OpenPublication, open_publication
from api.policy import PolicySource
from api.publication import PublicationFolder, ServedPublication
from api.query import PageLimits
from api.redis_tier import RedisTier
from api.rest import catalog, operations, problems, queries
from api.rest.envelope import Envelope
from api.service import SemanticLayer
from api.settings import AuthMode, Settings
from api.telemetry import QueueCounters, Serving, Telemetry, cache_series, publication_series, queue_series
from api.warehouse import EngineLimits

_log = structlog.get_logger(__name__)

_DESCRIPTION = """
Metrics defined once, answered here. Ask for metrics, group by dimensions, filter with typed filters; never SQL.
Every error is `application/problem+json` with a stable `code` and a `hint` that says what to do next.
"""


def create_app(settings: Settings) -> FastAPI:
    """The service over REST, ready once its lifespan has begun; closes everything it opened when that ends."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as closing:  # in reverse, whatever happens
            closing.push(partial(_note_fault, app))
            state = open_state(settings.state_url)
            closing.callback(state.dispose)
            app.state.keys = ApiKeys(state) if settings.auth is AuthMode.REQUIRED else None
            app.state.telemetry = telemetry = Telemetry()
            app.state.observer = open_observer(settings, state, telemetry, closing)
            app.state.semantic_layer = await _semantic_layer(settings, hash_secret(state), telemetry, closing)
            yield

    app = FastAPI(
        title="Marketing Insight",
        version=version("marketing-insight"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        # FastAPI's own would hand paths, query strings and the values of refused bodies to whatever provider is global.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        # The path's parameters already say it; a second copy in every operation id helps nobody.
        generate_unique_id_function=lambda route: route.name,
    )
    app.add_middleware(Envelope, max_body_bytes=settings.max_body_bytes)
    problems.install(app)
    for router in (catalog.router, queries.router, operations.router):
        app.include_router(router)
    return app


def _note_fault(app: FastAPI, _: object, error: BaseException | None, __: object) -> None:
    """Keep what ended the application for whoever runs it; the server in between would not tell."""
    if isinstance(error, SemanticLayerError):
        app.state.fault = error


async def _semantic_layer(
    settings: Settings, secret: bytes, telemetry: Telemetry, closing: AsyncExitStack
) -> SemanticLayer:
    """The one door, serving what is published; what it holds is closed by `closing`."""
    folder = PublicationFolder(settings.publication_dir)
    engine = EngineLimits(
        memory_mb=settings.engine_memory_mb,
        threads=settings.engine_threads,
        connections=settings.pool_size,
        query_timeout=settings.query_timeout,
    )
    served = ServedPublication(folder, opener=lambda version: open_publication(folder.path(version), engine))
    closing.callback(served.close)
    cache = _open_cache(settings)
    closing.push_async_callback(cache.close)  # before the publication, whose warehouse its runs use
    telemetry.watch(lambda: queue_series(QueueCounters()))
    telemetry.watch(lambda: cache_series(cache.counters()))
    telemetry.watch(lambda: publication_series(_serving(served)))
    await served.refresh()
    if not served.is_ready:
        _log.warning("nothing_published", folder=str(settings.publication_dir), hint="insight pipeline run --data DIR")
    watch = asyncio.create_task(served.follow(every=timedelta(seconds=settings.publication_poll_s)))
    closing.callback(watch.cancel)
    return SemanticLayer(
        folder=folder,
        served=served,
        limits=PageLimits(default_rows=settings.default_rows, max_rows=settings.max_rows),
        policies=PolicySource(settings.policy_file),
        cache=cache,
        hash_secret=secret,
    )


def _serving(served: ServedPublication[OpenPublication]) -> Serving:
    if not served.is_ready:
        return Serving(publication=None, is_refusing=served.is_refusing)
    with served.lease() as publication:
        return Serving(publication=publication.info, is_refusing=served.is_refusing)


def _open_cache(settings: Settings) -> ResultCache:
    keep_for = timedelta(seconds=settings.cache_keep_s)
    redis = RedisTier(settings.redis_url.get_secret_value(), keep_for=keep_for) if settings.redis_url else None
    return ResultCache(memory_bytes=settings.cache_memory_mb * 2**20, redis=redis)
