"""Loads and publications on Snowflake: the real driver against the emulated account."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from tests.conftest import SILENT, Published
from tests.snowflake import SnowflakeEmulator
from tests.snowflake_published import publish_marts, published_on_snowflake, snowflake_settings
from workers.errors import BuildError, PipelineBusyError, WarehouseError, WarehouseLockedError
from workers.generate import generate
from workers.ingest import LoadStatus, ingest
from workers.pipeline import Pipeline, build_database
from workers.publish import PublicationStore
from workers.raw_tables import FILE_TABLES
from workers.sinks import LoadOutcome, ParsedFile, Warehouse, open_warehouse

TAXES = pa.table({"product_category": ["Apparel", "Bags"], "gst": [Decimal("0.1800"), Decimal("0.0500")]})


@pytest.fixture
def database(request: pytest.FixtureRequest) -> str:
    """A database that no other test has."""
    return f"W_{abs(hash(request.node.nodeid))}"


@pytest.fixture
def warehouse(snowflake: SnowflakeEmulator, database: str) -> Iterator[Warehouse]:
    with open_warehouse(snowflake.url(database), lock_timeout=timedelta(seconds=1)) as opened:
        opened.ensure_raw_tables()
        yield opened


def rows_of(snowflake: SnowflakeEmulator, database: str, sql: str) -> list[tuple[object, ...]]:
    with snowflake.connect(database) as connection:
        return list(connection.cursor().execute(sql).fetchall())


def parsed(rows: pa.Table, *, file_hash: str = "one", rejected: tuple[pa.Table, ...] = ()) -> ParsedFile:
    numbered = rows.append_column("line_number", pa.array(range(2, rows.num_rows + 2), pa.int64()))
    return ParsedFile(
        file_hash=file_hash,
        file_name="Tax_amount.csv",
        file_kind="tax_amounts",
        started=time.monotonic(),
        rows_read=rows.num_rows,
        rows_loaded=rows.num_rows,
        rows_quarantined=0,
        good=(numbered.slice(0, 1), numbered.slice(1)),
        rejected=rejected,
    )


def test_files_load_once_with_their_quarantine_and_report(
    snowflake: SnowflakeEmulator, warehouse: Warehouse, database: str, tmp_path: Path
) -> None:
    lines = ["Apparel,0.18", "Bags,much", *(f"Category {number},0.1" for number in range(40))]
    (tmp_path / "Tax_amount.csv").write_text("\n".join(["Product_Category,GST", *lines, ""]))

    (first,) = ingest(tmp_path, warehouse=warehouse).files
    (again,) = ingest(tmp_path, warehouse=warehouse).files

    assert (first.error, first.rows_read, first.rows_loaded, first.rows_quarantined) == (None, 42, 41, 1)
    assert again.status is LoadStatus.ALREADY_LOADED
    taxes = rows_of(snowflake, database, "select product_category, gst from raw.tax_amounts order by line_number")
    assert taxes[:2] == [("Apparel", Decimal("0.1800")), ("Category 0", Decimal("0.1000"))]
    assert len(taxes) == 41
    bad = rows_of(snowflake, database, "select line_number, column_name, file_name from raw.rejected_records")
    assert bad == [(3, "GST", "Tax_amount.csv")]
    assert rows_of(snowflake, database, "select rows_read, rows_quarantined from raw.load_files") == [(42, 1)]


def test_rows_go_through_a_stage_in_one_copy_for_each_table(
    snowflake: SnowflakeEmulator, warehouse: Warehouse, database: str
) -> None:
    assert warehouse.load(parsed(TAXES)) is LoadOutcome.LOADED
    assert warehouse.load(parsed(TAXES)) is LoadOutcome.ALREADY_LOADED

    sent = [each["sql"] for each in snowflake.statements(database=database)]
    # The connector asks again for each of the files that the pattern means.
    assert len([sql for sql in sent if sql.startswith("PUT") and "*.parquet" in sql]) == 1
    assert len([sql for sql in sent if sql.startswith("COPY")]) == 1
    (loaded,) = rows_of(snowflake, database, "select count(*), min(loaded_at), max(file_hash) from raw.tax_amounts")
    assert loaded[0] == 2
    assert isinstance(loaded[1], datetime)
    assert abs(datetime.now(UTC).replace(tzinfo=None) - loaded[1]) < timedelta(minutes=5)
    assert loaded[2] == "one"


def test_a_load_that_fails_halfway_leaves_nothing(
    snowflake: SnowflakeEmulator, warehouse: Warehouse, database: str
) -> None:
    misfit = pa.table({"line_number": ["no number"], "column_name": ["GST"], "reason": ["bad"], "raw_value": ["x"]})

    with pytest.raises(WarehouseError, match="Snowflake refused"):
        warehouse.load(parsed(TAXES, rejected=(misfit,)))

    assert rows_of(snowflake, database, "select * from raw.tax_amounts") == []
    assert warehouse.loaded_hashes() == {}
    assert warehouse.load(parsed(TAXES)) is LoadOutcome.LOADED


def test_writers_take_turns(snowflake: SnowflakeEmulator, warehouse: Warehouse, database: str) -> None:
    with snowflake.connect(database) as other:
        other.cursor().execute("begin")
        other.cursor().execute("update raw.turns set taken_at = current_timestamp()")
        with pytest.raises(WarehouseLockedError, match="Another process is writing"):
            warehouse.load(parsed(TAXES))
        other.cursor().execute("rollback")
    assert warehouse.load(parsed(TAXES)) is LoadOutcome.LOADED


def test_every_raw_table_is_there_and_making_them_again_changes_nothing(
    snowflake: SnowflakeEmulator, warehouse: Warehouse, database: str
) -> None:
    warehouse.load(parsed(TAXES))
    warehouse.ensure_raw_tables()
    found = rows_of(snowflake, database, "select table_name from information_schema.tables where table_schema = 'RAW'")
    assert {name.upper() for name in FILE_TABLES} <= {name for (name,) in found}
    assert set(warehouse.loaded_hashes()) == {"one"}


# Publications


@pytest.fixture(scope="module")
def published(
    snowflake: SnowflakeEmulator, synthetic: Published, tmp_path_factory: pytest.TempPathFactory
) -> Published:
    """The synthetic marts, published on the emulated account."""
    return published_on_snowflake(snowflake, synthetic, tmp_path_factory, database="PUBLISHED")


def clones(snowflake: SnowflakeEmulator) -> set[str]:
    found = rows_of(snowflake, "PUBLISHED", "select schema_name from information_schema.schemata")
    return {str(name).lower() for (name,) in found if str(name).upper().startswith("MARTS__")}


def test_a_version_keeps_its_rows_whatever_is_built_then(
    snowflake: SnowflakeEmulator, published: Published, synthetic: Published
) -> None:
    store = PublicationStore(published.settings.publication_dir, keep=5)
    (before,) = clones(snowflake)
    with snowflake.connect("PUBLISHED") as connection:
        connection.cursor().execute("delete from marts.fct_sales where quantity > 1")
    later = publish_marts(published.settings, synthetic)

    old, new = (
        rows_of(snowflake, "PUBLISHED", f"select count(*) from {schema}.fct_sales")[0][0]
        for schema in (before, f"marts__{later.replace('-', '_').lower()}")
    )
    assert old > new > 0
    assert store.current() == later

    begun = time.monotonic()
    assert Pipeline(published.settings).rollback(None) == published.version
    assert time.monotonic() - begun < 1
    assert store.current() == published.version


def test_clones_go_with_their_versions_and_those_of_killed_runs_too(
    snowflake: SnowflakeEmulator, published: Published, synthetic: Published
) -> None:
    with snowflake.connect("PUBLISHED") as connection:
        connection.cursor().execute("create schema marts__killed clone marts")
    versions = [publish_marts(published.settings, synthetic, keep=2) for _ in range(2)]

    kept = PublicationStore(published.settings.publication_dir, keep=2).versions()
    assert set(kept) == set(versions)
    assert clones(snowflake) == {f"marts__{version.replace('-', '_').lower()}" for version in versions}


def test_a_second_run_is_refused_on_whatever_machine_and_a_killed_ones_claim_lapses(
    snowflake: SnowflakeEmulator, published: Published, synthetic: Published, tmp_path: Path
) -> None:
    elsewhere = snowflake_settings(snowflake, tmp_path / "elsewhere", database="PUBLISHED")
    with build_database(published.settings).claimed(), pytest.raises(PipelineBusyError, match="under way"):
        Pipeline(elsewhere).publish(SILENT)

    with snowflake.connect("PUBLISHED") as connection:
        hold = "update raw.pipeline_claims set holder = 'killed', claimed_until = dateadd(second, {}, sysdate())"
        connection.cursor().execute(hold.format(60))
        with pytest.raises(PipelineBusyError):
            publish_marts(published.settings, synthetic)
        connection.cursor().execute(hold.format(-1))
    assert publish_marts(published.settings, synthetic)


# The whole pipeline


@pytest.mark.full
@pytest.mark.timeout(1_800)
def test_the_pipeline_builds_tests_and_publishes_and_a_failing_test_publishes_nothing(
    snowflake: SnowflakeEmulator, tmp_path: Path
) -> None:
    generate(tmp_path / "data", scale=0.02, seed=7)
    settings = snowflake_settings(snowflake, tmp_path, database="WHOLE")
    version = Pipeline(settings).run(tmp_path / "data", SILENT)
    store = PublicationStore(settings.publication_dir, keep=5)
    assert store.current() == version
    assert Pipeline(settings).run_if_changed(tmp_path / "data", SILENT) == version

    with snowflake.connect("WHOLE") as connection:
        connection.cursor().execute("update raw.online_sales set quantity = -1 where line_number = 2")
    with pytest.raises(BuildError, match=r"(?s)failed at.*-1"):
        Pipeline(settings).publish(SILENT)
    assert store.current() == version
