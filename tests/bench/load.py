"""A closed loop of HTTP/1.1 requests over many connections: as cheap as Python goes, since it shares two cores."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass

import uvloop

_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What came back: requests a second, latencies in ms, and answers that were not 200."""

    connections: int
    per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    failed: int


class _Connection(asyncio.Protocol):
    """Sends the requests in turn, each when the one before is answered, until the deadline."""

    def __init__(self, requests: list[bytes], deadline: float, done: asyncio.Future[None]) -> None:
        self.latencies: list[float] = []
        self.failed = 0
        self._requests = requests
        self._deadline = deadline
        self._done = done
        self._buffer = b""
        self._turn = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if body_of(self._buffer) is None:
            return
        now = time.perf_counter()
        self.latencies.append(now - self._sent)
        self.failed += self._buffer[9:12] != b"200"
        self._buffer = b""
        if now < self._deadline:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        if not self._done.done():
            self._done.set_result(None)

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._requests[self._turn % len(self._requests)])  # type: ignore[attr-defined]
        self._turn += 1


def put_load(requests: list[bytes], *, port: int, connections: int, seconds: float) -> Load:
    """Send the requests over that many connections for that long; each begins at another of the requests."""

    async def run() -> Load:
        loop = asyncio.get_running_loop()
        started = time.perf_counter()
        open_connections, waits = [], []
        for number in range(connections):
            done: asyncio.Future[None] = loop.create_future()
            turned = requests[number % len(requests) :] + requests[: number % len(requests)]
            connection = _Connection(turned, started + seconds, done)
            await loop.create_connection(lambda made=connection: made, "127.0.0.1", port)  # type: ignore[misc]
            open_connections.append(connection)
            waits.append(done)
        await asyncio.wait_for(asyncio.gather(*waits), seconds + 60)
        took = time.perf_counter() - started
        latencies = sorted(value for connection in open_connections for value in connection.latencies)
        return Load(
            connections=connections,
            per_second=len(latencies) / took,
            p50_ms=latencies[len(latencies) // 2] * 1000,
            p95_ms=latencies[int(len(latencies) * 0.95)] * 1000,
            p99_ms=latencies[int(len(latencies) * 0.99)] * 1000,
            failed=sum(connection.failed for connection in open_connections),
        )

    return uvloop.run(run())


def request(path: str, body: bytes, *, key: str, headers: str = "") -> bytes:
    """The bytes of a POST."""
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
    return (head + headers + f"Content-Length: {len(body)}\r\n\r\n").encode() + body


def body_of(answer: bytes) -> bytes | None:
    """The body of an answer, None while a part of it is still to come."""
    head = answer.find(b"\r\n\r\n")
    length = _LENGTH.search(answer, 0, max(head, 0))
    if length is None or len(answer) < head + 4 + int(length.group(1)):
        return None
    return answer[head + 4 :]
