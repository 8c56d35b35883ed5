"""What only the embedded warehouse has: a file, which one process writes at a time, and its keys and disk."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest

from tests.conftest import Published
from tests.sites import another_process_holding
from tests.workers.test_sinks import price_events, tax_file, taxes
from workers.duckdb_build import DuckDbBuild
from workers.errors import WarehouseError, WarehouseLockedError
from workers.publish import PublicationStore
from workers.sinks import LoadOutcome, open_warehouse


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    with duckdb.connect(path, read_only=True) as connection:
        return connection.execute(query).fetchall()


def test_an_event_is_stored_once_per_topic_partition_and_offset(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    with open_warehouse(f"duckdb:///{path}") as warehouse:
        warehouse.ensure_raw_tables()
    with duckdb.connect(path) as connection:
        event = "INSERT INTO raw.news_events VALUES ('news', 0, 7, NULL, 1, '{}', now(), now())"
        connection.execute(event)
        with pytest.raises(duckdb.ConstraintException):
            connection.execute(event)


def test_a_warehouse_that_is_taken_for_a_while_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    with open_warehouse(f"duckdb:///{path}", lock_timeout=timedelta(seconds=30)) as warehouse:
        warehouse.ensure_raw_tables()
        started = time.monotonic()
        with another_process_holding(path, seconds=1.0):
            assert warehouse.load(tax_file("a", taxes("Fun"))) is LoadOutcome.LOADED
        assert time.monotonic() - started > 0.9
    assert rows(path, "SELECT product_category FROM raw.tax_amounts") == [("Fun",)]


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


def test_a_file_that_is_no_warehouse_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    path.write_text("this is not a database" * 1000)
    with (
        open_warehouse(f"duckdb:///{path}") as warehouse,
        pytest.raises(WarehouseError, match=r"refused: .*valid DuckDB"),
    ):
        warehouse.ensure_raw_tables()


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


def test_all_of_a_version_is_on_the_disk_before_its_name_and_its_name_before_the_pointer(
    synthetic: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PublicationStore(tmp_path / "publications", keep=3)
    steps: list[str] = []

    def watched(step: str, real: Callable[..., object]) -> Callable[..., object]:
        def wrapper(*arguments: object) -> object:
            first = Path(f"/proc/self/fd/{arguments[0]}").readlink() if step == "sync" else Path(str(arguments[0]))
            steps.append(f"{step} {first.relative_to(store.root.resolve())}")
            return real(*arguments)

        return wrapper

    monkeypatch.setattr(os, "fsync", watched("sync", os.fsync))
    monkeypatch.setattr(Path, "rename", watched("rename", Path.rename))
    monkeypatch.setattr(Path, "replace", watched("replace", Path.replace))

    version = store.publish(DuckDbBuild(synthetic.warehouse), synthetic.built, fingerprint="f", rehearse=lambda _: None)

    hidden = f".building-{version}"
    files = sorted(f"sync {hidden}/{path.name}" for path in (store.root / version).iterdir())
    assert len(files) == 5
    assert sorted(steps[:5]) == files
    assert [step.partition("current.")[0] for step in steps[5:]] == [
        f"sync {hidden}", f"rename {hidden}", "sync .", "sync ", "replace ", "sync ."
    ]  # fmt: skip
