"""Publications: whole or not at all, kept and retired, gone back to."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from tests.conftest import Published
from workers.duckdb_build import DuckDbBuild
from workers.errors import PublicationError
from workers.publish import PublicationStore
from workers.transform import BuildResult


def built(published: Published) -> BuildResult:
    """What the build of the published data left."""
    target = published.warehouse.parent / "dbt-target"
    return BuildResult(target=target, tests={"test.one": "pass"}, warnings=())


def publish(store: PublicationStore, published: Published) -> str:
    return store.publish(DuckDbBuild(published.warehouse), built(published), fingerprint="f", rehearse=lambda _: None)


@pytest.fixture
def store(tmp_path: Path) -> PublicationStore:
    return PublicationStore(tmp_path / "publications", keep=3)


def test_before_the_first_publication_nothing_is_current(store: PublicationStore) -> None:
    assert store.current() is None
    assert store.versions() == ()


def test_a_publication_holds_the_marts_row_for_row(store: PublicationStore, synthetic: Published) -> None:
    version = publish(store, synthetic)

    with duckdb.connect(store.root / version / "data.duckdb") as reader:
        reader.execute(f"ATTACH '{synthetic.warehouse}' AS build (READ_ONLY)")
        tables = [
            name
            for (name,) in reader.execute(
                "SELECT table_name FROM duckdb_tables() WHERE database_name = 'data' ORDER BY 1"
            ).fetchall()
        ]
        differing = [
            name
            for name in tables
            if reader.execute(
                f"(FROM marts.{name} EXCEPT ALL FROM build.marts.{name}) UNION ALL "
                f"(FROM build.marts.{name} EXCEPT ALL FROM marts.{name})"
            ).fetchall()
        ]
    assert {"fct_sales", "dim_customer", "dim_products", "dim_datetime", "fct_marketing_spend"} <= set(tables)
    assert differing == []


def test_the_record_says_what_the_publication_holds(store: PublicationStore, synthetic: Published) -> None:
    version = publish(store, synthetic)

    record = json.loads((store.root / version / "publication.json").read_text())
    sales = {source["name"]: source for source in record["sources"]}["online_sales"]
    assert record["version"] == version == store.current()
    assert record["as_of"] == record["data_through"] == sales["data_through"] == "2019-12-31"
    assert record["tables"]["fct_sales"] == sales["rows"] > 1_000


def test_its_manifest_names_no_database(store: PublicationStore, synthetic: Published) -> None:
    version = publish(store, synthetic)

    manifest = json.loads((store.root / version / "semantic_manifest.json").read_text())
    relations = {model["node_relation"]["relation_name"] for model in manifest["semantic_models"]}
    assert '"marts"."fct_sales"' in relations
    assert all(relation.startswith('"marts".') for relation in relations)


def test_a_version_refused_at_its_rehearsal_leaves_no_trace(store: PublicationStore, synthetic: Published) -> None:
    first = publish(store, synthetic)

    def refuse(candidate: Path) -> None:
        assert (candidate / "data.duckdb").is_file()
        raise PublicationError("no", hint="none")

    with pytest.raises(PublicationError):
        store.publish(DuckDbBuild(synthetic.warehouse), built(synthetic), fingerprint="f", rehearse=refuse)
    assert store.current() == first
    assert sorted(path.name for path in store.root.iterdir()) == sorted([first, "current"])


def test_the_last_few_are_kept_and_the_current_one_always(store: PublicationStore, synthetic: Published) -> None:
    versions = [publish(store, synthetic) for _ in range(4)]
    newest_first = tuple(sorted(versions, reverse=True))

    assert len(store.versions()) == 3
    assert store.current() == versions[-1]
    assert set(store.versions()) <= set(newest_first)


def test_all_of_a_version_is_on_the_disk_before_its_name_and_its_name_before_the_pointer(
    store: PublicationStore, synthetic: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
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

    version = publish(store, synthetic)

    hidden = f".building-{version}"
    files = sorted(f"sync {hidden}/{path.name}" for path in (store.root / version).iterdir())
    assert len(files) == 5
    assert sorted(steps[:5]) == files
    assert [step.partition("current.")[0] for step in steps[5:]] == [
        f"sync {hidden}", f"rename {hidden}", "sync .", "sync ", "replace ", "sync ."
    ]  # fmt: skip


def test_a_rollback_goes_to_the_version_before_and_to_a_named_one(
    store: PublicationStore, synthetic: Published
) -> None:
    publish(store, synthetic), publish(store, synthetic)
    older, newer = sorted(store.versions())

    store.rollback(newer)
    assert store.rollback() == older == store.current()
    with pytest.raises(PublicationError, match="no older"):
        store.rollback()
    assert store.rollback(newer) == newer == store.current()


def test_a_damaged_version_is_not_listed_and_cannot_be_gone_back_to(
    store: PublicationStore, synthetic: Published
) -> None:
    publish(store, synthetic), publish(store, synthetic)
    older, newer = sorted(store.versions())
    store.rollback(newer)
    (store.root / older / "publication.json").write_text('{"version":')

    assert store.versions() == (newer,)
    assert store.fingerprint(older) is None
    with pytest.raises(PublicationError, match="no publication"):
        store.rollback(older)
    assert store.current() == newer


@pytest.mark.parametrize("version", ["20000101T000000Z-000000", "..", "../..", "current", ""])
def test_a_rollback_to_what_is_no_version_is_refused(
    store: PublicationStore, synthetic: Published, version: str
) -> None:
    current = publish(store, synthetic)

    with pytest.raises(PublicationError, match="no publication"):
        store.rollback(version)
    assert store.current() == current


def test_leftovers_of_a_killed_publication_are_swept_by_the_next(store: PublicationStore, synthetic: Published) -> None:
    (store.root / ".building-20190101T000000Z-aaaaaa").mkdir(parents=True)
    (store.root / "current.deadbeef").write_text("half")

    version = publish(store, synthetic)

    assert sorted(path.name for path in store.root.iterdir()) == sorted([version, "current"])
