"""A million rows over Flight SQL, beside `pyarrow.flight` streaming the same statement of the same engine."""

from __future__ import annotations

import http.client
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from google.protobuf import any_pb2
from pyarrow import flight

from api.flight.wire.flight_sql_pb2 import TicketStatementQuery
from tests.bench.service import PORT, REPOSITORY, Running, published, serving
from tests.services import free_port

SCALE = 20
ROUNDS = 7
FACTOR = 1.5
ROWS = 2_000_000  # more than there are
STATEMENT = f"SELECT sale, customer__location, line_count, total_revenue FROM ALL LIMIT {ROWS}"
QUESTION = {"metrics": ["line_count", "total_revenue"], "group_by": ["sale", "customer__location"]}


def measure() -> None:
    """Print the table."""
    home, port = published(SCALE), free_port()
    with serving(home, INSIGHT_FLIGHT_PORT=str(port)) as service, _bare(service) as bare_port:
        packed = any_pb2.Any()
        packed.Pack(TicketStatementQuery(statement_handle=STATEMENT.encode()))
        ours, bare = packed.SerializeToString(), b"any"
        _seconds(port, ours, service.key)  # a warm-up of each
        _seconds(bare_port, bare, service.key)
        before_mib = service.peak_mib()
        rounds = [(_seconds(port, ours, service.key), _seconds(bare_port, bare, service.key)) for _ in range(ROUNDS)]
        rows, _ = rounds[0][0]
        _report(
            rows,
            service_s=statistics.median(taken for (_, taken), _ in rounds),
            bare_s=statistics.median(taken for _, (_, taken) in rounds),
            grown_mib=service.peak_mib() - before_mib,
        )


def _report(rows: int, *, service_s: float, bare_s: float, grown_mib: float) -> None:
    print(f"\n### Flight SQL: {rows:,} rows (median of {ROUNDS}, seconds)\n")
    print("| rows | pyarrow.flight | service | factor | goal | memory grown by, MiB |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    cells = f"{bare_s:.2f} | {service_s:.2f} | {service_s / bare_s:.2f} | {FACTOR} | {grown_mib:.0f}"
    print(f"| {rows:,} | {cells} |")


def _seconds(port: int, ticket: bytes, key: str) -> tuple[int, float]:
    """How many rows the ticket has, and how long they take to arrive."""
    shown = flight.FlightCallOptions(headers=[(b"authorization", f"Bearer {key}".encode())])
    with flight.FlightClient(f"grpc://127.0.0.1:{port}") as client:
        started = time.perf_counter()
        rows = sum(chunk.data.num_rows for chunk in client.do_get(flight.Ticket(ticket), shown))
        return rows, time.perf_counter() - started


@contextmanager
def _bare(service: Running) -> Iterator[int]:
    """The port of a server that streams what the service compiles for the question."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)
    headers = {"Authorization": f"Bearer {service.key}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/query/compile", json.dumps(QUESTION), headers)
    compiled = json.loads(connection.getresponse().read())
    compiled["parameters"]["limit"] = ROWS
    question = service.home / "flight.json"
    question.write_text(json.dumps(compiled), encoding="utf-8")
    publications = service.home / "publications"
    file = publications / (publications / "current").read_text(encoding="utf-8").strip() / "data.duckdb"
    port = free_port()
    command = [sys.executable, "-m", "tests.bench.bare_flight", str(port), str(file), str(question)]
    process = subprocess.Popen(command, cwd=REPOSITORY)
    try:
        time.sleep(2)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=30)
