"""R8: Redis is away, silent or emptied under load: no error, hardly a slower answer, and no entry crosses a role."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import server, services
from tests.conftest import Published
from tests.faults.load import Reply, at_a_rate, p99
from tests.server import Serve, Server
from tests.services import RedisServer

serve = server.serve
redis_server = services.redis_server

Record = Callable[[str, object], None]

POLICY = """
version: 1
roles:
  admin: {metrics: ["*"], dimensions: ["*"]}
  chicago: {metrics: ["*"], dimensions: ["*"], rows: [{field: customer__location, op: in, values: [Chicago]}]}
  california: {metrics: ["*"], dimensions: ["*"], rows: [{field: customer__location, op: in, values: [California]}]}
"""
ROLES = ("admin", "chicago", "california")
PER_S = 50
SLACK_S = 0.25  # what a busy machine adds to three times the usual

Rows = list[dict[str, Any]]


def questions() -> Callable[[], dict[str, Any]]:
    """Each role asks what the other two ask, too; one question in three groups has been asked before."""
    numbers = itertools.count()

    def question() -> dict[str, Any]:
        group = next(numbers) // len(ROLES)
        floor = -1 - (group % 20 if group % 3 == 0 else 100 + group)  # which every row passes
        having = {"field": "line_count", "op": "gt", "values": [floor]}
        return {"metrics": ["line_count"], "group_by": ["customer__location"], "having": [having]}

    return question


async def down(redis: RedisServer) -> None:
    await asyncio.to_thread(redis.stop)
    await asyncio.sleep(2)
    await asyncio.to_thread(redis.start)


async def silent(redis: RedisServer) -> None:
    redis.pause()
    await asyncio.sleep(2)
    redis.resume()


async def emptied(redis: RedisServer) -> None:
    for _ in range(10):
        await asyncio.to_thread(redis.ask, "FLUSHALL")
        await asyncio.sleep(0.2)


TROUBLES = {trouble.__name__: trouble for trouble in (down, silent, emptied)}


async def under_load(clients: list[httpx.AsyncClient], question: Callable[[], Any], *, seconds: float) -> list[Reply]:
    return await at_a_rate(clients, question, per_s=PER_S, until=time.perf_counter() + seconds)


def wrong(replies: list[Reply], expected: dict[str, Rows]) -> list[str]:
    """What is no answer, or not the asker's own; `at_a_rate` lets the roles ask in turns."""
    asked = zip(itertools.cycle(ROLES), replies, strict=False)
    return [
        f"{role}: {reply.status} {reply.response.text[:200]}"
        for role, reply in asked
        if reply.status != 200 or reply.response.json()["data"] != expected[role]
    ]


async def rows_of_each_role(clients: dict[str, httpx.AsyncClient]) -> dict[str, Rows]:
    """What each role is answered without a cache; of two they are what everybody sees of the place."""
    body = {"metrics": ["line_count"], "group_by": ["customer__location"]}
    fresh = {"Cache-Control": "no-cache"}
    rows = {
        name: (await client.post("/v1/query", json=body, headers=fresh)).json()["data"]
        for name, client in clients.items()
    }
    for role in ROLES[1:]:
        assert rows[role] == [row for row in rows["admin"] if row["customer__location"] == role.capitalize()]
    return rows


def served(serve: Serve, synthetic: Published, redis: RedisServer, folder: Path) -> Server:
    (folder / "policy.yml").write_text(POLICY)
    return serve(synthetic.settings.publication_dir, redis_url=redis.url, policy_file=folder / "policy.yml")


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("times", [pytest.param(1, id="once"), pytest.param(20, id="20_times", marks=pytest.mark.full)])
async def test_redis_may_fail_under_load(
    serve: Serve,
    synthetic: Published,
    redis_server: RedisServer,
    tmp_path: Path,
    trouble: str,
    times: int,
    record_property: Record,
) -> None:
    service = served(serve, synthetic, redis_server, tmp_path)
    clients = {role: service.async_client(service.key(role, role=role)) for role in ROLES}
    in_turns, question = [*clients.values()], questions()
    expected = await rows_of_each_role(clients)
    await under_load(in_turns, question, seconds=1)
    usual = await under_load(in_turns, question, seconds=4)
    assert wrong(usual, expected) == []

    replies: list[Reply] = []
    for _ in range(times):
        load = asyncio.create_task(under_load(in_turns, question, seconds=4))
        await asyncio.sleep(0.5)
        await TROUBLES[trouble](redis_server)
        replies += (of_this_time := await load)
        assert wrong(of_this_time, expected) == []
    for client in clients.values():
        await client.aclose()

    before, after = (p99(reply.took_s for reply in each) for each in (usual, replies))
    assert after <= 3 * before + SLACK_S
    origins = {reply.response.json()["meta"]["cache"]["result"] for reply in replies}
    assert origins >= {"hit", "miss"}
    told = f"{len(replies):,} answers, all right; p99 {before:.3f} s before, {after:.3f} s then"
    record_property("counts", f"R8: {trouble} {times} times; {told}")
