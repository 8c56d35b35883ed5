"""Flight SQL under load: a million rows in a fixed amount of memory, readers that leave, a stop that waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pyarrow as pa
import pytest
from adbc_driver_flightsql import DatabaseOptions, dbapi
from google.protobuf import any_pb2
from pyarrow import flight

from api.flight.wire.flight_sql_pb2 import TicketStatementQuery
from tests import server
from tests.altered import RUNAWAY, altered_publication, repeated, sleeping
from tests.conftest import Published
from tests.server import Serve, Server
from tests.services import free_port

serve = server.serve

LARGE = "SELECT sale, customer__location, line_count, total_revenue FROM ALL"
SMALL = "SELECT customer__location, total_revenue FROM ALL"

# A few messages, and what the engine, gRPC and the allocator hold of them; the answer itself would be 200.
STREAM_MB = 128


@pytest.fixture(scope="module")
def large(synthetic: Published, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Publications with a million lines of sales."""
    return altered_publication(synthetic, tmp_path_factory.mktemp("large"), repeated(100))


@pytest.fixture(scope="module")
def many(synthetic: Published, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Publications with some lines more than gRPC sends unread."""
    return altered_publication(synthetic, tmp_path_factory.mktemp("many"), repeated(25))


@contextmanager
def reading(service: Server, port: int, statement: str) -> Iterator[pa.RecordBatchReader]:
    """The rows of the statement, as they are read; blocks."""
    shown = {DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {service.key()}"}
    uri = f"grpc://127.0.0.1:{port}"
    with dbapi.connect(uri, db_kwargs=shown, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        yield cursor.fetch_record_batch()


def running(service: Server) -> float:
    """Queries that hold a place now."""
    (line,) = (each for each in metrics(service) if each.startswith("insight_queue_running "))
    return float(line.split()[-1])


def idle(service: Server) -> bool:
    """Whether nothing holds a place any more, within 20 s."""
    deadline = time.monotonic() + 20
    while running(service) and time.monotonic() < deadline:
        time.sleep(0.1)
    return running(service) == 0


def metrics(service: Server) -> list[str]:
    return httpx.get(f"{service.url}/metrics", timeout=30).text.splitlines()


def test_a_large_answer_is_streamed_in_little_memory(large: Path, serve: Serve) -> None:
    port = free_port()
    service = serve(large, flight_port=port)
    with reading(service, port, SMALL) as rows:
        assert rows.read_all().num_rows == 5
    before = service.memory_mb

    with reading(service, port, LARGE) as rows:
        count = 0
        for batch in rows:
            count += batch.num_rows
    with service.client() as client:
        exact = client.post("/v1/query", json={"metrics": ["line_count"]}).json()["data"][0]["line_count"]

    assert count == int(float(exact)) > 1_000_000
    engine_mb = 512  # may be used by the engine for the group-by itself, as with any export
    assert service.peak_memory_mb < before + engine_mb + STREAM_MB


def test_a_reader_that_leaves_ends_the_query_in_the_engine(large: Path, serve: Serve) -> None:
    port = free_port()
    service = serve(large, flight_port=port)

    with reading(service, port, LARGE) as rows:
        rows.read_next_batch()

    assert idle(service)
    with reading(service, port, SMALL) as rows:
        assert rows.read_all().num_rows == 5


def test_a_runaway_is_stopped_and_says_so(synthetic: Published, serve: Serve, tmp_path: Path) -> None:
    port = free_port()
    service = serve(altered_publication(synthetic, tmp_path, RUNAWAY), flight_port=port, query_timeout_s=1)

    with pytest.raises(OSError, match="query_timeout"), reading(service, port, SMALL) as rows:
        rows.read_all()
    assert running(service) == 0


def test_a_stop_lets_an_answer_finish(synthetic: Published, serve: Serve, tmp_path: Path) -> None:
    port = free_port()
    service = serve(altered_publication(synthetic, tmp_path, sleeping(3)), flight_port=port, stop_notice_s=0)
    counts: list[int] = []

    key, packed = service.key(), any_pb2.Any()
    packed.Pack(TicketStatementQuery(statement_handle=SMALL.encode()))

    def read() -> None:
        shown = flight.FlightCallOptions(headers=[(b"authorization", f"Bearer {key}".encode())])
        with flight.FlightClient(f"grpc://127.0.0.1:{port}") as client:
            counts.append(client.do_get(flight.Ticket(packed.SerializeToString()), shown).read_all().num_rows)

    reader = threading.Thread(target=read)
    reader.start()
    deadline = time.monotonic() + 20
    while not running(service) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    service.terminate()
    reader.join(timeout=60)

    assert counts == [5]
    assert service.process.wait(timeout=60) == 0


@contextmanager
def streaming(service: Server, statement: str) -> Iterator[flight.FlightStreamReader]:
    """The stream of the statement, nothing of which is read ahead but what gRPC takes."""
    packed = any_pb2.Any()
    packed.Pack(TicketStatementQuery(statement_handle=statement.encode()))
    shown = flight.FlightCallOptions(headers=[(b"authorization", f"Bearer {service.key()}".encode())])
    with flight.FlightClient(f"grpc://127.0.0.1:{service.flight_port}") as client:
        reader = client.do_get(flight.Ticket(packed.SerializeToString()), shown)
        try:
            yield reader
        finally:
            reader.cancel()


def test_more_answers_at_once_than_may_be_are_refused_until_one_has_ended(many: Path, serve: Serve) -> None:
    service = serve(many, flight_port=free_port(), flight_max_streams=1)

    with streaming(service, LARGE) as one:
        assert one.read_chunk().data.num_rows
        refused = pytest.raises(pa.ArrowInvalid, match=r"resource exhausted.*INSIGHT_FLIGHT_MAX_STREAMS")
        with refused, streaming(service, SMALL) as two:
            two.read_all()
    assert idle(service)
    with streaming(service, SMALL) as after:
        assert after.read_all().num_rows == 5
    service.wait_for_log('"code":"too_many_streams"')


def test_an_answer_that_nobody_reads_is_ended_and_says_why(many: Path, serve: Serve) -> None:
    service = serve(many, flight_port=free_port(), send_timeout_s=1)

    with streaming(service, LARGE) as rows:
        rows.read_chunk()
        assert idle(service)  # ended by the service, while the reader holds on
        with pytest.raises(flight.FlightTimedOutError, match="unread_answer"):
            for _ in rows:
                pass
    service.wait_for_log('"code":"unread_answer"')
