"""Where raw rows land: the tables of the `raw` schema, and the one door through which workers write them.

It is the only one that writes raw tables, and that knows which warehouse they are in. Today that is DuckDB. Another
dialect needs its own `_append` (on Snowflake a staged file and COPY) and `_is_lock`; tables, transactions and callers
stay.

DuckDB lets one process write *or* many read. So no connection outlives its operation: the file is free again
between two loads, and an operation that finds it taken waits, with growing pauses, up to a time-box.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from time import monotonic
from typing import Any, Final, Self

import pyarrow as pa
from sqlalchemy import (
    URL,
    BigInteger,
    Column,
    Connection,
    Date,
    DateTime,
    Double,
    Engine,
    Integer,
    MetaData,
    Numeric,
    Row,
    Select,
    String,
    Table,
    UniqueConstraint,
    column,
    create_engine,
    func,
    insert,
    literal,
    make_url,
    select,
    table,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateSchema, CreateTable
from sqlalchemy.types import TypeEngine
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from workers.errors import SettingError, WarehouseError, WarehouseLockedError

LOCK_TIMEOUT: Final = timedelta(seconds=90)
"""How long an operation waits for a taken warehouse: it has to outlast an outage of a minute."""

SHORTEST_LOCK_PAUSE_S: Final = 0.05
LONGEST_LOCK_PAUSE_S: Final = 2.0
"""A pause is drawn at random below a bound that doubles from the one to the other."""

_LOCK_SIGNS: Final = ("Could not set lock on file", "being used by another process")
_INCOMING: Final = "incoming_rows"

_METADATA: Final = MetaData(schema="raw")


# Any: a row of columns mixes integers, texts, dates and decimals.
def _file_table(name: str, **columns: TypeEngine[Any]) -> Table:
    origin: dict[str, TypeEngine[Any]] = {
        "file_hash": String(),
        "line_number": BigInteger(),
        "loaded_at": DateTime(),
    }
    every = {**columns, **origin}
    return Table(name, _METADATA, *(Column(key, kind, nullable=False) for key, kind in every.items()))


def _event_table(name: str) -> Table:
    events = Table(
        name,
        _METADATA,
        Column("kafka_topic", String, nullable=False),
        Column("kafka_partition", Integer, nullable=False),
        Column("kafka_offset", BigInteger, nullable=False),
        Column("message_key", String),
        Column("schema_version", Integer, nullable=False),
        Column("payload", String, nullable=False),
        Column("event_at", DateTime, nullable=False),
        Column("loaded_at", DateTime, nullable=False),
    )
    events.append_constraint(UniqueConstraint("kafka_topic", "kafka_partition", "kafka_offset"))
    return events


FILE_TABLES: Final[Mapping[str, Table]] = {
    made.name: made
    for made in (
        _file_table(
            "online_sales",
            customer_id=BigInteger(),
            transaction_id=BigInteger(),
            transaction_date=Date(),
            product_sku=String(),
            product_description=String(),
            product_category=String(),
            quantity=Integer(),
            avg_price=Numeric(18, 2),
            delivery_charges=Numeric(18, 2),
            coupon_status=String(),
        ),
        _file_table(
            "customers",
            customer_id=BigInteger(),
            gender=String(),
            location=String(),
            tenure_months=Integer(),
        ),
        _file_table(
            "discount_coupons",
            coupon_month=Integer(),
            product_category=String(),
            coupon_code=String(),
            discount_pct=Numeric(5, 2),
        ),
        _file_table(
            "marketing_spend",
            spend_date=Date(),
            offline_spend=Numeric(18, 2),
            online_spend=Numeric(18, 2),
        ),
        _file_table("tax_amounts", product_category=String(), gst=Numeric(5, 4)),
    )
}
"""The table of each file kind, by the kind's name."""

EVENT_TABLES: Final[Mapping[str, Table]] = {
    made.name: made for made in map(_event_table, ("bitcoin_events", "news_events", "sales_events"))
}

LOAD_FILES: Final = Table(
    "load_files",
    _METADATA,
    # The key makes "a file is loaded once" a promise of the warehouse, not only of this code.
    Column("file_hash", String, primary_key=True),
    Column("file_name", String, nullable=False),
    Column("file_kind", String, nullable=False),
    Column("load_id", BigInteger, nullable=False, unique=True),
    Column("rows_read", BigInteger, nullable=False),
    Column("rows_loaded", BigInteger, nullable=False),
    Column("rows_quarantined", BigInteger, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("loaded_at", DateTime, nullable=False),
)

REJECTED_RECORDS: Final = Table(
    "rejected_records",
    _METADATA,
    Column("file_hash", String, nullable=False),
    Column("file_name", String, nullable=False),
    Column("file_kind", String, nullable=False),
    Column("line_number", BigInteger, nullable=False),
    Column("column_name", String),
    Column("reason", String, nullable=False),
    Column("raw_value", String, nullable=False),
    Column("loaded_at", DateTime, nullable=False),
)


class LoadOutcome(StrEnum):
    """What a load did."""

    LOADED = "loaded"
    ALREADY_LOADED = "already loaded"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedFile:
    """One file, read and checked, ready to be written.

    Attributes
    ----------
    file_kind
        A key of `FILE_TABLES`.
    started
        `time.monotonic()` at the start of reading: the recorded seconds count from there.
    good
        Batches with the table's own columns and `line_number`. Read once, while the transaction is open.
    rejected
        Batches with `line_number`, `column_name`, `reason`, `raw_value`. Read once, like `good`.

    """

    file_hash: str
    file_name: str
    file_kind: str
    started: float
    rows_read: int
    rows_loaded: int
    rows_quarantined: int
    good: Iterable[pa.Table]
    rejected: Iterable[pa.Table]

    @property
    def origin(self) -> dict[str, str]:
        """Which file it is, as the columns of the record tables."""
        return {"file_hash": self.file_hash, "file_name": self.file_name, "file_kind": self.file_kind}


class Warehouse:
    """The raw schema of one warehouse.

    Every operation blocks, is one transaction, and waits for a warehouse that another process has taken.
    """

    def __init__(self, engine: Engine, *, lock_timeout: timedelta) -> None:
        """Keep the engine; `open_warehouse` makes one that closes its connections at once."""
        self._engine = engine
        self._lock_timeout = lock_timeout

    def __enter__(self) -> Self:
        """Return the warehouse itself, to be closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the warehouse."""
        self.close()

    def close(self) -> None:
        """Release what the engine holds. Idempotent."""
        self._engine.dispose()

    def ensure_raw_tables(self) -> None:
        """Create the raw schema and those of its tables that are missing. Idempotent."""
        with self._transaction() as connection:
            connection.execute(CreateSchema("raw", if_not_exists=True))
            # Not MetaData.create_all: it looks the tables up by reflection, broken in duckdb-engine 0.17.
            for missing in _METADATA.sorted_tables:
                connection.execute(CreateTable(missing, if_not_exists=True))

    def loaded_hashes(self) -> Mapping[str, str]:
        """Return the kind of every loaded file, by the hash of its content."""
        with self._transaction() as connection:
            rows = _read_all(connection, select(LOAD_FILES.c.file_hash, LOAD_FILES.c.file_kind))
        return {row.file_hash: row.file_kind for row in rows}

    def load(self, parsed: ParsedFile) -> LoadOutcome:
        """Write a file's rows, its rejected rows and its record: all of them or, on any error, none.

        Idempotent: a file whose hash is recorded is left as it is.

        Raises
        ------
        WarehouseLockedError
            Another process kept the warehouse for longer than the time-box.
        WarehouseError
            The warehouse refused a statement.

        """
        with self._transaction() as connection:
            if _read_all(connection, select(LOAD_FILES).where(LOAD_FILES.c.file_hash == parsed.file_hash)):
                return LoadOutcome.ALREADY_LOADED
            loaded_at = datetime.now(UTC).replace(tzinfo=None)
            kind_table = FILE_TABLES[parsed.file_kind]
            for rows in parsed.good:
                _append(connection, kind_table, rows, file_hash=parsed.file_hash, loaded_at=loaded_at)
            for rows in parsed.rejected:
                _append(connection, REJECTED_RECORDS, rows, **parsed.origin, loaded_at=loaded_at)
            _record(connection, parsed, loaded_at)
        return LoadOutcome.LOADED

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with self._connect() as connection, connection.begin():
                yield connection
        except SQLAlchemyError as error:
            raise _as_warehouse_error(error, self._engine) from error

    def _connect(self) -> Connection:
        attempts = Retrying(
            retry=retry_if_exception(_is_lock),
            wait=wait_random_exponential(multiplier=SHORTEST_LOCK_PAUSE_S, max=LONGEST_LOCK_PAUSE_S),
            stop=stop_after_delay(self._lock_timeout),
            reraise=True,
        )
        return attempts(self._engine.connect)


def open_warehouse(url: str, *, lock_timeout: timedelta = LOCK_TIMEOUT) -> Warehouse:
    """Return the warehouse at a SQLAlchemy URL, without connecting to it yet.

    The folder of a DuckDB file is made if it is missing; a relative path starts at the working directory.

    Raises
    ------
    SettingError
        As `read_warehouse_url` says.

    """
    parsed = read_warehouse_url(url)
    Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
    return Warehouse(create_engine(parsed, poolclass=NullPool), lock_timeout=lock_timeout)


def read_warehouse_url(url: str) -> URL:
    """Return the URL in its parts; its `database` is the path of a DuckDB file.

    Raises
    ------
    SettingError
        The URL cannot be read, names a dialect that is not supported, or names no file.

    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:  # the latter for a port that is no number
        # The URL may hold a password: it is not repeated.
        message = "The warehouse URL cannot be read"
        raise SettingError(message, hint=_URL_HINT) from error
    if parsed.get_backend_name() != "duckdb":
        message = f"The warehouse dialect '{parsed.get_backend_name()}' is not supported"
        raise SettingError(message, hint=_URL_HINT)
    if not parsed.database or parsed.database.startswith(":memory:"):
        # Another process (dbt) reads what is written here, and memory cannot be shared.
        message = "The warehouse URL names no file"
        raise SettingError(message, hint=_URL_HINT)
    return parsed


_URL_HINT: Final = "Set INSIGHT_WAREHOUSE_URL to a DuckDB file, such as duckdb:///.insight/warehouse.duckdb"


def _append(connection: Connection, target: Table, rows: pa.Table, **constants: str | datetime) -> None:
    # A registered Arrow table is read by DuckDB where it lies; rows as parameters would go in one by one.
    driver = connection.connection.driver_connection
    driver.register(_INCOMING, rows)  # type: ignore[union-attr]  # DuckDB's own connection, which has no type here
    incoming = table(_INCOMING, *map(column, rows.column_names))
    values = [*incoming.c, *(literal(value).label(key) for key, value in constants.items())]
    connection.execute(insert(target).from_select([*rows.column_names, *constants], select(*values)))
    # Not in a finally: after an error the transaction refuses this too, and would hide the error.
    driver.unregister(_INCOMING)  # type: ignore[union-attr]  # as above


def _read_all(connection: Connection, query: Select[Any]) -> Sequence[Row[Any]]:  # Any: the row's columns differ
    # To the last row: DuckDB refuses other work on a connection whose result was left half read.
    return connection.execute(query).all()


def _record(connection: Connection, parsed: ParsedFile, loaded_at: datetime) -> None:
    ((last_id,),) = _read_all(connection, select(func.coalesce(func.max(LOAD_FILES.c.load_id), 0)))
    connection.execute(
        insert(LOAD_FILES).values(
            **parsed.origin,
            load_id=last_id + 1,
            rows_read=parsed.rows_read,
            rows_loaded=parsed.rows_loaded,
            rows_quarantined=parsed.rows_quarantined,
            seconds=monotonic() - parsed.started,
            loaded_at=loaded_at,
        )
    )


def _is_lock(error: BaseException) -> bool:
    return isinstance(error, DBAPIError) and any(sign in str(error.orig) for sign in _LOCK_SIGNS)


def _as_warehouse_error(error: SQLAlchemyError, engine: Engine) -> WarehouseError:
    name = engine.url.database
    if _is_lock(error):
        return WarehouseLockedError(
            f"The warehouse {name} is in use by another process",
            hint="Wait for the other run to end, or close the program that has it open, then run this again",
        )
    cause = str(error.orig if isinstance(error, DBAPIError) else error).splitlines()[0]
    return WarehouseError(
        f"The warehouse {name} refused: {cause}",
        hint="Nothing was committed; check the file, its permissions and the free disk space, run again",
    )
