"""Events on Snowflake, by the emulator: rows and offsets are one transaction, as on DuckDB."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.snowflake import SnowflakeEmulator
from tests.workers.test_sinks import price_events
from workers.errors import WarehouseError
from workers.messages import NEWS
from workers.recordings import replay
from workers.sinks import EventSlice, Warehouse, open_warehouse


@dataclass
class Account:
    """A database of the emulated account, which no other test has."""

    emulator: SnowflakeEmulator
    database: str

    @property
    def url(self) -> str:
        return self.emulator.url(self.database)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with self.emulator.connect(self.database) as session:
            return list(session.cursor().execute(sql).fetchall())

    def copies(self) -> int:
        """How many statements have copied rows in."""
        return sum(each["sql"].startswith("COPY INTO") for each in self.emulator.statements(database=self.database))


@pytest.fixture
def account(snowflake: SnowflakeEmulator) -> Account:
    return Account(snowflake, f"S_{uuid4().hex[:8]}")


@pytest.fixture
def warehouse(account: Account) -> Iterator[Warehouse]:
    with open_warehouse(account.url) as opened:
        opened.ensure_raw_tables()
        yield opened


def test_events_and_their_offset_are_one_transaction(account: Account, warehouse: Warehouse) -> None:
    assert warehouse.store_events([price_events(0, 3, start=None), price_events(5, 6, start=None, topic="b2")]) == set()
    assert account.copies() == 1  # of all partitions' rows
    assert warehouse.store_events([price_events(3, 7, start=3)]) == set()
    assert warehouse.event_offsets([("bitcoin", 0), ("b2", 0), ("bitcoin", 1)]) == {("bitcoin", 0): 7, ("b2", 0): 6}
    account.rows("alter table raw.news_events rename to raw.gone")
    news = price_events(0, 2, start=None, topic="news")
    broken = EventSlice(
        topic="news", partition=0, start=None, end=2, event_table="news_events", rows=news.rows, rejected=0
    )

    with pytest.raises(WarehouseError, match="Snowflake refused"):
        warehouse.store_events([price_events(7, 9, start=7), broken])

    assert warehouse.event_offsets([("bitcoin", 0), ("news", 0)]) == {("bitcoin", 0): 7}
    positions = [(each.topic, each.rows_loaded, each.rows_rejected) for each in warehouse.stream_positions()]
    assert positions == [("b2", 1, 1), ("bitcoin", 7, 2)]
    counted = "select count(*), count(distinct kafka_offset) from raw.bitcoin_events where kafka_topic = 'bitcoin'"
    assert account.rows(counted) == [(7, 7)]


def test_a_writer_that_was_overtaken_writes_nothing_of_that_partition_and_all_of_the_others(
    account: Account, warehouse: Warehouse
) -> None:
    warehouse.store_events([price_events(0, 5, start=None)])
    late = [price_events(0, 3, start=None), price_events(0, 2, start=None, topic="b2")]

    assert warehouse.store_events(late) == {("bitcoin", 0)}
    assert warehouse.store_events([price_events(4, 9, start=4)]) == {("bitcoin", 0)}

    assert warehouse.event_offsets([("bitcoin", 0), ("b2", 0)]) == {("bitcoin", 0): 5, ("b2", 0): 2}
    assert account.rows("select count(*) from raw.bitcoin_events") == [(7,)]


def test_of_two_writers_that_go_on_at_the_same_offset_one_writes(account: Account, warehouse: Warehouse) -> None:
    def write(first: int) -> bool:
        """Whether it did; a refusal is tried again, as a consumer does."""
        with open_warehouse(account.url) as own:
            while True:
                try:
                    return own.store_events([price_events(first, first + 5, start=first or None)]) == set()
                except WarehouseError:
                    continue

    with ThreadPoolExecutor(2) as writers:
        for first in (0, 5, 10):
            assert sorted(writers.map(write, (first, first))) == [False, True]
    assert warehouse.event_offsets([("bitcoin", 0)]) == {("bitcoin", 0): 15}
    assert account.rows("select count(*), count(distinct kafka_offset) from raw.bitcoin_events") == [(15, 15)]


def test_a_recording_is_loaded_once_as_it_is_with_its_rejected_lines(
    account: Account, warehouse: Warehouse, tmp_path: Path
) -> None:
    article = {
        "source": "newsapi",
        "headline": "Caf\u00e9 'chains' \"rise\" \U0001f4c8 \\ ; --",
        "description": None,
        "url": "https://example.com/a?b=1&c=%20",
        "category": None,
        "source_name": "Example",
        "word_count": 3,
        "has_crypto_mention": False,
        "published_at": "2025-01-15T08:15:30.123Z",
        "timestamp": "2025-01-15T09:00:00.000001+01:00",
    }
    lines = [json.dumps(article), "{", json.dumps({**article, "word_count": -1})]
    (tmp_path / "news.jsonl").write_text("\n".join(lines), encoding="utf-8")

    first = replay(tmp_path / "news.jsonl", NEWS, warehouse=warehouse)
    again = replay(tmp_path / "news.jsonl", NEWS, warehouse=warehouse)

    assert (first.loaded, first.rejected, again.loaded, again.rejected) == (1, 2, 0, 0)
    stored = account.rows("select payload, message_key, event_at from raw.news_events")
    assert stored == [(lines[0], article["url"], datetime.fromisoformat("2025-01-15T08:00:00.000001"))]
    assert account.rows("select line_number from raw.rejected_records order by 1") == [(2,), (3,)]
