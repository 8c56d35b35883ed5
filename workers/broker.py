"""Kafka, as the workers use it: clients with the settings that exactly-once needs, topics, and where a log ends."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError

from workers.errors import BrokerAway, SettingError
from workers.messages import DEAD_LETTER_SUFFIX, FEEDS, TOPICS, Feed, Topic
from workers.stream_settings import StreamSettings

REQUEST_TIMEOUT_MS: Final = 10_000
LONGEST_HOLD_MS: Final = 24 * 3_600_000
"""Between two polls. A consumer holds its messages back as long as the warehouse is away; its heartbeat says that it
lives, and not to poll is all the back-pressure that Kafka needs."""

STOP_S: Final = 3.0

MOST_DEAD_LETTER_BYTES: Final = 16 * 1024 * 1024
"""A dead letter keeps its message whole, and what is wrong with it may be its size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEnds:
    """The first offset that is still there, and the one after the last."""

    begin: int
    end: int


class Broker:
    """Makes clients of one Kafka cluster; holds no connection itself."""

    def __init__(self, settings: StreamSettings) -> None:
        """Keep the settings.

        Raises
        ------
        SettingError
            No Kafka is set.
        """
        if not settings.kafka_bootstrap_servers:
            raise SettingError(
                "No Kafka is set",
                hint="Set INSIGHT_KAFKA_BOOTSTRAP_SERVERS=host:9092; without Kafka: insight stream replay FILE",
            )
        self._settings = settings
        self._connection = _connection(settings)

    @property
    def group(self) -> str:
        """The consumers' group."""
        return self._settings.kafka_group

    def full_name(self, topic: Feed) -> str:
        """The topic's name in the cluster."""
        return self._settings.kafka_topic_prefix + topic.name

    def topics(self) -> Mapping[str, Topic]:
        """Every topic, by its name in the cluster."""
        return {self.full_name(topic): topic for topic in TOPICS.values()}

    async def ensure_topics(self) -> None:
        """Return when every topic and its dead letter topic are there; those that were, stay as they are.

        Raises
        ------
        BrokerAway
            Kafka does not answer, or does not let us.
        """
        partitions, replicas = self._settings.kafka_partitions, self._settings.kafka_replicas
        whole = {"max.message.bytes": str(MOST_DEAD_LETTER_BYTES), "retention.ms": "-1"}
        wanted = [NewTopic(self.full_name(feed), partitions, replicas) for feed in FEEDS.values()]
        wanted += [
            NewTopic(f"{name}{DEAD_LETTER_SUFFIX}", partitions, replicas, topic_configs=whole) for name in self.topics()
        ]
        admin = AIOKafkaAdminClient(**self._connection)
        try:
            await admin.start()
            present = set(await admin.list_topics())
            missing = [topic for topic in wanted if topic.name not in present]
            if missing:
                await admin.create_topics(missing)
        except TopicAlreadyExistsError:
            pass  # by another worker, meanwhile
        except KafkaError as error:
            raise broker_away(error) from error
        finally:
            await admin.close()

    @asynccontextmanager
    async def consumer(
        self, topics: Collection[str], listener: ConsumerRebalanceListener
    ) -> AsyncIterator[AIOKafkaConsumer]:
        """A member of the consumers' group, which shares the topics' partitions; offsets are the caller's business."""
        consumer = AIOKafkaConsumer(
            **self._connection,
            **_READING,
            group_id=self.group,
            session_timeout_ms=self._settings.kafka_session_timeout_ms,
            heartbeat_interval_ms=self._settings.kafka_session_timeout_ms // 4,
            rebalance_timeout_ms=self._settings.kafka_session_timeout_ms,
            max_poll_interval_ms=LONGEST_HOLD_MS,
            metadata_max_age_ms=self._settings.kafka_metadata_max_age_ms,
        )
        consumer.subscribe(topics=list(topics), listener=listener)
        async with _started(consumer):
            yield consumer

    @asynccontextmanager
    async def reader(
        self, partitions: Collection[TopicPartition], *, group: str | None = None
    ) -> AsyncIterator[AIOKafkaConsumer]:
        """A consumer of just these partitions, a member of no group; `group` says whose committed offsets it sees."""
        consumer = AIOKafkaConsumer(**self._connection, **_READING, group_id=group)
        consumer.assign(list(partitions))
        async with _started(consumer):
            yield consumer

    @asynccontextmanager
    async def producer(self) -> AsyncIterator[AIOKafkaProducer]:
        """An idempotent producer: what it is asked to send is in the log once, and in order, or it raises."""
        producer = AIOKafkaProducer(**self._connection, enable_idempotence=True, linger_ms=5)
        async with _started(producer):
            yield producer

    def transactional_producer(self, name: str) -> AIOKafkaProducer:
        """A producer, to be started, that fences every earlier one of this name, and what it left undone."""
        return AIOKafkaProducer(
            **self._connection,
            transactional_id=name,
            transaction_timeout_ms=REQUEST_TIMEOUT_MS * 3,
            max_request_size=MOST_DEAD_LETTER_BYTES,
        )

    async def partitions_of(self, topic: str) -> tuple[TopicPartition, ...]:
        """The partitions of a topic; none, if it is not there."""
        async with self.reader(()) as reader:
            await reader._client.force_metadata_update()  # noqa: SLF001 - there is no other way to learn of new topics
            return tuple(TopicPartition(topic, number) for number in sorted(reader.partitions_for_topic(topic) or ()))

    async def log_ends(self, topics: Collection[str]) -> Mapping[TopicPartition, LogEnds]:
        """Where each partition of the topics begins and ends now."""
        places = [place for topic in topics for place in await self.partitions_of(topic)]
        async with self.reader(places) as reader:
            begins, ends = await reader.beginning_offsets(places), await reader.end_offsets(places)
        return {place: LogEnds(begin=begins[place], end=ends[place]) for place in places}


# Uncommitted dead letters that are sent back must not be seen. The offsets are the warehouse's, never Kafka's: where
# the group begins before we have said so does not matter, but it must not be an error.
_READING: Final[Mapping[str, Any]] = {
    "isolation_level": "read_committed",
    "auto_offset_reset": "earliest",
    "enable_auto_commit": False,
    "fetch_max_bytes": 16 * 1024 * 1024,
    "max_partition_fetch_bytes": 4 * 1024 * 1024,
}


def broker_away(error: Exception) -> BrokerAway:
    """What Kafka said, as an error to be tried again."""
    return BrokerAway(
        f"Kafka does not do what it is asked to: {type(error).__name__}",
        hint="Is it running, and are INSIGHT_KAFKA_* right? Nothing is lost; this goes on by itself when it answers",
    )


@asynccontextmanager
async def _started(client: AIOKafkaConsumer | AIOKafkaProducer) -> AsyncIterator[None]:
    try:
        await client.start()
        yield
    except KafkaError as error:
        raise broker_away(error) from error
    finally:
        await asyncio.shield(_stopped(client))


async def _stopped(client: AIOKafkaConsumer | AIOKafkaProducer) -> None:
    # It says goodbye to a broker that may not be there, and would wait for its answer without an end.
    with suppress(KafkaError, TimeoutError):
        async with asyncio.timeout(STOP_S):
            await client.stop()


def _connection(settings: StreamSettings) -> dict[str, Any]:
    # Any: keyword arguments of several kinds.
    given: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap_servers,
        "security_protocol": settings.kafka_security_protocol,
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
        "retry_backoff_ms": 200,
    }
    if settings.kafka_security_protocol.endswith("SSL"):
        given["ssl_context"] = ssl.create_default_context(cafile=settings.kafka_ssl_ca_file)
    if settings.kafka_security_protocol.startswith("SASL"):
        given["sasl_mechanism"] = settings.kafka_sasl_mechanism
        given["sasl_plain_username"] = settings.kafka_sasl_username
        given["sasl_plain_password"] = (
            settings.kafka_sasl_password.get_secret_value() if settings.kafka_sasl_password else None
        )
    return given
