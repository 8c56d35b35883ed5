"""R13: a query that runs away, one that eats memory, a client that goes away; and the service is well after each."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from pathlib import Path

import httpx
import pytest

from tests import server
from tests.altered import BOMB, RUNAWAY, altered_publication, sleeping
from tests.conftest import Published
from tests.faults import questions
from tests.server import Serve, Server

serve = server.serve

TIMES = [pytest.param(5, id="5_times"), pytest.param(100, id="100_times", marks=pytest.mark.full)]
TIMEOUT_S = 2.0

# What a busy machine adds to half a second, or to one.
SLACK_S = 1.5


@pytest.fixture(scope="module")
def runaway(synthetic: Published, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Publications in which a question of the sales takes half an hour of work."""
    return altered_publication(synthetic, tmp_path_factory.mktemp("runaway"), RUNAWAY)


@pytest.fixture(scope="module")
def bomb(synthetic: Published, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Publications in which a question of the sales needs gigabytes."""
    return altered_publication(synthetic, tmp_path_factory.mktemp("bomb"), BOMB)


def is_well(client: httpx.Client) -> bool:
    """Whether new questions are answered, one for each of two places and one more."""
    return all(client.post("/v1/query", json=questions.marketing(), timeout=5).is_success for _ in range(3))


@pytest.mark.parametrize("times", TIMES)
def test_a_query_that_runs_away_is_stopped_at_the_time_out(serve: Serve, runaway: Path, times: int) -> None:
    service = serve(runaway, query_timeout_s=TIMEOUT_S, pool_size=2)
    with service.client() as client:
        for _ in range(times):
            started = time.perf_counter()
            answer = client.post("/v1/query", json=questions.sales())

            assert (answer.status_code, answer.json()["code"]) == (504, "query_timeout")
            assert TIMEOUT_S - 0.1 < time.perf_counter() - started < TIMEOUT_S + 0.5 + SLACK_S
            assert is_well(client)


@pytest.mark.parametrize("times", TIMES)
def test_a_query_that_eats_memory_is_refused_and_the_process_stays_small(serve: Serve, bomb: Path, times: int) -> None:
    cap_mb = 128
    service = serve(bomb, engine_memory_mb=cap_mb, pool_size=2)
    with service.client() as client:
        assert is_well(client)
        before_mb = service.memory_mb
        for _ in range(times):
            answer = client.post("/v1/query", json=questions.sales())

            assert (answer.status_code, answer.json()["code"]) == (422, "query_too_large"), answer.text
            assert is_well(client)
        assert service.peak_memory_mb - before_mb < cap_mb * 1.5


def statements_run(service: Server) -> float:
    """Seconds of processor time that the service has used."""
    fields = Path(f"/proc/{service.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def is_at_work(service: Server) -> bool:
    """Whether the engine computes, which it does with all its threads while a query runs away."""
    before = statements_run(service)
    time.sleep(0.3)
    return statements_run(service) - before > 0.1


def begins_within(service: Server, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not is_at_work(service):
        if time.monotonic() > deadline:
            return False
    return True


def stops_within(service: Server, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while is_at_work(service):
        if time.monotonic() > deadline:
            return False
    return True


@pytest.mark.parametrize("times", TIMES)
def test_a_client_that_goes_away_stops_its_query(serve: Serve, runaway: Path, times: int) -> None:
    service = serve(runaway, query_timeout_s=60, pool_size=1, engine_threads=1)
    body = json.dumps(questions.sales()).encode()
    head = (
        f"POST /v1/query HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {service.key()}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with service.client() as client:
        for _ in range(times):
            with socket.create_connection(("127.0.0.1", service.port)) as connection:
                connection.sendall(head.encode() + body)
                assert begins_within(service, 10)

            assert stops_within(service, 1 + SLACK_S)
            assert is_well(client)  # though there is one place
    assert service.log.count('"status":499') == times


@pytest.mark.full
async def test_a_client_that_goes_away_while_it_waits_leaves_the_queue(serve: Serve, runaway: Path) -> None:
    service = serve(runaway, query_timeout_s=4, pool_size=1, queue_size_per_principal=1)
    async with service.async_client() as client:
        running = asyncio.create_task(client.post("/v1/query", json=questions.sales()))
        await asyncio.sleep(1)
        for _ in range(3):  # each finds the one turn in the queue free
            with pytest.raises(httpx.ReadTimeout):
                await client.post("/v1/query", json=questions.sales(), timeout=0.5)
            await asyncio.sleep(0.3)

        assert (await running).status_code == 504


@pytest.mark.full
async def test_a_run_that_others_wait_for_goes_on_when_the_client_that_began_it_goes_away(
    serve: Serve, synthetic: Published, tmp_path: Path
) -> None:
    service = serve(altered_publication(synthetic, tmp_path, sleeping(3)))
    question = questions.sales()
    async with service.async_client() as client:
        first = asyncio.create_task(client.post("/v1/query", json=question, timeout=1))
        await asyncio.sleep(0.5)
        started = time.perf_counter()
        second = await client.post("/v1/query", json=question)
        with pytest.raises(httpx.ReadTimeout):
            await first

    assert second.json()["meta"]["cache"]["result"] == "shared"
    assert time.perf_counter() - started < 3
