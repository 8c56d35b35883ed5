"""Recordings: replayed into the warehouse by the consumer's own code, each message once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest

from workers import recordings
from workers.errors import SettingError, UnknownFileKindError, UnreadableFileError, WarehouseError
from workers.generate_streams import generate_streams
from workers.messages import BITCOIN, NEWS, SALES
from workers.recordings import replay
from workers.sinks import Warehouse, open_warehouse
from workers.sources import FILE_KINDS

MESSAGE = {
    "source": "coingecko",
    "price": 3800.25,
    "change_24h": -2.5,
    "timestamp": "2019-01-01T04:00:00Z",
    "volatility_category": "Medium",
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "w.duckdb"


@pytest.fixture
def warehouse(file: Path) -> Warehouse:
    opened = open_warehouse(f"duckdb:///{file}")
    opened.ensure_raw_tables()
    return opened


def rows(file: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(file, read_only=True) as connection:
        return connection.execute(sql).fetchall()


def written(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return path


def test_the_synthetic_recordings_are_the_same_for_a_seed_and_all_usable(
    tmp_path: Path, file: Path, warehouse: Warehouse
) -> None:
    bitcoin, news = generate_streams(tmp_path / "one", seed=1)
    again, other = generate_streams(tmp_path / "two", seed=1)[0], generate_streams(tmp_path / "three", seed=2)[0]
    assert bitcoin.path.read_bytes() == again.path.read_bytes() != other.path.read_bytes()

    prices = replay(bitcoin.path, BITCOIN, warehouse=warehouse)
    articles = replay(news.path, NEWS, warehouse=warehouse)

    assert (prices.messages, prices.loaded, prices.rejected) == (2_190, 2_190, 0)
    assert articles.loaded > 2_000
    assert articles.rejected == 0
    categories = dict(
        rows(file, "select payload ->> 'volatility_category', count(*) from raw.bitcoin_events group by 1")
    )
    assert categories.keys() == {"Low", "Medium", "High", "Unknown"}
    mentions = dict(rows(file, "select payload ->> 'has_crypto_mention', count(*) from raw.news_events group by 1"))
    assert mentions.keys() == {"true", "false"}


def test_a_second_replay_does_nothing_and_a_longer_file_is_another_recording(
    tmp_path: Path, file: Path, warehouse: Warehouse
) -> None:
    path = written(tmp_path / "b.jsonl", MESSAGE)
    first = replay(path, BITCOIN, warehouse=warehouse)
    second = replay(path, BITCOIN, warehouse=warehouse)

    assert (first.loaded, second.loaded, second.messages) == (1, 0, 1)
    replay(written(tmp_path / "b.jsonl", MESSAGE, {**MESSAGE, "price": 1}), BITCOIN, warehouse=warehouse)
    assert rows(file, "select count(distinct kafka_topic), count(*) from raw.bitcoin_events") == [(2, 3)]


def test_a_replay_that_was_cut_off_goes_on_where_it_was(
    tmp_path: Path, file: Path, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recordings, "MESSAGES_AT_ONCE", 10)
    path = written(tmp_path / "b.jsonl", *({**MESSAGE, "price": number + 1} for number in range(35)))
    store, calls = warehouse.store_events, []

    def fail_at_the_third(slices: Any) -> Any:
        calls.append(slices)
        if len(calls) == 3:
            raise WarehouseError("gone", hint="wait")
        return store(slices)

    monkeypatch.setattr(warehouse, "store_events", fail_at_the_third)
    with pytest.raises(WarehouseError):
        replay(path, BITCOIN, warehouse=warehouse)
    rest = replay(path, BITCOIN, warehouse=warehouse)

    assert (rest.messages, rest.loaded) == (35, 15)
    counted = "select count(*), count(distinct kafka_offset), max(kafka_offset) from raw.bitcoin_events"
    assert rows(file, counted) == [(35, 35, 34)]


def test_answers_of_the_api_and_messages_may_stand_in_one_file(
    tmp_path: Path, file: Path, warehouse: Warehouse
) -> None:
    answer = {"bitcoin": {"usd": 3682.0, "usd_24h_change": -2.696074545060545, "last_updated_at": 1546315200}}
    path = written(tmp_path / "b.jsonl", answer, "", {"received_at": "2019-01-02T00:00:00Z", "answer": answer}, MESSAGE)

    assert replay(path, BITCOIN, warehouse=warehouse).loaded == 3

    first = rows(file, "select message_key, event_at::varchar, payload ->> 'price' from raw.bitcoin_events limit 1")
    assert first == [("coingecko", "2019-01-01 04:00:00", "3682.0")]


def test_the_category_that_was_asked_for_is_that_of_the_articles(
    tmp_path: Path, file: Path, warehouse: Warehouse
) -> None:
    article = {
        "title": "A",
        "url": "https://example.com/1",
        "publishedAt": "2025-01-15T08:00:00Z",
        "source": {"name": "W"},
    }
    answer = {"status": "ok", "articles": [article]}
    asked = {"asked": {"category": "business"}, "received_at": "2025-01-15T09:00:00Z", "answer": answer}

    replay(written(tmp_path / "n.jsonl", asked), NEWS, warehouse=warehouse)

    assert rows(file, "select payload ->> 'category', event_at::varchar from raw.news_events") == [
        ("business", "2025-01-15 09:00:00")
    ]


def test_what_is_no_message_goes_to_the_quarantine_and_the_others_go_on(
    tmp_path: Path, file: Path, warehouse: Warehouse
) -> None:
    path = written(tmp_path / "b.jsonl", MESSAGE, "{", {**MESSAGE, "price": -1}, {"bitcoin": {"usd": "x"}}, {}, MESSAGE)

    report = replay(path, BITCOIN, warehouse=warehouse)

    assert (report.messages, report.loaded, report.rejected) == (6, 2, 4)
    refused = rows(
        file, "select file_name, file_kind, line_number, reason from raw.rejected_records order by line_number"
    )
    assert [(name, kind, line) for name, kind, line, _ in refused] == [("b.jsonl", "bitcoin", n) for n in (2, 3, 4, 5)]
    assert "price: Input should be greater than 0" in refused[1][3]
    assert rows(file, "select rows_loaded, rows_rejected, next_offset from raw.consumer_offsets") == [(2, 4, 6)]


def test_sales_come_from_a_csv_as_well(tmp_path: Path, file: Path, warehouse: Warehouse) -> None:
    header = ",".join(column.header for column in FILE_KINDS[0].columns)
    path = written(
        tmp_path / "s.csv",
        header,
        "7,5,12/31/2019,A,A  Tee,Apparel,2,3.10,6.5,Used",
        "7,6,never,A,A Tee,Apparel,2,3.10,6.5,Used\n",
    )

    report = replay(path, SALES, warehouse=warehouse)

    assert (report.loaded, report.rejected) == (1, 1)
    ((key, payload),) = rows(file, "select message_key, payload from raw.sales_events")
    assert key == "5"
    assert json.loads(payload) | {"timestamp": None} == {
        "transaction_id": 5,
        "product_sku": "A",
        "customer_id": 7,
        "transaction_date": "2019-12-31",
        "product_description": "A Tee",
        "product_category": "Apparel",
        "quantity": 2,
        "avg_price": 3.1,
        "delivery_charges": 6.5,
        "coupon_status": "Used",
        "timestamp": None,
    }


def test_a_file_that_is_no_recording_is_refused_with_what_to_do(tmp_path: Path, warehouse: Warehouse) -> None:
    with pytest.raises(SettingError, match="There is no file"):
        replay(tmp_path / "missing.jsonl", BITCOIN, warehouse=warehouse)
    with pytest.raises(SettingError, match=r"'\.txt' hold no events"):
        replay(written(tmp_path / "a.txt", "x"), BITCOIN, warehouse=warehouse)
    (tmp_path / "a.json").write_bytes(b"\xff")
    with pytest.raises(UnreadableFileError):
        replay(tmp_path / "a.json", BITCOIN, warehouse=warehouse)
    taxes = written(tmp_path / "t.csv", "Product_Category,GST", "Fun,0.18\n")
    with pytest.raises(UnknownFileKindError, match="holds tax_amounts"):
        replay(taxes, SALES, warehouse=warehouse)
