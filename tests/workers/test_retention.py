"""Retention removes what is too old and no build needs, and nothing else: on DuckDB and on the emulated Snowflake."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner

from tests.conftest import Published
from tests.snowflake import SnowflakeEmulator
from workers.raw_tables import EVENT_TABLES, FILE_TABLES
from workers.retention import RetentionRules, apply_retention
from workers.sinks import open_warehouse
from workers.upkeep_cli import retention as retention_commands

RULES = RetentionRules(rejected=timedelta(days=90), superseded=timedelta(days=30))
NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
LONG_AGO, LATELY = "2026-01-01", "2026-11-20"  # before both of the rules' days, and after them

# What marts are built from: staging, and what stands between it and the marts.
NEEDED = (
    "int_sales_lines",
    "stg_ecommerce__online_sales",
    "stg_ecommerce__customers",
    "stg_ecommerce__discount_coupons",
    "stg_ecommerce__marketing_spend",
    "stg_ecommerce__tax_amount",
    "stg_streaming__bitcoin",
    "stg_streaming__news",
)
FILES = {name: [column.name for column in table.columns] for name, table in FILE_TABLES.items()}
# A column of each file table that is no part of its key, and another value for it.
CHANGED = {
    "online_sales": ("quantity", "quantity + 1"),
    "customers": ("tenure_months", "tenure_months + 1"),
    "discount_coupons": ("discount_pct", "discount_pct + 1"),
    "marketing_spend": ("online_spend", "online_spend + 1"),
    "tax_amounts": ("gst", "gst / 2"),
}
PLANTED = 12


@pytest.fixture
def built(synthetic: Published, tmp_path: Path) -> Path:
    """A build database of which everything was loaded long ago."""
    file = tmp_path / "warehouse.duckdb"
    shutil.copyfile(synthetic.warehouse, file)
    with duckdb.connect(str(file)) as connection:
        happen(connection)
        for table in (*FILE_TABLES, *EVENT_TABLES, "load_files"):
            connection.execute(f"update raw.{table} set loaded_at = timestamp '{LONG_AGO}'")
    return file


def correct(connection: duckdb.DuckDBPyConnection, table: str, *, loaded_at: str) -> None:
    """Load some rows of the table again, changed, as a newer file does; line numbers begin with 2 there, too."""
    column, value = CHANGED[table]
    file_hash = f"corrected-{table}-{loaded_at}"
    connection.execute(
        f"""insert into raw.{table} by name
        select * replace ({value} as {column}, '{file_hash}' as file_hash, row_number() over () + 1 as line_number,
            timestamp '{loaded_at}' as loaded_at)
        from (from raw.{table} where file_hash not like 'corrected%' order by all limit {PLANTED})"""
    )
    connection.execute(
        """insert into raw.load_files by name select * replace (? as file_hash, (select max(load_id) + 1 from
        raw.load_files) as load_id) from raw.load_files limit 1""",
        [file_hash],
    )


def happen(connection: duckdb.DuckDBPyConnection) -> None:
    """Prices and articles, more of them than are going to be repeated."""
    for number in range(PLANTED + 3):
        at = f"2019-06-{number + 1:02} 10:00"
        price = {"source": "CoinGecko", "price": f"{8000 + number}.5", "change_24h": 1.5}
        article = {"url": f"https://example.com/{number}", "headline": "H", "published_at": f"{at}:00Z"}
        for table, payload in (("bitcoin_events", price), ("news_events", article)):
            connection.execute(
                f"insert into raw.{table} values (?, 0, ?, null, 1, ?, ?::timestamp, now()::timestamp)",
                [table, number, json.dumps(payload), at],
            )


def repeat(connection: duckdb.DuckDBPyConnection, table: str, *, loaded_at: str) -> None:
    """Deliver the first events again, at later offsets."""
    connection.execute(
        f"""insert into raw.{table} by name select * replace (
            kafka_offset + epoch(timestamp '{loaded_at}')::bigint as kafka_offset,
            timestamp '{loaded_at}' as loaded_at
        ) from (from raw.{table} order by kafka_topic, kafka_partition, kafka_offset limit {PLANTED})"""
    )


def announce(connection: duckdb.DuckDBPyConnection, *, loaded_at: str) -> None:
    """Some lines that files have too, and one that no file has, as events."""
    connection.execute(
        f"""insert into raw.sales_events by name
        select 'sales' as kafka_topic, 0 as kafka_partition, row_number() over () as kafka_offset, 1 as schema_version,
            to_json(line)::varchar as payload, line.transaction_date::timestamp as event_at,
            timestamp '{loaded_at}' as loaded_at
        from (select transaction_id, product_sku, customer_id, transaction_date::varchar as transaction_date,
                product_description, product_category, quantity, avg_price, delivery_charges, coupon_status
            from staging.stg_ecommerce__online_sales order by transaction_id, product_sku limit {PLANTED}) as line
        union all by name
        select 'sales' as kafka_topic, 0 as kafka_partition, 999 as kafka_offset, 1 as schema_version,
            '{{"transaction_id": 1, "product_sku": "NEW", "customer_id": 7, "transaction_date": "2019-12-31",
              "product_description": "New", "product_category": "Nest", "quantity": 1, "avg_price": 1.5,
              "delivery_charges": 6.5, "coupon_status": "Used"}}' as payload,
            timestamp '2019-12-31' as event_at, timestamp '{loaded_at}' as loaded_at"""
    )


def reject(connection: duckdb.DuckDBPyConnection, *, loaded_at: str) -> None:
    connection.execute(
        "insert into raw.rejected_records select 'h', 'f.csv', 'customers', 2, 'Gender', 'empty', 'x', ?::timestamp",
        [loaded_at],
    )


def contents(file: Path, *relations: str) -> dict[str, list[tuple[Any, ...]]]:
    with duckdb.connect(str(file), read_only=True) as connection:
        return {name: connection.execute(f"from {name} order by all").fetchall() for name in relations}


def removed(file: Path, *, now: datetime = NOW, is_dry_run: bool = False) -> dict[str, int]:
    with open_warehouse(f"duckdb:///{file}") as warehouse:
        found = apply_retention(warehouse, RULES, now=now, is_dry_run=is_dry_run)
    return {each.table: each.removed_rows for each in found if each.removed_rows}


def test_no_row_that_a_build_needs_is_ever_removed(built: Path) -> None:
    with duckdb.connect(str(built)) as connection:
        for table in FILES:
            correct(connection, table, loaded_at=LONG_AGO)
            correct(connection, table, loaded_at=LATELY)
        for table in ("bitcoin_events", "news_events"):
            repeat(connection, table, loaded_at=LONG_AGO)
            repeat(connection, table, loaded_at=LATELY)
        announce(connection, loaded_at=LONG_AGO)
        reject(connection, loaded_at=LONG_AGO)
        reject(connection, loaded_at=LATELY)
    needed = [f"staging.{name}" for name in NEEDED]
    memory = ["raw.load_files", "raw.consumer_offsets"]
    before = contents(built, *needed, *memory)

    # What was replaced long ago goes; what replaced it, though replaced lately, can still be looked at.
    expected = dict.fromkeys((*FILES, "bitcoin_events", "news_events", "sales_events"), PLANTED)
    expected["rejected_records"] = 1
    assert removed(built, is_dry_run=True) == expected
    assert removed(built) == expected
    assert contents(built, *needed, *memory) == before
    assert removed(built) == {}

    later = NOW + timedelta(days=365)
    expected = dict.fromkeys((*FILES, "bitcoin_events", "news_events"), PLANTED)
    expected["rejected_records"] = 1
    assert removed(built, now=later) == expected
    assert contents(built, *needed, *memory) == before


def test_a_build_without_corrections_loses_nothing_however_old_it_is(built: Path) -> None:
    raw = [f"raw.{name}" for name in (*FILE_TABLES, *EVENT_TABLES, "load_files", "consumer_offsets")]
    before = contents(built, *raw)
    assert removed(built, now=NOW + timedelta(days=36_500)) == {}
    assert contents(built, *raw) == before


def test_a_row_is_kept_for_its_days_after_it_was_replaced_however_old_it_is(built: Path) -> None:
    with duckdb.connect(str(built)) as connection:
        correct(connection, "customers", loaded_at=LATELY)
    replaced = datetime.fromisoformat(LATELY).replace(tzinfo=UTC)
    assert removed(built, now=replaced + RULES.superseded) == {}
    assert removed(built, now=replaced + RULES.superseded + timedelta(seconds=1)) == {"customers": PLANTED}


def test_an_announced_line_stays_until_a_file_has_brought_it(built: Path) -> None:
    with duckdb.connect(str(built)) as connection:
        announce(connection, loaded_at=LONG_AGO)
        connection.execute("delete from raw.online_sales")
    assert removed(built, now=NOW + timedelta(days=3650)) == {}


def test_a_warehouse_without_raw_tables_has_nothing_to_remove(tmp_path: Path) -> None:
    with open_warehouse(f"duckdb:///{tmp_path / 'empty.duckdb'}") as warehouse:
        assert apply_retention(warehouse, RULES, now=NOW, is_dry_run=False) == ()


def test_the_command_says_what_went_and_a_dry_run_what_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"duckdb:///{tmp_path / 'w.duckdb'}"
    monkeypatch.setenv("INSIGHT_WAREHOUSE_URL", url)
    monkeypatch.setenv("INSIGHT_KEEP_REJECTED_DAYS", "10")
    with open_warehouse(url) as warehouse:
        warehouse.ensure_raw_tables()
    with duckdb.connect(str(tmp_path / "w.duckdb")) as connection:
        for days in (9, 11, 12):
            reject(connection, loaded_at=(datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%d %H:%M"))

    def told(*arguments: str) -> dict[str, Any]:
        outcome = CliRunner().invoke(retention_commands, ["apply", "--json", *arguments])
        assert outcome.exit_code == 0, outcome.exception
        return json.loads(outcome.stdout)

    dry = told("--dry-run")
    (would,) = [table for table in dry["tables"] if table["removed_rows"]]
    assert (dry["dry_run"], would["table"], would["removed_rows"], would["kept_rows"]) == (
        True,
        "rejected_records",
        2,
        1,
    )
    assert [table["removed_rows"] for table in told()["tables"] if table["removed_rows"]] == [2]
    shown = CliRunner().invoke(retention_commands, ["apply"]).stdout
    assert "rejected_records" in shown
    assert "load_files, consumer_offsets" in shown


@pytest.fixture
def account(snowflake: SnowflakeEmulator) -> Iterator[tuple[str, Any]]:
    """The URL of an emulated warehouse with raw tables, and a cursor in it."""
    url = snowflake.url("RETENTION")
    with open_warehouse(url) as warehouse:
        warehouse.ensure_raw_tables()
    with snowflake.connect("RETENTION") as session:
        yield url, session.cursor()


def test_the_same_rows_go_on_snowflake(account: tuple[str, Any]) -> None:
    url, cursor = account
    for file_hash, load_id, loaded_at in (("a", 1, LONG_AGO), ("b", 2, LONG_AGO), ("c", 3, LATELY)):
        file = f"'{file_hash}', 'f', 'customers'"
        cursor.execute(f"insert into raw.load_files values ({file}, {load_id}, 1, 1, 0, 0.1, '{loaded_at}')")
        cursor.execute(f"insert into raw.customers values (1, 'F', 'Chicago', 2, '{file_hash}', 2, '{loaded_at}')")
        cursor.execute(
            f"insert into raw.rejected_records values ('{file_hash}', 'f', 'k', 3, null, 'r', 'v', '{loaded_at}')"
        )
    cursor.execute(f"insert into raw.customers values (2, 'M', 'Chicago', 2, 'a', 3, '{LONG_AGO}')")
    line = json.dumps({"transaction_id": 5, "product_sku": "S"})
    article = json.dumps({"url": "https://example.com/1"})
    for offset, table, payload in ((1, "news_events", article), (2, "news_events", article), (3, "sales_events", line)):
        cursor.execute(
            f"insert into raw.{table} values ('t', 0, {offset}, null, 1, '{payload}', '2026-01-01', '{LONG_AGO}')"
        )
    cursor.execute(
        "insert into raw.online_sales values"
        f" (1, 5, '2026-01-01', 'S', 'd', 'c', 1, 1.00, 1.00, 'Used', 'a', 2, '{LONG_AGO}')"
    )
    with open_warehouse(url) as warehouse:
        dry = apply_retention(warehouse, RULES, now=NOW, is_dry_run=True)
        done = apply_retention(warehouse, RULES, now=NOW, is_dry_run=False)
        again = apply_retention(warehouse, RULES, now=NOW, is_dry_run=False)
    went = {each.table: (each.removed_rows, each.kept_rows) for each in done if each.removed_rows}
    assert went == {"customers": (1, 3), "rejected_records": (2, 1), "news_events": (1, 1), "sales_events": (1, 0)}
    assert done == dry
    assert [each.removed_rows for each in again] == [0] * len(again)
    left = cursor.execute("select customer_id, file_hash from raw.customers order by 1, 2").fetchall()
    assert left == [(1, "b"), (1, "c"), (2, "a")]
