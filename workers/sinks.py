"""Where raw rows land: the tables of the `raw` schema, and the one door through which workers write them.

It is the only one that writes raw tables, and that knows which warehouse they are in. Today that is DuckDB. Another
dialect needs its own `_append` (on Snowflake a staged file and COPY) and `_is_lock`; tables, transactions and callers
stay.

DuckDB lets one process write *or* many read. So no connection outlives its operation: the file is free again
between two loads, and an operation that finds it taken waits, with growing pauses, up to a time-box. Those of ours
take turns by a lock file beside the warehouse, as dbt, which waits for nobody, must find it free (`reserved`).

Events come with offsets. The warehouse owns them: rows and the offset after them are one transaction, which first
looks whether the offset is still where the writer believes it. So a message is in the warehouse once, whoever was
killed, and whoever else believed to own the partition.
"""

import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from time import monotonic
from typing import Any, Final, Self

import pyarrow as pa
from filelock import FileLock, Timeout
from sqlalchemy import (
    URL,
    Connection,
    Engine,
    Row,
    Select,
    Table,
    and_,
    column,
    create_engine,
    func,
    insert,
    literal,
    make_url,
    or_,
    select,
    table,
    update,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateSchema, CreateTable
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from workers.errors import SettingError, WarehouseError, WarehouseLockedError
from workers.raw_tables import CONSUMER_OFFSETS, EVENT_TABLES, FILE_TABLES, LOAD_FILES, RAW, REJECTED_RECORDS

LOCK_TIMEOUT: Final = timedelta(seconds=90)
"""How long an operation waits for a taken warehouse: it has to outlast an outage of a minute."""

SHORTEST_LOCK_PAUSE_S: Final = 0.05
LONGEST_LOCK_PAUSE_S: Final = 2.0
"""A pause is drawn at random below a bound that doubles from the one to the other."""

_LOCK_SIGNS: Final = ("Could not set lock on file", "being used by another process")
_INCOMING: Final = "incoming_rows"

# By default DuckDB compresses and rewrites the last row group (123,000 rows) whenever the file is closed: 106 µs a
# row of 1 KB, where 20,000 were written at a time; 17 µs with these.
_EVENT_WRITING: Final = (
    "PRAGMA disable_checkpoint_on_shutdown",
    "SET checkpoint_threshold = '64MB'",
    "SET force_compression = 'uncompressed'",
    # Else it keeps what it can, up to most of the machine.
    "SET memory_limit = '384MB'",
    "SET enable_progress_bar = false",
)

Place = tuple[str, int]
"""A partition: its topic, and its number."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSlice:
    """Messages of one partition that follow on each other, decoded, ready to be written.

    Attributes
    ----------
    start
        Where the warehouse has to stand for them to be written; None, if it has not heard of the partition yet.
    end
        Where it stands afterwards.
    event_table
        A key of `EVENT_TABLES`.
    rows
        The messages that were taken, with the columns of an event table but `loaded_at`.
    rejected
        How many were not.
    quarantine
        Those that were not, with the columns of `raw.rejected_records` but `loaded_at`; None, if they went elsewhere.

    """

    topic: str
    partition: int
    start: int | None
    end: int
    event_table: str
    rows: pa.Table
    rejected: int = 0
    quarantine: pa.Table | None = None

    @property
    def place(self) -> Place:
        """The partition."""
        return self.topic, self.partition


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPosition:
    """How far the warehouse is with a partition: the first offset that it lacks, and what it took and rejected."""

    topic: str
    partition: int
    event_table: str
    next_offset: int
    rows_loaded: int
    rows_rejected: int
    updated_at: datetime


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
            for missing in RAW.sorted_tables:
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

    def stream_positions(self) -> tuple[StreamPosition, ...]:
        """Return how far the warehouse is with every partition that it has heard of, in the order of their names."""
        with self._transaction() as connection:
            order = (CONSUMER_OFFSETS.c.kafka_topic, CONSUMER_OFFSETS.c.kafka_partition)
            found = _read_all(connection, select(CONSUMER_OFFSETS).order_by(*order))
        return tuple(
            StreamPosition(
                topic=row.kafka_topic,
                partition=row.kafka_partition,
                event_table=row.event_table,
                next_offset=row.next_offset,
                rows_loaded=row.rows_loaded,
                rows_rejected=row.rows_rejected,
                updated_at=row.updated_at.replace(tzinfo=UTC),
            )
            for row in found
        )

    def loads_since(self, moment: datetime) -> Mapping[str, int]:
        """Return how many messages of each topic have been loaded since a moment (aware), for those that have any."""
        counts: dict[str, int] = {}
        with self._transaction() as connection:
            for events in EVENT_TABLES.values():
                since = events.c.loaded_at >= moment.astimezone(UTC).replace(tzinfo=None)
                query = select(events.c.kafka_topic, func.count()).where(since).group_by(events.c.kafka_topic)
                counts |= {row[0]: row[1] for row in _read_all(connection, query)}
        return counts

    def payloads_since(self, event_table: str, moment: datetime) -> tuple[str, ...]:
        """Return what the messages said that an event table has taken since a moment (aware)."""
        events = EVENT_TABLES[event_table].c
        since = events.loaded_at >= moment.astimezone(UTC).replace(tzinfo=None)
        with self._transaction() as connection:
            return tuple(row.payload for row in _read_all(connection, select(events.payload).where(since)))

    def skip_to(self, place: Place, offset: int) -> None:
        """Go on at an offset, whatever lies before it: an operator's decision, never a consumer's.

        Raises
        ------
        SettingError
            The warehouse has not heard of the partition.
        """
        topic, partition = place
        with self._transaction() as connection:
            if place not in _offsets(connection, [place]):
                raise SettingError(f"Nothing of {topic}/{partition} was loaded", hint="See: insight stream status")
            columns = CONSUMER_OFFSETS.c
            is_it = and_(columns.kafka_topic == topic, columns.kafka_partition == partition)
            connection.execute(update(CONSUMER_OFFSETS).where(is_it).values(next_offset=offset))

    def event_offsets(self, places: Collection[Place]) -> Mapping[Place, int]:
        """Return the first offset that the warehouse lacks, for each of the partitions that it has heard of."""
        with self._transaction() as connection:
            return _offsets(connection, places)

    def store_events(self, slices: Sequence[EventSlice]) -> frozenset[Place]:
        """Write slices as `EventWriter.store` does, and let go of the warehouse."""
        writer = self.event_writer()
        try:
            return writer.store(slices)
        finally:
            writer.close()

    def event_writer(self) -> "EventWriter":
        """Return a writer of events that may keep the warehouse from one transaction to the next; nothing is opened."""
        return EventWriter(self)

    @contextmanager
    def reserved(self) -> Iterator[None]:
        """Keep every other worker off the warehouse for the time of the block, in which somebody else may open it.

        Raises
        ------
        WarehouseLockedError
            Another process kept the warehouse for longer than the time-box.

        """
        # Not of one thread: a writer is closed by another one than opened it.
        patience_s = self._lock_timeout.total_seconds()
        lock = FileLock(f"{self._engine.url.database}.lock", timeout=patience_s, thread_local=False)
        try:
            lock.acquire()
        except Timeout as error:
            raise _locked(self._engine) from error
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def opened(self) -> Iterator[Connection]:
        """Yield a connection to the warehouse, which nobody else has for the time of the block.

        Raises
        ------
        WarehouseError
            It cannot be had, or refused a statement of the block.

        """
        with self.reserved():
            try:
                with self._connect() as connection:
                    yield connection
            except SQLAlchemyError as error:
                raise _as_warehouse_error(error, self._engine) from error

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self.opened() as connection, connection.begin():
            yield connection

    def _connect(self) -> Connection:
        attempts = Retrying(
            retry=retry_if_exception(_is_lock),
            wait=wait_random_exponential(multiplier=SHORTEST_LOCK_PAUSE_S, max=LONGEST_LOCK_PAUSE_S),
            stop=stop_after_delay(self._lock_timeout),
            reraise=True,
        )
        return attempts(self._engine.connect)


class EventWriter:
    """Writes events; keeps the warehouse from the first transaction until it is closed, or one fails.

    To open the file costs as much as to write 20,000 messages: DuckDB replays its log. So a consumer that has more to
    write keeps it for a moment. May be used from several threads, one after another.
    """

    def __init__(self, warehouse: Warehouse) -> None:
        """Keep the warehouse; nothing is opened."""
        self._warehouse = warehouse
        self._kept = ExitStack()
        self._connection: Connection | None = None

    def store(self, slices: Sequence[EventSlice]) -> frozenset[Place]:
        """Write rows and offsets of several partitions, in one transaction; the partitions left out come back.

        One is left out if the warehouse does not stand at its start: somebody else has written there meanwhile.

        Raises
        ------
        WarehouseLockedError
            Another process kept the warehouse for longer than the time-box.
        WarehouseError
            The warehouse refused a statement; nothing was committed.

        """
        with self._closed_on_error():
            connection = self._open()
            with connection.begin():
                return _store(connection, slices)

    def close(self) -> None:
        """Let go of the warehouse. Idempotent."""
        self._connection = None
        self._kept.pop_all().close()

    def _open(self) -> Connection:
        if self._connection is None:
            connection = self._kept.enter_context(self._warehouse.opened())
            for setting in _EVENT_WRITING:
                connection.exec_driver_sql(setting)
            connection.commit()
            self._connection = connection
        return self._connection

    @contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._connection = None
            # Within what was opened, so that the driver's error becomes ours.
            if not self._kept.pop_all().__exit__(*sys.exc_info()):
                raise


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


def _store(connection: Connection, slices: Sequence[EventSlice]) -> frozenset[Place]:
    offsets = _offsets(connection, [each.place for each in slices])
    current = [each for each in slices if offsets.get(each.place) == each.start]
    now = datetime.now(UTC).replace(tzinfo=None)
    for name in {each.event_table for each in current}:
        rows = pa.concat_tables(each.rows for each in current if each.event_table == name)
        _append(connection, EVENT_TABLES[name], rows, loaded_at=now)
    for each in current:
        if each.quarantine is not None:
            _append(connection, REJECTED_RECORDS, each.quarantine, loaded_at=now)
        _advance(connection, each, now)
    return frozenset(each.place for each in slices) - {each.place for each in current}


def _offsets(connection: Connection, places: Collection[Place]) -> Mapping[Place, int]:
    if not places:
        return {}
    table_ = CONSUMER_OFFSETS.c
    wanted = or_(*(and_(table_.kafka_topic == topic, table_.kafka_partition == number) for topic, number in places))
    rows = _read_all(connection, select(CONSUMER_OFFSETS).where(wanted))
    return {(row.kafka_topic, row.kafka_partition): row.next_offset for row in rows}


def _advance(connection: Connection, each: EventSlice, now: datetime) -> None:
    columns = CONSUMER_OFFSETS.c
    if each.start is None:
        place = {"kafka_topic": each.topic, "kafka_partition": each.partition, "event_table": each.event_table}
        counts = {"rows_loaded": each.rows.num_rows, "rows_rejected": each.rejected}
        connection.execute(insert(CONSUMER_OFFSETS).values(**place, next_offset=each.end, **counts, updated_at=now))
        return
    connection.execute(
        update(CONSUMER_OFFSETS)
        .where(columns.kafka_topic == each.topic, columns.kafka_partition == each.partition)
        .values(
            next_offset=each.end,
            rows_loaded=columns.rows_loaded + each.rows.num_rows,
            rows_rejected=columns.rows_rejected + each.rejected,
            updated_at=now,
        )
    )


def _is_lock(error: BaseException) -> bool:
    return isinstance(error, DBAPIError) and any(sign in str(error.orig) for sign in _LOCK_SIGNS)


def _as_warehouse_error(error: SQLAlchemyError, engine: Engine) -> WarehouseError:
    name = engine.url.database
    if _is_lock(error):
        return _locked(engine)
    cause = str(error.orig if isinstance(error, DBAPIError) else error).splitlines()[0]
    return WarehouseError(
        f"The warehouse {name} refused: {cause}",
        hint="Nothing was committed; check the file, its permissions and the free disk space, run again",
    )


def _locked(engine: Engine) -> WarehouseLockedError:
    return WarehouseLockedError(
        f"The warehouse {engine.url.database} is in use by another process",
        hint="Wait for the other run to end, or close the program that has it open, then run this again",
    )
