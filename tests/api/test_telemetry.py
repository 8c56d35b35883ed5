"""What Prometheus reads: known actions move known series, and no label tells who asked for what."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from api.admission import AdmissionCounters
from api.keys import ApiKeys
from api.main import create_app
from api.observation import Observation, Transport
from api.state import open_state
from api.telemetry import Telemetry, queue_series
from tests.conftest import Published, connect, service_settings

QUERY = {"metrics": ["total_revenue"], "group_by": ["metric_time__month"]}

Labels: TypeAlias = tuple[tuple[str, str], ...]
Series: TypeAlias = dict[tuple[str, Labels], float]
Read = Callable[[], Awaitable[Series]]


def parsed(text: str) -> Series:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(series: Series, name: str, **labels: str) -> float:
    """The series' value; nought where nothing has been counted yet."""
    return series.get((name, tuple(sorted(labels.items()))), 0.0)


@asynccontextmanager
async def serving(
    published: Published, folder: Path, **settings: Any
) -> AsyncIterator[tuple[FastAPI, httpx.AsyncClient]]:
    url = f"sqlite:///{folder / 'state.db'}"
    app = create_app(service_settings(published, state_url=url, **settings))
    state = open_state(url)
    key = ApiKeys(state).create("telemetry", role="admin")
    state.dispose()
    async with app.router.lifespan_context(app), connect(app, key=key) as client:
        yield app, client


@pytest.fixture(scope="module")
async def client(synthetic: Published, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(synthetic, tmp_path_factory.mktemp("telemetry")) as (_, made):
        yield made


@pytest.fixture
def read(client: httpx.AsyncClient) -> Read:
    """The series as they are now."""

    async def ask() -> Series:
        response = await client.get("/metrics")
        assert response.status_code == 200
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return parsed(response.text)

    return ask


async def moved(
    read: Read, action: Callable[[], Awaitable[object]], names: Iterable[tuple[str, dict[str, str]]]
) -> list[float]:
    """By how much the action moved each of the series."""
    wanted = list(names)
    before = await read()
    await action()
    after = await read()
    return [value(after, name, **labels) - value(before, name, **labels) for name, labels in wanted]


async def eventually(found: Callable[[], Awaitable[float]], wanted: float) -> None:
    """Return once the value is the wanted one."""
    async with asyncio.timeout(30):
        while await found() != wanted:  # noqa: ASYNC110 - a value that is asked for tells nobody
            await asyncio.sleep(0.05)


def point(root: Path, version: str) -> None:
    (root / "current").write_text(version)


async def test_they_are_read_without_a_key(client: httpx.AsyncClient) -> None:
    assert (await client.get("/metrics", headers={"Authorization": ""})).status_code == 200


async def test_a_query_moves_its_route_its_stages_its_origin_and_its_rows(
    client: httpx.AsyncClient, read: Read
) -> None:
    async def ask() -> None:
        response = await client.post("/v1/query", json=QUERY, headers={"Cache-Control": "no-cache"})
        assert response.status_code == 200

    counted = await moved(
        read,
        ask,
        [
            ("insight_request_seconds_count", {"route": "/v1/query", "method": "POST", "status": "2xx"}),
            ("insight_stage_seconds_count", {"stage": "compile"}),
            ("insight_stage_seconds_count", {"stage": "cache"}),
            ("insight_stage_seconds_count", {"stage": "run"}),
            ("insight_stage_seconds_count", {"stage": "render"}),
            ("insight_answers_total", {"origin": "bypass"}),
            ("insight_rows_answered_total", {}),
            ("insight_refusals_total", {"code": "unknown_metric"}),
        ],
    )

    assert counted == [1, 1, 1, 1, 1, 1, 12, 0]


async def test_an_answer_from_memory_has_no_run(client: httpx.AsyncClient, read: Read) -> None:
    await client.post("/v1/query", json=QUERY)

    counted = await moved(
        read,
        lambda: client.post("/v1/query", json=QUERY),
        [("insight_answers_total", {"origin": "hit"}), ("insight_stage_seconds_count", {"stage": "run"})],
    )

    assert counted == [1, 0]


async def test_a_stage_takes_part_of_the_time_of_its_request(client: httpx.AsyncClient, read: Read) -> None:
    spent = await moved(
        read,
        lambda: client.post("/v1/query", json=QUERY | {"limit": 5}),
        [
            ("insight_request_seconds_sum", {"route": "/v1/query", "method": "POST", "status": "2xx"}),
            ("insight_stage_seconds_sum", {"stage": "cache"}),
            ("insight_stage_seconds_sum", {"stage": "run"}),
        ],
    )

    assert spent[0] > spent[1] > spent[2] > 0


@pytest.mark.parametrize(
    ("path", "code", "route", "status"),
    [
        ("/v1/metrics/nonsense", "unknown_metric", "/v1/metrics/{metric}", "4xx"),
        ("/v1/nowhere/at/all", "unknown_path", "unmatched", "4xx"),
        ("/v1/metrics?limit=x", "malformed_request", "/v1/metrics", "4xx"),
    ],
)
async def test_a_refusal_moves_its_code_and_its_route_s_template(
    client: httpx.AsyncClient, read: Read, path: str, code: str, route: str, status: str
) -> None:
    counted = await moved(
        read,
        lambda: client.get(path),
        [
            ("insight_refusals_total", {"code": code}),
            ("insight_request_seconds_count", {"route": route, "method": "GET", "status": status}),
        ],
    )

    assert counted == [1, 1]


async def test_a_crash_is_a_5xx_and_whoever_leaves_is_counted_as_gone(synthetic: Published, tmp_path: Path) -> None:
    reached = asyncio.Event()
    async with serving(synthetic, tmp_path) as (app, client):

        @app.get("/v1/crash")
        async def crash() -> None:
            raise ZeroDivisionError

        @app.get("/v1/slow")
        async def slow() -> None:
            reached.set()
            await asyncio.sleep(60)

        await client.get("/v1/crash")
        asking = asyncio.create_task(client.get("/v1/slow"))
        await reached.wait()
        asking.cancel()
        await asyncio.wait((asking,))
        series = parsed((await client.get("/metrics")).text)

    assert value(series, "insight_request_seconds_count", route="/v1/crash", method="GET", status="5xx") == 1
    assert value(series, "insight_refusals_total", code="internal_error") == 1
    assert value(series, "insight_cancelled_total") == 1
    assert value(series, "insight_request_seconds_count", route="/v1/slow", method="GET", status="4xx") == 1
    assert {labels for name, labels in series if name == "insight_refusals_total"} == {(("code", "internal_error"),)}


async def test_they_say_what_is_served_and_how_fresh_it_is(
    client: httpx.AsyncClient, read: Read, synthetic: Published
) -> None:
    freshness = (await client.get("/v1/freshness")).json()
    series = await read()

    assert value(series, "insight_publication_info", version=synthetic.version) == 1
    published_at = datetime.fromisoformat(freshness["published_at"])
    assert value(series, "insight_publication_created_timestamp_seconds") == pytest.approx(published_at.timestamp())
    through = datetime.fromisoformat(freshness["data_through"]).replace(tzinfo=UTC)
    assert value(series, "insight_data_through_timestamp_seconds") == through.timestamp()
    sources = {source["name"]: source["loaded_at"] for source in freshness["sources"] if source["loaded_at"]}
    assert sources
    for name, loaded_at in sources.items():
        expected = datetime.fromisoformat(loaded_at).timestamp()
        assert value(series, "insight_source_loaded_timestamp_seconds", source=name) == pytest.approx(expected)
    assert value(series, "insight_ready") == 1
    assert value(series, "insight_publication_refused") == 0


async def test_a_publication_that_cannot_be_served_is_seen(synthetic: Published, tmp_path: Path) -> None:
    root = tmp_path / "publications"
    shutil.copytree(synthetic.settings.publication_dir, root)
    async with serving(synthetic, tmp_path, publication_dir=root, publication_poll_s=0.05) as (_, client):

        async def refused() -> float:
            return value(parsed((await client.get("/metrics")).text), "insight_publication_refused")

        assert await refused() == 0
        point(root, "no-such-version")
        await eventually(refused, 1)
        point(root, synthetic.version)
        await eventually(refused, 0)


async def test_before_anything_is_published_they_can_be_read(synthetic: Published, tmp_path: Path) -> None:
    async with serving(synthetic, tmp_path, publication_dir=tmp_path / "nothing") as (_, client):
        series = parsed((await client.get("/metrics")).text)

    assert value(series, "insight_ready") == 0
    assert not [name for name, _ in series if name == "insight_publication_info"]


async def test_records_that_were_moved_are_counted(client: httpx.AsyncClient, read: Read) -> None:
    before = value(await read(), "insight_audit_moved_total")
    await client.get("/v1/metrics")

    async def backlog() -> float:
        return value(await read(), "insight_audit_backlog")

    await eventually(backlog, 0)
    assert value(await read(), "insight_audit_moved_total") > before


async def test_a_redis_that_is_not_there_is_counted(synthetic: Published, tmp_path: Path) -> None:
    async with serving(synthetic, tmp_path, redis_url="redis://127.0.0.1:1/0") as (_, client):
        await client.post("/v1/query", json=QUERY)
        series = parsed((await client.get("/metrics")).text)

    assert value(series, "insight_redis_errors_total") > 0


async def test_the_memory_of_the_process_is_among_them(read: Read) -> None:
    assert value(await read(), "process_resident_memory_bytes") > 50 * 2**20


def test_a_queue_is_shown_as_its_counters_are_when_they_are_read() -> None:
    telemetry, counters = Telemetry(), [AdmissionCounters(admitted=9, running=3, waiting=2, shed=7, timed_out=1)]
    telemetry.watch(lambda: queue_series(counters[-1]))

    def seen() -> list[float]:
        series = parsed(telemetry.exposition().decode())
        names = (
            "insight_queue_running",
            "insight_queue_waiting",
            "insight_queue_shed_total",
            "insight_queue_timed_out_total",
        )
        return [value(series, name) for name in names]

    assert seen() == [3, 2, 7, 1]
    counters.append(AdmissionCounters(admitted=9, running=1, waiting=0, shed=9, timed_out=1))
    assert seen() == [1, 0, 9, 1]


def test_two_services_in_one_process_count_apart() -> None:
    one, other = Telemetry(), Telemetry()
    one.observe(Observation(request_id="a", transport=Transport.REST, method="GET", status=200))

    counted = [
        value(
            parsed(each.exposition().decode()),
            "insight_request_seconds_count",
            route="unmatched",
            method="GET",
            status="2xx",
        )
        for each in (one, other)
    ]
    assert counted == [1, 0]


async def test_no_label_is_made_of_what_a_caller_wrote(client: httpx.AsyncClient, read: Read) -> None:
    before = len(await read())
    for number in range(30):
        word = f"made-up-{number}"
        await client.get(f"/v1/metrics/{word}")
        await client.get(f"/v1/{word}/{word}")
        await client.request(f"BREW{number}", "/v1/query")
        await client.post("/v1/query", json={"metrics": [word], "group_by": [word]})
        await client.post(
            "/v1/query", json=QUERY | {"where": [{"field": "customer__gender", "op": "eq", "values": [word]}]}
        )
    series = await read()

    assert not [labels for _, labels in series if "made-up" in str(labels) or "BREW" in str(labels)]
    assert len(series) < before + 200  # some buckets each for five new pairs of route and status
    principals = [labels for _, labels in series if "telemetry" in str(labels) or "total_revenue" in str(labels)]
    assert principals == []
