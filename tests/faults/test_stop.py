"""R14: told to stop, the service says so first, finishes what is in flight, and is gone in time."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
from pathlib import Path

import httpx
import pytest

from tests import server
from tests.altered import RUNAWAY, altered_publication, repeated, sleeping
from tests.conftest import Published
from tests.faults import questions
from tests.server import Serve, Server

serve = server.serve

TIMES = [pytest.param(3, id="3_times"), pytest.param(50, id="50_times", marks=pytest.mark.full)]

IN_FLIGHT = 20


async def exit_code(service: Server, *, within_s: float) -> int:
    return await asyncio.to_thread(service.process.wait, within_s)


async def readiness_until_refused(service: Server) -> list[int | None]:
    """What `/readyz` says over new connections, over and over, until none is taken: that is None."""
    said: list[int | None] = []
    is_closed = False
    while None not in said:
        try:
            async with httpx.AsyncClient(base_url=service.url, timeout=5) as client:
                said.append((await client.get("/readyz")).status_code)
            assert not is_closed, "it took a connection after it had closed"
        except httpx.ConnectError:
            said.append(None)
        except (httpx.RemoteProtocolError, httpx.ReadError):
            # It waited to be accepted when the socket closed, which resets it; all after it are refused.
            assert not is_closed, "it dropped a second connection"
            is_closed = True
        await asyncio.sleep(0.05)
    return said


@pytest.mark.parametrize("times", TIMES)
async def test_nothing_in_flight_is_dropped(serve: Serve, synthetic: Published, tmp_path: Path, times: int) -> None:
    slow = altered_publication(synthetic, tmp_path, sleeping(3))
    for _ in range(times):
        service = serve(slow, pool_size=IN_FLIGHT, stop_notice_s=1)
        async with service.async_client() as client:
            asked = [asyncio.create_task(client.post("/v1/query", json=questions.sales())) for _ in range(IN_FLIGHT)]
            await asyncio.sleep(1)
            assert not any(task.done() for task in asked)
            started = time.monotonic()
            service.terminate()
            said = await readiness_until_refused(service)
            answers = [await task for task in asked]
            code = await exit_code(service, within_s=30)

        assert [answer.status_code for answer in answers] == [200] * IN_FLIGHT
        assert all(answer.json()["data"] for answer in answers)
        assert said[-1] is None
        assert 503 in said, "it refused connections before it said that it is not ready"
        assert 200 not in said[said.index(503) :]
        assert code == 0, service.log[-2_000:]
        assert time.monotonic() - started < 30
        assert "Traceback" not in service.log


async def test_while_it_gives_notice_it_answers_and_lets_each_connection_end_with_its_answer(
    serve: Serve, synthetic: Published
) -> None:
    service = serve(synthetic.settings.publication_dir, stop_notice_s=3)
    async with service.async_client() as client:
        before = await client.get("/v1/metrics")
        service.terminate()
        await asyncio.sleep(0.3)
        after = [await client.post("/v1/query", json=questions.sales()) for _ in range(3)]
        assert await exit_code(service, within_s=15) == 0

    assert "connection" not in before.headers
    assert [answer.status_code for answer in after] == [200] * 3
    assert [answer.headers["connection"] for answer in after] == ["close"] * 3


async def test_what_takes_longer_than_the_grace_is_told_to_ask_again(
    serve: Serve, synthetic: Published, tmp_path: Path
) -> None:
    service = serve(
        altered_publication(synthetic, tmp_path, RUNAWAY),
        stop_notice_s=0,
        stop_grace_s=1,
        query_timeout_s=60,
        pool_size=1,
    )
    async with service.async_client() as client:
        asked = [asyncio.create_task(client.post("/v1/query", json=questions.sales())) for _ in range(3)]
        await asyncio.sleep(1)
        started = time.monotonic()
        service.terminate()
        answers = [await task for task in asked]

        assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(503, "stopping")] * 3
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)
        assert await exit_code(service, within_s=10) == 0
        assert time.monotonic() - started < 8
        assert "Traceback" not in service.log


async def test_a_second_signal_cuts_everything_short(serve: Serve, synthetic: Published, tmp_path: Path) -> None:
    service = serve(altered_publication(synthetic, tmp_path, sleeping(30)), stop_notice_s=60, stop_grace_s=60)
    async with service.async_client() as client:
        asked = asyncio.create_task(client.post("/v1/query", json=questions.sales()))
        await asyncio.sleep(1)
        service.process.send_signal(signal.SIGINT)
        await asyncio.sleep(0.5)
        assert not asked.done()
        service.process.send_signal(signal.SIGINT)

        assert (await asked).status_code == 503
        assert await exit_code(service, within_s=10) == 0


@pytest.mark.full
async def test_a_client_that_does_not_read_does_not_keep_it_from_stopping(
    serve: Serve, synthetic: Published, tmp_path: Path
) -> None:
    service = serve(altered_publication(synthetic, tmp_path, repeated(5)), stop_notice_s=0, stop_grace_s=1)
    metrics = ["line_count", "total_revenue", "units_sold", "gross_revenue", "average_order_value", "discount_rate"]
    key = service.key()
    with socket.socket() as large, socket.socket() as small:
        for one, limit in ((large, 50_000), (small, 15_000)):
            body = json.dumps({"metrics": metrics, "group_by": ["sale", "customer__location"], "limit": limit})
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            one.connect(("127.0.0.1", service.port))
            head = f"POST /v1/query HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
            one.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        for one in (large, small):  # its answer has begun to come
            one.settimeout(20)
            assert await asyncio.to_thread(one.recv, 1, socket.MSG_PEEK)
        service.terminate()

        assert await exit_code(service, within_s=10) == 0
