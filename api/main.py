"""The application: the only place where the parts meet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from importlib.metadata import version

from fastapi import FastAPI

from api.keys import ApiKeys, open_state
from api.opened import open_publication
from api.publication import PublicationFolder, ServedPublication
from api.query import PageLimits
from api.rest import catalog, operations, problems, queries
from api.rest.envelope import Envelope
from api.service import SemanticLayer
from api.settings import AuthMode, Settings
from api.warehouse import EngineLimits

_DESCRIPTION = """
Metrics defined once, answered here. Ask for metrics, group by dimensions, filter with typed filters; never SQL.
Every error is `application/problem+json` with a stable `code` and a `hint` that says what to do next.
"""


def create_app(settings: Settings) -> FastAPI:
    """The service over REST, ready once its lifespan has begun; closes everything it opened when that ends."""
    folder = PublicationFolder(settings.publication_dir)
    engine = EngineLimits(
        memory_mb=settings.engine_memory_mb,
        threads=settings.engine_threads,
        connections=settings.pool_size,
        query_timeout=settings.query_timeout,
    )
    served = ServedPublication(folder, opener=lambda version: open_publication(folder.path(version), engine))
    limits = PageLimits(default_rows=settings.default_rows, max_rows=settings.max_rows)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        state = open_state(settings.state_url)
        app.state.keys = ApiKeys(state) if settings.auth is AuthMode.REQUIRED else None
        app.state.semantic_layer = SemanticLayer(folder=folder, served=served, limits=limits)
        await served.refresh()
        watch = asyncio.create_task(served.follow(every=timedelta(seconds=settings.publication_poll_s)))
        yield
        watch.cancel()
        served.close()
        state.dispose()

    app = FastAPI(
        title="Marketing Insight",
        version=version("marketing-insight"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        # The path's parameters already say it; a second copy in every operation id helps nobody.
        generate_unique_id_function=lambda route: route.name,
    )
    app.add_middleware(Envelope, max_body_bytes=settings.max_body_bytes)
    problems.install(app)
    for router in (catalog.router, queries.router, operations.router):
        app.include_router(router)
    return app
