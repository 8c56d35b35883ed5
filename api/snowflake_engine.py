"""The marts of one publication in a schema of a Snowflake account, asked over sessions that outlive the publication."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from math import ceil
from typing import TYPE_CHECKING, Any, Final, cast

import pyarrow as pa
import sqlalchemy as sa
import structlog
from sqlalchemy.pool import QueuePool

from api.errors import InternalFault, InvalidQuery, QueryTimeout, SemanticLayerError, Unavailable
from api.filters import Value
from api.snowflake_account import SnowflakeAccount
from api.warehouse import EngineLimits, Flight, Statement

if TYPE_CHECKING:
    from snowflake.connector.cursor import SnowflakeCursor

_log = structlog.get_logger(__name__)

_LONGEST: Final = timedelta(hours=1)  # an export; a query has less time
_NETWORK: Final = timedelta(minutes=1)  # a request that gets no answer, but for a statement's own
_CANCELLED_WITHIN: Final = timedelta(seconds=5)
_CANCELLERS: Final = 4
_RETRY: Final = timedelta(seconds=5)
_TAG_LENGTH: Final = 2000  # of Snowflake's
_ROW_COUNTS: Final = frozenset(("limit", "offset"))

# https://docs.snowflake.com/en/user-guide/python-connector-api#label-python-connector-type-codes
_TYPES: Final[Mapping[int, pa.DataType]] = {
    1: pa.float64(),
    2: pa.string(),
    3: pa.date32(),
    4: pa.timestamp("us"),
    6: pa.timestamp("us", tz="UTC"),
    7: pa.timestamp("us", tz="UTC"),
    8: pa.timestamp("us"),
    12: pa.time64("us"),
    13: pa.bool_(),
}
_FIXED: Final = 0

_OUT_OF_TIME: Final = frozenset((630, 631))
_NO_SUCH_OBJECT: Final = 2003
# A time, a boolean, a number or a date that the field cannot hold.
_OUT_OF_RANGE: Final = frozenset((100035, 100037, 100038, 100039, 100040, 100046))


class SnowflakeSessions:
    """The sessions of this process, shared by all publications that it serves: to sign in takes a second."""

    def __init__(self, account: SnowflakeAccount, *, limits: EngineLimits) -> None:
        """Keep the account; nothing is opened."""
        self.limits = limits
        self._engine = account.engine(
            longest=_NETWORK,
            autocommit=True,  # every statement is a SELECT
            # A second wall, should this process die while a statement runs.
            session={"STATEMENT_TIMEOUT_IN_SECONDS": int(_LONGEST.total_seconds())},
            poolclass=QueuePool,
            pool_size=limits.connections + 1,
            max_overflow=0,
            pool_recycle=3 * 3600,
            pool_reset_on_return=None,
        )
        self._cancelling = ThreadPoolExecutor(max_workers=_CANCELLERS, thread_name_prefix="cancel")

    @contextmanager
    def cursor(self, closing: ExitStack) -> Iterator[SnowflakeCursor]:
        """A cursor of a session that nobody else has until `closing`; one that failed the block is signed out.

        Raises
        ------
        Unavailable
            Snowflake cannot be reached, or does not let us in.
        """
        from snowflake.connector import errors

        try:
            session = self._engine.raw_connection()
        except (sa.exc.SQLAlchemyError, errors.Error, OSError) as error:
            _log.warning("snowflake_sign_in_failed", reason=f"{type(error).__name__}: {error}"[:500])
            raise Unavailable(
                "Snowflake does not let the service in",
                hint="Try again; an operator finds the reason in the log, and checks INSIGHT_WAREHOUSE_URL.",
                retry_after=_RETRY,
            ) from error
        closing.callback(session.close)
        try:
            yield cast("SnowflakeCursor", session.cursor())
        except Unavailable:
            session.invalidate()
            raise

    def canceller(self, cursor: SnowflakeCursor, sql: str) -> Callable[[], None]:
        """What asks Snowflake to cancel the cursor's statement; returns at once, and asks once at a time."""
        asked: Future[Any] | None = None

        def cancel() -> None:
            nonlocal asked
            if asked is None or asked.done():
                # The connector's own way after a time-out; it has no public one that does without a query id, which
                # only a finished statement has. Pinned, and kept by tests/api/test_snowflake_engine.py.
                connection: Any = cursor.connection
                asked = self._cancelling.submit(connection._cancel_query, sql, cursor._request_id)  # noqa: SLF001

        return cancel

    def close(self) -> None:
        """Sign out."""
        self._cancelling.shutdown(wait=False)
        self._engine.dispose()


class SnowflakeEngine:
    """One schema of marts.

    Statements name their tables with the schema, so sessions need none of their own. Values are bound in the
    warehouse; rows come as Arrow, in types that depend on the columns alone, whereas the connector's narrow down to
    what a batch of rows happens to need.
    """

    def __init__(self, sessions: SnowflakeSessions, *, schema: str, table_rows: Mapping[str, int]) -> None:
        """Keep where the marts are, and how many rows each has."""
        self._sessions = sessions
        self._schema = schema
        self._table_rows = {f"{schema}.{name}".upper(): rows for name, rows in table_rows.items()}

    def check_complete(self) -> None:
        """Return if every mart is there; raises `Unavailable`."""
        sql = "SELECT table_name FROM information_schema.tables WHERE table_schema = %(schema)s"
        found = self.run(Statement(sql=sql, parameters={"schema": self._schema.upper()}), Flight()).column(0)
        if self._table_rows.keys() - {f"{self._schema}.{name}".upper() for name in found.to_pylist()}:
            raise Unavailable(
                f"The schema {self._schema} is gone or incomplete",
                hint="Publish again, or go back: insight pipeline rollback",
            )

    def run(self, statement: Statement, flight: Flight) -> pa.Table:
        """The rows of a statement."""
        with ExitStack() as closing, self._running(statement, flight, closing) as cursor:
            schema = _schema(cursor)
            rows = cursor.fetch_arrow_all(force_return_table=True, force_microsecond_precision=True)
            return rows.rename_columns(schema.names).cast(schema)

    def begin(
        self, statement: Statement, flight: Flight, batch_rows: int, closing: ExitStack
    ) -> tuple[pa.Schema, Callable[[], pa.RecordBatch | None]]:
        """The schema of a statement's rows, and what fetches the next of them."""
        with self._running(statement, flight, closing) as cursor:
            schema = _schema(cursor)
            batches = (
                batch
                for rows in cursor.fetch_arrow_batches(force_microsecond_precision=True)
                for batch in rows.rename_columns(schema.names).cast(schema).to_batches(batch_rows)
            )
        stop = self._sessions.canceller(cursor, statement.sql)

        def next_batch() -> pa.RecordBatch | None:
            with flight.watching(stop), _our_errors():
                return next(batches, None)

        return schema, next_batch

    def cost(self, statement: Statement) -> int:
        """The rows of the partitions that the statement reads; Snowflake's plan estimates nothing above that."""
        explained = replace(statement, sql=f"EXPLAIN USING JSON {statement.sql}")
        plan = json.loads(self.run(explained, Flight()).column(0)[0].as_py())
        scans = (each for step in plan["Operations"] for each in step if each["operation"] == "TableScan")
        return sum(self._read_rows(scan) for scan in scans)

    def close(self) -> None:
        """Nothing: the sessions serve other publications."""

    def _read_rows(self, scan: Mapping[str, Any]) -> int:
        name = ".".join(scan["objects"][0].replace('"', "").upper().split(".")[-2:])
        partitions = max(1, int(scan["partitionsTotal"]))
        return self._table_rows.get(name, 0) * int(scan["partitionsAssigned"]) // partitions

    @contextmanager
    def _running(self, statement: Statement, flight: Flight, closing: ExitStack) -> Iterator[SnowflakeCursor]:
        """A cursor that has run the statement, which the flight may stop."""
        sql, values = _bound(statement)
        tag = {"QUERY_TAG": json.dumps(statement.tag)[:_TAG_LENGTH]} if statement.tag else {}
        with (
            self._sessions.cursor(closing) as cursor,
            _our_errors(),
            flight.watching(self._sessions.canceller(cursor, sql)),
        ):
            # Else the connector would go on asking an account that does not answer, whoever has given up long ago.
            patience = statement.within + _CANCELLED_WITHIN if statement.within else _LONGEST
            cursor.execute(sql, values, timeout=ceil(patience.total_seconds()), _statement_params=tag)
            yield cursor


def _bound(statement: Statement) -> tuple[str, list[Value] | None]:
    """The text with a question mark for each value, and the values in their order."""
    if not statement.parameters:
        return statement.sql, None
    places = _Places(statement.parameters)
    return statement.sql % places, places.values_in_order


class _Places(dict[str, Value]):
    """What a placeholder becomes in the text; remembers the values in the order in which they are asked for."""

    def __init__(self, parameters: Mapping[str, Value]) -> None:
        super().__init__(parameters)
        self.values_in_order: list[Value] = []

    def __getitem__(self, name: str) -> str:
        value = super().__getitem__(name)
        if name in _ROW_COUNTS:  # Snowflake takes no bound value behind LIMIT and OFFSET; these are our own integers
            return str(int(cast("int", value)))
        # Its driver writes a decimal as Python does, which may be 1E+2.
        self.values_in_order.append(Decimal(f"{value:f}") if isinstance(value, Decimal) else value)
        return "?"


def _schema(cursor: SnowflakeCursor) -> pa.Schema:
    """The columns of the cursor's answer: types that do not depend on its rows, names in lower case, as asked."""
    return pa.schema([(column.name.lower(), _type(column)) for column in cursor.description])


def _type(column: Any) -> pa.DataType:  # noqa: ANN401 - a named tuple of the connector's
    if column.type_code != _FIXED:
        return _TYPES.get(column.type_code, pa.string())
    # Every integer column has 38 digits here, a key too, whatever was asked for when it was made.
    return pa.decimal128(38, column.scale) if column.scale else pa.int64()


@contextmanager
def _our_errors() -> Iterator[None]:
    """What the driver raises in the block comes out as errors of ours."""
    from snowflake.connector import errors

    try:
        yield
    except (errors.Error, OSError, pa.ArrowInvalid) as error:
        raise _refusal(error) from error


def _refusal(error: Exception) -> SemanticLayerError:
    from snowflake.connector import errors

    number = getattr(error, "errno", None)
    if number in _OUT_OF_RANGE or isinstance(error, pa.ArrowInvalid):  # the latter: an integer of more than 64 bits
        return InvalidQuery(
            "A value of the query is out of the range of its field", hint="Use a value that the field can hold."
        )
    if number in _OUT_OF_TIME:
        return QueryTimeout("Snowflake stopped the query: it ran too long", hint="Ask for a shorter time range.")
    if number == _NO_SUCH_OBJECT or isinstance(error, errors.OperationalError | errors.InterfaceError | OSError):
        return Unavailable("Snowflake cannot answer now", hint="Ask again.", retry_after=_RETRY)
    return InternalFault("The warehouse refused the query", hint="Report the request id.", code="warehouse_error")
