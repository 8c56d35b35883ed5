"""What tests of the streams stand on: consumers in processes of their own, messages by the thousand, and the sums."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
from aiokafka import AIOKafkaProducer

from tests.kafka import KafkaBroker
from tests.snowflake import SnowflakeEmulator
from workers.broker import Broker
from workers.dead_letters import DeadLetter, read_dead_letters
from workers.messages import TOPICS
from workers.sinks import open_warehouse
from workers.stream_settings import StreamSettings

Sent = dict[tuple[str, int, int], bytes]
"""Value by topic, partition and offset, as Kafka acknowledged it."""

Messages = dict[tuple[str, int], list[tuple[bytes | None, Sequence[tuple[str, bytes]]]]]
"""Values with their headers, by topic and partition, in the order of sending."""

_DEFAULTS = {
    "INSIGHT_KAFKA_SESSION_TIMEOUT_MS": "3000",
    "INSIGHT_KAFKA_METADATA_MAX_AGE_MS": "1000",
    "INSIGHT_STREAM_LINGER_MS": "100",
    "INSIGHT_STREAM_LOCK_TIMEOUT_S": "2",
}


@dataclass(slots=True, kw_only=True)
class Stream:
    """Topics of the test's own on the shared broker, a warehouse, and consumers between them."""

    kafka: KafkaBroker
    home: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    prefix: str = field(default_factory=lambda: f"t{uuid.uuid4().hex[:8]}.")
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    sent_at_ms: dict[tuple[str, int, int], int] = field(default_factory=dict)

    @property
    def warehouse(self) -> Path:
        """The build database, in a folder that a test may take away."""
        return self.home / "disk" / "warehouse.duckdb"

    @property
    def warehouse_url(self) -> str:
        """Where consumers load into."""
        return f"duckdb:///{self.warehouse}"

    @property
    def log(self) -> Path:
        """What all consumers said."""
        return self.home / "consumers.log"

    @property
    def insight(self) -> Path:
        """The command."""
        return Path(sys.executable).with_name("insight")

    @property
    def environment(self) -> dict[str, str]:
        """The settings of a consumer."""
        own = {
            "INSIGHT_KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "INSIGHT_KAFKA_TOPIC_PREFIX": self.prefix,
            "INSIGHT_KAFKA_GROUP": f"{self.prefix}insight",
            "INSIGHT_WAREHOUSE_URL": self.warehouse_url,
            "INSIGHT_PUBLICATION_DIR": str(self.home / "publications"),
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith("INSIGHT_")}
        return kept | _DEFAULTS | own | dict(self.settings)

    @property
    def broker(self) -> Broker:
        """The broker, as the workers know it."""
        given = {
            name.removeprefix("INSIGHT_").lower(): value
            for name, value in self.environment.items()
            if name.startswith(("INSIGHT_KAFKA", "INSIGHT_STREAM"))
        }
        return Broker(StreamSettings(_env_file=None, **given))  # type: ignore[arg-type] # texts, as from the environment

    def create_topics(self, partitions: Mapping[str, int]) -> None:
        """Return when the topics and their dead letter topics are there."""

        async def create() -> None:
            for name, count in partitions.items():
                await self.kafka.create_topic(f"{self.prefix}{name}", partitions=count, max_message_bytes="10000000")
            await self.broker.ensure_topics()

        asyncio.run(create())

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """A consumer, or another command of `insight`, in a process of its own."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [str(self.insight), *(command or ("stream", "consume"))],
                env=self.environment,
                cwd=self.home,
                stdout=log,
                stderr=log,
            )
        self.workers.append(process)
        return process

    def run(self, *command: str) -> str:
        """What a command of `insight` says; it must end well."""
        done = subprocess.run(
            [str(self.insight), *command],
            env=self.environment,
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill one, hard."""
        process.kill()
        process.wait()
        self.workers.remove(process)

    def stop(self, process: subprocess.Popen[bytes]) -> int:
        """Ask one to stop; its exit code."""
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=60)
        self.workers.remove(process)
        return code

    def close(self) -> None:
        """End all that still run."""
        for process in list(self.workers):
            self.kill(process)

    def send(self, messages: Messages) -> Sent:
        """Send values with headers to partitions; what was acknowledged comes back."""
        return asyncio.run(self.send_async(messages))

    async def send_async(self, messages: Messages) -> Sent:
        """Like `send`."""
        sent: Sent = {}
        producer = AIOKafkaProducer(
            bootstrap_servers=self.kafka.bootstrap_servers,
            enable_idempotence=True,
            linger_ms=5,
            max_batch_size=262_144,
            max_request_size=10_000_000,
        )
        await producer.start()
        try:
            waiting = []
            for (name, partition), values in messages.items():
                for value, headers in values:
                    future = await producer.send(
                        f"{self.prefix}{name}", value=value, key=b"key", partition=partition, headers=list(headers)
                    )
                    waiting.append((value, future))
            for value, future in waiting:
                got = await future
                sent[got.topic, got.partition, got.offset] = value or b""
                self.sent_at_ms[got.topic, got.partition, got.offset] = got.timestamp
        finally:
            await producer.stop()
        return sent

    def query(self, sql: str, timeout_s: float = 30) -> list[tuple[Any, ...]]:
        """Rows of the build database; waits for whoever has it open."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                with duckdb.connect(self.warehouse, read_only=True) as connection:
                    return connection.execute(sql).fetchall()
            except (duckdb.IOException, duckdb.CatalogException):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def is_made(self) -> bool:
        """Whether a consumer has made the warehouse."""
        return self.warehouse.exists()

    def reached(self) -> dict[tuple[str, int], int]:
        """Where the warehouse stands, by topic and partition; nowhere, before a consumer has made it."""
        if not self.is_made():
            return {}
        rows = self.query("select kafka_topic, kafka_partition, next_offset from raw.consumer_offsets")
        return {(topic, partition): offset for topic, partition, offset in rows}

    def wait_until(
        self, is_so: Callable[[], bool], *, timeout_s: float = 60, what: str = "it", every_s: float = 0.25
    ) -> float:
        """Seconds until the condition held; fails with the consumers' last words if it does not in time."""
        started = time.monotonic()
        while not is_so():
            assert time.monotonic() - started < timeout_s, f"waited in vain for {what}:\n{self.last_words()}"
            time.sleep(every_s)  # to look is to have the warehouse open, which keeps consumers out
        return time.monotonic() - started

    def wait_for_all(self, sent: Sent, *, timeout_s: float = 120) -> float:
        """Seconds until the warehouse has passed every message that was sent."""
        ends: dict[tuple[str, int], int] = {}
        for topic, partition, offset in sent:
            ends[topic, partition] = max(ends.get((topic, partition), 0), offset + 1)

        def is_through() -> bool:
            reached = self.reached()
            return all(reached.get(place, 0) >= end for place, end in ends.items())

        return self.wait_until(is_through, timeout_s=timeout_s, what=f"all of {len(sent)} messages")

    def lags_s(self) -> list[float]:
        """How long after it was sent each good message was in the warehouse, rising."""
        lags = []
        for topic in TOPICS.values():
            sql = f"select kafka_topic, kafka_partition, kafka_offset, epoch_ms(loaded_at) from raw.{topic.event_table}"
            for name, partition, offset, loaded_ms in self.query(sql):
                if (sent_ms := self.sent_at_ms.get((name, partition, offset))) is not None:
                    lags.append((loaded_ms - sent_ms) / 1000)
        return sorted(lags)

    def last_words(self) -> str:
        """The end of the consumers' log."""
        return self.log.read_text(errors="replace")[-4_000:] if self.log.exists() else ""

    def dead_letters(self) -> list[DeadLetter]:
        """Every dead letter."""

        async def read() -> list[DeadLetter]:
            return [letter async for letter in read_dead_letters(self.broker, list(self.broker.topics()))]

        return asyncio.run(read())

    def assert_each_once(self, sent: Sent, *, bad: Sent | None = None) -> str:
        """Every good message is one row with its payload, every bad one is one dead letter; the counts, in words."""
        bad = bad or {}
        rows: dict[tuple[str, int, int], str] = {}
        total = 0
        for topic in TOPICS.values():
            sql = f"select kafka_topic, kafka_partition, kafka_offset, md5(payload) from raw.{topic.event_table}"
            for name, partition, offset, digest in self.query(sql):
                rows[name, partition, offset] = digest
                total += 1
        wanted = {place: hashlib.md5(value).hexdigest() for place, value in sent.items() if place not in bad}
        assert len(rows) == total, f"{total - len(rows)} rows are doubled"
        assert rows.keys() == wanted.keys(), (
            f"{len(wanted.keys() - rows.keys())} lost, {len(rows.keys() - wanted.keys())} invented"
        )
        assert rows == wanted, "payloads differ"
        letters = [(each.origin_topic, each.origin_partition, each.origin_offset) for each in self.dead_letters()]
        assert sorted(letters) == sorted(bad), f"{len(letters)} dead letters for {len(bad)} bad messages"
        return (
            f"{total:,} rows of {len(wanted):,} good messages, {len(letters):,} dead letters of {len(bad):,} bad ones"
        )


@dataclass(slots=True, kw_only=True)
class SnowflakeStream(Stream):
    """A stream that loads into a database of an emulated account."""

    emulator: SnowflakeEmulator
    database: str = field(default_factory=lambda: f"S_{uuid.uuid4().hex[:8]}")

    @property
    def warehouse_url(self) -> str:
        """Where consumers load into."""
        return self.emulator.url(self.database)

    def query(self, sql: str, timeout_s: float = 30) -> list[tuple[Any, ...]]:
        """Rows of the database."""
        del timeout_s
        with self.emulator.connect(self.database) as session:
            return list(session.cursor().execute(sql).fetchall())

    def is_made(self) -> bool:
        """Whether a consumer has made the tables."""
        found = "select 1 from information_schema.tables where table_name ilike 'consumer_offsets'"
        return bool(self.query(found))


@dataclass(slots=True, kw_only=True)
class SnowpipeStream(SnowflakeStream):
    """A stream that loads into such a database through Snowpipe Streaming; `settings` turn it on."""

    def reached(self) -> dict[tuple[str, int], int]:
        """What the channels say, as a consumer asks them."""
        if not self.is_made():
            return {}
        with open_warehouse(self.warehouse_url) as warehouse:
            return {each.place: each.next_offset for each in warehouse.stream_positions()}


@contextmanager
def streaming(kafka: KafkaBroker, home: Path, **settings: str) -> Iterator[Stream]:
    """A stream for the length of the block."""
    stream = Stream(kafka=kafka, home=home, settings=settings)
    try:
        yield stream
    finally:
        stream.close()


def price(number: int, *, padding: int = 0) -> bytes:
    """A valid message of topic `bitcoin`, another one for each number."""
    payload = {
        "source": f"test{'x' * padding}",
        "price": 3_000 + number % 5_000 + number % 100 / 100,
        "change_24h": number % 13 - 6.5,
        "timestamp": _minute(number),
        "volatility_category": "Low",
    }
    return json.dumps(payload).encode()


def article(number: int) -> bytes:
    """A valid message of topic `news`, another one for each number."""
    payload = {
        "source": "test",
        "headline": f"Headline {number}",
        "description": None,
        "url": f"https://example.com/{number}",
        "category": "business",
        "source_name": "Wire",
        "word_count": 2,
        "has_crypto_mention": False,
        "published_at": _minute(number),
        "timestamp": _minute(number),
    }
    return json.dumps(payload).encode()


def sale(number: int) -> bytes:
    """A valid message of topic `sales`, another one for each number."""
    payload = {
        "transaction_id": number,
        "product_sku": f"SKU{number % 100}",
        "customer_id": number % 1_000,
        "transaction_date": _minute(number)[:10],
        "product_description": "A product",
        "product_category": "Apparel",
        "quantity": number % 9 + 1,
        "avg_price": number % 100 + 0.25,
        "delivery_charges": 6.5,
        "coupon_status": "Used",
        "timestamp": _minute(number),
    }
    return json.dumps(payload).encode()


MESSAGES = {"bitcoin": price, "news": article, "sales": sale}
"""A valid message of each topic, by number."""


def _minute(number: int) -> str:
    minute, day = number % 1440, number // 1440 % 28 + 1
    return f"20{number // 40_320 % 90 + 10:02d}-01-{day:02d}T{minute // 60:02d}:{minute % 60:02d}:00Z"


VERSION_1 = (("schema_version", b"1"),)
