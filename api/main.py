"""The application: the only place where the parts meet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from importlib.metadata import version

from fastapi import FastAPI

from api.admission import Admission, QueueLimits
from api.cache import ResultCache
from api.export import ExportLimits
from api.keys import ApiKeys, hash_secret, open_state
from api.opened import open_publication
from api.policy import PolicySource
from api.publication import PublicationFolder, ServedPublication
from api.query import PageLimits
from api.redis_tier import RedisTier
from api.rest import catalog, exports, operations, problems, queries
from api.rest.envelope import Envelope
from api.rest.exchange import Patience
from api.rest.traffic import Traffic
from api.service import SemanticLayer
from api.settings import AuthMode, Settings
from api.warehouse import EngineLimits

_DESCRIPTION = """
Metrics defined once, answered here. Ask for metrics, group by dimensions, filter with typed filters; never SQL.
Every error is `application/problem+json` with a stable `code` and a `hint` that says what to do next.
"""


def create_app(settings: Settings) -> FastAPI:
    """The service over REST, ready once its lifespan has begun; closes everything it opened when that ends."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as closing:  # in reverse, whatever happens
            state = open_state(settings.state_url)
            closing.callback(state.dispose)
            app.state.keys = ApiKeys(state) if settings.auth is AuthMode.REQUIRED else None
            app.state.semantic_layer = await _semantic_layer(settings, hash_secret(state), closing)
            yield

    app = FastAPI(
        title="Marketing Insight",
        version=version("marketing-insight"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        # The path's parameters already say it; a second copy in every operation id helps nobody.
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.traffic = Traffic(most=settings.max_requests)
    app.add_middleware(Envelope, traffic=app.state.traffic, patience=_patience(settings))
    problems.install(app)
    for router in (catalog.router, queries.router, exports.router, operations.router):
        app.include_router(router)
    return app


async def _semantic_layer(settings: Settings, secret: bytes, closing: AsyncExitStack) -> SemanticLayer:
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
    await served.refresh()
    watch = asyncio.create_task(served.follow(every=timedelta(seconds=settings.publication_poll_s)))
    closing.callback(watch.cancel)
    return SemanticLayer(
        folder=folder,
        served=served,
        limits=PageLimits(default_rows=settings.default_rows, max_rows=settings.max_rows),
        policies=PolicySource(settings.policy_file),
        cache=cache,
        # A place is a connection: whoever has one finds a thread and a connection free.
        admission=_open_admission(settings, places=settings.pool_size),
        exports=ExportLimits(
            rows=settings.max_export_rows,
            timeout=timedelta(seconds=settings.export_timeout_s),
            # Each lasts, so they get half of the places, and leave the others for what is quick.
            places=_open_admission(settings, places=max(1, settings.pool_size // 2)),
        ),
        hash_secret=secret,
    )


def _patience(settings: Settings) -> Patience:
    return Patience(
        max_body_bytes=settings.max_body_bytes,
        body_timeout=timedelta(seconds=settings.body_timeout_s),
        send_timeout=timedelta(seconds=settings.send_timeout_s),
    )


def _open_admission(settings: Settings, *, places: int) -> Admission:
    queue = QueueLimits(
        total=settings.queue_size,
        per_principal=settings.queue_size_per_principal,
        timeout=timedelta(seconds=settings.queue_timeout_s),
    )
    return Admission(places=places, queue=queue)


def _open_cache(settings: Settings) -> ResultCache:
    keep_for = timedelta(seconds=settings.cache_keep_s)
    redis = RedisTier(settings.redis_url.get_secret_value(), keep_for=keep_for) if settings.redis_url else None
    return ResultCache(memory_bytes=settings.cache_memory_mb * 2**20, redis=redis)
