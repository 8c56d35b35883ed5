"""Runs SQL and answers Arrow; alone in the service knows which warehouse there is.

Today that is DuckDB over an immutable file. SQLAlchemy owns the connections (pool, checkout, disposal); the rows are
taken as Arrow straight from the driver, because a detour through Python objects costs more than most queries.
"""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

import duckdb
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.pool import QueuePool

from api.catalog import ValueType
from api.cost import estimated_cost
from api.errors import InternalFault, InvalidQuery, QueryTimeout, SemanticLayerError, Unavailable
from api.filters import Value

T = TypeVar("T")

_HEADER_BYTES = 3 * 4096  # of a DuckDB file: the main header and two of the database
_STOP_AGAIN_S = 0.05
_REMEMBERED_ESTIMATES = 5_000  # some 2 KB each, the statement shared with the compiler's plan


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """What the embedded engine may use: memory in MB, threads, connections, and time a query."""

    memory_mb: int
    threads: int
    connections: int
    query_timeout: timedelta


class RowStream:
    """The rows of a statement that is under way; the next batch is computed when it is asked for.

    One reader at a time.
    """

    def __init__(self, schema: pa.Schema, next_batch: Callable[[], Awaitable[pa.RecordBatch | None]]) -> None:
        self.schema = schema
        self._next_batch = next_batch

    def __aiter__(self) -> AsyncIterator[pa.RecordBatch]:
        """The stream itself."""
        return self

    async def __anext__(self) -> pa.RecordBatch:
        """The next batch of rows."""
        if (batch := await self._next_batch()) is None:
            raise StopAsyncIteration
        return batch


class Warehouse:
    """The read-only marts of one publication.

    The file is served hardened: read-only, no file or network access from SQL, no extensions, configuration locked.
    So even SQL that got past the compiler reads these marts and nothing else.
    """

    def __init__(self, file: Path, *, limits: EngineLimits) -> None:
        if not file.is_file():
            raise Unavailable(
                f"The published data {file.name} is missing", hint="Publish again: insight pipeline publish"
            )
        # DuckDB suggests `sql(…)` for Arrow, at every query; see `_run` why not.
        warnings.filterwarnings("ignore", message="Arrow output on a DB-API result", category=UserWarning)
        self._file = file
        self._limits = limits
        # One thread for each connection, so that whoever has a thread has a connection. Who asks for more at once than
        # there are waits here, its time-out running: the service lets in no more than that (`api.admission`).
        self._threads = ThreadPoolExecutor(max_workers=limits.connections, thread_name_prefix="warehouse")
        # An estimate decides whether a query may queue, so it must not queue behind those that run.
        self._estimating = ThreadPoolExecutor(max_workers=1, thread_name_prefix="estimate")
        self._estimates: OrderedDict[tuple[object, ...], int] = OrderedDict()
        self._table_rows: Mapping[str, int] | None = None
        self._engine = sa.create_engine(
            sa.URL.create("duckdb", database=str(file.resolve())),
            connect_args={"read_only": True, "config": _hardened(limits)},
            poolclass=QueuePool,
            pool_size=limits.connections + 1,
            max_overflow=0,
            pool_reset_on_return=None,  # nothing to roll back: every statement is a SELECT
        )
        self._locking = threading.Lock()
        sa.event.listen(self._engine, "connect", self._lock)

    def check_complete(self) -> None:
        """Return if the file is as long as it says. Blocks; DuckDB reads a cut one until a query meets the gap.

        Raises
        ------
        Unavailable
            It is not.
        """
        sizes = self._run("SELECT total_blocks * block_size AS bytes FROM pragma_database_size()", {}, _Flight())
        if self._file.stat().st_size < sizes.column("bytes")[0].as_py() + _HEADER_BYTES:
            raise Unavailable("The published data is cut short", hint="Publish again: insight pipeline publish")

    def column_types(self, relation: str, expressions: Mapping[str, str]) -> Mapping[str, ValueType]:
        """The types of named expressions over a relation. Blocks; for start-up only.

        Both come from the semantic manifest, which is ours, never from a caller.
        """
        columns = ", ".join(f'{expression} AS "{name}"' for name, expression in expressions.items())
        if not columns:
            return {}
        schema = self._run(f"SELECT {columns} FROM {relation} LIMIT 0", {}, _Flight()).schema  # noqa: S608
        return {field.name: value_type(field.type) for field in schema}

    async def query(self, sql: str, parameters: Mapping[str, Value], *, within: timedelta | None = None) -> pa.Table:
        """The answer of one SELECT, in the types of the engine.

        Runs in a thread. If the time-out passes (`within`, or else that of the limits) or the caller goes away, the
        statement is interrupted in the engine, and its connection goes back to the pool only after it stopped.

        Raises
        ------
        QueryTimeout
            The statement ran longer than allowed.
        InvalidQuery
            The engine needs more memory than allowed.
        """
        flight = _Flight()
        run = partial(self._run, sql, parameters, flight)
        return await self._in_thread(run, flight, limit=within or self._limits.query_timeout)

    @asynccontextmanager
    async def stream(self, sql: str, parameters: Mapping[str, Value], *, batch_rows: int) -> AsyncIterator[RowStream]:
        """The answer of one SELECT, computed and held a batch at a time; takes a connection for the block's length.

        There is no time-out: whoever asks is cancelled, and the statement with it.

        Raises
        ------
        InvalidQuery
            As `query`; if rows have been answered by then, from the stream.
        """
        flight = _Flight()
        with ExitStack() as closing:
            begin = partial(self._begin_stream, sql, parameters, flight, batch_rows, closing)
            reader, next_batch = await self._in_thread(begin, flight)
            yield RowStream(reader.schema, lambda: self._in_thread(next_batch, flight))

    async def _in_thread(self, work: Callable[[], T], flight: _Flight, *, limit: timedelta | None = None) -> T:
        """What the work returns; where its time is up or the caller goes away, the flight's statement is stopped."""
        running = asyncio.get_running_loop().run_in_executor(self._threads, work)
        try:
            done, _ = await asyncio.wait((running,), timeout=limit.total_seconds() if limit else None)
        except asyncio.CancelledError:
            await _stopped(running, flight)
            raise
        if not done and limit:
            await _stopped(running, flight)
            raise QueryTimeout(
                f"The query ran longer than {limit.total_seconds():g} s and was stopped",
                hint="Ask for a shorter time range or fewer group-bys, or raise "
                + (
                    "INSIGHT_QUERY_TIMEOUT_S." if limit == self._limits.query_timeout else "INSIGHT_DEFERRED_TIMEOUT_S."
                ),
            )
        return running.result()

    async def estimate(self, sql: str, parameters: Mapping[str, Value]) -> int:
        """The cost of one SELECT with these values, as `api.cost` reckons it; nothing runs.

        Takes 1 to 20 ms in a thread, and nothing when the same was asked before. The values count, as the engine
        leaves out what they exclude.

        Raises
        ------
        InvalidQuery
            A value is out of the range of its field.
        """
        key = (sql, *sorted(parameters.items()))
        if key not in self._estimates:
            loop = asyncio.get_running_loop()
            cost = await loop.run_in_executor(self._estimating, self._estimate, sql, parameters)
            self._estimates[key] = cost
            if len(self._estimates) > _REMEMBERED_ESTIMATES:
                self._estimates.popitem(last=False)
        return self._estimates[key]

    def close(self) -> None:
        """Close every connection that is not in use; the engine lets the file go."""
        self._threads.shutdown(wait=False)
        self._estimating.shutdown(wait=False)
        self._engine.dispose()

    def _estimate(self, sql: str, parameters: Mapping[str, Value]) -> int:
        if self._table_rows is None:  # the file never changes
            tables = self._run(
                "SELECT schema_name || '.' || table_name AS name, estimated_size AS size FROM duckdb_tables()",
                {},
                _Flight(),
            )
            self._table_rows = {row["name"]: row["size"] for row in tables.to_pylist()}
        plan = self._run(f"EXPLAIN (FORMAT json) {sql}", parameters, _Flight())
        return estimated_cost(plan.column(1)[0].as_py(), self._table_rows)

    def _connect(self) -> sa.PoolProxiedConnection:
        try:
            return self._engine.raw_connection()
        except (sa.exc.SQLAlchemyError, duckdb.Error) as error:
            raise Unavailable(
                "The published data cannot be opened", hint="Publish again, or go back: insight pipeline rollback"
            ) from error

    def _lock(self, connection: sa.engine.interfaces.DBAPIConnection, _: object) -> None:
        """Close the door that was open until the file was: DuckDB lets SQL read a database's file and write its log."""
        cursor = connection.cursor()
        with self._locking:  # all connections to the file share one configuration
            cursor.execute("SELECT current_setting('lock_configuration')")
            if cursor.fetchall() == [(False,)]:
                cursor.execute("SET disabled_filesystems = 'LocalFileSystem'")
                cursor.execute("SET lock_configuration = true")

    def _run(self, sql: str, parameters: Mapping[str, Value], flight: _Flight) -> pa.Table:
        connection = self._connect()
        try:
            with self._statement(connection, flight) as duck:
                # Not `sql(…)`, which spares one copy of the rows but plans the statement twice: 0.3 to 2 ms.
                duck.execute(sql, dict(parameters))
                return duck.to_arrow_table()
        finally:
            connection.close()

    def _begin_stream(
        self, sql: str, parameters: Mapping[str, Value], flight: _Flight, batch_rows: int, closing: ExitStack
    ) -> tuple[pa.RecordBatchReader, Callable[[], pa.RecordBatch | None]]:
        connection = self._connect()
        closing.callback(connection.close)
        with self._statement(connection, flight) as duck:
            # Not `execute(…)`, which computes and holds all rows before the first is read.
            reader = duck.sql(sql, params=dict(parameters)).to_arrow_reader(batch_rows)
        closing.callback(reader.close)

        def next_batch() -> pa.RecordBatch | None:
            with self._statement(connection, flight):
                return next(reader, None)

        return reader, next_batch

    @contextmanager
    def _statement(self, connection: sa.PoolProxiedConnection, flight: _Flight) -> Iterator[duckdb.DuckDBPyConnection]:
        """The driver's connection for work that the flight may stop; what it raises comes out as errors of ours."""
        duck = cast("duckdb.DuckDBPyConnection", connection.cursor())
        try:
            with flight.watching(duck.interrupt):
                yield duck
        except (duckdb.Error, OSError) as error:  # the latter from Arrow, around the engine's own words
            raise self._refusal(error) from error

    def _refusal(self, error: Exception) -> SemanticLayerError:
        words = str(error)
        if isinstance(error, duckdb.OutOfMemoryException) or words.startswith("Out of Memory Error"):
            return InvalidQuery(
                f"The query needs more than the {self._limits.memory_mb} MB it may use",
                hint="Ask for fewer group-bys or a shorter time range, or raise INSIGHT_ENGINE_MEMORY_MB.",
                code="query_too_large",
            )
        out_of_range = (duckdb.ConversionException, duckdb.OutOfRangeException)
        if isinstance(error, out_of_range) or words.startswith(("Conversion Error", "Out of Range Error")):
            return InvalidQuery(
                "A value of the query is out of the range of its field", hint="Use a value that the field can hold."
            )
        return InternalFault("The warehouse refused the query", hint="Report the request id.", code="warehouse_error")


def value_type(arrow: pa.DataType) -> ValueType:
    """What an Arrow column holds, in the catalog's words."""
    for is_of, type_ in _TYPES:
        if is_of(arrow):
            return type_
    return ValueType.STRING


_TYPES: tuple[tuple[Callable[[pa.DataType], bool], ValueType], ...] = (
    (pa.types.is_boolean, ValueType.BOOLEAN),
    (pa.types.is_integer, ValueType.INTEGER),
    # DuckDB sums integers into 128 bits, which Arrow carries as a decimal without decimal places.
    (lambda arrow: pa.types.is_decimal(arrow) and arrow.scale == 0, ValueType.INTEGER),
    (pa.types.is_decimal, ValueType.DECIMAL),
    (pa.types.is_floating, ValueType.FLOAT),
    (pa.types.is_date, ValueType.DATE),
    (pa.types.is_timestamp, ValueType.TIMESTAMP),
)


def _hardened(limits: EngineLimits) -> dict[str, str]:
    """DuckDB configuration under which SQL reaches the opened file and nothing else (S4 in the reliability goals)."""
    return {
        "enable_external_access": "false",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "allow_community_extensions": "false",
        "python_enable_replacements": "false",  # else a table name may mean a variable of this process
        "memory_limit": f"{limits.memory_mb}MB",
        "threads": str(limits.threads),
        "temp_directory": "",  # else a query that needs more memory would fill the disk of the publications instead
    }


async def _stopped(running: asyncio.Future[T], flight: _Flight) -> None:
    """Return once the statement has stopped, however it ended; then its connection is back in the pool."""
    # Again and again: the engine forgets what it is told in the instant before a statement begins.
    while not running.done():
        flight.stop()
        await asyncio.wait((running,), timeout=_STOP_AGAIN_S)
    if not running.cancelled():
        running.exception()  # taken, as nobody else asks for it


class _Flight:
    """One running statement, which another thread may stop at any time: before, while and after it runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._interrupt: Callable[[], None] | None = None
        self._is_stopped = False

    @contextmanager
    def watching(self, interrupt: Callable[[], None]) -> Iterator[None]:
        with self._lock:
            if self._is_stopped:
                raise duckdb.InterruptException("stopped before it began")
            self._interrupt = interrupt
        try:
            yield
        finally:
            with self._lock:
                # From here on the connection may serve somebody else's statement.
                self._interrupt = None

    def stop(self) -> None:
        with self._lock:
            self._is_stopped = True
            if self._interrupt is not None:
                self._interrupt()
