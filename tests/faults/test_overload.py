"""R10: ten times what the service can do: as much is answered as before, nearly as fast, the rest is told at once."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests import server
from tests.altered import altered_publication, sleeping
from tests.conftest import Published
from tests.faults import questions
from tests.faults.load import Reply, at_a_rate, one_after_the_other, p99
from tests.server import Serve

serve = server.serve

# Few and long runs, which sleep: so a busy machine has the capacity, too, and can ask for ten times of it.
RUN_S, PLACES = 2.0, 4
CAPACITY = PLACES / RUN_S  # answers a second

# What a busy machine adds to an answer, of two times 2 s, and to a refusal, of 0.25 s in reliability.md.
SLACK_S = 1.0

# Seconds under load before measuring, in which what has queued up is worked off, and seconds of measuring.
SIZES = [
    pytest.param({"queue_size": 16, "queue_size_per_principal": 8}, 12, 12, id="24_s"),
    *[pytest.param({}, 40, 80, id=f"120_s_{nth}", marks=pytest.mark.full) for nth in "123"],
]


def goodput(replies: Iterable[Reply], *, start: float, end: float) -> float:
    """Answers a second, by when they came."""
    return sum(reply.status == 200 and start <= reply.asked_at + reply.took_s < end for reply in replies) / (
        end - start
    )


@pytest.mark.parametrize(("settings", "lead_in_s", "measured_s"), SIZES)
async def test_ten_times_the_capacity(
    serve: Serve, synthetic: Published, tmp_path: Path, settings: dict[str, Any], lead_in_s: float, measured_s: float
) -> None:
    service = serve(altered_publication(synthetic, tmp_path, sleeping(RUN_S)), pool_size=PLACES, **settings)
    clients = [service.async_client(service.key(name)) for name in "abcd"]
    modest = service.async_client(service.key("modest"))

    started = time.perf_counter()
    baseline = [
        reply
        for replies in await asyncio.gather(
            *(one_after_the_other(clients[nth % 4], questions.sales, until=started + 4) for nth in range(PLACES))
        )
        for reply in replies
    ]
    assert {reply.status for reply in baseline} == {200}
    before = p99(reply.took_s for reply in baseline)
    before_mb = service.memory_mb

    begin = time.perf_counter() + lead_in_s
    end = begin + measured_s
    greedy, quiet = await asyncio.gather(
        at_a_rate(clients, questions.sales, per_s=CAPACITY * 10, until=end),
        one_after_the_other(modest, questions.sales, until=end),
    )
    for client in (*clients, modest):
        await client.aclose()

    replies = [reply for reply in (*greedy, *quiet) if begin <= reply.asked_at < end]
    statuses = Counter(reply.status for reply in (*greedy, *quiet))
    assert set(statuses) <= {200, 429, 503}, statuses
    assert statuses[503] + statuses[429] > statuses[200] * 3
    assert all(reply.retry_after_s >= 1 for reply in greedy if reply.status != 200)
    assert goodput((*greedy, *quiet), start=begin, end=end) >= 0.8 * CAPACITY
    assert p99(reply.took_s for reply in replies if reply.status == 200) <= 2 * before + SLACK_S
    assert p99(reply.took_s for reply in replies if reply.status != 200) <= 0.25 + SLACK_S
    assert {reply.status for reply in quiet} == {200}, "who asks for little was refused for those who ask for much"
    assert service.peak_memory_mb - before_mb < 200
