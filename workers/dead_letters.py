"""Dead letters: messages that were rejected, kept whole in a topic of their own, each exactly once.

A letter is sent in a Kafka transaction that also says, as committed offsets of a group that has no members, up to where
its partition's letters are sent. The warehouse's offset moves only after that. So whoever takes a partition over after
a crash meets the same bad messages again, and knows which of them have been sent; and as the transactional id is
the partition's, taking over fences whoever believed to own it before.

Sending letters back to their topic works the same way, with the letters' own positions.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from workers.broker import Broker, broker_away
from workers.decoding import Letter
from workers.errors import DeadLettersRefused
from workers.messages import DEAD_LETTER_SUFFIX, SCHEMA_VERSION_HEADER, Received

_log = structlog.get_logger(__name__)

ATTEMPT_S: Final = 5.0
"""How long a partition's letters may take: other partitions wait for it."""

LETTERS_AT_ONCE: Final = 500

_LONGEST_HEADER: Final = 1_000
_OURS: Final = (
    "origin_topic",
    "origin_partition",
    "origin_offset",
    "origin_timestamp",
    "origin_schema_version",
    "error_class",
    "error_text",
    "failed_at",
)
_SECRET: Final = re.compile(r"auth|cookie|token|secret|passw|api.?key|credential|signature", re.IGNORECASE)

Headers = list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A dead letter as it lies in its topic."""

    topic: str
    partition: int
    offset: int
    origin_topic: str
    origin_partition: int
    origin_offset: int
    error_class: str
    error_text: str
    failed_at: str
    value_bytes: int


class DeadLetters:
    """Writes dead letters, for the partitions of one consumer."""

    def __init__(self, broker: Broker) -> None:
        """Keep the broker; nothing is opened before the first letter."""
        self._broker = broker
        self._chains: dict[TopicPartition, _Chain] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def write(self, place: TopicPartition, letters: Sequence[Letter], *, end: int) -> None:
        """Return when the letters are in the dead letter topic, each once, whoever tried before.

        Parameters
        ----------
        place
            The partition that they come from.
        letters
            All rejected messages before `end` that have not been passed yet, in their order.
        end
            The offset up to which the partition has been read.

        Raises
        ------
        DeadLettersRefused
            They could not be written in time; none of them was, or nobody knows. To be tried again.
        """
        try:
            async with asyncio.timeout(ATTEMPT_S):
                if (chain := self._chains.get(place)) is None:
                    name = f"{self._broker.group}.{place.topic}.{place.partition}"
                    chain = await _Chain.open(
                        self._broker, place, name=name, group=f"{self._broker.group}.dead-letters"
                    )
                    self._chains[place] = chain
                fresh = [letter for letter in letters if letter.message.offset >= chain.done]
                messages = [
                    (f"{place.topic}{DEAD_LETTER_SUFFIX}", None, each.message, _headers(each)) for each in fresh
                ]
                await chain.send(messages, end=end)
        except (KafkaError, TimeoutError, ValueError) as error:  # the last: larger than what a producer sends
            self.release([place])
            raise DeadLettersRefused(
                f"The dead letters of {place.topic}/{place.partition} cannot be written: {type(error).__name__}",
                hint=f"Look at the topic {place.topic}{DEAD_LETTER_SUFFIX}; until then the partition waits",
            ) from error

    def release(self, places: Collection[TopicPartition]) -> None:
        """Let go of what was opened for the partitions, without waiting: whoever opens it next fences it anyway."""
        for chain in [self._chains.pop(place) for place in places if place in self._chains]:
            closing = asyncio.create_task(chain.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Let go of everything, and return when it is gone. Idempotent."""
        self.release(list(self._chains))
        await asyncio.gather(*self._closing)


_Copy = tuple[str, int | None, Received, Headers]
"""Where to, which partition (None: by its key), what, and with which headers."""


class _Chain:
    """Copies messages of one partition into other topics, each once: what is copied and how far is one transaction."""

    def __init__(self, producer: AIOKafkaProducer, place: TopicPartition, *, group: str, done: int) -> None:
        self._producer = producer
        self._place = place
        self._group = group
        self.done = done
        """The first offset that may not have been copied yet."""

    @classmethod
    async def open(cls, broker: Broker, place: TopicPartition, *, name: str, group: str) -> _Chain:
        producer = broker.transactional_producer(name)
        try:
            await producer.start()  # fences whoever had the name, so what is committed now stays so
            async with broker.reader([place], group=group) as reader:
                done = await reader.committed(place) or 0
        except BaseException:
            await asyncio.shield(_stop(producer))
            raise
        return cls(producer, place, group=group, done=done)

    async def send(self, copies: Sequence[_Copy], *, end: int) -> None:
        if end <= self.done:
            return
        async with self._producer.transaction():
            acknowledged = [
                await self._producer.send(topic, value=each.value, key=each.key, partition=partition, headers=headers)
                for topic, partition, each, headers in copies
            ]
            await asyncio.gather(*acknowledged)
            await self._producer.send_offsets_to_transaction({self._place: end}, self._group)
        self.done = end

    async def close(self) -> None:
        await asyncio.shield(_stop(self._producer))


async def _stop(producer: AIOKafkaProducer) -> None:
    try:
        async with asyncio.timeout(ATTEMPT_S):
            await producer.stop()
    except (KafkaError, TimeoutError) as error:
        _log.debug("producer_left", reason=type(error).__name__)  # the broker ends its transaction in time


def _headers(letter: Letter) -> Headers:
    """The message's own headers, but for ours of an earlier round and what may be a secret; then ours."""
    message = letter.message
    kept = [(name, content) for name, content in message.headers if name not in _OURS and not _SECRET.search(name)]
    version = dict(message.headers).get(SCHEMA_VERSION_HEADER)
    values = (
        message.topic,
        str(message.partition),
        str(message.offset),
        _iso(datetime.fromtimestamp(message.timestamp / 1000, UTC)),
        (version or b"").decode(errors="replace"),
        letter.reason.kind,
        letter.reason.message,
        _iso(datetime.now(UTC)),
    )
    return kept + [(name, value[:_LONGEST_HEADER].encode()) for name, value in zip(_OURS, values, strict=True)]


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def read_dead_letters(broker: Broker, topics: Collection[str]) -> AsyncIterator[DeadLetter]:
    """Every dead letter of the topics (as they are called in the cluster), by partition and in the order of writing."""
    for topic in topics:
        async for record in _read(broker, f"{topic}{DEAD_LETTER_SUFFIX}"):
            yield _as_dead_letter(record)


async def replay_dead_letters(broker: Broker, topics: Collection[str]) -> int:
    """How many dead letters were sent back to where they came from: all that were not before, each once.

    Raises
    ------
    BrokerAway
        Kafka does not answer; some may have been sent, and are not the next time.
    """
    sent = 0
    for topic in topics:
        for place in await broker.partitions_of(f"{topic}{DEAD_LETTER_SUFFIX}"):
            sent += await _replay_partition(broker, place)
    return sent


async def _replay_partition(broker: Broker, place: TopicPartition) -> int:
    name = f"{broker.group}.{place.topic}.{place.partition}.replay"
    try:
        chain = await _Chain.open(broker, place, name=name, group=f"{broker.group}.replayed")
        try:
            sent, held = 0, list[Any]()
            async for record in _read(broker, place.topic, place=place, begin=chain.done):
                held.append(record)
                if len(held) == LETTERS_AT_ONCE:
                    sent += await _send_back(chain, held)
                    held = []
            return sent + await _send_back(chain, held)
        finally:
            await chain.close()
    except KafkaError as error:
        raise broker_away(error) from error


async def _send_back(chain: _Chain, records: Sequence[Any]) -> int:
    copies = []
    for record in records:
        ours = {header: content.decode() for header, content in record.headers if header in _OURS}
        theirs = [(header, content) for header, content in record.headers if header not in _OURS]
        copies.append((ours["origin_topic"], int(ours["origin_partition"]), record, theirs))
    if records:
        await chain.send(copies, end=records[-1].offset + 1)
    return len(records)


async def _read(
    broker: Broker, topic: str, *, place: TopicPartition | None = None, begin: int = 0
) -> AsyncIterator[Any]:  # aiokafka's records
    """The records that are in the topic, or in one of its partitions, now."""
    ends = await broker.log_ends([topic])
    for each, log in ends.items():
        if (place is not None and each != place) or max(begin, log.begin) >= log.end:
            continue
        async with broker.reader([each]) as reader:
            reader.seek(each, max(begin, log.begin))
            while await reader.position(each) < log.end:
                for records in (await reader.getmany(timeout_ms=500)).values():
                    for record in records:
                        yield record


def _as_dead_letter(record: Any) -> DeadLetter:  # noqa: ANN401 - aiokafka's record is generic
    ours = {name: content.decode(errors="replace") for name, content in record.headers if name in _OURS}
    return DeadLetter(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        origin_topic=ours.get("origin_topic", ""),
        origin_partition=int(ours.get("origin_partition", -1)),
        origin_offset=int(ours.get("origin_offset", -1)),
        error_class=ours.get("error_class", ""),
        error_text=ours.get("error_text", ""),
        failed_at=ours.get("failed_at", ""),
        value_bytes=len(record.value or b""),
    )
