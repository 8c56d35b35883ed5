"""Streams: from Kafka into DuckDB, on one core, beside a consumer that only counts the same messages, in one run."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.queues import Queue
from pathlib import Path
from threading import Thread

from aiokafka import AIOKafkaConsumer, TopicPartition

from clients.cli import collect_rarely
from tests.kafka import running_kafka
from tests.streams import VERSION_1, Stream, price, streaming
from workers.broker import Broker
from workers.decoding import warm_up
from workers.messages import BITCOIN
from workers.meters import ConsumerMeters
from workers.runtime import Consumer
from workers.sinks import open_warehouse
from workers.stream_settings import StreamSettings

EVENTS = 300_000
PARTITIONS = 3
PADDING = 860  # makes 1 KB


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a consumer did: seconds of wall and of CPU, and resident MB when a third was read, and at the end."""

    wall_s: float
    cpu_s: float
    early_mb: float
    late_mb: float


def measure() -> None:
    """Print the table."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_kafka(Path(folder)) as kafka,
        streaming(kafka, Path(folder)) as stream,
    ):
        stream.create_topics({"bitcoin": PARTITIONS})
        sizes = _fill(stream)
        bare = _in_a_process(_count_only, stream)
        loaded = _in_a_process(_load, stream)
        rows = stream.query("select count(*), count(distinct (kafka_partition, kafka_offset)) from raw.bitcoin_events")
    assert rows == [(EVENTS, EVENTS)], rows
    print(f"\n{EVENTS:,} messages of {sizes:.0f} bytes, {PARTITIONS} partitions, each consumer on one core\n")
    print("| consumer | messages/s | CPU µs a message | MB after a third | MB at the end |")
    print("| --- | --- | --- | --- | --- |")
    for name, run in (("aiokafka alone, counting", bare), ("insight: decode, validate, load", loaded)):
        speed, cost = EVENTS / run.wall_s, run.cpu_s / EVENTS * 1e6
        print(f"| {name} | {speed:,.0f} | {cost:.1f} | {run.early_mb:.0f} | {run.late_mb:.0f} |")


def _fill(stream: Stream) -> float:
    """Mean bytes of a message, once all are in the topic."""
    total = 0
    for first in range(0, EVENTS, 30_000):
        messages = {("bitcoin", place): [] for place in range(PARTITIONS)}
        for number in range(first, first + 30_000):
            value = price(number, padding=PADDING)
            total += len(value)
            messages["bitcoin", number % PARTITIONS].append((value, VERSION_1))
        stream.send(messages)  # type: ignore[arg-type] # lists of values and headers
    return total / EVENTS


def _in_a_process(work: Callable[[dict[str, str], Callable[[], None]], None], stream: Stream) -> Run:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_measured, args=(work, stream.environment, results))
    process.start()
    run = Run(**json.loads(results.get(timeout=600)))
    process.join()
    return run


def _measured(
    work: Callable[[dict[str, str], Callable[[], None]], None], environment: dict[str, str], results: Queue[str]
) -> None:
    os.environ.update(environment)
    os.environ.pop("INSIGHT_STREAM_LINGER_MS")
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    seen: list[float] = []
    Thread(target=_watch_memory, args=(seen,), daemon=True).start()
    started: list[tuple[float, float]] = []
    work(environment, lambda: started.append((time.monotonic(), time.process_time())))
    wall, cpu = started[0]
    early = max(seen[: len(seen) // 3] or [0.0])
    result = {
        "wall_s": time.monotonic() - wall,
        "cpu_s": time.process_time() - cpu,
        "early_mb": early,
        "late_mb": max(seen[-len(seen) // 3 :]),
    }
    results.put(json.dumps(result))


def _watch_memory(seen: list[float]) -> None:
    while True:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        seen.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
        time.sleep(0.05)


def _count_only(environment: dict[str, str], began: Callable[[], None]) -> None:
    async def run() -> None:
        topic = f"{environment['INSIGHT_KAFKA_TOPIC_PREFIX']}bitcoin"
        consumer = AIOKafkaConsumer(
            bootstrap_servers=environment["INSIGHT_KAFKA_BOOTSTRAP_SERVERS"],
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=4 * 2**20,
        )
        consumer.assign([TopicPartition(topic, number) for number in range(PARTITIONS)])
        await consumer.start()
        began()
        count = 0
        while count < EVENTS:
            for records in (await consumer.getmany(timeout_ms=1_000, max_records=20_000)).values():
                count += len(records)
        await consumer.stop()

    asyncio.run(run())


def _load(environment: dict[str, str], began: Callable[[], None]) -> None:
    settings = StreamSettings(_env_file=None)
    broker = Broker(settings)
    meters = ConsumerMeters()
    loaded = {"topic": broker.full_name(BITCOIN)}

    async def run() -> None:
        stopping = asyncio.Event()

        async def watch() -> None:
            while meters.registry.get_sample_value("insight_stream_loaded_total", loaded) != EVENTS:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            stopping.set()

        with open_warehouse(environment["INSIGHT_WAREHOUSE_URL"]) as warehouse:
            warehouse.ensure_raw_tables()
            consumer = Consumer(broker=broker, warehouse=warehouse, settings=settings, meters=meters)
            watching = asyncio.create_task(watch())
            collect_rarely()  # as the command does
            warm_up()  # imports, which are no part of a rate
            began()
            await consumer.run(stopping)
            await watching

    asyncio.run(run())
