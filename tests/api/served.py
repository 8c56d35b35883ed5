"""A service and the raw tables beneath it, so that what is answered can be counted by hand."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import duckdb
import httpx

from api.keys import ApiKeys
from api.main import create_app
from api.state import open_state
from tests.conftest import Published, connect, service_settings
from tests.metrics import raw_facts

Body = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A client of the service, and the raw tables with the oracle's views."""

    api: httpx.AsyncClient
    raw: duckdb.DuckDBPyConnection


async def serve(published: Published, stack: AsyncExitStack, *, role: str = "admin", **settings: object) -> Served:
    """The service over the publication, until the stack unwinds."""
    chosen = service_settings(published, **settings)
    app, state = create_app(chosen), open_state(chosen.state_url)
    key = ApiKeys(state).create("counted", role=role)
    state.dispose()
    await stack.enter_async_context(app.router.lifespan_context(app))
    raw = stack.enter_context(duckdb.connect(published.warehouse, read_only=True))
    raw.execute(raw_facts.views(segments=published.segments))
    return Served(api=await stack.enter_async_context(connect(app, key=key)), raw=raw)


async def answer(served: Served, body: Body) -> Body:
    """The whole answer, known to be one; fractions are decimals."""
    response = await served.api.post("/v1/query", json=body)
    assert response.status_code == 200, response.text
    parsed: Body = json.loads(response.content, parse_float=Decimal)
    return parsed
