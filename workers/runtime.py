"""The consumer: from Kafka to the warehouse, each message once, whatever dies.

`Consumer.run` is the door. It polls, decodes and validates, writes dead letters, then rows and offsets in one
transaction of the warehouse, and goes on from the warehouse's offsets, never from Kafka's. Three outcomes beside
success: a bad message becomes a dead letter; a warehouse, a broker or a dead letter topic that is away holds messages
back until it is there again; what nobody foresaw ends the process before anything is committed.

Whoever owns a partition is Kafka's business, and Kafka can be late. So ownership is only a way to share the work: a
write says from which offset it goes on, and the warehouse refuses it if it stands elsewhere.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from time import monotonic
from typing import Any, Final, TypeVar

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError

from workers.broker import Broker, broker_away
from workers.dead_letters import DeadLetters
from workers.decoding import Decoded, decode_all, warm_up
from workers.errors import BrokerAway, DeadLettersRefused, EventsLost, WarehouseError
from workers.messages import Topic
from workers.meters import ConsumerMeters
from workers.sinks import EventSlice, Warehouse
from workers.stream_settings import StreamSettings

_log = structlog.get_logger(__name__)
_Result = TypeVar("_Result")

POLL_MS: Final = 1_000
SHORTEST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 10.0
"""Between attempts at something that is away: drawn at random below a bound that doubles from one to the other."""

REVOCATION_S: Final = 1.0
"""How long a partition that is taken away waits for the write in hand; should that come later, it is refused."""

LONGEST_KEPT_S: Final = 2.0
"""How long a consumer that has more to write keeps the warehouse, at least one transaction."""

Batch = dict[TopicPartition, list[Any]]  # aiokafka's records


class Consumer:
    """One member of the consumers' group."""

    def __init__(
        self, *, broker: Broker, warehouse: Warehouse, settings: StreamSettings, meters: ConsumerMeters
    ) -> None:
        """Keep the parts; nothing is opened before `run`."""
        self._broker = broker
        self._warehouse = warehouse
        self._settings = settings
        self._meters = meters

    async def run(self, stopping: asyncio.Event) -> None:
        """Consume until told to stop; then the batch in hand is written, and the partitions are given back.

        Raises
        ------
        EventsLost
            Kafka no longer has messages that were not loaded.
        """
        await asyncio.to_thread(warm_up)
        consuming = asyncio.create_task(self._consume(stopping))
        told = asyncio.create_task(stopping.wait())
        await asyncio.wait({consuming, told}, return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        # A client that looks for its broker hears of nothing else.
        await asyncio.wait({consuming}, timeout=self._settings.stream_stop_grace_s + 2 * REVOCATION_S)
        if not consuming.done():
            consuming.cancel()
            await asyncio.wait({consuming})
        if not consuming.cancelled():
            consuming.result()

    async def _consume(self, stopping: asyncio.Event) -> None:
        pauses = _Pauses()
        while not stopping.is_set():
            try:
                await self._broker.ensure_topics()
                await self._serve(stopping)
            except BrokerAway as error:
                self._meters.holds(error.message)
                _log.warning("holding", reason=error.message, hint=error.hint)
                await pauses.wait(stopping)

    async def _serve(self, stopping: asyncio.Event) -> None:
        dead_letters = DeadLetters(self._broker)
        session = _Session(self._warehouse, dead_letters, self._settings, self._meters, self._broker.topics(), stopping)
        try:
            async with self._broker.consumer(session.topics, session) as consumer:
                await session.consume(consumer)
        finally:
            await dead_letters.close()


class _Session(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka's class is untyped
    """One membership of the group: which partitions are ours, and where each of them goes on."""

    def __init__(
        self,
        warehouse: Warehouse,
        dead_letters: DeadLetters,
        settings: StreamSettings,
        meters: ConsumerMeters,
        topics: Mapping[str, Topic],
        stopping: asyncio.Event,
    ) -> None:
        self.topics = topics
        self._warehouse = warehouse
        self._dead_letters = dead_letters
        self._settings = settings
        self._meters = meters
        self._stopping = stopping
        # Where a partition of ours goes on; None: at its beginning, as the warehouse has not heard of it.
        self._next: dict[TopicPartition, int | None] = {}
        # Partitions of ours that have to ask the warehouse first, and from when on.
        self._unplaced: dict[TopicPartition, float] = {}
        self._refusals: dict[TopicPartition, _Pauses] = {}
        self._writing: asyncio.Future[Any] | None = None
        self._writer = warehouse.event_writer()
        self._kept_since: float | None = None
        self._consumer: AIOKafkaConsumer | None = None

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Let the write in hand end, and forget the partitions."""
        if self._writing is not None:
            await asyncio.wait({self._writing}, timeout=REVOCATION_S)
        for place in revoked:
            self._next.pop(place, None)
            self._unplaced.pop(place, None)
        self._dead_letters.release(revoked)

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Take note of the partitions; `consume` asks the warehouse where they go on, which may take its time."""
        self._meters.assigned()
        if assigned and self._consumer is not None:
            self._consumer.pause(*assigned)
        self._next.clear()
        self._unplaced = dict.fromkeys(assigned, 0.0)
        _log.info("assigned", partitions=len(assigned))

    async def consume(self, consumer: AIOKafkaConsumer) -> None:
        """Consume until told to stop; raises as `Consumer.run`, and `BrokerAway`."""
        self._consumer = consumer
        for place in consumer.assignment():  # assigned while the consumer started
            self._unplaced.setdefault(place, 0.0)
        await self._persistently(self._warehouse.ensure_raw_tables)
        try:
            while not self._stopping.is_set():
                await self._place_partitions(consumer)
                if batch := await self._gather(consumer):
                    await self._take(consumer, batch)
                self._meters.state.moves()
                self._tell_lag(consumer)
        except KafkaError as error:
            raise broker_away(error) from error
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """Give the warehouse to whoever waits for it."""
        self._writer.close()
        self._kept_since = None

    async def _place_partitions(self, consumer: AIOKafkaConsumer) -> None:
        """Let every partition whose time has come go on where the warehouse stands."""
        due = [place for place, since in self._unplaced.items() if since <= monotonic()]
        if not due:
            return
        self._let_go()
        offsets = await self._persistently(partial(self._warehouse.event_offsets, due))
        if offsets is None:
            return
        begins, ends = await consumer.beginning_offsets(due), await consumer.end_offsets(due)
        for place in due:
            if place not in self._unplaced:
                continue  # taken away meanwhile
            stored = offsets.get(place)
            start = begins[place] if stored is None else stored
            _refuse_loss(place, start, begin=begins[place], end=ends[place])
            try:
                consumer.seek(place, start)
                consumer.resume(place)
            except IllegalStateError:
                continue  # taken away, and nobody has told us yet
            self._next[place] = stored
            del self._unplaced[place]
        self._meters.holds(None)

    async def _gather(self, consumer: AIOKafkaConsumer) -> Batch:
        """What there is to take: a full batch, or what came within the time that a batch waits for more."""
        most, linger_s = self._settings.stream_batch_rows, self._settings.stream_linger_ms / 1000
        batch: Batch = {}
        count, deadline = 0, monotonic() + POLL_MS / 1000
        while count < most and not self._stopping.is_set() and (left := deadline - monotonic()) > 0:
            got = await consumer.getmany(timeout_ms=int(left * 1000) + 1, max_records=most - count)
            for place, records in got.items():
                if place in self._next:
                    batch.setdefault(place, []).extend(records)
                    deadline = min(deadline, monotonic() + linger_s) if count == 0 else deadline
                    count += len(records)
        return batch

    async def _take(self, consumer: AIOKafkaConsumer, batch: Batch) -> None:
        """Decode, write dead letters, write rows and offsets."""
        decoded = []
        for place, records in batch.items():
            if place in self._next:  # else it was taken away while the batch was gathered
                start = self._next[place]
                await self._refuse_gap(consumer, place, start, first=records[0].offset)
                decoded.append(await decode_all(place, records, topic=self.topics[place.topic], start=start))
        slices = await asyncio.gather(*(self._pass_letters(consumer, each) for each in decoded))
        if written := [each for each in slices if each is not None]:
            await self._store(consumer, written)

    async def _pass_letters(self, consumer: AIOKafkaConsumer, decoded: Decoded) -> EventSlice | None:
        """The slice to be written, once its dead letters are; up to the first of them, if they cannot be."""
        place = TopicPartition(*decoded.place)
        if not decoded.letters:
            return decoded.slice()
        try:
            await self._dead_letters.write(place, decoded.letters, end=decoded.letters[-1].message.offset + 1)
        except DeadLettersRefused as error:
            pause = self._refusals.setdefault(place, _Pauses()).next_s()
            _log.warning("holding_partition", reason=error.message, hint=error.hint, pause_s=round(pause, 1))
            self._set_aside(consumer, place, until=monotonic() + pause)
            return decoded.before(decoded.letters[0].message.offset).slice()
        self._refusals.pop(place, None)
        for letter in decoded.letters:
            self._meters.rejected(place.topic, letter.reason.kind)
        return decoded.slice()

    async def _store(self, consumer: AIOKafkaConsumer, slices: Sequence[EventSlice]) -> None:
        started = monotonic()
        stale = await self._persistently(partial(self._writer.store, slices))
        if stale is None:
            return  # told to stop; nothing was written, and nothing is lost
        self._kept_since = self._kept_since or started
        is_full = sum(each.rows.num_rows for each in slices) >= self._settings.stream_batch_rows
        if not is_full or monotonic() - self._kept_since > LONGEST_KEPT_S:
            self._let_go()
        for each in slices:
            place = TopicPartition(each.topic, each.partition)
            if each.place in stale:
                _log.info("overtaken", topic=each.topic, partition=each.partition)
                self._set_aside(consumer, place, until=0.0)
                continue
            self._meters.wrote(each.topic, loaded=each.rows.num_rows, seconds=monotonic() - started)
            if place in self._next:
                self._next[place] = each.end

    def _set_aside(self, consumer: AIOKafkaConsumer, place: TopicPartition, *, until: float) -> None:
        """Have a partition ask the warehouse again where it goes on, if it is still ours."""
        if self._next.pop(place, ...) is not ...:
            self._unplaced[place] = until
            try:
                consumer.pause(place)
            except IllegalStateError:
                self._unplaced.pop(place)

    async def _persistently(self, work: Callable[[], _Result]) -> _Result | None:
        """What the warehouse says, however long it takes; None, if it is away and we are told to stop."""
        pauses, give_up_at = _Pauses(), None
        while True:
            self._writing = asyncio.ensure_future(asyncio.to_thread(work))
            try:
                result: _Result = await asyncio.shield(self._writing)
            except WarehouseError as error:
                self._meters.holds(error.message)
                _log.warning("holding", reason=error.message, hint=error.hint)
            else:
                self._meters.holds(None)
                return result
            finally:
                self._writing = None
            if self._stopping.is_set():
                give_up_at = give_up_at or monotonic() + self._settings.stream_stop_grace_s
                if monotonic() > give_up_at:
                    return None
                await asyncio.sleep(SHORTEST_PAUSE_S)
            else:
                await pauses.wait(self._stopping)

    async def _refuse_gap(
        self, consumer: AIOKafkaConsumer, place: TopicPartition, start: int | None, *, first: int
    ) -> None:
        # Mostly the marker of a transaction; or what was to be read next is gone, and Kafka went on without a word.
        if start is not None and first > start:
            begin = (await consumer.beginning_offsets([place]))[place]
            _refuse_loss(place, start, begin=begin, end=first)

    def _tell_lag(self, consumer: AIOKafkaConsumer) -> None:
        for place, offset in self._next.items():
            if (high := consumer.highwater(place)) is not None:
                self._meters.lags(place.topic, place.partition, max(0, high - (offset or 0)))


def _refuse_loss(place: TopicPartition, start: int, *, begin: int, end: int) -> None:
    if begin <= start <= end:
        return
    where = f"{place.topic}, partition {place.partition}"
    if start < begin:
        message = f"Kafka has deleted {begin - start} messages of {where} that were not loaded"
    else:
        message = f"The warehouse is at offset {start} of {where}, which ends at {end}: the topic was made anew"
    hint = f"If that is so, and accepted: insight stream skip {place.topic} {place.partition} {begin}"
    raise EventsLost(message, hint=hint)


class _Pauses:
    """How long to wait between attempts at one thing."""

    def __init__(self) -> None:
        self._bound = SHORTEST_PAUSE_S

    def next_s(self) -> float:
        bound = self._bound
        self._bound = min(2 * bound, LONGEST_PAUSE_S)
        return random.uniform(bound / 2, bound)  # noqa: S311 - to spread load

    async def wait(self, stopping: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(self.next_s()):
                await stopping.wait()
        except TimeoutError:
            return
