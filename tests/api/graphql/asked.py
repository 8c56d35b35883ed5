"""Documents sent over plain HTTP, and what came back."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any

import httpx

Json = dict[str, Any]


async def sent(client: httpx.AsyncClient, document: str, path: str = "/graphql", **variables: Any) -> Json:
    """The whole answer; fractions are decimals."""
    response = await client.post(path, json={"query": document, "variables": variables})
    assert response.status_code == 200, response.text
    found: Json = json.loads(response.content, parse_float=Decimal)
    return found


async def data(client: httpx.AsyncClient, document: str, **variables: Any) -> Json:
    """What was asked for, known to be all of it."""
    answer = await sent(client, document, **variables)
    assert "errors" not in answer, answer["errors"]
    found: Json = answer["data"]
    return found


async def refusal(client: httpx.AsyncClient, document: str, **variables: Any) -> Json:
    """The first error."""
    answer = await sent(client, document, **variables)
    assert answer.get("errors"), answer
    found: Json = answer["errors"][0]
    return found


def code(error: Json) -> tuple[int, str]:
    """Its status and code."""
    extensions = error["extensions"]
    return extensions["status"], extensions["code"]


async def polled(client: httpx.AsyncClient, document: str, query_id: str, **variables: Any) -> Json:
    """The query once it has ended, as a document shows it that asks for it by `$q`."""
    for _ in range(3_000):
        found: Json = (await data(client, document, q=query_id, **variables))["query"]
        if found["status"] not in ("PENDING", "RUNNING"):
            return found
        await asyncio.sleep(0.02)
    raise AssertionError(query_id)
