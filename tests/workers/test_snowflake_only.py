"""What only Snowflake has: a stage, writers on other machines, claims instead of a lock; on the emulated account."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.conftest import SILENT
from tests.sites import SnowflakeSite
from tests.snowflake import SnowflakeEmulator
from tests.snowflake_published import snowflake_settings
from tests.workers.test_sinks import price_events, tax_file, taxes
from workers.errors import PipelineBusyError, PublicationError
from workers.pipeline import Pipeline, build_database
from workers.sinks import LoadOutcome, Warehouse, open_warehouse


@pytest.fixture
def site(snowflake: SnowflakeEmulator) -> SnowflakeSite:
    return SnowflakeSite(snowflake)


@pytest.fixture
def warehouse(site: SnowflakeSite) -> Iterator[Warehouse]:
    with open_warehouse(site.url, lock_timeout=timedelta(seconds=1)) as opened:
        opened.ensure_raw_tables()
        yield opened


def test_rows_go_through_a_stage_in_one_copy_for_each_table_that_leaves_no_file(
    site: SnowflakeSite, warehouse: Warehouse
) -> None:
    assert warehouse.load(tax_file("one", taxes("Apparel"), taxes("Bags"))) is LoadOutcome.LOADED
    assert warehouse.load(tax_file("one", taxes("Apparel"))) is LoadOutcome.ALREADY_LOADED

    # The connector asks again for each of the files that the pattern means.
    assert len([sql for sql in site.sent("PUT") if "*.parquet" in sql]) == 1
    assert len(site.sent("COPY INTO")) == 1
    assert site.rows("list @raw.loading") == []
    assert warehouse.store_events([price_events(0, 3, start=None), price_events(5, 6, start=None, topic="b2")]) == set()
    assert len(site.sent("COPY INTO")) == 2  # one of all partitions' rows


def test_who_builds_keeps_nobody_from_loading(site: SnowflakeSite, warehouse: Warehouse) -> None:
    with open_warehouse(site.url) as builder, builder.reserved():
        assert warehouse.load(tax_file("one", taxes("Apparel"))) is LoadOutcome.LOADED


def test_a_second_run_is_refused_on_whatever_machine_and_a_killed_ones_claim_lapses(
    site: SnowflakeSite, tmp_path: Path
) -> None:
    here, elsewhere = (
        snowflake_settings(site.emulator, tmp_path / home, database=site.database) for home in ("here", "elsewhere")
    )
    with build_database(here).claimed(), pytest.raises(PipelineBusyError, match="under way"):
        Pipeline(elsewhere).publish(SILENT)

    hold = "update raw.pipeline_claims set holder = 'killed', claimed_until = dateadd(second, 60, sysdate())"
    site.execute(hold)
    with pytest.raises(PipelineBusyError), build_database(here).claimed():
        pass
    site.let_time_pass()
    with build_database(here).claimed():
        pass


def test_a_run_that_lost_its_claim_makes_no_version(site: SnowflakeSite, tmp_path: Path) -> None:
    database = build_database(snowflake_settings(site.emulator, tmp_path, database=site.database))
    with database.claimed():
        site.execute("update raw.pipeline_claims set holder = 'another'")
        with pytest.raises(PublicationError, match="the claim was lost"):
            database.copy_marts("20190101T000000Z-aaaaaa", tmp_path)
    assert site.copies(tmp_path) == set()
