"""Where raw rows land: the tables of the `raw` schema, and the one door through which workers write them.

It is the only one that writes raw tables. What differs between warehouses is a `RawEngine`: how rows get in, who waits
for whom, and what an error means; `duckdb_raw` and `snowflake_raw` are the two.

Events come with offsets. The warehouse owns them: rows and the offset after them are one transaction, which first
looks whether the offset is still where the writer believes it. So a message is in the warehouse once, whoever was
killed, and whoever else believed to own the partition. `snowpipe` promises the same by other means.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from time import monotonic
from typing import Any, Final, Protocol, Self

import pyarrow as pa
from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    Table,
    and_,
    column,
    false,
    func,
    insert,
    or_,
    select,
    table,
    true,
    update,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import CreateSchema, CreateTable

from api.snowflake_account import SnowflakeAccount
from workers.duckdb_raw import DuckDbRaw
from workers.errors import SettingError, WarehouseError
from workers.locations import DuckDbFile, read_location
from workers.raw_tables import CONSUMER_OFFSETS, EVENT_TABLES, FILE_TABLES, LOAD_FILES, RAW, REJECTED_RECORDS
from workers.snowflake_raw import SnowflakeRaw

LOCK_TIMEOUT: Final = timedelta(seconds=90)
"""How long an operation waits for a taken warehouse: it has to outlast an outage of a minute."""

Place = tuple[str, int]
"""A partition: its topic, and its number."""

IN_CHANNEL: Final = -1
"""Instead of an offset: a channel of Snowpipe Streaming knows it, and nobody else."""


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

    @property
    def place(self) -> Place:
        """The partition."""
        return self.topic, self.partition


class RawEngine(Protocol):
    """What writing raw rows means in one kind of warehouse. Every method blocks."""

    def close(self) -> None:
        """Release what is held. Idempotent."""

    def connect(self) -> Connection:
        """A connection; waits for a warehouse that another process has taken, up to a time-box."""

    def reserved(self) -> AbstractContextManager[None]:
        """Where only one may work at a time, keep other workers off; raises `WarehouseLockedError`."""

    def prepare(self, connection: Connection) -> None:
        """Make what rows need beside their tables. Idempotent."""

    def prepare_events(self, connection: Connection) -> None:
        """Set a connection to events' small, frequent writes."""

    def take_turn(self, connection: Connection) -> None:
        """Within a transaction: return once nobody else writes, and nobody else will until it ends."""

    def append(
        self, connection: Connection, target: Table, batches: Iterable[pa.Table], **constants: str | datetime
    ) -> None:
        """Add rows to a table, within the transaction; the constants are columns that all of them share."""

    def refusal(self, error: SQLAlchemyError) -> WarehouseError:
        """The error in our words."""


class EventWriter(Protocol):
    """Moves partitions on, each with its rows. May be used from several threads, one after another; blocks."""

    def store(self, slices: Sequence[EventSlice]) -> frozenset[Place]:
        """Write rows and offsets of several partitions; the partitions that were left out come back.

        One is left out if the warehouse does not stand at its start: somebody else has written there meanwhile.

        Raises
        ------
        WarehouseError
            It refused, or waited for too long. Of each partition all is written, or nothing, or what comes before some
            message: it says which when it is asked again.

        """

    def close(self) -> None:
        """Let go of the warehouse, where somebody may wait for it. Idempotent."""


class Warehouse:
    """The raw schema of one warehouse.

    Every operation blocks, is one transaction, and waits for a warehouse that another process has taken.
    """

    def __init__(self, engine: RawEngine) -> None:
        """Keep the engine; `open_warehouse` knows which."""
        self._engine = engine

    def __enter__(self) -> Self:
        """Return the warehouse itself, to be closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the warehouse."""
        self.close()

    def close(self) -> None:
        """Release what the engine holds. Idempotent."""
        self._engine.close()

    def ensure_raw_tables(self) -> None:
        """Create the raw schema and those of its tables that are missing. Idempotent."""
        with self._transaction() as connection:
            if not _has_raw_schema(connection):  # on Snowflake the loader may make tables in it, but no schema
                connection.execute(CreateSchema("raw", if_not_exists=True))
            # Not MetaData.create_all: it looks the tables up by reflection, broken in duckdb-engine 0.17.
            for missing in RAW.sorted_tables:
                connection.execute(CreateTable(missing, if_not_exists=True))
            self._engine.prepare(connection)

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
            self._engine.take_turn(connection)
            if _read_all(connection, select(LOAD_FILES).where(LOAD_FILES.c.file_hash == parsed.file_hash)):
                return LoadOutcome.ALREADY_LOADED
            loaded_at = datetime.now(UTC).replace(tzinfo=None)
            append, kind_table = self._engine.append, FILE_TABLES[parsed.file_kind]
            append(connection, kind_table, parsed.good, file_hash=parsed.file_hash, loaded_at=loaded_at)
            append(connection, REJECTED_RECORDS, parsed.rejected, **parsed.origin, loaded_at=loaded_at)
            _record(connection, parsed, loaded_at)
        return LoadOutcome.LOADED

    def stream_positions(self) -> tuple[StreamPosition, ...]:
        """Return how far the warehouse is with every partition that it has heard of, in the order of their names."""
        with self._transaction() as connection:
            found = read_positions(connection)
        return self._known(found)

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
            if not read_positions(connection, [place]):
                raise SettingError(f"Nothing of {topic}/{partition} was loaded", hint="See: insight stream status")
            connection.execute(update(CONSUMER_OFFSETS).where(_is(place)).values(next_offset=offset))

    def event_offsets(self, places: Collection[Place]) -> Mapping[Place, int]:
        """Return the first offset that the warehouse lacks, for each of the partitions that it has heard of."""
        with self._transaction() as connection:
            found = read_positions(connection, places)
        return {each.place: each.next_offset for each in self._known(found)}

    def store_events(self, slices: Sequence[EventSlice]) -> frozenset[Place]:
        """Write slices as `EventWriter.store` does, in a transaction always, and let go of the warehouse."""
        writer = TransactionWriter(self, self._engine)
        try:
            return writer.store(slices)
        finally:
            writer.close()

    def event_writer(self) -> EventWriter:
        """Return a writer of events that may keep the warehouse from one call to the next; nothing is opened."""
        return TransactionWriter(self, self._engine)

    def _known(self, positions: Sequence[StreamPosition]) -> tuple[StreamPosition, ...]:
        """The positions, if it is the table that knows them.

        Raises
        ------
        SettingError
            A channel knows one of them, and no channels are configured here.
        """
        for each in positions:
            if each.next_offset == IN_CHANNEL:
                raise SettingError(
                    f"{each.topic}/{each.partition} is loaded by Snowpipe Streaming, which is not configured here",
                    hint="Set INSIGHT_SNOWFLAKE_STREAMING_URL; or take it back as docs/streaming.md says",
                )
        return tuple(positions)

    @contextmanager
    def reserved(self) -> Iterator[None]:
        """Keep every other worker off the warehouse for the time of the block, in which somebody else may open it.

        Raises
        ------
        WarehouseLockedError
            Another process kept the warehouse for longer than the time-box.

        """
        with self._engine.reserved():
            yield

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
                with self._engine.connect() as connection:
                    yield connection
            except SQLAlchemyError as error:
                raise self._engine.refusal(error) from error

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self.opened() as connection, connection.begin():
            yield connection


class TransactionWriter:
    """Writes events in transactions; keeps the warehouse from the first transaction until it is closed, or one fails.

    To open the file costs as much as to write 20,000 messages: DuckDB replays its log. So a consumer that has more to
    write keeps it for a moment.
    """

    def __init__(self, warehouse: Warehouse, engine: RawEngine) -> None:
        """Keep the warehouse; nothing is opened."""
        self._warehouse = warehouse
        self._engine = engine
        self._kept = ExitStack()
        self._connection: Connection | None = None

    def store(self, slices: Sequence[EventSlice]) -> frozenset[Place]:
        """Write rows and offsets of several partitions, in one transaction; the partitions left out come back.

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
                self._engine.take_turn(connection)
                return _store(connection, slices, self._engine)

    def close(self) -> None:
        """Let go of the warehouse. Idempotent."""
        self._connection = None
        self._kept.pop_all().close()

    def _open(self) -> Connection:
        if self._connection is None:
            connection = self._kept.enter_context(self._warehouse.opened())
            self._engine.prepare_events(connection)
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
        As `workers.locations.read_location` says.

    """
    match read_location(url):
        case DuckDbFile() as file:
            return Warehouse(DuckDbRaw(file.url, lock_timeout=lock_timeout))
        case SnowflakeAccount() as account:
            engine = SnowflakeRaw(account, lock_timeout=lock_timeout)
            if account.settings.streaming_url is None:
                return Warehouse(engine)
            from workers.snowpipe import Channels, SnowpipeWarehouse  # it is made of what is here

            return SnowpipeWarehouse(engine, Channels(account))


def _has_raw_schema(connection: Connection) -> bool:
    schemata = table("schemata", column("schema_name"), schema="information_schema").alias("s")
    found = select(func.count()).select_from(schemata).where(func.lower(schemata.c.schema_name) == str(RAW.schema))
    return bool(connection.execute(found).scalar_one())


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


def _store(connection: Connection, slices: Sequence[EventSlice], engine: RawEngine) -> frozenset[Place]:
    offsets = {each.place: each.next_offset for each in read_positions(connection, [each.place for each in slices])}
    current = [each for each in slices if offsets.get(each.place) == each.start]
    now = datetime.now(UTC).replace(tzinfo=None)
    for name in {each.event_table for each in current}:
        rows = pa.concat_tables(each.rows for each in current if each.event_table == name)
        engine.append(connection, EVENT_TABLES[name], (rows,), loaded_at=now)
    for each in current:
        if each.quarantine is not None:
            engine.append(connection, REJECTED_RECORDS, (each.quarantine,), loaded_at=now)
        _advance(connection, each, now)
    return frozenset(each.place for each in slices) - {each.place for each in current}


def read_positions(connection: Connection, places: Collection[Place] | None = None) -> tuple[StreamPosition, ...]:
    """What the table says of the partitions, of all without, in the order of their names."""
    columns = CONSUMER_OFFSETS.c
    wanted = or_(false(), *(_is(place) for place in places)) if places is not None else true()
    query = select(CONSUMER_OFFSETS).where(wanted).order_by(columns.kafka_topic, columns.kafka_partition)
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
        for row in _read_all(connection, query)
    )


def hand_to_channel(connection: Connection, place: Place, *, event_table: str) -> None:
    """Write that a channel knows how far the partition is, within a transaction that has the turn."""
    if read_positions(connection, [place]):
        connection.execute(update(CONSUMER_OFFSETS).where(_is(place)).values(next_offset=IN_CHANNEL))
        return
    first = {"rows_loaded": 0, "rows_rejected": 0, "updated_at": datetime.now(UTC).replace(tzinfo=None)}
    row = {"kafka_topic": place[0], "kafka_partition": place[1], "event_table": event_table, "next_offset": IN_CHANNEL}
    connection.execute(insert(CONSUMER_OFFSETS).values(**row, **first))


def _is(place: Place) -> ColumnElement[bool]:
    return and_(CONSUMER_OFFSETS.c.kafka_topic == place[0], CONSUMER_OFFSETS.c.kafka_partition == place[1])


def _advance(connection: Connection, each: EventSlice, now: datetime) -> None:
    columns = CONSUMER_OFFSETS.c
    if each.start is None:
        place = {"kafka_topic": each.topic, "kafka_partition": each.partition, "event_table": each.event_table}
        counts = {"rows_loaded": each.rows.num_rows, "rows_rejected": each.rejected}
        connection.execute(insert(CONSUMER_OFFSETS).values(**place, next_offset=each.end, **counts, updated_at=now))
        return
    connection.execute(
        update(CONSUMER_OFFSETS)
        .where(_is(each.place))
        .values(
            next_offset=each.end,
            rows_loaded=columns.rows_loaded + each.rows.num_rows,
            rows_rejected=columns.rows_rejected + each.rejected,
            updated_at=now,
        )
    )
