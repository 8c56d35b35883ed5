"""Publications, whole or not at all, kept and retired, gone back to: on a DuckDB file and on the emulated Snowflake."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import pytest

from tests import sites
from tests.conftest import REPOSITORY, Published
from tests.sites import Site, copy_name
from workers.errors import PublicationError
from workers.pipeline import Pipeline, _rehearse, build_database
from workers.publish import PublicationStore
from workers.settings import WorkerSettings
from workers.transform import BuildResult

built_site = sites.built_site


@dataclass(frozen=True, slots=True, kw_only=True)
class Publisher:
    """A build, and a folder of publications that are made of it."""

    site: Site
    settings: WorkerSettings
    built: BuildResult

    @property
    def store(self) -> PublicationStore:
        """The last two publications."""
        return PublicationStore(self.settings.publication_dir, keep=2)

    def publish(self, rehearse: Callable[[Path], None] = lambda _: None) -> str:
        """A version of what is built, by the code that the pipeline ends with."""
        database = build_database(self.settings)
        with database.claimed():
            return self.store.publish(database, self.built, fingerprint="f", rehearse=rehearse)

    def folder(self, version: str) -> Path:
        """Where the version is."""
        return self.store.root / version

    def sums(self, version: str) -> tuple[object, ...]:
        """Of two marts of the version, one after the other."""
        asked = (
            "SELECT sum(quantity) FROM {marts}.fct_sales",
            "SELECT sum(online_spend) FROM {marts}.fct_marketing_spend",
        )
        return tuple(self.site.rows(sql, of=self.folder(version))[0][0] for sql in asked)

    def assert_only(self, *versions: str) -> None:
        """Of these versions there are folder and data, and of nothing else."""
        assert {path.name for path in self.store.root.iterdir()} - {"current", ".lock"} == set(versions)
        assert self.site.copies(self.store.root) == {copy_name(version) for version in versions}


@pytest.fixture
def publisher(built_site: Site, synthetic: Published, tmp_path: Path) -> Publisher:
    settings = WorkerSettings(
        _env_file=None, warehouse_url=built_site.url, publication_dir=tmp_path / "publications", segments=False
    )
    return Publisher(site=built_site, settings=settings, built=synthetic.built)


@contextmanager
def another_build(site: Site) -> Iterator[None]:
    """Other rows in the marts, for the length of the block."""
    for sign in "+-":
        site.execute(f"UPDATE {{marts}}.fct_sales SET quantity = quantity {sign} 1")
        site.execute(f"UPDATE {{marts}}.fct_marketing_spend SET online_spend = online_spend {sign} 1")
        if sign == "+":
            yield


def test_before_the_first_publication_nothing_is_current(publisher: Publisher) -> None:
    assert publisher.store.current() is None
    assert publisher.store.versions() == ()


def test_a_publication_holds_the_marts_row_for_row(publisher: Publisher) -> None:
    folder = publisher.folder(publisher.publish())

    record = json.loads((folder / "publication.json").read_text())
    tables = [
        str(name)
        for (name,) in publisher.site.rows(
            "SELECT lower(table_name) FROM information_schema.tables WHERE lower(table_schema) = 'marts'"
        )
    ]
    assert {"fct_sales", "dim_customer", "dim_products", "dim_datetime", "fct_marketing_spend"} <= set(tables)
    assert set(record["tables"]) == set(tables)
    differing = []
    for table in tables:
        here, there = (Counter(publisher.site.rows(f"SELECT * FROM {{marts}}.{table}", of=of)) for of in (None, folder))
        if here != there or here.total() != record["tables"][table]:
            differing.append(table)
    assert differing == []


def test_the_record_says_what_the_publication_holds(publisher: Publisher) -> None:
    version = publisher.publish()

    record = json.loads((publisher.folder(version) / "publication.json").read_text())
    sales = {source["name"]: source for source in record["sources"]}["online_sales"]
    assert record["version"] == version == publisher.store.current()
    assert record["as_of"] == record["data_through"] == sales["data_through"] == "2019-12-31"
    assert record["tables"]["fct_sales"] == sales["rows"] > 1_000
    assert (record["tests_passed"], record["fingerprint"]) == (1, "f")


def test_its_manifest_names_the_versions_own_marts_and_no_database(publisher: Publisher) -> None:
    folder = publisher.folder(publisher.publish())

    manifest = json.loads((folder / "semantic_manifest.json").read_text())
    found = [model["node_relation"] for model in manifest["semantic_models"]]
    found += [spine["node_relation"] for spine in manifest["project_configuration"]["time_spines"]]
    relations = {relation["relation_name"] for relation in found}
    assert {relation["database"] for relation in found} == {None}
    assert {relation.replace('"', "").partition(".")[0] for relation in relations} == {publisher.site.marts(folder)}
    every = " UNION ALL ".join(f"SELECT count(*) FROM {relation}" for relation in sorted(relations))
    assert len(publisher.site.rows(every, of=folder)) == len(relations) > 5


def test_a_version_refused_at_its_rehearsal_leaves_no_trace(publisher: Publisher) -> None:
    first = publisher.publish()

    def refuse(candidate: Path) -> None:
        assert publisher.site.rows("SELECT count(*) > 0 FROM {marts}.fct_sales", of=candidate) == [(True,)]
        raise PublicationError("no", hint="none")

    with pytest.raises(PublicationError):
        publisher.publish(refuse)
    assert publisher.store.current() == first
    publisher.assert_only(first)


def test_a_definition_that_does_not_fit_the_marts_is_refused_at_the_rehearsal_and_named(publisher: Publisher) -> None:
    first = publisher.publish()

    def damaged(candidate: Path) -> None:
        manifest = json.loads((candidate / "semantic_manifest.json").read_text())
        measures = (measure for model in manifest["semantic_models"] for measure in model["measures"])
        next(measure for measure in measures if measure["expr"] == "quantity")["expr"] = "quantity_sold"
        (candidate / "semantic_manifest.json").write_text(json.dumps(manifest))
        _rehearse(candidate, publisher.settings)

    with pytest.raises(
        PublicationError, match=r"(?i)(units_sold|units_per_transaction) does not.*quantity_sold"
    ) as caught:
        publisher.publish(damaged)
    assert "\n" not in caught.value.message
    assert "semantic_models/" in caught.value.hint
    publisher.assert_only(first)


def test_a_build_without_sales_is_no_publication_and_leaves_no_trace(publisher: Publisher) -> None:
    first, site = publisher.publish(), publisher.site
    site.execute("CREATE TABLE raw.kept AS SELECT * FROM {marts}.publication_facts")
    site.execute("DELETE FROM {marts}.publication_facts")
    try:
        with pytest.raises(PublicationError, match="holds no sales"):
            publisher.publish()
    finally:
        site.execute("INSERT INTO {marts}.publication_facts SELECT * FROM raw.kept")
        site.execute("DROP TABLE raw.kept")
    assert publisher.store.current() == first
    publisher.assert_only(first)


@pytest.mark.slow
def test_a_publication_killed_before_its_end_leaves_the_one_before_and_the_next_sweeps(publisher: Publisher) -> None:
    first = publisher.publish()
    script = f"""
import time
from pathlib import Path
from workers.pipeline import build_database
from workers.publish import PublicationStore
from workers.settings import WorkerSettings
from workers.transform import BuildResult
def rehearse(candidate):
    print(candidate.name, flush=True)
    time.sleep(60)
database = build_database(WorkerSettings.model_validate_json({publisher.settings.model_dump_json()!r}))
built = BuildResult(target=Path({str(publisher.built.target)!r}), tests={{}}, warnings=())
with database.claimed():
    PublicationStore(Path({str(publisher.store.root)!r}), keep=2).publish(
        database, built, fingerprint="f", rehearse=rehearse)
"""
    command = [sys.executable, "-W", "ignore", "-c", script]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        hidden = process.stdout.readline().strip()
        process.kill()
    assert hidden.startswith(".building-")
    (publisher.store.root / "current.deadbeef").write_text("half")

    assert publisher.store.current() == first
    assert publisher.store.versions() == (first,)
    assert len(publisher.site.copies(publisher.store.root)) == 2
    publisher.site.let_time_pass()
    second = publisher.publish()
    publisher.assert_only(first, second)


def test_readers_see_a_whole_version_while_another_is_published(publisher: Publisher) -> None:
    first = publisher.publish()
    whole, seen, is_over = {first: publisher.sums(first)}, Counter[tuple[str, tuple[object, ...]]](), Event()

    def read() -> None:
        while not is_over.is_set():
            current = publisher.store.current()
            assert current is not None
            seen[(current, publisher.sums(current))] += 1

    with ThreadPoolExecutor(1) as readers:
        reading = readers.submit(read)
        try:
            with another_build(publisher.site):
                second = publisher.publish()
            whole[second] = publisher.sums(second)
            time.sleep(0.3)
        finally:
            is_over.set()
        reading.result()

    assert set(seen) == set(whole.items())  # the older keeps its rows, whatever was built then
    assert whole[first] != whole[second]
    assert seen[(first, whole[first])] > 1


def test_the_last_few_are_kept_and_the_current_one_always(publisher: Publisher) -> None:
    versions = [publisher.publish() for _ in range(3)]

    # Within a second their names have no order of time.
    assert set(publisher.store.versions()) == {versions[-1], max(versions[:-1])}
    assert publisher.store.current() == versions[-1]
    publisher.assert_only(*publisher.store.versions())


def test_a_rollback_goes_to_the_version_before_and_to_a_named_one_in_less_than_a_second(publisher: Publisher) -> None:
    older, newer = sorted((publisher.publish(), publisher.publish()))
    pipeline = Pipeline(publisher.settings)

    pipeline.rollback(newer)
    began = time.monotonic()
    assert pipeline.rollback(None) == older == publisher.store.current()
    assert time.monotonic() - began < 1
    with pytest.raises(PublicationError, match="no older"):
        pipeline.rollback(None)
    assert pipeline.rollback(newer) == newer == publisher.store.current()
    for version in ("20000101T000000Z-000000", "..", "../..", "current", ""):
        with pytest.raises(PublicationError, match="no publication"):
            pipeline.rollback(version)
    assert publisher.store.current() == newer
    publisher.assert_only(older, newer)


def test_a_damaged_version_is_not_listed_and_cannot_be_gone_back_to(publisher: Publisher) -> None:
    older, newer = sorted((publisher.publish(), publisher.publish()))
    publisher.store.rollback(newer)
    (publisher.folder(older) / "publication.json").write_text('{"version":')

    assert publisher.store.versions() == (newer,)
    assert publisher.store.fingerprint(older) is None
    with pytest.raises(PublicationError, match="no publication"):
        publisher.store.rollback(older)
    assert publisher.store.current() == newer

    # It has its turn to be retired, with its data.
    newest = publisher.publish()
    assert older not in {path.name for path in publisher.store.root.iterdir()}
    assert copy_name(newest) in publisher.site.copies(publisher.store.root)
