"""The raw tables and the one transactional door to them: one suite, on a DuckDB file and on the emulated Snowflake."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from tests import sites
from tests.conftest import REPOSITORY
from tests.sites import Site
from workers.errors import SettingError, WarehouseError, WarehouseLockedError
from workers.ingest import LoadStatus, ingest
from workers.messages import NEWS
from workers.recordings import replay
from workers.sinks import EventSlice, LoadOutcome, ParsedFile, Warehouse, open_warehouse

CONTRACT = {
    "online_sales": "customer_id BIGINT, transaction_id BIGINT, transaction_date DATE, product_sku VARCHAR,"
    " product_description VARCHAR, product_category VARCHAR, quantity INTEGER, avg_price DECIMAL(18,2),"
    " delivery_charges DECIMAL(18,2), coupon_status VARCHAR",
    "customers": "customer_id BIGINT, gender VARCHAR, location VARCHAR, tenure_months INTEGER",
    "discount_coupons": "coupon_month INTEGER, product_category VARCHAR, coupon_code VARCHAR,"
    " discount_pct DECIMAL(5,2)",
    "marketing_spend": "spend_date DATE, offline_spend DECIMAL(18,2), online_spend DECIMAL(18,2)",
    "tax_amounts": "product_category VARCHAR, gst DECIMAL(5,4)",
    "load_files": "file_hash VARCHAR, file_name VARCHAR, file_kind VARCHAR, load_id BIGINT, rows_read BIGINT,"
    " rows_loaded BIGINT, rows_quarantined BIGINT, seconds DOUBLE, loaded_at TIMESTAMP",
    "rejected_records": "file_hash VARCHAR, file_name VARCHAR, file_kind VARCHAR, line_number BIGINT,"
    " column_name VARCHAR, reason VARCHAR, raw_value VARCHAR, loaded_at TIMESTAMP",
    "consumer_offsets": "kafka_topic VARCHAR, kafka_partition INTEGER, event_table VARCHAR, next_offset BIGINT,"
    " rows_loaded BIGINT, rows_rejected BIGINT, updated_at TIMESTAMP",
}
FILE_ORIGIN = ", file_hash VARCHAR, line_number BIGINT, loaded_at TIMESTAMP"
EVENTS = (
    "kafka_topic VARCHAR, kafka_partition INTEGER, kafka_offset BIGINT, message_key VARCHAR,"
    " schema_version INTEGER, payload VARCHAR, event_at TIMESTAMP, loaded_at TIMESTAMP"
)
REJECTED = pa.table({"line_number": [4], "column_name": ["GST"], "reason": ["'x' is not a number"], "raw_value": ["x"]})

site = sites.site


@pytest.fixture
def warehouse(site: Site) -> Iterator[Warehouse]:
    """The site's raw tables, through our door."""
    with open_warehouse(site.url, lock_timeout=timedelta(seconds=1)) as opened:
        opened.ensure_raw_tables()
        yield opened


def tax_file(file_hash: str, *good: pa.Table, rejected: tuple[pa.Table, ...] = (), name: str = "t.csv") -> ParsedFile:
    return ParsedFile(
        file_hash=file_hash,
        file_name=name,
        file_kind="tax_amounts",
        started=time.monotonic(),
        rows_read=3,
        rows_loaded=2,
        rows_quarantined=1,
        good=good,
        rejected=rejected,
    )


def taxes(*categories: str) -> pa.Table:
    gst = pa.array([Decimal("0.1800")] * len(categories), pa.decimal128(5, 4))
    return pa.table({"line_number": range(2, 2 + len(categories)), "product_category": categories, "gst": gst})


# Where it is


@pytest.mark.parametrize(
    "url",
    [
        "not a url",
        "",
        "postgresql://user:secret@host/db",
        "duckdb:///:memory:",
        "duckdb://",
        "duckdb://a:b/c",
        "snowflake://user:secret@account",
        "snowflake://user:secret@account/db?protocol=http",
    ],
)
def test_a_url_that_can_be_no_warehouse_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(SettingError, match="The warehouse") as caught:
        open_warehouse(url)
    assert "secret" not in caught.value.message
    assert "INSIGHT_WAREHOUSE_URL" in caught.value.hint


# Tables


def test_the_raw_tables_are_those_of_the_contract_and_making_them_twice_keeps_their_rows(
    site: Site, warehouse: Warehouse
) -> None:
    warehouse.load(tax_file("a", taxes("Fun")))
    warehouse.ensure_raw_tables()

    files = {
        name: columns + ("" if name in ("load_files", "rejected_records", "consumer_offsets") else FILE_ORIGIN)
        for name, columns in CONTRACT.items()
    }
    expected = files | dict.fromkeys(("bitcoin_events", "news_events", "sales_events"), EVENTS)
    for ours, theirs in site.types.items():
        expected = {name: columns.replace(f" {ours}", f" {theirs}") for name, columns in expected.items()}
    found = site.raw_columns()
    assert {name: columns for name, columns in found.items() if name not in site.own_tables} == expected
    assert site.own_tables <= found.keys()
    nullable = site.rows(
        "SELECT DISTINCT lower(column_name) FROM information_schema.columns"
        " WHERE lower(table_schema) = 'raw' AND is_nullable = 'YES' ORDER BY 1"
    )
    assert nullable == [("column_name",), ("message_key",)]  # a whole row has no column, a message may have no key
    assert site.rows("SELECT product_category FROM raw.tax_amounts") == [("Fun",)]
    assert set(warehouse.loaded_hashes()) == {"a"}


# Files


def test_a_load_writes_rows_rejects_and_record_and_a_second_one_changes_nothing(
    site: Site, warehouse: Warehouse
) -> None:
    first = tax_file("a", taxes("Fun", "Nest"), taxes("Bags"), rejected=(REJECTED,))
    assert warehouse.load(first) is LoadOutcome.LOADED
    assert warehouse.load(tax_file("a", taxes("Other"))) is LoadOutcome.ALREADY_LOADED
    assert warehouse.load(tax_file("b", taxes("Last"))) is LoadOutcome.LOADED
    assert warehouse.loaded_hashes() == {"a": "tax_amounts", "b": "tax_amounts"}

    loaded = "SELECT file_hash, line_number, product_category, gst FROM raw.tax_amounts ORDER BY file_hash, gst, 3"
    assert site.rows(loaded) == [
        ("a", 2, "Bags", Decimal("0.1800")),
        ("a", 2, "Fun", Decimal("0.1800")),
        ("a", 3, "Nest", Decimal("0.1800")),
        ("b", 2, "Last", Decimal("0.1800")),
    ]
    assert site.rows("SELECT * EXCLUDE (loaded_at) FROM raw.rejected_records") == [
        ("a", "t.csv", "tax_amounts", 4, "GST", "'x' is not a number", "x")
    ]
    records = "SELECT file_hash, load_id, rows_read, rows_loaded, rows_quarantined FROM raw.load_files ORDER BY load_id"
    assert site.rows(records) == [("a", 1, 3, 2, 1), ("b", 2, 3, 2, 1)]
    tables = ("tax_amounts", "rejected_records", "load_files")
    times = " UNION ".join(f"SELECT loaded_at FROM raw.{table} WHERE file_hash = 'a'" for table in tables)
    ((loaded_at,),) = site.rows(times)  # one for the whole load, in UTC
    assert timedelta(0) <= datetime.now(UTC).replace(tzinfo=None) - loaded_at < timedelta(minutes=1)


def test_files_load_once_with_their_quarantine_and_report(site: Site, warehouse: Warehouse, tmp_path: Path) -> None:
    lines = ["Apparel,0.18", "Bags,much", *(f"Category {number},0.1" for number in range(40))]
    (tmp_path / "Tax_amount.csv").write_text("\n".join(["Product_Category,GST", *lines, ""]))

    (first,) = ingest(tmp_path, warehouse=warehouse).files
    (again,) = ingest(tmp_path, warehouse=warehouse).files

    assert (first.error, first.rows_read, first.rows_loaded, first.rows_quarantined) == (None, 42, 41, 1)
    assert again.status is LoadStatus.ALREADY_LOADED
    loaded = site.rows("SELECT product_category, gst FROM raw.tax_amounts ORDER BY line_number")
    assert loaded[:2] == [("Apparel", Decimal("0.1800")), ("Category 0", Decimal("0.1000"))]
    assert len(loaded) == 41
    bad = site.rows("SELECT line_number, column_name, file_name FROM raw.rejected_records")
    assert bad == [(3, "GST", "Tax_amount.csv")]
    assert site.rows("SELECT rows_read, rows_quarantined FROM raw.load_files") == [(42, 1)]


def test_names_and_values_that_look_like_sql_are_stored_as_they_are(site: Site, warehouse: Warehouse) -> None:
    hostile = "x'); DROP TABLE raw.customers; --\\"
    warehouse.load(tax_file(hostile, taxes(hostile), name=hostile))

    assert warehouse.loaded_hashes() == {hostile: "tax_amounts"}
    assert site.rows("SELECT product_category FROM raw.tax_amounts") == [(hostile,)]
    assert site.rows("SELECT file_name FROM raw.load_files") == [(hostile,)]
    assert site.rows("SELECT count(*) FROM raw.customers") == [(0,)]


def test_an_error_in_the_middle_of_a_load_leaves_nothing(site: Site, warehouse: Warehouse) -> None:
    nameless = pa.table({"line_number": [3], "product_category": pa.array([None], pa.string())})
    misfit = pa.table({"line_number": ["no number"], "column_name": ["GST"], "reason": ["bad"], "raw_value": ["x"]})
    for broken in (tax_file("a", taxes("Fun"), nameless), tax_file("a", taxes("Fun"), rejected=(misfit,))):
        with pytest.raises(WarehouseError, match="refused") as caught:
            warehouse.load(broken)
        assert "Nothing was committed" in caught.value.hint
        assert warehouse.loaded_hashes() == {}
        assert site.rows("SELECT count(*) FROM raw.tax_amounts") == [(0,)]
    assert warehouse.load(tax_file("a", taxes("Fun"))) is LoadOutcome.LOADED


def test_a_process_killed_in_the_middle_of_a_load_leaves_nothing(site: Site, warehouse: Warehouse) -> None:
    warehouse.load(tax_file("before", taxes("Fun")))
    # The kill comes when the good rows are written, many enough for DuckDB to have put some of them into its file.
    script = f"""
import time, decimal, pyarrow as pa
from workers.sinks import ParsedFile, open_warehouse
n = 150_000
gst = pa.array([decimal.Decimal("0.1800")] * n, pa.decimal128(5, 4))
good = pa.table({{"line_number": range(n), "product_category": [str(i) for i in range(n)], "gst": gst}})
def rejected():
    print("half", flush=True)
    time.sleep(60)
    yield
open_warehouse({site.url!r}).load(ParsedFile(file_hash="half", file_name="h.csv", file_kind="tax_amounts",
    started=0.0, rows_read=1, rows_loaded=1, rows_quarantined=0, good=(good,), rejected=rejected()))
"""
    command = [sys.executable, "-W", "ignore", "-c", script]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.kill()

    assert warehouse.loaded_hashes() == {"before": "tax_amounts"}
    site.let_time_pass()
    assert warehouse.load(tax_file("half", taxes("Nest"))) is LoadOutcome.LOADED
    assert site.rows("SELECT file_hash, product_category FROM raw.tax_amounts ORDER BY 1") == [
        ("before", "Fun"),
        ("half", "Nest"),
    ]


def test_a_warehouse_that_stays_taken_is_given_up_in_time_with_what_to_do(site: Site, warehouse: Warehouse) -> None:
    with site.taken():
        started = time.monotonic()
        with pytest.raises(WarehouseLockedError, match=r"[Aa]nother process") as caught:
            warehouse.load(tax_file("a", taxes("Fun")))
        assert time.monotonic() - started < 10
    assert "then run this again" in caught.value.hint
    assert warehouse.load(tax_file("a", taxes("Fun"))) is LoadOutcome.LOADED


def test_of_two_writers_of_one_file_one_loads_it(site: Site, warehouse: Warehouse) -> None:
    def load(_: int) -> LoadOutcome:
        with open_warehouse(site.url) as own:
            return until_it_has_a_turn(own, tax_file("a", taxes("Fun", "Nest")))

    with ThreadPoolExecutor(2) as writers:
        assert sorted(writers.map(load, range(2))) == [LoadOutcome.ALREADY_LOADED, LoadOutcome.LOADED]
    assert set(warehouse.loaded_hashes()) == {"a"}
    assert site.rows("SELECT count(*) FROM raw.tax_amounts") == [(2,)]


def until_it_has_a_turn(warehouse: Warehouse, parsed: ParsedFile) -> LoadOutcome:
    """Load the file; a refusal is tried again, as its hint says."""
    while True:
        try:
            return warehouse.load(parsed)
        except WarehouseLockedError:
            time.sleep(0.05)


# Events


def price_events(
    first: int, last: int, *, start: int | None, topic: str = "bitcoin", table: str = "bitcoin_events"
) -> EventSlice:
    count = last - first
    events = {
        "kafka_topic": [topic] * count,
        "kafka_partition": pa.array([0] * count, pa.int32()),
        "kafka_offset": range(first, last),
        "message_key": pa.array([None] * count, pa.string()),
        "schema_version": pa.array([1] * count, pa.int32()),
        "payload": ["{}"] * count,
        "event_at": pa.array([datetime(2019, 1, 1)] * count, pa.timestamp("us")),  # noqa: DTZ001 - naive UTC
    }
    return EventSlice(
        topic=topic, partition=0, start=start, end=last, event_table=table, rows=pa.table(events), rejected=1
    )


def test_events_and_their_offset_are_one_transaction(site: Site, warehouse: Warehouse) -> None:
    assert warehouse.store_events([price_events(0, 3, start=None), price_events(5, 6, start=None, topic="b2")]) == set()
    assert warehouse.store_events([price_events(3, 7, start=3)]) == set()
    assert warehouse.event_offsets([("bitcoin", 0), ("b2", 0), ("bitcoin", 1)]) == {("bitcoin", 0): 7, ("b2", 0): 6}

    site.execute("DROP TABLE raw.news_events")
    news = price_events(0, 2, start=None, topic="news", table="news_events")
    with pytest.raises(WarehouseError, match="refused"):
        warehouse.store_events([price_events(7, 9, start=7), news])

    assert warehouse.event_offsets([("bitcoin", 0), ("news", 0)]) == {("bitcoin", 0): 7}
    positions = [(each.topic, each.rows_loaded, each.rows_rejected) for each in warehouse.stream_positions()]
    assert positions == [("b2", 1, 1), ("bitcoin", 7, 2)]
    counted = "SELECT count(*), count(DISTINCT kafka_offset) FROM raw.bitcoin_events WHERE kafka_topic = 'bitcoin'"
    assert site.rows(counted) == [(7, 7)]


def test_a_writer_that_was_overtaken_writes_nothing_of_that_partition_and_all_of_the_others(
    site: Site, warehouse: Warehouse
) -> None:
    warehouse.store_events([price_events(0, 5, start=None)])
    late = [price_events(0, 3, start=None), price_events(0, 2, start=None, topic="b2")]

    assert warehouse.store_events(late) == {("bitcoin", 0)}
    assert warehouse.store_events([price_events(4, 9, start=4)]) == {("bitcoin", 0)}
    assert warehouse.store_events([price_events(9, 12, start=9)]) == {("bitcoin", 0)}

    assert warehouse.event_offsets([("bitcoin", 0), ("b2", 0)]) == {("bitcoin", 0): 5, ("b2", 0): 2}
    assert site.rows("SELECT count(*) FROM raw.bitcoin_events") == [(7,)]


def test_of_two_writers_that_go_on_at_the_same_offset_one_writes(site: Site, warehouse: Warehouse) -> None:
    def write(first: int) -> bool:
        """Whether it did; a refusal is tried again, as a consumer does."""
        with open_warehouse(site.url) as own:
            while True:
                try:
                    return own.store_events([price_events(first, first + 5, start=first or None)]) == set()
                except WarehouseLockedError:
                    time.sleep(0.05)

    with ThreadPoolExecutor(2) as writers:
        for first in (0, 5):
            assert sorted(writers.map(write, (first, first))) == [False, True]
    assert warehouse.event_offsets([("bitcoin", 0)]) == {("bitcoin", 0): 10}
    assert site.rows("SELECT count(*), count(DISTINCT kafka_offset) FROM raw.bitcoin_events") == [(10, 10)]


def test_a_writer_that_keeps_the_warehouse_commits_each_time_and_goes_on_after_an_error(
    site: Site, warehouse: Warehouse
) -> None:
    writer = warehouse.event_writer()
    assert writer.store([price_events(0, 5, start=None)]) == set()
    assert writer.store([price_events(5, 6, start=5)]) == set()
    odd = price_events(0, 1, start=None, topic="odd", table="news_events")
    textless = replace(odd, rows=odd.rows.drop_columns("payload"))
    with pytest.raises(WarehouseError, match="refused"):
        writer.store([price_events(6, 7, start=6), textless])

    assert warehouse.store_events([price_events(6, 8, start=6)]) == set()  # somebody else, meanwhile
    assert writer.store([price_events(6, 7, start=6)]) == {("bitcoin", 0)}
    writer.close()
    assert site.rows("SELECT count(*) FROM raw.bitcoin_events") == [(8,)]


def test_an_operator_may_go_on_at_an_offset_and_only_where_something_was_loaded(warehouse: Warehouse) -> None:
    warehouse.store_events([price_events(0, 5, start=None)])
    warehouse.skip_to(("bitcoin", 0), 100)
    assert warehouse.event_offsets([("bitcoin", 0)]) == {("bitcoin", 0): 100}
    with pytest.raises(SettingError, match="bitcoin/1"):
        warehouse.skip_to(("bitcoin", 1), 5)


def test_what_came_since_a_moment_is_counted_and_read(warehouse: Warehouse) -> None:
    began_at = datetime.now(UTC)
    warehouse.store_events([price_events(0, 5, start=None), price_events(0, 2, start=None, topic="b2")])

    assert warehouse.loads_since(began_at) == {"bitcoin": 5, "b2": 2}
    assert warehouse.payloads_since("bitcoin_events", began_at) == ("{}",) * 7
    later = datetime.now(UTC)
    assert warehouse.loads_since(later) == {}
    assert warehouse.payloads_since("bitcoin_events", later) == ()
    ((updated_at),) = {each.updated_at for each in warehouse.stream_positions()}
    assert began_at <= updated_at <= later


def test_a_recording_is_loaded_once_as_it_is_with_its_rejected_lines(
    site: Site, warehouse: Warehouse, tmp_path: Path
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
    stored = site.rows("SELECT payload, message_key, event_at FROM raw.news_events")
    assert stored == [(lines[0], article["url"], datetime.fromisoformat("2025-01-15T08:00:00.000001"))]
    assert site.rows("SELECT line_number FROM raw.rejected_records ORDER BY 1") == [(2,), (3,)]


def test_a_schema_that_is_gone_is_not_made_anew_by_a_writer(site: Site, warehouse: Warehouse) -> None:
    warehouse.store_events([price_events(0, 5, start=None)])
    site.execute("DROP SCHEMA raw CASCADE")

    with pytest.raises(WarehouseError, match="refused"):
        warehouse.store_events([price_events(5, 9, start=5)])

    assert site.raw_columns() == {}
