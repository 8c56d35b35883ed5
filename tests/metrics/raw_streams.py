"""Stream messages for the raw tables: made here, small, and awkward on purpose.

Prices of two sources over four months, some answered twice at later offsets, one change missing; articles that
were sent again with another category. Every number comes from arithmetic, so the same rows arise everywhere.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

import duckdb

from tests.metrics.raw_loader import create_raw_tables
from workers.sinks import EventSlice

_START = datetime(2019, 3, 1)  # noqa: DTZ001 -- the raw tables hold naive UTC
_EVENTS = 700


def load_streams(connection: duckdb.DuckDBPyConnection) -> None:
    """Write the messages of topics `bitcoin` and `news`."""
    _write(connection, table="bitcoin_events", topic="bitcoin", messages=_bitcoin())
    _write(connection, table="news_events", topic="news", messages=_news())


def stream_slices() -> list[EventSlice]:
    """The same messages, for the workers to write."""
    with duckdb.connect() as scratch:
        create_raw_tables(scratch)
        load_streams(scratch)
        return [_slice(scratch, "bitcoin"), _slice(scratch, "news")]


def _slice(scratch: duckdb.DuckDBPyConnection, topic: str) -> EventSlice:
    table = f"{topic}_events"
    rows = scratch.sql(f"from raw.{table} select * exclude (loaded_at) order by kafka_offset").to_arrow_table()
    return EventSlice(topic=topic, partition=0, start=None, end=rows.num_rows, event_table=table, rows=rows)


def _write(
    connection: duckdb.DuckDBPyConnection,
    *,
    table: str,
    topic: str,
    messages: Iterator[tuple[datetime, Mapping[str, object]]],
) -> None:
    rows = [
        (topic, 0, offset, None, 1, json.dumps(payload), at, at + timedelta(seconds=offset))
        for offset, (at, payload) in enumerate(messages)
    ]
    connection.executemany(f"insert into raw.{table} values (?, ?, ?, ?, ?, ?, ?, ?)", rows)


def _bitcoin() -> Iterator[tuple[datetime, Mapping[str, object]]]:
    for number in range(_EVENTS):
        at = _START + timedelta(hours=4 * (number // 2), seconds=7 * (number % 2))
        change = None if number == 11 else round((number * 37 % 140) / 10 - 7, 2)
        payload = {
            "source": ("coingecko", "exchange")[number % 2],
            "price": 3800 + number * 7919 % 1009 + (number % 100) / 100,
            "change_24h": change,
            "volatility_category": _volatility(change),
        }
        yield at, payload
        if number % 50 == 0:
            yield at, {**payload, "price": payload["price"] + 1}  # type: ignore[operator]  # a float, see above


def _volatility(change: float | None) -> str | None:
    if change is None:
        return None
    return "High" if abs(change) >= 5 else "Medium" if abs(change) >= 2 else "Low"


def _news() -> Iterator[tuple[datetime, Mapping[str, object]]]:
    for number in range(160):
        at = _START + timedelta(hours=17 * number)
        article = number - 1 if number % 10 == 9 else number
        yield (
            at,
            {
                "url": f"https://news.example.com/{article}",
                "source": "newsapi",
                "source_name": None if number % 7 == 0 else ("Herald", "Courier", "Gazette")[number % 3],
                "category": ("business", "technology", None)[number % 3],
                "headline": f"Headline {article}",
                "word_count": 5 + number % 30,
                "has_crypto_mention": number % 4 == 0,
                "published_at": f"{at:%Y-%m-%dT%H:%M:%S}Z",
            },
        )
