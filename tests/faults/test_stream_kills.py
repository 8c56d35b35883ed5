"""R1: consumers are killed, hard, at random moments, on a real broker. Nothing is lost, nothing doubled."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import kafka as kafka_plugin
from tests.kafka import KafkaBroker
from tests.streams import VERSION_1, Sent, price, streaming

kafka = kafka_plugin.kafka


@pytest.mark.parametrize(
    ("kills", "events", "partitions"),
    [
        pytest.param(10, 60_000, {"bitcoin": 3}, id="10 kills"),
        pytest.param(100, 1_000_000, {"bitcoin": 6, "news": 6, "sales": 6}, id="100 kills", marks=pytest.mark.full),
    ],
)
def test_consumers_that_are_killed_lose_and_double_nothing(
    kafka: KafkaBroker,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
    kills: int,
    events: int,
    partitions: dict[str, int],
) -> None:
    drawn = random.Random(1)
    places = [(topic, number) for topic, count in partitions.items() for number in range(count)]
    with streaming(kafka, tmp_path) as stream:
        stream.create_topics(partitions)
        sent: Sent = {}
        bad: Sent = {}
        share = events // kills
        consumer = stream.start()
        for kill in range(kills):
            messages = defaultdict(list)
            for number in range(kill * share, (kill + 1) * share):
                value = b"{" if number % 500 == 7 else price(number)
                messages[places[number % len(places)]].append((value, VERSION_1))
            acknowledged = stream.send(messages)
            sent |= acknowledged
            bad |= {place: value for place, value in acknowledged.items() if value == b"{"}
            time.sleep(drawn.uniform(0.0, 4.0))  # a start takes one or two of them
            stream.kill(consumer)
            consumer = stream.start()
        caught_up_s = stream.wait_for_all(sent, timeout_s=60)
        assert stream.stop(consumer) == 0
        counts = stream.assert_each_once(sent, bad=bad)
        record_property("counts", f"R1: {kills} kills; {counts}; caught up in {caught_up_s:.1f} s")
