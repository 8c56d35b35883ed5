"""The MCP server, driven by the protocol's own client: over stdio and over HTTP, with the rights of the caller."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import httpx2
import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from api.keys import ApiKeys
from api.state import open_state
from tests.server import Server
from tests.services import free_port
from tests.test_cli import INSIGHT

TOOLS = {"list_metrics", "list_dimensions", "list_values", "query", "compile"} | {
    "list_segments",
    "customer",
    "forecast",
    "anomalies",
}
BY_LOCATION = {"question": {"metrics": ["total_revenue"], "group_by": ["customer__location"]}}


@pytest.fixture(scope="module")
def served(running: Server) -> Iterator[str]:
    """The address of the server over HTTP."""
    port = free_port()
    environment = os.environ | {"INSIGHT_API_URL": running.url}
    command = [INSIGHT, "mcp", "--transport", "http", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    url, deadline = f"http://127.0.0.1:{port}/mcp", time.monotonic() + 60
    while True:
        try:
            httpx.get(url, timeout=1)
            break
        except httpx.HTTPError:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                pytest.fail(f"the server did not start:\n{process.communicate()[0].decode()}")
            time.sleep(0.1)
    yield url
    process.kill()
    process.communicate()


@asynccontextmanager
async def over_http(url: str, key: str) -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        httpx2.AsyncClient(headers=headers) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        yield client


@asynccontextmanager
async def over_stdio(running: Server, key: str) -> AsyncIterator[Client]:
    environment = {
        "INSIGHT_API_URL": running.url,
        "INSIGHT_API_KEY": key,
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    }
    async with Client(StdioServerParameters(command=INSIGHT, args=["mcp"], env=environment)) as client:
        yield client


async def told(client: Client, tool: str, arguments: dict[str, Any]) -> Any:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    return result.structured_content


async def refused(client: Client, tool: str, arguments: dict[str, Any]) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    return str(result.content[0].text)  # type: ignore[union-attr]  # errors are texts


async def walk(client: Client) -> None:
    """Use every tool as an assistant would."""
    tools = (await client.list_tools()).tools
    assert {tool.name for tool in tools} == TOOLS
    assert all(tool.annotations and tool.annotations.read_only_hint and tool.description for tool in tools)
    metrics = (await told(client, "list_metrics", {"search": "turnover"}))["metrics"]
    assert [metric["name"] for metric in metrics] == ["total_revenue"]
    dimensions = (await told(client, "list_dimensions", {"metrics": ["total_revenue"]}))["dimensions"]
    assert "customer__location" in {dimension["name"] for dimension in dimensions}
    values = await told(client, "list_values", {"dimension": "customer__location", "search": "New"})
    assert values == {"values": ["New Jersey", "New York"]}
    answer = await told(client, "query", BY_LOCATION)
    assert len(answer["rows"]) == 5
    assert isinstance(answer["rows"][0]["total_revenue"], float)
    assert answer["meta"]["as_of"] == "2019-12-31"
    compiled = await told(client, "compile", BY_LOCATION)
    assert "select" in compiled["sql"].lower()
    json.dumps(answer)
    await ask_ahead(client)


async def ask_ahead(client: Client) -> None:
    """Use the tools on segments and on what is foreseen."""
    segments = (await told(client, "list_segments", {}))["segments"]
    assert segments[0]["name"] == "Champions"
    assert isinstance(segments[0]["total_revenue"], float)
    ids = await told(
        client, "query", {"question": {"metrics": ["customer_count"], "group_by": ["customer"], "limit": 1}}
    )
    customer = await told(client, "customer", {"customer_id": ids["rows"][0]["customer"]})
    assert customer["segment"]["customer_id"] == customer["outlook"]["customer_id"]
    assert len((await told(client, "forecast", {"metric": "total_revenue"}))["days"]) == 30
    assert isinstance((await told(client, "anomalies", {}))["days"], list)
    assert "no_forecast: " in await refused(client, "forecast", {"metric": "discount_rate"})


async def test_an_assistant_asks_over_stdio(running: Server, running_key: str) -> None:
    async with over_stdio(running, running_key) as client:
        await walk(client)


async def test_an_assistant_asks_over_http(served: str, running_key: str) -> None:
    async with over_http(served, running_key) as client:
        await walk(client)


async def test_what_the_service_refuses_is_told_with_the_hint(served: str, running_key: str) -> None:
    async with over_http(served, running_key) as client:
        unknown = await refused(client, "query", {"question": {"metrics": ["total_revenu"]}})
        strange = await refused(client, "query", {"question": {"metrics": ["total_revenue"], "sql": "select 1"}})
        many = await refused(client, "query", {"question": {"metrics": ["total_revenue"], "limit": 10**6}})

    assert "unknown_metric: " in unknown
    assert "total_revenue" in unknown
    assert "sql" in strange
    assert "limit" in many


async def test_each_caller_over_http_has_his_own_rights(served: str, running: Server, running_key: str) -> None:
    narrow, chicago = running.key(role="narrow"), running.key(role="chicago")
    async with over_http(served, narrow) as client:
        names = {metric["name"] for metric in (await told(client, "list_metrics", {}))["metrics"]}
        hidden = await refused(client, "query", {"question": {"metrics": ["churn_rate"]}})
        sql = await refused(client, "compile", {"question": {"metrics": ["total_revenue"]}})
    async with over_http(served, chicago) as client:
        mine = await told(client, "query", BY_LOCATION)
    async with over_http(served, running_key) as client:
        everybodys = await told(client, "query", BY_LOCATION)

    assert names == {"total_revenue", "units_sold"}
    assert "unknown_metric" in hidden
    assert "total_revenue" not in sql or "SELECT" not in sql
    assert [row["customer__location"] for row in mine["rows"]] == ["Chicago"]
    assert len(everybodys["rows"]) == 5


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer nobody"}, {"Authorization": "Basic eDp5"}])
def test_who_brings_no_key_is_not_let_in(served: str, headers: dict[str, str]) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    accept = {"Accept": "application/json, text/event-stream"}

    answer = httpx.post(served, json=body, headers=headers | accept)

    assert answer.status_code == 401
    assert "nobody" not in answer.text


def _revoke(running: Server, name: str) -> None:
    state = open_state(running.state_url)
    keys = ApiKeys(state)
    keys.revoke(next(record.key_id for record in keys.records() if record.name == name))
    state.dispose()


async def test_a_revoked_key_is_over(served: str, running: Server) -> None:
    key = running.key("leaving")
    async with over_http(served, key) as client:
        await told(client, "list_metrics", {})
        _revoke(running, "leaving")
        await asyncio.sleep(2.5)  # the service believes a key for 2 s after it has looked it up
        with pytest.raises((MCPError, httpx2.HTTPError)):
            await client.call_tool("list_metrics", {})
