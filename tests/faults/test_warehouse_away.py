"""R6: the warehouse locked, or the publications' disk away; the last publication answers, and nothing is lost."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import duckdb
import httpx
import pytest

from tests import server
from tests.conftest import SILENT, Published, worker_settings
from tests.faults import questions
from tests.faults.load import at_a_rate, problems
from tests.server import Serve
from tests.sites import another_process_holding
from workers.generate import generate
from workers.ingest import LoadStatus, ingest
from workers.pipeline import Pipeline
from workers.sinks import open_warehouse

serve = server.serve

TIMES = [pytest.param(1, id="once"), pytest.param(20, id="20_times", marks=pytest.mark.full)]


def loaded(warehouse: Path) -> tuple[int, int]:
    """Files and sales that are loaded."""
    with duckdb.connect(warehouse, read_only=True) as reader:
        (files,) = reader.execute("SELECT count(*) FROM raw.load_files").fetchone() or (0,)
        (sales,) = reader.execute("SELECT count(*) FROM raw.online_sales").fetchone() or (0,)
    return files, sales


@pytest.mark.parametrize("times", TIMES)
async def test_while_the_warehouse_is_locked_queries_are_answered_and_the_load_waits(
    serve: Serve, synthetic: Published, tmp_path: Path, times: int
) -> None:
    home = Path(shutil.copytree(synthetic.warehouse.parent, tmp_path / "home"))
    warehouse = home / "warehouse.duckdb"
    service = serve(home / "publications")
    for nth in range(times):
        data = tmp_path / f"data-{nth}"
        new_lines = next(
            file.rows
            for file in generate(data, scale=0.02, seed=100 + nth).files
            if file.path.name == "Online_Sales.csv"
        )
        files, sales = loaded(warehouse)
        is_loaded = asyncio.Event()
        async with service.async_client() as client:
            asking = asyncio.create_task(at_a_rate([client], questions.sales, per_s=10, until=is_loaded))
            with (
                another_process_holding(warehouse, seconds=4),
                open_warehouse(f"duckdb:///{warehouse}") as opened,
            ):
                first = await asyncio.to_thread(ingest, data, warehouse=opened)
                again = await asyncio.to_thread(ingest, data, warehouse=opened)
            is_loaded.set()
            replies = await asking

        assert problems(replies, synthetic.version) == {}
        assert [reply.status for reply in replies].count(200) > 20
        new_files = sum(file.status is LoadStatus.LOADED for file in first.files)
        assert new_files > 0
        assert {file.status for file in again.files} == {LoadStatus.ALREADY_LOADED}
        assert loaded(warehouse) == (files + new_files, sales + new_lines)


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_a_publication_waits_for_a_locked_warehouse_and_replaces_the_last_one(
    serve: Serve, synthetic: Published, tmp_path: Path
) -> None:
    home = Path(shutil.copytree(synthetic.warehouse.parent, tmp_path / "home"))
    service = serve(home / "publications")
    with another_process_holding(home / "warehouse.duckdb", seconds=10):
        version = await asyncio.to_thread(Pipeline(worker_settings(home)).publish, SILENT)

    async with service.async_client() as client:
        for _ in range(50):
            if (await client.get("/readyz")).json()["publication"] == version:
                return
            await asyncio.sleep(0.1)
    pytest.fail(f"{version} is not served")


async def test_while_the_publications_are_away_the_last_one_answers(
    serve: Serve, synthetic: Published, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(synthetic.settings.publication_dir, tmp_path / "publications"))
    service = serve(folder)
    away, is_back = folder.with_name("away"), asyncio.Event()
    async with service.async_client() as client:
        asking = asyncio.create_task(at_a_rate([client], questions.sales, per_s=20, until=is_back))
        await asyncio.sleep(1)
        await asyncio.to_thread(folder.rename, away)
        await asyncio.sleep(3)
        lineage = await client.get("/v1/lineage/total_revenue")
        kept = await client.get("/v1/publications")
        freshness = await client.get("/v1/freshness")
        await asyncio.to_thread(away.rename, folder)
        await asyncio.sleep(1)
        is_back.set()
        replies = await asking
        after = await client.get("/v1/lineage/total_revenue")

    assert problems(replies, synthetic.version) == {}
    assert {reply.status for reply in replies} == {200}
    assert (lineage.status_code, lineage.headers["retry-after"]) == (503, "2")
    assert kept.json()["data"] == []
    assert freshness.json()["publication"] == synthetic.version
    assert after.status_code == 200
    assert "Traceback" not in service.log


async def test_a_service_that_starts_while_the_publications_are_away_waits_for_them(
    synthetic: Published, tmp_path: Path
) -> None:
    folder = tmp_path / "publications"
    service = server.Server(folder, tmp_path)
    try:
        service.start(path="/healthz")
        async with service.async_client() as client:
            refused = await client.post("/v1/query", json=questions.sales())
            assert (await client.get("/readyz")).status_code == 503
            shutil.copytree(synthetic.settings.publication_dir, folder)
            answer = await answered(client)
    finally:
        service.kill()

    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
    assert answer.json()["meta"]["publication"] == synthetic.version


async def answered(client: httpx.AsyncClient) -> httpx.Response:
    """The first answer, which must come soon."""
    for _ in range(50):
        response = await client.post("/v1/query", json=questions.sales())
        if response.status_code == 200:
            return response
        await asyncio.sleep(0.1)
    pytest.fail(f"it does not answer: {response.text}")
