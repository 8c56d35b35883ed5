"""Load on a running service, and what came of it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

Question = Callable[[], Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back, when it was asked (seconds on the clock), and how many seconds later."""

    response: httpx.Response
    asked_at: float
    took_s: float

    @property
    def status(self) -> int:
        return self.response.status_code

    @property
    def retry_after_s(self) -> int:
        """Zero where the answer does not say."""
        return int(self.response.headers.get("retry-after", 0))


async def ask(client: httpx.AsyncClient, question: Question) -> Reply:
    started = time.perf_counter()
    response = await client.post("/v1/query", json=question())
    return Reply(response=response, asked_at=started, took_s=time.perf_counter() - started)


async def one_after_the_other(client: httpx.AsyncClient, question: Question, *, until: float) -> list[Reply]:
    """Ask again as soon as an answer is there, up to that time on the clock."""
    replies = []
    while time.perf_counter() < until:
        replies.append(await ask(client, question))
    return replies


async def at_a_rate(
    clients: Sequence[httpx.AsyncClient], question: Question, *, per_s: float, until: float | asyncio.Event
) -> list[Reply]:
    """Ask so often a second, however long an answer takes, in turns of the clients."""
    tasks: list[asyncio.Task[Reply]] = []
    started = time.perf_counter()
    while not (until.is_set() if isinstance(until, asyncio.Event) else time.perf_counter() >= until):
        while len(tasks) < (time.perf_counter() - started) * per_s:
            tasks.append(asyncio.create_task(ask(clients[len(tasks) % len(clients)], question)))
        await asyncio.sleep(1 / per_s)
    return list(await asyncio.gather(*tasks))


def problems(replies: list[Reply], version: str) -> Counter[str]:
    """What is neither an answer from the version nor a refusal that says when to come again."""
    found: Counter[str] = Counter()
    for reply in replies:
        if reply.status == 200 and reply.response.json()["meta"]["publication"] == version:
            continue
        if reply.status == 503 and 1 <= reply.retry_after_s <= 2:
            continue
        found[f"{reply.status} {reply.response.text[:200]}"] += 1
    return found


def p99(seconds: Iterable[float]) -> float:
    ordered = sorted(seconds)
    return ordered[int(len(ordered) * 0.99)]
