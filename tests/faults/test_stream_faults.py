"""R1 to R6: consumers, the broker, the dead letter topic and the warehouse fail, on a real Kafka.

Nothing is lost, nothing doubled. What was counted stands in the report of the run.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import httpx
import pytest
from aiokafka import AIOKafkaProducer

from tests import kafka as kafka_plugin
from tests.conftest import Published
from tests.faults.outages import Deployment, Kind, Outage, deployed
from tests.kafka import KafkaBroker
from tests.snowflake import SnowflakeEmulator
from tests.snowpipe import SnowpipeEmulator
from tests.streams import MESSAGES, VERSION_1, Messages, Sent, SnowflakeStream, SnowpipeStream, Stream, price, streaming

kafka = kafka_plugin.kafka

Record = Callable[[str, object], None]

OUTAGE_S = 60
"""R6: how long nobody can have the warehouse."""

CAUGHT_UP_S, IN_A_ROW = 10, 5
"""R1: how long after so many kills in a row everything may be loaded, the start of another consumer included."""

LAG_S = 5
"""R4: how long after it was sent a good message may be loaded, of 99 in 100."""

BUSY = 2
"""How many times as long either may take at the small sizes, which run beside other tests and R6's stream."""


@pytest.fixture(scope="module")
def deployment(
    kafka: KafkaBroker, synthetic: Published, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """R6's own stream, and a service beside it."""
    with deployed(kafka, synthetic, tmp_path_factory.mktemp("outage")) as made:
        yield made


@pytest.fixture(scope="module")
def outage(deployment: Deployment) -> Outage:
    """R6's minute: it passes while the other tests run."""
    return deployment.begin("locked", OUTAGE_S)


@pytest.mark.usefixtures("outage")
@pytest.mark.parametrize(
    ("kills", "events", "partitions", "limit_s"),
    [
        pytest.param(10, 60_000, {"bitcoin": 3}, CAUGHT_UP_S * BUSY, id="10 kills"),
        pytest.param(
            100, 1_000_000, {"bitcoin": 6, "news": 6, "sales": 6}, CAUGHT_UP_S, id="100 kills", marks=pytest.mark.full
        ),
    ],
)
def test_consumers_that_are_killed_lose_and_double_nothing(
    kafka: KafkaBroker,
    tmp_path: Path,
    record_property: Record,
    kills: int,
    events: int,
    partitions: dict[str, int],
    limit_s: float,
) -> None:
    drawn = random.Random(1)
    places = [(topic, number) for topic, count in partitions.items() for number in range(count)]
    # A dead member keeps its partitions until then, and the next one waits for them.
    with streaming(kafka, tmp_path, INSIGHT_KAFKA_SESSION_TIMEOUT_MS="1500") as stream:
        stream.create_topics(partitions)
        sent: Sent = {}
        bad: Sent = {}
        share = events // kills
        assigned, consumer, working, longest_s = 0, stream.start(), 0, 0.0
        for kill in range(kills):
            messages: Messages = defaultdict(list)
            for number in range(kill * share, (kill + 1) * share):
                topic, partition = places[number % len(places)]
                value = b"{" if number % 500 == 7 else MESSAGES[topic](number)
                messages[topic, partition].append((value, VERSION_1))
            acknowledged = stream.send(messages)
            sent |= acknowledged
            bad |= {place: value for place, value in acknowledged.items() if value == b"{"}
            if kill % IN_A_ROW < IN_A_ROW - 1:  # while it works; of the others some die before
                stream.wait_until(
                    lambda before=assigned: _assignments(stream) > before, what="a consumer", every_s=0.02
                )
                working += 1
            time.sleep(drawn.uniform(0.0, 1.0))
            stream.kill(consumer)
            killed_at = time.perf_counter()
            assigned, consumer = _assignments(stream), stream.start()
            if kill % IN_A_ROW == IN_A_ROW - 1:
                stream.wait_for_all(sent)
                longest_s = max(longest_s, time.perf_counter() - killed_at)
        assert stream.stop(consumer) == 0
        counts = stream.assert_each_once(sent, bad=bad)
        assert longest_s <= limit_s, f"{counts}\n{stream.last_words()}"
    record_property("counts", f"R1: {kills} kills, {working} at work; {counts}; caught up in {longest_s:.1f} s")


def test_consumers_that_are_killed_lose_and_double_nothing_on_snowflake(
    kafka: KafkaBroker, snowflake: SnowflakeEmulator, tmp_path: Path, record_property: Record
) -> None:
    stream = SnowflakeStream(kafka=kafka, home=tmp_path, emulator=snowflake)
    sent: Sent = {}
    try:
        stream.create_topics({"bitcoin": 2})
        for first in (0, 1_000):
            consumer = stream.start()
            values = [b"{" if number % 100 == 7 else price(number) for number in range(first, first + 1_000)]
            messages = {("bitcoin", place): [(each, VERSION_1) for each in values[place::2]] for place in (0, 1)}
            sent |= stream.send(messages)
            stream.wait_for_all(sent)
            stream.kill(consumer)  # between two transactions: what becomes of one left open is the account's business
        counts = stream.assert_each_once(sent, bad={place: value for place, value in sent.items() if value == b"{"})
    finally:
        stream.close()
    record_property("counts", f"R1 on Snowflake: 2 kills; {counts}")


@pytest.mark.parametrize("becomes", [pytest.param("is committed later", marks=pytest.mark.full), "is lost"])
def test_consumers_that_are_killed_lose_and_double_nothing_through_snowpipe(
    kafka: KafkaBroker, snowpipe: SnowpipeEmulator, tmp_path: Path, record_property: Record, becomes: str
) -> None:
    stream = SnowpipeStream(kafka=kafka, home=tmp_path, emulator=snowpipe.account, settings=snowpipe.environment)
    sent: Sent = {}

    def send(first: int) -> None:
        values = [b"{" if number % 100 == 7 else price(number) for number in range(first, first + 500)]
        messages = {("bitcoin", place): [(each, VERSION_1) for each in values[place::2]] for place in (0, 1)}
        sent.update(stream.send(messages))

    def appended() -> int:
        return sum(stream.database.upper() in each["path"].upper() for each in snowpipe.requests("/rows"))

    try:
        stream.create_topics({"bitcoin": 2})
        consumer = stream.start()
        send(0)
        stream.wait_for_all(sent)
        snowpipe.fail(is_commit_held=True)
        before = appended()
        send(500)
        stream.wait_until(lambda: appended() > before, what="rows that are not committed")
        stream.kill(consumer)
        if becomes == "is lost":
            snowpipe.invalidate_channels()
        consumer = stream.start()
        time.sleep(2)
        snowpipe.fail()
        send(1_000)
        stream.wait_for_all(sent)
        assert stream.stop(consumer) == 0
        counts = stream.assert_each_once(sent, bad={place: value for place, value in sent.items() if value == b"{"})
    finally:
        stream.close()
    record_property("counts", f"R1 through Snowpipe: killed between append and commit, which {becomes}; {counts}")


@pytest.mark.parametrize(
    ("restarts", "events"),
    [pytest.param(2, 20_000, id="2 restarts"), pytest.param(20, 200_000, id="20 restarts", marks=pytest.mark.full)],
)
def test_a_broker_that_restarts_loses_nothing_and_no_consumer_ends(
    kafka: KafkaBroker, tmp_path: Path, record_property: Record, restarts: int, events: int
) -> None:
    with streaming(kafka, tmp_path) as stream:
        stream.create_topics({"bitcoin": 3})
        sent: Sent = {}
        share = events // (restarts + 1)
        consumer = stream.start()
        longest_s = 0.0
        for restart in range(restarts + 1):
            numbers = range(restart * share, (restart + 1) * share)
            messages = {("bitcoin", place): [(price(n), VERSION_1) for n in numbers[place::3]] for place in range(3)}
            messages["bitcoin", 0].append((b"{", VERSION_1))
            sent |= stream.send(messages)
            if restart < restarts:
                kafka.kill() if restart % 2 else kafka.stop()
                kafka.start()
            longest_s = max(longest_s, stream.wait_for_all(sent, timeout_s=60))  # R2: no lag after a minute
        assert consumer.poll() is None
        assert stream.stop(consumer) == 0
        counts = stream.assert_each_once(sent, bad={place: value for place, value in sent.items() if value == b"{"})
    record_property("counts", f"R2: {restarts} restarts, half hard; {counts}; lag 0 within {longest_s:.1f} s")


@pytest.mark.parametrize(
    ("rebalances", "events"),
    [pytest.param(5, 20_000, id="5 rebalances"), pytest.param(50, 300_000, id="50 rebalances", marks=pytest.mark.full)],
)
def test_partitions_that_change_hands_and_new_ones_lose_and_double_nothing(
    kafka: KafkaBroker, tmp_path: Path, record_property: Record, rebalances: int, events: int
) -> None:
    with streaming(kafka, tmp_path) as stream:
        stream.create_topics({"bitcoin": 3})
        sent: Sent = {}
        share, partitions = events // rebalances, 3
        stream.start()
        for rebalance in range(rebalances):
            if rebalance == rebalances // 2:
                partitions += 2
                asyncio.run(kafka.add_partitions(f"{stream.prefix}bitcoin", partitions))
            assigned = _assignments(stream)
            while len(stream.workers) < (3 if rebalance % 2 == 0 else 1):
                stream.start()
            numbers = range(rebalance * share, (rebalance + 1) * share)
            sent |= stream.send(
                {
                    ("bitcoin", place): [(price(n), VERSION_1) for n in numbers[place::partitions]]
                    for place in range(partitions)
                }
            )
            while len(stream.workers) > (3 if rebalance % 2 == 0 else 1):
                assert stream.stop(stream.workers[0]) in (0, -signal.SIGTERM)  # the latter before it had begun
            stream.wait_until(lambda before=assigned: _assignments(stream) > before, what="a change of partitions")
        stream.wait_for_all(sent, timeout_s=120)
        assert all(worker.poll() is None for worker in stream.workers)
        counts = stream.assert_each_once(sent)
        assigned = _assignments(stream)
    record_property(
        "counts", f"R3: {rebalances} changes of 1 to 3 workers, 2 new partitions, {assigned} assignments; {counts}"
    )


def _assignments(stream: Stream) -> int:
    return stream.log.read_text().count('"assigned"') if stream.log.exists() else 0


POISON_CLASSES = {
    "missing_field",
    "no_payload",
    "not_json",
    "not_utf8",
    "nul_character",
    "repeated_field",
    "too_large",
    "unknown_schema_version",
    "wrong_value",
}


def _poison(number: int) -> list[tuple[bytes | None, tuple[tuple[str, bytes], ...]]]:
    good = price(number)
    return [
        (good[:-9], VERSION_1),
        (good.replace(b'"price": ', b'"price": "x'), VERSION_1),
        (good.replace(b'"price"', b'"cost"'), VERSION_1),
        (good.replace(b'"change_24h": ', b'"change_24h": NaN, "x": '), VERSION_1),
        (b"x" * 5_000_000 if number == 0 else b"x" * 1_000_001, VERSION_1),
        (b"\xff" + good, VERSION_1),
        (None, VERSION_1),
        (good, (("schema_version", b"99"),)),
        (good.replace(b'"price": ', b'"price": -'), VERSION_1),
        (good.replace(b"T", b" ", 1).replace(b"Z", b""), VERSION_1),
        (good.replace(b'"price"', b'"price": 1, "price"'), VERSION_1),
        (good.replace(b'"source": "', b'"source": "\\u0000'), VERSION_1),
    ]


@pytest.mark.parametrize(
    ("bad_count", "events", "limit_s"),
    [
        pytest.param(1_000, 100_000, LAG_S * BUSY, id="1k in 100k"),
        pytest.param(10_000, 1_000_000, LAG_S, id="10k in 1M", marks=pytest.mark.full),
    ],
)
def test_poison_becomes_dead_letters_once_and_holds_up_no_good_message(
    kafka: KafkaBroker, tmp_path: Path, record_property: Record, bad_count: int, events: int, limit_s: float
) -> None:
    kinds = len(_poison(0))
    poison = list(itertools.chain.from_iterable(_poison(number) for number in range(bad_count // kinds + 1)))
    # Two letters of a megabyte are proof enough, and 5 MB once.
    poison = [each for place, each in enumerate(poison) if place % kinds != 4 or place < 3 * kinds][:bad_count]
    drawn = random.Random(4)
    places = sorted(drawn.sample(range(events), len(poison)))
    bad_at = dict(zip(places, poison, strict=True))
    with streaming(kafka, tmp_path) as stream:
        stream.create_topics({"bitcoin": 3})
        consumer = stream.start()
        sent = stream.send({("bitcoin", place): [(price(place), VERSION_1)] for place in range(3)})
        stream.wait_for_all(sent)
        bad: Sent = {}
        at_once, began_at = 4_000, time.monotonic()
        for first in range(0, events, at_once):
            # So many a second: what comes faster than a consumer can work would be late for that alone.
            time.sleep(max(0.0, began_at + first / at_once - time.monotonic()))
            messages: Messages = defaultdict(list)
            is_bad = defaultdict(list)
            for number in range(first, first + at_once):
                messages["bitcoin", number % 3].append(bad_at.get(number, (price(number), VERSION_1)))
                is_bad[number % 3].append(number in bad_at)
            acknowledged = stream.send(messages)  # in the order of the messages
            sent |= acknowledged
            bad |= dict(itertools.compress(acknowledged.items(), itertools.chain(*is_bad.values())))
        stream.wait_for_all(sent)
        counts = stream.assert_each_once(sent, bad=bad)
        lags = stream.lags_s()
        p99_s = lags[len(lags) * 99 // 100]
        assert p99_s < limit_s
        classes = Counter(letter.error_class for letter in stream.dead_letters())
        assert classes.keys() == POISON_CLASSES
        replayed = _replay_with_mended_ones(stream)
        assert stream.stop(consumer) == 0
    record_property("counts", f"R4: {counts}; of {len(classes)} classes; p99 lag {p99_s:.2f} s; {replayed}")


def _replay_with_mended_ones(stream: Stream) -> str:
    """Send all dead letters back, and a few that an older worker had rejected; the counts, in words."""
    before = len(stream.dead_letters())
    topic = f"{stream.prefix}bitcoin"
    rows_before = stream.query("select count(*) from raw.bitcoin_events")[0][0]

    async def add_mended() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=stream.kafka.bootstrap_servers)
        await producer.start()
        for number in range(10):
            origin = {"origin_topic": topic, "origin_partition": str(number % 3), "origin_offset": "0"}
            headers = [*VERSION_1, *((name, value.encode()) for name, value in origin.items())]
            await producer.send_and_wait(f"{topic}.dlq", price(10**6 + number), key=b"key", headers=headers)
        await producer.stop()

    asyncio.run(add_mended())
    told = json.loads(stream.run("stream", "deadletters", "replay", "--topic", "bitcoin", "--json"))
    assert told == {"sent": before + 10}
    stream.wait_until(lambda: len(stream.dead_letters()) >= 2 * before + 10, what="the letters that are still bad")
    stream.wait_until(
        lambda: stream.query("select count(*) from raw.bitcoin_events")[0][0] >= rows_before + 10, what="mended rows"
    )
    time.sleep(0.5)
    letters = stream.dead_letters()
    origins = [(each.origin_partition, each.origin_offset) for each in letters if each.error_class]
    assert len(origins) == len(set(origins)) == 2 * before
    assert stream.query("select count(*) from raw.bitcoin_events")[0][0] == rows_before + 10
    return f"{before + 10:,} sent back: 10 mended ones landed once, {before:,} are dead letters again, once"


@pytest.mark.parametrize("times", [pytest.param(1, id="once"), pytest.param(10, id="10 times", marks=pytest.mark.full)])
def test_a_dead_letter_topic_that_refuses_holds_its_partition_at_the_poison(
    kafka: KafkaBroker, tmp_path: Path, record_property: Record, times: int
) -> None:
    with streaming(kafka, tmp_path) as stream:
        stream.create_topics({"bitcoin": 2})
        consumer = stream.start()
        sent: Sent = {}
        for _ in range(times):
            # Smaller than any letter, but not than the 78 bytes that end a transaction: without those Kafka hangs.
            asyncio.run(kafka.configure_topic(f"{stream.prefix}bitcoin.dlq", {"max.message.bytes": "200"}))
            held = [
                *((price(n), VERSION_1) for n in range(50)),
                (b"{", VERSION_1),
                *((price(n), VERSION_1) for n in range(50)),
            ]
            acknowledged = stream.send(
                {("bitcoin", 0): held, ("bitcoin", 1): [(price(n), VERSION_1) for n in range(100)]}
            )
            sent |= acknowledged
            (poison,) = (offset for (_, _, offset), value in acknowledged.items() if value == b"{")
            others = {place: value for place, value in acknowledged.items() if place[1] == 1}
            stream.wait_for_all(others)
            stream.wait_until(lambda at=poison: stream.reached().get((f"{stream.prefix}bitcoin", 0)) == at)
            time.sleep(2.0)
            assert stream.reached()[f"{stream.prefix}bitcoin", 0] == poison
            asyncio.run(kafka.configure_topic(f"{stream.prefix}bitcoin.dlq", {}))
            stream.wait_for_all(sent)
        assert stream.stop(consumer) == 0
        counts = stream.assert_each_once(sent, bad={place: value for place, value in sent.items() if value == b"{"})
    record_property(
        "counts", f"R5: refused {times} times; the partition waited at the poison, the other went on; {counts}"
    )


def test_a_warehouse_that_is_taken_loses_nothing_and_the_last_publication_answers(
    deployment: Deployment, outage: Outage, record_property: Record
) -> None:
    told = [deployment.end(outage), deployment.end(deployment.begin("away", 5))]
    assert deployment.health()["holding"] is None
    metrics = httpx.get(f"http://127.0.0.1:{deployment.health_port}/metrics").text
    assert "insight_stream_loaded_total" in metrics
    _assert_unharmed(deployment, told, record_property)


@pytest.mark.full
def test_a_warehouse_that_is_taken_again_and_again_loses_nothing_and_the_last_publication_answers(
    deployment: Deployment, record_property: Record
) -> None:
    kinds = itertools.islice(itertools.cycle(get_args(Kind)), 20)
    told = [deployment.end(deployment.begin(kind, OUTAGE_S)) for kind in kinds]
    _assert_unharmed(deployment, told, record_property)


def _assert_unharmed(deployment: Deployment, told: list[str], record_property: Record) -> None:
    (consumer,) = deployment.stream.workers
    assert consumer.poll() is None
    assert deployment.stream.stop(consumer) == 0
    counts = deployment.stream.assert_each_once(deployment.sent)
    record_property("counts", f"R6: {'; '.join(told)}; {counts}")
