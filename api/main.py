"""The application: the only place where the parts meet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from importlib.metadata import version

from fastapi import Depends, FastAPI

from api.cache import ResultCache
from api.keys import ApiKeys, hash_secret, open_state
from api.opened import open_publication
from api.policy import PolicySource
from api.publication import PublicationFolder, ServedPublication
from api.query import PageLimits
from api.redis_tier import RedisTier
from api.rest import catalog, contract, operations, problems, queries
from api.rest.envelope import Envelope
from api.rest.strict import refuse_surplus
from api.service import SemanticLayer
from api.settings import AuthMode, Settings
from api.warehouse import EngineLimits


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
        lifespan=lifespan,
        dependencies=[Depends(refuse_surplus)],
        # A redirect would be built from the Host header, and would make clients send a body twice.
        redirect_slashes=False,
        # The path's parameters already say it; a second copy in every operation id helps nobody.
        generate_unique_id_function=lambda route: route.name,
    )
    app.add_middleware(Envelope, max_body_bytes=settings.max_body_bytes)
    problems.install(app)
    for router in (catalog.router, queries.router, operations.router):
        app.include_router(router)
    contract.describe(app)
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
        hash_secret=secret,
    )


def _open_cache(settings: Settings) -> ResultCache:
    keep_for = timedelta(seconds=settings.cache_keep_s)
    redis = RedisTier(settings.redis_url.get_secret_value(), keep_for=keep_for) if settings.redis_url else None
    return ResultCache(memory_bytes=settings.cache_memory_mb * 2**20, redis=redis)
