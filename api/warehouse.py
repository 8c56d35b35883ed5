"""Runs SQL and answers Arrow: time-outs, cancellation, streams and estimates, whichever warehouse there is.

What differs between warehouses is a `QueryEngine`: `duckdb_engine` over an immutable file, `snowflake_engine` over a
schema of an account. SQLAlchemy owns the connections of both (pool, checkout, disposal).
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Protocol, TypeVar

import pyarrow as pa

from api.catalog import ValueType
from api.errors import InternalFault, QueryTimeout
from api.filters import Value
from api.observation import observed

T = TypeVar("T")

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One SELECT, its values, how long it may take, and on whose behalf it runs, for a warehouse that notes that."""

    sql: str
    parameters: Mapping[str, Value]
    within: timedelta | None = None
    tag: Mapping[str, object] = field(default_factory=dict)


class QueryEngine(Protocol):
    """How one kind of warehouse runs a statement. Every method blocks, and raises errors of ours alone."""

    def run(self, statement: Statement, flight: Flight) -> pa.Table:
        """The rows of a statement."""

    def begin(
        self, statement: Statement, flight: Flight, batch_rows: int, closing: ExitStack
    ) -> tuple[pa.Schema, Callable[[], pa.RecordBatch | None]]:
        """The schema of a statement's rows, and what computes the next of them; `closing` ends it."""

    def cost(self, statement: Statement) -> int:
        """What the statement will cost; nothing runs."""

    def check_complete(self) -> None:
        """Return if the data is whole; raises `Unavailable`."""

    def close(self) -> None:
        """Close what is not in use."""


class Warehouse:
    """The read-only marts of one publication."""

    def __init__(self, engine: QueryEngine, *, limits: EngineLimits) -> None:
        self._engine = engine
        self._limits = limits
        # One thread for each connection, so that whoever has a thread has a connection. Who asks for more at once than
        # there are waits here, its time-out running: the service lets in no more than that (`api.admission`).
        self._threads = ThreadPoolExecutor(max_workers=limits.connections, thread_name_prefix="warehouse")
        # An estimate decides whether a query may queue, so it must not queue behind those that run.
        self._estimating = ThreadPoolExecutor(max_workers=1, thread_name_prefix="estimate")
        self._estimates: OrderedDict[tuple[object, ...], int] = OrderedDict()

    def check_complete(self) -> None:
        """Return if the data is whole. Blocks.

        Raises
        ------
        Unavailable
            It is not.
        """
        self._engine.check_complete()

    def column_types(self, relation: str, expressions: Mapping[str, str]) -> Mapping[str, ValueType]:
        """The types of named expressions over a relation. Blocks; for start-up only.

        Both come from the semantic manifest, which is ours, never from a caller.
        """
        columns = ", ".join(f'{expression} AS "{name}"' for name, expression in expressions.items())
        if not columns:
            return {}
        sql = f"SELECT {columns} FROM {relation} LIMIT 0"  # noqa: S608
        schema = self._engine.run(Statement(sql=sql, parameters={}), Flight()).schema
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
        flight, limit = Flight(), within or self._limits.query_timeout
        run = partial(self._engine.run, _tagged(sql, parameters, within=limit), flight)
        return await self._in_thread(run, flight, limit=limit)

    @asynccontextmanager
    async def stream(self, sql: str, parameters: Mapping[str, Value], *, batch_rows: int) -> AsyncIterator[RowStream]:
        """The answer of one SELECT, computed and held a batch at a time; takes a connection for the block's length.

        There is no time-out: whoever asks is cancelled, and the statement with it.

        Raises
        ------
        InvalidQuery
            As `query`; if rows have been answered by then, from the stream.
        """
        flight = Flight()
        with ExitStack() as closing:
            begin = partial(self._engine.begin, _tagged(sql, parameters), flight, batch_rows, closing)
            schema, next_batch = await self._in_thread(begin, flight)
            yield RowStream(schema, lambda: self._in_thread(next_batch, flight))

    async def _in_thread(self, work: Callable[[], T], flight: Flight, *, limit: timedelta | None = None) -> T:
        """What the work returns; where its time is up or the caller goes away, the flight's statement is stopped."""
        # Not `run_in_executor`, of which uvloop's asks each time whether the work is a coroutine function, 10 µs.
        running = asyncio.wrap_future(self._threads.submit(work))
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
            cost = await loop.run_in_executor(self._estimating, self._engine.cost, _tagged(sql, parameters))
            self._estimates[key] = cost
            if len(self._estimates) > _REMEMBERED_ESTIMATES:
                self._estimates.popitem(last=False)
        return self._estimates[key]

    def close(self) -> None:
        """Close every connection that is not in use."""
        self._threads.shutdown(wait=False)
        self._estimating.shutdown(wait=False)
        self._engine.close()


def _tagged(sql: str, parameters: Mapping[str, Value], *, within: timedelta | None = None) -> Statement:
    """The statement with the request that it is for: threads do not know it."""
    seen = observed()
    tag = {
        "principal": seen.principal and seen.principal.principal_id,
        "metrics": seen.query and seen.query.metrics,
        "request_id": seen.request_id or None,
    }
    known = {name: value for name, value in tag.items() if value}
    return Statement(sql=sql, parameters=parameters, within=within, tag=known)


def value_type(arrow: pa.DataType) -> ValueType:
    """What an Arrow column holds, in the catalog's words."""
    for is_of, type_ in _TYPES:
        if is_of(arrow):
            return type_
    return ValueType.STRING


_TYPES: tuple[tuple[Callable[[pa.DataType], bool], ValueType], ...] = (
    (pa.types.is_boolean, ValueType.BOOLEAN),
    (pa.types.is_integer, ValueType.INTEGER),
    # Both sum integers into 128 bits, which Arrow carries as a decimal without decimal places.
    (lambda arrow: pa.types.is_decimal(arrow) and arrow.scale == 0, ValueType.INTEGER),
    (pa.types.is_decimal, ValueType.DECIMAL),
    (pa.types.is_floating, ValueType.FLOAT),
    (pa.types.is_date, ValueType.DATE),
    (pa.types.is_timestamp, ValueType.TIMESTAMP),
)


async def _stopped(running: asyncio.Future[T], flight: Flight) -> None:
    """Return once the statement has stopped, however it ended; then its connection is back in the pool."""
    # Again and again: the engine forgets what it is told in the instant before a statement begins.
    while not running.done():
        flight.stop()
        await asyncio.wait((running,), timeout=_STOP_AGAIN_S)
    if not running.cancelled():
        running.exception()  # taken, as nobody else asks for it


class Flight:
    """One running statement, which another thread may stop at any time: before, while and after it runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._interrupt: Callable[[], None] | None = None
        self._is_stopped = False

    @contextmanager
    def watching(self, interrupt: Callable[[], None]) -> Iterator[None]:
        """For the length of the block, `interrupt` stops the statement; it may be called again and again."""
        with self._lock:
            if self._is_stopped:
                raise InternalFault("The statement was stopped before it began", hint="Report the request id.")
            self._interrupt = interrupt
        try:
            yield
        finally:
            with self._lock:
                # From here on the connection may serve somebody else's statement.
                self._interrupt = None

    def stop(self) -> None:
        """Have it end soon, or not begin."""
        with self._lock:
            self._is_stopped = True
            if self._interrupt is not None:
                self._interrupt()
