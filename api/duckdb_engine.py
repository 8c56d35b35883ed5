"""The marts of one publication in a DuckDB file, served hardened."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import duckdb
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.pool import QueuePool

from api.cost import estimated_cost
from api.errors import InternalFault, InvalidQuery, SemanticLayerError, Unavailable
from api.recent import Recent
from api.warehouse import EngineLimits, Flight, Statement, Warehouse

_HEADER_BYTES = 3 * 4096  # of a DuckDB file: the main header and two of the database

# Parsing takes a seventh of a typical query's time, and a shape comes again with other values.
_PARSED_BUDGET_BYTES = 8_000_000
_PARSED_BYTES_A_CHARACTER = 10  # measured over the questions of the benchmark

# To make Arrow of its rows, DuckDB's client runs a second statement over them: 0.2 to 0.3 ms, in which 50 rows of a few
# columns become Python's objects and then Arrow.
_FEW_ROWS = 50

# Those whose values are what they were after both steps: an interval, say, is not.
_PLAIN_TYPES = frozenset(
    {"boolean", "integer", "bigint", "hugeint", "decimal", "double", "varchar", "date", "timestamp"}
)


def open_file(file: Path, *, limits: EngineLimits) -> Warehouse:
    """The marts in the file, which never changes."""
    return Warehouse(DuckDbEngine(file, limits=limits), limits=limits)


class DuckDbEngine:
    """One file, read-only.

    No file or network access from SQL, no extensions, configuration locked: even SQL that got past the compiler reads
    these marts and nothing else. The rows are taken as Arrow straight from the driver, because a detour through Python
    objects costs more than most queries; where they are few, it costs less (`_Parsed.rows`).
    """

    def __init__(self, file: Path, *, limits: EngineLimits) -> None:
        if not file.is_file():
            raise Unavailable(
                f"The published data {file.name} is missing", hint="Publish again: insight pipeline publish"
            )
        # DuckDB suggests `sql(…)` for Arrow, at every query; see `run` why not.
        warnings.filterwarnings("ignore", message="Arrow output on a DB-API result", category=UserWarning)
        self._file = file
        self._limits = limits
        self._table_rows: Mapping[str, int] | None = None
        self._parsed: Recent[str, _Parsed] = Recent(_PARSED_BUDGET_BYTES)
        self._parsing = threading.Lock()
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
        """Return if the file is as long as it says; DuckDB reads a cut one until a query meets the gap."""
        sql = "SELECT total_blocks * block_size AS bytes FROM pragma_database_size()"
        sizes = self.run(Statement(sql=sql, parameters={}), Flight())
        if self._file.stat().st_size < sizes.column("bytes")[0].as_py() + _HEADER_BYTES:
            raise Unavailable("The published data is cut short", hint="Publish again: insight pipeline publish")

    def close(self) -> None:
        """Close every connection that is not in use; the engine lets the file go."""
        self._engine.dispose()

    def run(self, statement: Statement, flight: Flight) -> pa.Table:
        """The rows of a statement."""
        connection = self._connect()
        try:
            with self._statement(connection, flight) as duck:
                # Not `sql(…)`, which spares one copy of the rows but plans the statement twice: 0.3 to 2 ms.
                parsed = self._parse(duck, statement.sql)
                duck.execute(parsed.statement, dict(statement.parameters))
                return parsed.rows(duck)
        finally:
            connection.close()

    def begin(
        self, statement: Statement, flight: Flight, batch_rows: int, closing: ExitStack
    ) -> tuple[pa.Schema, Callable[[], pa.RecordBatch | None]]:
        """The schema of a statement's rows, and what computes the next of them."""
        connection = self._connect()
        closing.callback(connection.close)
        with self._statement(connection, flight) as duck:
            # Not `execute(…)`, which computes and holds all rows before the first is read.
            reader = duck.sql(statement.sql, params=dict(statement.parameters)).to_arrow_reader(batch_rows)
        closing.callback(reader.close)

        def next_batch() -> pa.RecordBatch | None:
            with self._statement(connection, flight):
                return next(reader, None)

        return reader.schema, next_batch

    def cost(self, statement: Statement) -> int:
        """What the statement will cost, as `api.cost` reckons it from its plan."""
        if self._table_rows is None:  # the file never changes
            sql = "SELECT schema_name || '.' || table_name AS name, estimated_size AS size FROM duckdb_tables()"
            tables = self.run(Statement(sql=sql, parameters={}), Flight())
            self._table_rows = {row["name"]: row["size"] for row in tables.to_pylist()}
        plan = self.run(replace(statement, sql=f"EXPLAIN (FORMAT json) {statement.sql}"), Flight())
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

    def _parse(self, duck: duckdb.DuckDBPyConnection, sql: str) -> _Parsed:
        with self._parsing:
            if (parsed := self._parsed.get(sql)) is None:
                (statement,) = duck.extract_statements(sql)
                parsed = _Parsed(statement)
                self._parsed.put(sql, parsed, size_bytes=_PARSED_BYTES_A_CHARACTER * len(sql))
            return parsed

    @contextmanager
    def _statement(self, connection: sa.PoolProxiedConnection, flight: Flight) -> Iterator[duckdb.DuckDBPyConnection]:
        """The driver's connection for work that the flight may stop; what it raises comes out as errors of ours."""
        # Not a cursor: SQLAlchemy's takes texts alone.
        duck = cast("duckdb.DuckDBPyConnection", connection.driver_connection)
        try:
            with flight.watching(duck.interrupt):
                yield duck
        # From Arrow: OSError around the engine's own words; the others about days that Python does not have.
        except (duckdb.Error, OSError, pa.ArrowException, OverflowError) as error:
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


class _Parsed:
    """A statement to be run with many values, and the schema of its rows while they are few."""

    def __init__(self, statement: duckdb.Statement) -> None:
        self.statement = statement
        # DuckDB's and Arrow's words for the same columns, in one piece as other threads read it.
        self._known: tuple[list[Any], pa.Schema] | None = None

    def rows(self, duck: duckdb.DuckDBPyConnection) -> pa.Table:
        """All rows of the run that the connection has just made."""
        columns, known = duck.description, self._known
        if known is None or known[0] != columns:
            return self._noted(columns, duck.to_arrow_table())
        table = _table(duck.fetchmany(_FEW_ROWS), known[1])
        if table.num_rows < _FEW_ROWS:
            return table
        return self._noted(columns, pa.concat_tables([table, duck.to_arrow_table()]))

    def _noted(self, columns: list[Any], table: pa.Table) -> pa.Table:
        is_small = table.num_rows < _FEW_ROWS and all(column[1].id in _PLAIN_TYPES for column in columns)
        self._known = (columns, table.schema) if is_small else None
        return table


def _table(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    if not rows:
        return schema.empty_table()
    columns = zip(*rows, strict=True)
    return pa.Table.from_arrays(
        [pa.array(values, part.type) for values, part in zip(columns, schema, strict=True)], schema=schema
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
