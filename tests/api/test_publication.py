"""R7: the served publication: exchanged under readers, whole versions only, and a damaged one never."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from structlog.testing import capture_logs

from api.main import create_app
from api.opened import open_publication
from api.publication import PublicationFolder, ServedPublication
from api.settings import Settings
from tests.api.test_warehouse import LIMITS, RUNAWAY
from tests.conftest import SILENT, Published, connect, shared, worker_settings
from workers.pipeline import Pipeline
from workers.publish import PublicationStore

BODY = {"metrics": ["line_count", "churned_customers"], "group_by": []}


@pytest.fixture(scope="session")
def two_versions(synthetic: Published, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A folder with two publications of different as-of dates, so with different answers; the older is current."""

    def make(folder: Path) -> None:
        shutil.copytree(synthetic.warehouse.parent, folder / "home")
        Pipeline(worker_settings(folder / "home", as_of=date(2020, 3, 31))).publish(SILENT)
        PublicationStore(folder / "home" / "publications", keep=5).rollback(synthetic.version)

    store = PublicationStore(shared(tmp_path_factory, "two-versions", make) / "home" / "publications", keep=5)
    older = synthetic.version
    (later,) = (version for version in store.versions() if version != older)
    return store.root, older, later


@pytest.fixture
def folder(two_versions: tuple[Path, str, str], tmp_path: Path) -> Path:
    """A copy of that folder, free to be ruined."""
    return Path(shutil.copytree(two_versions[0], tmp_path / "publications"))


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[tuple[FastAPI, httpx.AsyncClient]]:
    state = folder.with_name("state.db")
    settings = Settings(
        _env_file=None, publication_dir=folder, state_url=f"sqlite:///{state}", auth="off", publication_poll_s=0.1
    )
    app = create_app(settings)
    async with app.router.lifespan_context(app), connect(app) as client:
        yield app, client


async def answer(client: httpx.AsyncClient) -> tuple[str, str]:
    """The version that answered, and its rows."""
    response = await client.post("/v1/query", json=BODY)
    assert response.status_code == 200, response.text
    return response.json()["meta"]["publication"], json.dumps(response.json()["data"])


async def served(client: httpx.AsyncClient, version: str, *, within_s: float) -> float:
    """Wait until the version answers; the seconds that it took."""
    started = time.perf_counter()
    while (await client.get("/readyz")).json().get("publication") != version:
        assert time.perf_counter() - started < within_s, f"{version} is not served"
        await asyncio.sleep(0.02)
    return time.perf_counter() - started


def point(folder: Path, text: str | bytes) -> None:
    fresh = folder / "current.fresh"
    fresh.write_bytes(text.encode() if isinstance(text, str) else text)
    fresh.replace(folder / "current")


@pytest.mark.parametrize(
    "swaps", [pytest.param(20, id="20 swaps"), pytest.param(500, id="500 swaps", marks=pytest.mark.full)]
)
async def test_readers_meet_no_error_and_no_mixture_while_versions_are_swapped(
    two_versions: tuple[Path, str, str], folder: Path, swaps: int, record_property: Callable[[str, object], None]
) -> None:
    _, older, later = two_versions
    store = PublicationStore(folder, keep=5)
    async with serving(folder) as (_, client):
        expected = {}
        for version in (later, older):
            store.rollback(version)
            await served(client, version, within_s=2)
            expected[version] = (await answer(client))[1]
        assert expected[older] != expected[later]

        answers: list[tuple[str, str]] = []

        async def read() -> None:
            while True:
                answers.append(await answer(client))
                await asyncio.sleep(0.2)  # twenty that hardly rest would starve the watch they share a loop with

        readers = [asyncio.create_task(read()) for _ in range(20)]
        try:
            for swap in range(swaps):
                version = (later, older)[swap % 2]
                store.rollback(version)
                await served(client, version, within_s=10)
        finally:
            faults = [reader.exception() for reader in readers if reader.done()]
            for reader in readers:
                reader.cancel()
            await asyncio.wait(readers)

    assert faults == []
    assert {version for version, _ in answers} == {older, later}
    assert [rows for version, rows in answers if rows != expected[version]] == []
    assert len(answers) > swaps * 10
    record_property("counts", f"R7: {swaps} swaps under 20 readers; {len(answers):,} answers, each of one version")


async def test_a_new_publication_is_served_soon_at_the_default_settings(
    two_versions: tuple[Path, str, str], folder: Path
) -> None:
    state = f"sqlite:///{folder.with_name('state.db')}"
    app = create_app(Settings(_env_file=None, publication_dir=folder, state_url=state, auth="off"))
    async with app.router.lifespan_context(app), connect(app) as client:
        PublicationStore(folder, keep=5).rollback(two_versions[2])
        await served(client, two_versions[2], within_s=10)  # two on a machine of its own
        assert (await client.get("/v1/freshness")).json()["as_of"] == "2020-03-31"


def cut(name: str, share: float) -> Callable[[Path], None]:
    def damage(version: Path) -> None:
        content = (version / name).read_bytes()
        (version / name).write_bytes(content[: int(len(content) * share)])

    return damage


def overwrite(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda version: (version / name).write_bytes(content) and None  # type: ignore[func-returns-value]


def lose(name: str) -> Callable[[Path], None]:
    return lambda version: (version / name).unlink()


def rename_inside(version: Path) -> None:
    record = json.loads((version / "publication.json").read_text())
    (version / "publication.json").write_text(json.dumps(record | {"version": "20190101T000000Z-000000"}))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "the semantic manifest is cut": cut("semantic_manifest.json", 0.5),
    "the semantic manifest is empty": cut("semantic_manifest.json", 0),
    "the semantic manifest is another JSON": overwrite("semantic_manifest.json", b"{}"),
    "the semantic manifest is no text": overwrite("semantic_manifest.json", b"\xff\x00"),
    "the semantic manifest is gone": lose("semantic_manifest.json"),
    "the data is gone": lose("data.duckdb"),
    "the data is empty": cut("data.duckdb", 0),
    "the data is cut early": cut("data.duckdb", 0.01),
    "the data is cut late": cut("data.duckdb", 0.9),
    "the data is no database": overwrite("data.duckdb", b"no database" * 1_000),
    "the record is cut": cut("publication.json", 0.5),
    "the record is no text": overwrite("publication.json", b"\xff\x00"),
    "the record is gone": lose("publication.json"),
    "the record names another version": rename_inside,
    "all is gone": shutil.rmtree,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=[name.replace(" ", "_") for name in DAMAGES])
async def test_a_damaged_publication_never_replaces_a_good_one_and_is_logged_once(
    two_versions: tuple[Path, str, str], folder: Path, damage: Callable[[Path], None]
) -> None:
    _, older, later = two_versions
    async with serving(folder) as (_, client):
        before = await answer(client)
        damage(folder / later)
        with capture_logs() as logs:
            point(folder, later)
            await asyncio.sleep(0.6)

        assert await answer(client) == before
        assert before[0] == older
    assert [(line["version"], line["serving"]) for line in logs if line["event"] == "publication_refused"] == [
        (later, older)
    ]
    assert [line for line in logs if line["event"] == "publication_watch_failed"] == []


@pytest.mark.parametrize(
    "pointer",
    ["no-such-version", "../publications", "..", ".", "/etc", "a" * 5_000, "a\0b", b"\xff\xfe\x00", "two\nlines", "💣"],
)
async def test_a_pointer_to_nothing_never_replaces_a_good_one_and_is_logged_once(
    folder: Path, pointer: str | bytes
) -> None:
    async with serving(folder) as (_, client):
        before = await answer(client)
        with capture_logs() as logs:
            point(folder, pointer)
            await asyncio.sleep(0.4)

        assert await answer(client) == before
    assert len([line for line in logs if line["event"] == "publication_refused"]) == 1
    assert [line for line in logs if line["event"] == "publication_watch_failed"] == []


@pytest.mark.parametrize("pointer", [None, "", "\n", "no-such-version", b"\xff\xfe\x00"])
async def test_before_the_first_publication_the_service_lives_but_is_not_ready(
    two_versions: tuple[Path, str, str], folder: Path, pointer: str | bytes | None
) -> None:
    (folder / "current").unlink()
    if pointer is not None:
        point(folder, pointer)
    async with serving(folder) as (_, client):
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 503
        paths = ("/v1/metrics", "/v1/freshness", "/v1/lineage/line_count", "/v1/dimensions/customer/values")
        refused = [await client.get(path) for path in paths]
        refused.append(await client.post("/v1/query", json=BODY))
        for response in refused:
            assert (response.status_code, response.json()["code"]) == (503, "unavailable")
            assert int(response.headers["retry-after"]) >= 1
            assert "insight pipeline run" in response.json()["hint"]

        point(folder, two_versions[1])
        await served(client, two_versions[1], within_s=2)
        assert (await answer(client))[0] == two_versions[1]


async def test_a_publication_that_was_refused_is_tried_again_after_a_rollback(
    two_versions: tuple[Path, str, str], folder: Path
) -> None:
    _, older, later = two_versions
    whole = (folder / later / "semantic_manifest.json").read_bytes()
    cut("semantic_manifest.json", 0.5)(folder / later)
    async with serving(folder) as (_, client):
        point(folder, later)
        await asyncio.sleep(0.3)
        point(folder, older)
        await asyncio.sleep(0.3)
        overwrite("semantic_manifest.json", whole)(folder / later)
        point(folder, later)

        await served(client, later, within_s=2)


async def test_a_version_that_is_removed_while_it_is_served_answers_on(
    two_versions: tuple[Path, str, str], folder: Path
) -> None:
    async with serving(folder) as (_, client):
        before = await answer(client)
        shutil.rmtree(folder / two_versions[1])

        answers = await asyncio.gather(*(answer(client) for _ in range(20)))
        lineage = await client.get("/v1/lineage/line_count")

    assert set(answers) == {before}
    assert (lineage.status_code, lineage.json()["code"]) == (503, "unavailable")


async def test_a_replaced_version_is_closed_after_its_last_query(
    two_versions: tuple[Path, str, str], folder: Path
) -> None:
    _, older, later = two_versions
    publications = PublicationFolder(folder)
    served = ServedPublication(publications, opener=lambda version: open_publication(folder / version, LIMITS))
    await served.refresh()
    with served.lease() as leased:
        running = asyncio.create_task(leased.warehouse.query(RUNAWAY, {}))
        await asyncio.sleep(0.1)
        point(folder, later)
        await served.refresh()

        with served.lease() as fresh:
            assert (leased.version, fresh.version) == (older, later)
        assert not running.done()
        rows = await leased.warehouse.query("SELECT count(*) AS n FROM marts.fct_sales", {})
        assert rows.column("n")[0].as_py() > 1_000
        running.cancel()
        await asyncio.wait((running,))

    with pytest.raises(RuntimeError, match="shutdown"):
        await leased.warehouse.query("SELECT 1", {})
    with served.lease() as fresh:
        assert (await fresh.warehouse.query("SELECT 1 AS n", {})).num_rows == 1
    served.close()


async def test_a_catalog_outlives_the_version_it_came_from(two_versions: tuple[Path, str, str], folder: Path) -> None:
    async with serving(folder) as (_, client):
        first: Any = (await client.get("/v1/metrics")).json()
        point(folder, two_versions[2])
        await served(client, two_versions[2], within_s=2)

        assert (await client.get("/v1/metrics")).json() == first
