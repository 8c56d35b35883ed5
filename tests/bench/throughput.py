"""Requests a second and latencies at 1, 16 and 64 connections: kept answers beside a bare route with the same bytes,
and answers that have to run."""

from __future__ import annotations

import http.client
import json
import os
import sys

from tests.bench.load import Load, put_load, request
from tests.bench.queries import QUERIES
from tests.bench.service import LINES, PORT, Running, published, running, serving

CONNECTIONS = (1, 16, 64)
SECONDS = 3.0
BARE_PORT = PORT + 1
ROUNDS = 15
SHARE = 0.7  # of the bare route's throughput, which a kept answer has to reach
PARALLEL = 50


def measure() -> None:
    """Measure on 52,924 lines and print a table."""
    home = published(1)
    question = json.dumps(QUERIES["revenue by month"]).encode()
    questions = [json.dumps(query).encode() for query in QUERIES.values()]
    answer = home / "answer.json"
    rows: dict[str, list[Load]] = {}
    with serving(home) as service:
        answer.write_bytes(_ask(question, service.key))
        command = [sys.executable, "-m", "tests.bench.bare", str(answer), str(BARE_PORT)]
        with running(command, log=home, env=dict(os.environ), port=BARE_PORT):
            kept, bare = _side_by_side(question, key=service.key)
        rows["kept answer"], rows["bare FastAPI route, same bytes"] = kept, bare
        uncached = [
            request("/v1/query", body, key=service.key, headers="Cache-Control: no-cache\r\n") for body in questions
        ]
        rows["run anew (20 questions in turn)"] = _loads(uncached)
        parallel = put_load(uncached, port=PORT, connections=PARALLEL, seconds=SECONDS)
        memory = _soak(service, uncached)
    _report(rows, answer_bytes=answer.stat().st_size)
    print(f"\n{PARALLEL} uncached queries in parallel: {parallel.failed} failed, p99 {parallel.p99_ms:.0f} ms")
    print(f"\nMemory: {memory}")


def _side_by_side(question: bytes, *, key: str) -> tuple[list[Load], list[Load]]:
    """The loads of kept answers and of the bare route, at each number of connections: of rounds in which the two take
    turns, that with the median share, so that a moment's noise of the machine weighs on neither."""
    kept, bare = [request("/v1/query", question, key=key)], [request("/v1/query", question, key="none")]
    medians: list[tuple[Load, Load]] = []
    for count in CONNECTIONS:
        rounds = [
            (
                put_load(kept, port=PORT, connections=count, seconds=1),
                put_load(bare, port=BARE_PORT, connections=count, seconds=1),
            )
            for _ in range(ROUNDS + 1)
        ][1:]  # the first warms up
        medians.append(sorted(rounds, key=lambda both: both[0].per_second / both[1].per_second)[ROUNDS // 2])
    return [mine for mine, _ in medians], [theirs for _, theirs in medians]


def _soak(service: Running, requests: list[bytes]) -> str:
    """Resident memory at each minute; two by default, BENCH_SOAK_MINUTES=10 for the whole soak."""
    readings = [service.memory_mib()]
    for _ in range(int(os.environ.get("BENCH_SOAK_MINUTES", "2"))):
        put_load(requests, port=PORT, connections=8, seconds=60)
        readings.append(service.memory_mib())
    return ", ".join(f"{reading:.0f}" for reading in readings) + " MiB, a minute of load between two readings"


def _loads(requests: list[bytes]) -> list[Load]:
    put_load(requests, port=PORT, connections=4, seconds=1)
    return [put_load(requests, port=PORT, connections=count, seconds=SECONDS) for count in CONNECTIONS]


def _ask(body: bytes, key: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=60)
    connection.request(
        "POST", "/v1/query", body=body, headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    )
    return connection.getresponse().read()


def _report(rows: dict[str, list[Load]], *, answer_bytes: int) -> None:
    print(
        f"\n### Throughput: {LINES:,} lines, an answer of {answer_bytes:,} bytes, load and service on the same cores\n"
    )
    print("| | connections | requests/s | p50 ms | p95 ms | p99 ms | failed |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, loads in rows.items():
        for load in loads:
            cells = (
                f"{load.per_second:,.0f} | {load.p50_ms:.2f} | {load.p95_ms:.2f} | {load.p99_ms:.2f} | {load.failed}"
            )
            print(f"| {name} | {load.connections} | {cells} |")
    kept, bare = rows["kept answer"], rows["bare FastAPI route, same bytes"]
    shares = ", ".join(f"{mine.per_second / theirs.per_second:.0%}" for mine, theirs in zip(kept, bare, strict=True))
    print(f"\nKept answers reach {shares} of the bare route (goal {SHARE:.0%})")
