"""The raw tables and the one transactional door to them, on real DuckDB files and with real second processes."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from workers.errors import SettingError, WarehouseError, WarehouseLockedError
from workers.sinks import EventSlice, LoadOutcome, ParsedFile, open_warehouse

ROOT = Path(__file__).parents[2]

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


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(path, read_only=True) as connection:
        return connection.execute(query).fetchall()


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


REJECTED = pa.table({"line_number": [4], "column_name": ["GST"], "reason": ["'x' is not a number"], "raw_value": ["x"]})


def test_the_raw_tables_are_those_of_the_contract_and_making_them_twice_keeps_their_rows(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "w.duckdb"
    with open_warehouse(f"duckdb:///{path}") as warehouse:
        warehouse.ensure_raw_tables()
        warehouse.load(tax_file("a", taxes("Fun")))
        warehouse.ensure_raw_tables()
    found = rows(
        path,
        "SELECT table_name, string_agg(column_name || ' ' || data_type, ', ' ORDER BY column_index)"
        " FROM duckdb_columns() WHERE schema_name = 'raw' GROUP BY 1",
    )
    files = {
        name: columns + ("" if name in ("load_files", "rejected_records", "consumer_offsets") else FILE_ORIGIN)
        for name, columns in CONTRACT.items()
    }
    assert dict(found) == files | dict.fromkeys(("bitcoin_events", "news_events", "sales_events"), EVENTS)
    assert rows(path, "SELECT product_category FROM raw.tax_amounts") == [("Fun",)]


def test_no_column_but_a_whole_rows_name_and_a_message_key_may_be_null(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    with open_warehouse(f"duckdb:///{path}") as warehouse:
        warehouse.ensure_raw_tables()
    nullable = rows(path, "SELECT DISTINCT column_name FROM duckdb_columns() WHERE schema_name = 'raw' AND is_nullable")
    assert sorted(nullable) == [("column_name",), ("message_key",)]


def test_an_event_is_stored_once_per_topic_partition_and_offset(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    with open_warehouse(f"duckdb:///{path}") as warehouse:
        warehouse.ensure_raw_tables()
    with duckdb.connect(path) as connection:
        event = "INSERT INTO raw.news_events VALUES ('news', 0, 7, NULL, 1, '{}', now(), now())"
        connection.execute(event)
        with pytest.raises(duckdb.ConstraintException):
            connection.execute(event)


def test_a_load_writes_rows_rejects_and_record_and_a_second_one_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    with open_warehouse(f"duckdb:///{path}") as warehouse:
        warehouse.ensure_raw_tables()
        first = tax_file("a", taxes("Fun", "Nest"), taxes("Bags"), rejected=(REJECTED,))
        assert warehouse.load(first) is LoadOutcome.LOADED
        assert warehouse.load(tax_file("a", taxes("Other"))) is LoadOutcome.ALREADY_LOADED
        assert warehouse.load(tax_file("b", taxes("Last"))) is LoadOutcome.LOADED
        assert warehouse.loaded_hashes() == {"a": "tax_amounts", "b": "tax_amounts"}
    assert rows(path, "SELECT file_hash, line_number, product_category, gst FROM raw.tax_amounts") == [
        ("a", 2, "Fun", Decimal("0.1800")),
        ("a", 3, "Nest", Decimal("0.1800")),
        ("a", 2, "Bags", Decimal("0.1800")),
        ("b", 2, "Last", Decimal("0.1800")),
    ]
    assert rows(path, "SELECT * EXCLUDE (loaded_at) FROM raw.rejected_records") == [
        ("a", "t.csv", "tax_amounts", 4, "GST", "'x' is not a number", "x")
    ]
    assert rows(path, "SELECT file_hash, load_id, rows_read, rows_loaded, rows_quarantined FROM raw.load_files") == [
        ("a", 1, 3, 2, 1),
        ("b", 2, 3, 2, 1),
    ]


def test_loaded_at_is_utc_and_one_for_the_whole_load(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    with open_warehouse(f"duckdb:///{path}") as warehouse:
        warehouse.ensure_raw_tables()
        warehouse.load(tax_file("a", taxes("Fun"), taxes("Nest"), rejected=(REJECTED,)))
    tables = ("tax_amounts", "rejected_records", "load_files")
    times = " UNION ".join(f"SELECT loaded_at FROM raw.{table}" for table in tables)
    ((loaded_at, age_s),) = rows(path, f"SELECT loaded_at, epoch(now()) - epoch(loaded_at) FROM ({times})")
    assert loaded_at.tzinfo is None
    assert 0 <= age_s < 60


def test_names_and_values_that_look_like_sql_are_stored_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    hostile = "x'); DROP TABLE raw.customers; --"
    with open_warehouse(f"duckdb:///{path}") as warehouse:
        warehouse.ensure_raw_tables()
        warehouse.load(tax_file(hostile, taxes(hostile), name=hostile))
        assert warehouse.loaded_hashes() == {hostile: "tax_amounts"}
    assert rows(path, "SELECT product_category FROM raw.tax_amounts") == [(hostile,)]
    assert rows(path, "SELECT file_name FROM raw.load_files") == [(hostile,)]
    assert rows(path, "SELECT count(*) FROM raw.customers") == [(0,)]


def test_an_error_in_the_middle_of_a_load_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    with open_warehouse(f"duckdb:///{path}") as warehouse:
        warehouse.ensure_raw_tables()
        with pytest.raises(WarehouseError, match=r"refused: .*NOT NULL"):
            warehouse.load(tax_file("a", taxes("Fun"), pa.table({"line_number": [3], "product_category": [None]})))
        assert warehouse.loaded_hashes() == {}
    assert rows(path, "SELECT count(*) FROM raw.tax_amounts") == [(0,)]


def test_a_process_killed_in_the_middle_of_a_load_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    with open_warehouse(f"duckdb:///{path}") as warehouse:
        warehouse.ensure_raw_tables()
        warehouse.load(tax_file("before", taxes("Fun")))
    # The rows before the kill are many enough for DuckDB to have written some of them to its file.
    script = f"""
import time, decimal, pyarrow as pa
from workers.sinks import ParsedFile, open_warehouse
def good():
    n = 400_000
    gst = pa.array([decimal.Decimal("0.1800")] * n, pa.decimal128(5, 4))
    yield pa.table({{"line_number": range(n), "product_category": [str(i) for i in range(n)], "gst": gst}})
    print("half", flush=True)
    time.sleep(60)
open_warehouse({f"duckdb:///{path}"!r}).load(ParsedFile(file_hash="half", file_name="h.csv", file_kind="tax_amounts",
    started=0.0, rows_read=1, rows_loaded=1, rows_quarantined=0, good=good(), rejected=()))
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.kill()
    with open_warehouse(f"duckdb:///{path}") as warehouse:
        assert warehouse.loaded_hashes() == {"before": "tax_amounts"}
        assert warehouse.load(tax_file("half", taxes("Nest"))) is LoadOutcome.LOADED
    assert rows(path, "SELECT file_hash, product_category FROM raw.tax_amounts") == [
        ("before", "Fun"),
        ("half", "Nest"),
    ]


@contextmanager
def another_process_holding(path: Path, *, seconds: float) -> Iterator[None]:
    script = f"import duckdb, time; c = duckdb.connect({str(path)!r}); print('held', flush=True); time.sleep({seconds})"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield
        process.kill()


def test_a_warehouse_that_is_taken_for_a_while_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    with open_warehouse(f"duckdb:///{path}", lock_timeout=timedelta(seconds=30)) as warehouse:
        warehouse.ensure_raw_tables()
        started = time.monotonic()
        with another_process_holding(path, seconds=1.0):
            assert warehouse.load(tax_file("a", taxes("Fun"))) is LoadOutcome.LOADED
        assert time.monotonic() - started > 0.9
    assert rows(path, "SELECT product_category FROM raw.tax_amounts") == [("Fun",)]


def test_a_warehouse_that_stays_taken_is_given_up_in_time_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    with open_warehouse(f"duckdb:///{path}", lock_timeout=timedelta(seconds=0.5)) as warehouse:
        warehouse.ensure_raw_tables()
        with another_process_holding(path, seconds=60):
            started = time.monotonic()
            with pytest.raises(WarehouseLockedError, match=r"w\.duckdb is in use by another process") as caught:
                warehouse.load(tax_file("a", taxes("Fun")))
            assert 0.3 < time.monotonic() - started < 5
        assert "close the program that has it open" in caught.value.hint
        assert warehouse.load(tax_file("a", taxes("Fun"))) is LoadOutcome.LOADED


def test_between_two_operations_the_file_is_free_for_other_processes(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    with open_warehouse(f"duckdb:///{path}") as warehouse:
        warehouse.ensure_raw_tables()
        script = f"import duckdb; duckdb.connect({str(path)!r}).execute('CREATE TABLE other (i INTEGER)')"
        subprocess.run([sys.executable, "-c", script], check=True)
        assert warehouse.loaded_hashes() == {}


def test_a_relative_url_starts_at_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with open_warehouse("duckdb:///.insight/warehouse.duckdb") as warehouse:
        warehouse.ensure_raw_tables()
    assert (tmp_path / ".insight" / "warehouse.duckdb").is_file()


@pytest.mark.parametrize("url", ["not a url", "postgresql://u:secret@h/d", "duckdb:///:memory:", "duckdb://", ""])
def test_a_url_that_is_no_duckdb_file_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(SettingError, match="The warehouse") as caught:
        open_warehouse(url)
    assert "secret" not in caught.value.message
    assert "INSIGHT_WAREHOUSE_URL" in caught.value.hint


def test_a_file_that_is_no_warehouse_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    path.write_text("this is not a database" * 1000)
    with (
        open_warehouse(f"duckdb:///{path}") as warehouse,
        pytest.raises(WarehouseError, match=r"refused: .*valid DuckDB"),
    ):
        warehouse.ensure_raw_tables()


def price_events(first: int, last: int, *, start: int | None, topic: str = "bitcoin") -> EventSlice:
    count = last - first
    events = {
        "kafka_topic": [topic] * count,
        "kafka_partition": pa.array([0] * count, pa.int32()),
        "kafka_offset": range(first, last),
        "message_key": [None] * count,
        "schema_version": pa.array([1] * count, pa.int32()),
        "payload": ["{}"] * count,
        "event_at": pa.array([datetime(2019, 1, 1)] * count, pa.timestamp("us")),  # noqa: DTZ001 - naive UTC
    }
    return EventSlice(
        topic=topic, partition=0, start=start, end=last, event_table="bitcoin_events", rows=pa.table(events), rejected=1
    )


def test_events_and_their_offset_are_one_transaction(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    with open_warehouse(f"duckdb:///{path}") as warehouse:
        warehouse.ensure_raw_tables()
        assert (
            warehouse.store_events([price_events(0, 3, start=None), price_events(5, 6, start=None, topic="b2")])
            == set()
        )
        assert warehouse.store_events([price_events(3, 7, start=3)]) == set()
        assert warehouse.event_offsets([("bitcoin", 0), ("b2", 0), ("bitcoin", 1)]) == {("bitcoin", 0): 7, ("b2", 0): 6}
        with pytest.raises(WarehouseError):  # the second slice's row is there already
            warehouse.store_events([price_events(7, 9, start=7), price_events(5, 6, start=6, topic="b2")])
        assert warehouse.event_offsets([("bitcoin", 0)]) == {("bitcoin", 0): 7}
        positions = warehouse.stream_positions()
    assert [(each.topic, each.rows_loaded, each.rows_rejected) for each in positions] == [
        ("b2", 1, 1),
        ("bitcoin", 7, 2),
    ]
    assert rows(
        path, "SELECT count(*), count(DISTINCT kafka_offset) FROM raw.bitcoin_events WHERE kafka_topic = 'bitcoin'"
    ) == [(7, 7)]


def test_a_writer_that_was_overtaken_writes_nothing_of_that_partition_and_all_of_the_others(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    with open_warehouse(f"duckdb:///{path}") as warehouse:
        warehouse.ensure_raw_tables()
        warehouse.store_events([price_events(0, 5, start=None)])
        late = [price_events(0, 3, start=None), price_events(0, 2, start=None, topic="b2")]
        assert warehouse.store_events(late) == {("bitcoin", 0)}
        assert warehouse.store_events([price_events(4, 9, start=4)]) == {("bitcoin", 0)}
        assert warehouse.store_events([price_events(9, 12, start=9)]) == {("bitcoin", 0)}
        assert warehouse.event_offsets([("bitcoin", 0), ("b2", 0)]) == {("bitcoin", 0): 5, ("b2", 0): 2}
    assert rows(path, "SELECT count(*) FROM raw.bitcoin_events") == [(7,)]


def test_an_operator_may_go_on_at_an_offset_and_only_where_something_was_loaded(tmp_path: Path) -> None:
    with open_warehouse(f"duckdb:///{tmp_path / 'w.duckdb'}") as warehouse:
        warehouse.ensure_raw_tables()
        warehouse.store_events([price_events(0, 5, start=None)])
        warehouse.skip_to(("bitcoin", 0), 100)
        assert warehouse.event_offsets([("bitcoin", 0)]) == {("bitcoin", 0): 100}
        with pytest.raises(SettingError, match="bitcoin/1"):
            warehouse.skip_to(("bitcoin", 1), 5)


def test_who_has_reserved_the_warehouse_finds_it_closed_and_the_others_wait(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    with (
        open_warehouse(f"duckdb:///{path}") as builder,
        open_warehouse(f"duckdb:///{path}", lock_timeout=timedelta(seconds=0.3)) as consumer,
    ):
        builder.ensure_raw_tables()
        with builder.reserved():
            with pytest.raises(WarehouseLockedError):
                consumer.store_events([price_events(0, 5, start=None)])
            with duckdb.connect(path) as connection:
                connection.execute("CREATE TABLE built (i INTEGER)")
        assert consumer.store_events([price_events(0, 5, start=None)]) == set()


@pytest.mark.parametrize("taken", ["file", "folder"])
def test_a_warehouse_that_is_gone_is_not_made_anew(tmp_path: Path, taken: str) -> None:
    path = tmp_path / "disk" / "w.duckdb"
    with open_warehouse(f"duckdb:///{path}", lock_timeout=timedelta(seconds=0.3)) as warehouse:
        warehouse.ensure_raw_tables()
        warehouse.store_events([price_events(0, 5, start=None)])
        gone = path if taken == "file" else path.parent
        gone.rename(tmp_path / "away")

        with pytest.raises(WarehouseError, match=r"w\.duckdb is gone"):
            warehouse.store_events([price_events(5, 9, start=5)])

        assert not gone.exists()
        (tmp_path / "away").rename(gone)
        assert warehouse.store_events([price_events(5, 9, start=5)]) == set()
    assert rows(path, "SELECT count(*) FROM raw.bitcoin_events") == [(9,)]
