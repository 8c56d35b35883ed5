"""Events through Snowpipe Streaming: a channel for each partition, whose offset token says how far it is.

Rows and token are committed together, in the order in which they were appended. Whoever opens a channel has it: what
another one appends from then on is refused. So to open it, to compare its token with where one believes to be, and to
append, is what a transaction does elsewhere (ADR 35). `raw.consumer_offsets` says of such a partition only that a
channel knows.

The SDK is an extra, takes a second to import, and is told by the environment where to log.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from time import monotonic, sleep
from typing import Any, Final

import pyarrow as pa
from sqlalchemy import Dialect

from api.snowflake_account import SnowflakeAccount
from workers.errors import EventsLost, WarehouseError
from workers.raw_tables import EVENT_TABLES
from workers.sinks import (
    IN_CHANNEL,
    EventSlice,
    EventWriter,
    Place,
    RawEngine,
    StreamPosition,
    Warehouse,
    hand_to_channel,
    read_positions,
)

_COMMITTED_WITHIN: Final = timedelta(seconds=30)  # Snowflake promises 5 to 10
_FLUSHED_WITHIN_S: Final = 30
_LOOK_EVERY_S: Final = 0.1  # at what the SDK asks for every second
_PIECE_BYTES: Final = 8 * 2**20  # of a batch in the SDK's memory, which refuses more than it thinks the machine has

_NOTHING_YET: Final = -1
"""The offset in the token of a channel through which nothing was passed yet: one without a token is gone."""

# A row that the pipe leaves out: it moves the token on past messages that were all rejected, in its turn like any row.
_PASSING: Final[dict[str, Any]] = {}

_PROPERTIES: Final = {
    "enable_telemetry_reporting": "false",
    # By default it tries for five minutes; a consumer wants to say that it waits.
    "mgmt_retry_total_backoff_seconds": "5",
    "mgmt_http_timeout_seconds": "20",
    "data_http_timeout_seconds": "20",
    "data_retry_total_backoff_seconds": "20",
    # A channel whose former owner has rows under way cannot be opened before they are committed.
    "open_channel_409_retry_total_backoff_seconds": "20",
}


@dataclass(slots=True, kw_only=True)
class Channel:
    """A partition's channel, opened by us; somebody else may have opened it since.

    Attributes
    ----------
    position
        Where it stood when it was opened, or where we last moved it.
    refused
        How many rows Snowflake has left out of it that an operator knows of.

    """

    place: Place
    event_table: str
    sdk: Any  # the SDK ships no types
    position: StreamPosition
    refused: int

    @property
    def next_offset(self) -> int | None:
        """Where it stands, as an `EventSlice` starts."""
        return None if self.position.next_offset == _NOTHING_YET else self.position.next_offset

    def append(self, each: EventSlice) -> None:
        """Send the rows of a slice that starts where the channel stands; to be committed with its end."""
        now = datetime.now(UTC)
        *before, last = _pieces(each.rows, loaded_at=now.replace(tzinfo=None))
        for piece in before:
            self._send(piece, self._moved(piece[-1]["kafka_offset"] + 1, loaded=len(piece), now=now))
        end = self._moved(each.end, loaded=len(last), rejected=each.rejected, now=now)
        self._send(last or [_PASSING], end)

    def wait(self) -> None:
        """Return when what was appended is committed.

        Raises
        ------
        WarehouseError
            It is not, for too long.
        EventsLost
            Snowflake left rows out.
        """
        deadline = monotonic() + _COMMITTED_WITHIN.total_seconds()
        # Equal, not past: the SDK may still tell of the time before somebody moved the token back.
        token = _token(self.position, refused=self.refused)
        while (status := self.sdk.get_channel_status()).latest_committed_offset_token != token:
            if monotonic() > deadline or status.status_code not in ("SUCCESS", "ACTIVE"):
                raise WarehouseError(
                    f"Snowflake has not committed what was sent of {_name(self.place)} ({status.status_code})",
                    hint="It is looked up, and sent again if it is not there",
                )
            sleep(_LOOK_EVERY_S)
        self.refuse_loss(status.rows_error_count)

    def refuse_loss(self, refused: int) -> None:
        """Raise `EventsLost` if Snowflake has left out rows that no operator knows of."""
        if refused > self.refused:
            topic, partition = self.place
            raise EventsLost(
                f"Snowflake left out {refused - self.refused} rows of {_name(self.place)} that were sent",
                hint="They are in the error table, if there is one; mend the table or its pipe, then go on after them: "
                f"insight stream skip {topic} {partition} {self.position.next_offset}",
            )

    def _moved(self, end: int, *, loaded: int, rejected: int = 0, now: datetime) -> StreamPosition:
        loaded, rejected = self.position.rows_loaded + loaded, self.position.rows_rejected + rejected
        return replace(self.position, next_offset=end, rows_loaded=loaded, rows_rejected=rejected, updated_at=now)

    def _send(self, rows: Sequence[Mapping[str, Any]], after: StreamPosition) -> None:
        self.sdk.append_rows(rows, *(_token(each, refused=self.refused) for each in (self.position, after)))
        self.sdk.wait_for_flush(_FLUSHED_WITHIN_S)
        self.position = after


class Channels:
    """The channels of an account, as the SDK opens them; it signs in, for each pipe, when that is first needed."""

    def __init__(self, account: SnowflakeAccount) -> None:
        """Keep the account; nothing is opened."""
        self._account = account
        self._clients: dict[str, Any] = {}  # by event table
        self._opened: dict[Place, Channel] = {}

    def positions(self, partitions: Sequence[StreamPosition]) -> tuple[StreamPosition, ...]:
        """Where the channels of partitions stand, but those that are gone; nothing is opened."""
        found = []
        with self.asked():
            for table in sorted({each.event_table for each in partitions}):
                places = [each.place for each in partitions if each.event_table == table]
                statuses = self._client(table).get_channel_statuses([_name(place) for place in places])
                tokens = {place: statuses[_name(place)].latest_committed_offset_token for place in places}
                found += [_read(token, place, table)[0] for place, token in tokens.items() if token]
        return tuple(found)

    def opened(self, place: Place) -> Channel | None:
        """The partition's channel, if we have opened it."""
        return self._opened.get(place)

    def open(self, place: Place, event_table: str, *, at: StreamPosition | None = None) -> Channel:
        """The partition's channel, ours from now on, and put where it is told to be, whatever it says itself.

        Raises
        ------
        WarehouseError
            It cannot be opened now.
        EventsLost
            It is gone, and was not told where to be; or Snowflake has left rows out.
        """
        with self.asked():
            if (former := self._opened.pop(place, None)) is not None:
                former.sdk.close(wait_for_flush=False)
            client, name = self._client(event_table), _name(place)
            sdk, status = client.open_channel(name)
            if at is not None:  # whoever says where knows of what was left out so far
                sdk.close(wait_for_flush=False)
                sdk, status = client.open_channel(name, _token(at, refused=status.rows_error_count))
            if not (token := status.latest_committed_offset_token):
                raise _gone(place, event_table)
            position, refused = _read(token, place, event_table)
            channel = Channel(place=place, event_table=event_table, sdk=sdk, position=position, refused=refused)
            channel.refuse_loss(status.rows_error_count)
        self._opened[place] = channel
        return channel

    def close(self) -> None:
        """Forget all channels, and what was appended and not committed. Idempotent."""
        # Left to the SDK, a channel that is forgotten waits until its rows are sent, where nobody takes them too.
        for held in (*(channel.sdk for channel in self._opened.values()), *self._clients.values()):
            with suppress(_sdk().StreamingIngestError, TimeoutError):  # it may be invalid already
                held.close(wait_for_flush=False, timeout_seconds=0)
        self._opened.clear()
        self._clients.clear()

    @contextmanager
    def asked(self) -> Iterator[None]:
        """What the SDK refuses in the block, in our words; then all is opened anew the next time.

        Raises
        ------
        WarehouseError
            It refused something. What of it was written says the token.
        """
        try:
            yield
        except WarehouseError:
            self.close()
            raise
        except (_sdk().StreamingIngestError, TimeoutError) as error:
            self.close()
            raise WarehouseError(
                f"Snowpipe Streaming refused: {' '.join(str(error).split())[:500]}",
                hint="What is not committed is sent again; check INSIGHT_SNOWFLAKE_STREAMING_URL, key pair and pipes",
            ) from error

    def _client(self, event_table: str) -> Any:  # noqa: ANN401 - the SDK ships no types
        if event_table not in self._clients:
            self._clients[event_table] = _sdk().StreamingIngestClient(
                client_name=f"insight_{event_table}",
                db_name=self._account.database,
                schema_name=str(EVENT_TABLES[event_table].schema).upper(),
                pipe_name=_pipe(event_table).upper(),
                properties=_PROPERTIES | dict(self._account.streaming_properties()),
            )
        return self._clients[event_table]


class SnowpipeWarehouse(Warehouse):
    """A warehouse whose partitions are known by channels, from their first message on; recordings stay transactions."""

    def __init__(self, engine: RawEngine, channels: Channels) -> None:
        """Keep both; nothing is opened."""
        super().__init__(engine)
        self._channels = channels

    def close(self) -> None:
        """Forget the channels, and release what the engine holds. Idempotent."""
        self._channels.close()
        super().close()

    def ensure_raw_tables(self) -> None:
        """Create what is missing of the raw schema, and the pipes of event tables. Idempotent."""
        super().ensure_raw_tables()
        with self._transaction() as connection:
            for event_table in EVENT_TABLES:
                connection.exec_driver_sql(pipe_statement(event_table, connection.dialect))

    def skip_to(self, place: Place, offset: int) -> None:
        """Go on at an offset, whatever lies before it; whoever has the channel loses it."""
        with self._transaction() as connection:
            found = read_positions(connection, [place])
        if not found or found[0].next_offset != IN_CHANNEL:
            super().skip_to(place, offset)
            return
        known = self._channels.positions(found) or found
        self._channels.open(place, known[0].event_table, at=replace(known[0], next_offset=offset))

    def event_writer(self) -> EventWriter:
        """Return a writer of events through channels, which keep open until the warehouse is closed."""
        return ChannelWriter(self, self._channels)

    def open_channel(self, each: EventSlice) -> Channel:
        """Open the channel of a slice's partition; it takes over what transactions have written before."""
        with self._transaction() as connection:
            found = read_positions(connection, [each.place])
            if not found or found[0].next_offset != IN_CHANNEL:
                self._engine.take_turn(connection)
                found = read_positions(connection, [each.place])  # somebody else may have had the turn
            before = found[0] if found else _nothing_yet(each)
            if found and before.next_offset == IN_CHANNEL:
                return self._channels.open(each.place, each.event_table)
            channel = self._channels.open(each.place, each.event_table, at=before)
            hand_to_channel(connection, each.place, event_table=each.event_table)
            return channel

    def _known(self, positions: Sequence[StreamPosition]) -> tuple[StreamPosition, ...]:
        asked = [each for each in positions if each.next_offset == IN_CHANNEL]
        told = {each.place: each for each in self._channels.positions(asked)}
        for each in asked:
            if each.place not in told:
                raise _gone(each.place, each.event_table)
        known = (told.get(each.place, each) for each in positions)
        return tuple(each for each in known if each.next_offset != _NOTHING_YET)


class ChannelWriter:
    """Writes events through channels; each is opened when its partition first comes, and kept."""

    def __init__(self, warehouse: SnowpipeWarehouse, channels: Channels) -> None:
        """Keep both; nothing is opened."""
        self._warehouse = warehouse
        self._channels = channels

    def store(self, slices: Sequence[EventSlice]) -> frozenset[Place]:
        """Append the slices, each to its channel, and wait until they are committed; raises as `EventWriter.store`."""
        current = [(each, channel) for each in slices if (channel := self._at_start(each)) is not None]
        with self._channels.asked():
            for each, channel in current:
                channel.append(each)
            for _, channel in current:
                channel.wait()
        return frozenset(each.place for each in slices) - {each.place for each, _ in current}

    def close(self) -> None:
        """Nothing: to have a channel keeps nobody waiting."""

    def _at_start(self, each: EventSlice) -> Channel | None:
        """The partition's channel, if it stands where the slice starts; asked anew if ours does not."""
        channel = self._channels.opened(each.place)
        if channel is None or channel.next_offset != each.start:
            channel = self._warehouse.open_channel(each)
        return channel if channel.next_offset == each.start else None


def pipe_statement(event_table: str, dialect: Dialect) -> str:
    """The statement that makes the pipe of an event table, if it is missing."""
    target = EVENT_TABLES[event_table]
    names = ", ".join(column.name for column in target.columns)
    values = ", ".join(f"$1:{each.name}::{each.type.compile(dialect).lower()}" for each in target.columns)
    source = f"select {values} from table(data_source(type => 'STREAMING')) where $1:payload is not null"  # noqa: S608
    pipe = f"{target.schema}.{_pipe(event_table)}"
    return f"create pipe if not exists {pipe} as copy into {target} ({names}) from ({source})"


def _pipe(event_table: str) -> str:
    return f"{event_table}_stream"


def _name(place: Place) -> str:
    return f"{place[0]}-{place[1]}"


def _nothing_yet(each: EventSlice) -> StreamPosition:
    return StreamPosition(
        topic=each.topic,
        partition=each.partition,
        event_table=each.event_table,
        next_offset=_NOTHING_YET,
        rows_loaded=0,
        rows_rejected=0,
        updated_at=datetime.now(UTC),
    )


def _gone(place: Place, event_table: str) -> EventsLost:
    topic, partition = place
    return EventsLost(
        f"The channel {_name(place)}, which knew how far that partition is, is gone: its pipe was made anew",
        hint=f"Take its max(kafka_offset) + 1 from {event_table}: insight stream skip {topic} {partition} OFFSET",
    )


def _token(position: StreamPosition, *, refused: int) -> str:
    at_ms = round(position.updated_at.timestamp() * 1000)
    return f"{position.next_offset}:{position.rows_loaded}:{position.rows_rejected}:{refused}:{at_ms}"


def _read(token: str, place: Place, event_table: str) -> tuple[StreamPosition, int]:
    """The position, and how many rows Snowflake had left out by then."""
    try:
        next_offset, loaded, rejected, refused, at_ms = map(int, token.split(":"))
    except ValueError as error:
        raise WarehouseError(
            f"The channel {_name(place)} has an offset token that is none of ours",
            hint=f"If nobody else may write there: insight stream skip {place[0]} {place[1]} OFFSET",
        ) from error
    position = StreamPosition(
        topic=place[0],
        partition=place[1],
        event_table=event_table,
        next_offset=next_offset,
        rows_loaded=loaded,
        rows_rejected=rejected,
        updated_at=datetime.fromtimestamp(at_ms / 1000, UTC),
    )
    return position, refused


def _pieces(rows: pa.Table, *, loaded_at: datetime) -> list[list[dict[str, Any]]]:
    """The rows as the SDK takes them, in parts of some megabytes; one at least, which may be empty."""
    whole = rows.append_column("loaded_at", pa.repeat(pa.scalar(loaded_at, pa.timestamp("us")), rows.num_rows))
    most = max(1, whole.num_rows * _PIECE_BYTES // max(1, whole.nbytes))
    return [whole.slice(first, most).to_pylist() for first in range(0, max(1, whole.num_rows), most)]


def _sdk() -> Any:  # noqa: ANN401 - it ships no types
    # It logs to stdout by default, where our commands answer, and that at every start.
    os.environ.setdefault("SS_LOG_TARGET", "stderr")
    os.environ.setdefault("SS_LOG_LEVEL", "error")
    from snowflake.ingest import streaming

    # A channel that comes back to its consumer is an error to it.
    logging.getLogger("snowflake.ingest.streaming.streaming_ingest_client").setLevel(logging.CRITICAL)
    return streaming
