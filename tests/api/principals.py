"""Services under a policy, and what their clients are answered; for every test of who sees what."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx

from api.keys import ApiKeys
from api.main import create_app
from api.state import open_state
from tests.conftest import Published, connect, service_settings

Client = httpx.AsyncClient
Join = Callable[..., Client]


@asynccontextmanager
async def serving(published: Published, policy: Path, state: Path) -> AsyncIterator[Join]:
    """A service under the policy; what it yields makes a client with a key of a role."""
    url = f"sqlite:///{state}"
    engine = open_state(url)
    app = create_app(service_settings(published, policy_file=policy, state_url=url))
    async with AsyncExitStack() as stack:
        stack.callback(engine.dispose)
        await stack.enter_async_context(app.router.lifespan_context(app))
        keys, clients = ApiKeys(engine), list[Client]()

        def join(role: str, **claims: tuple[str, ...]) -> Client:
            clients.append(connect(app, key=keys.create(role, role=role, claims=claims)))
            return clients[-1]

        yield join
        for client in clients:
            await client.aclose()


async def rows(client: Client, query: dict[str, Any], **headers: str) -> list[dict[str, Any]]:
    response = await client.post("/v1/query", json=query, headers={**headers})
    assert response.status_code == 200, f"{query}: {response.text}"
    found: list[dict[str, Any]] = json.loads(response.content, parse_float=Decimal)["data"]
    return found


async def listed(client: Client, path: str) -> list[dict[str, Any]]:
    response = await client.get(path, params={"limit": 500} if path in ("/v1/metrics", "/v1/dimensions") else {})
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["data"]
    return found


async def names(client: Client, path: str) -> set[str]:
    return {item["name"] for item in await listed(client, path)}


async def values(client: Client, dimension: str, **params: Any) -> list[Any]:
    response = await client.get(f"/v1/dimensions/{dimension}/values", params={"limit": 1_000, **params})
    assert response.status_code == 200, response.text
    found: list[Any] = response.json()["data"]
    return found


def refusal(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json().get("code", "")
