"""R16: exports of a million rows in a fixed amount of memory; and none that broke off is taken for whole."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import server
from tests.altered import altered_publication, repeated
from tests.conftest import Published
from tests.faults import questions
from tests.server import Serve, Server

serve = server.serve

NDJSON = "application/x-ndjson"
CSV = "text/csv"
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
QUERY: dict[str, Any] = {"metrics": ["line_count", "total_revenue"], "group_by": ["sale", "customer__location"]}

# What docs/limits.md says an export takes, beside what the engine may.
EXPORT_MB = 64


@pytest.fixture(scope="module")
def large(synthetic: Published, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Publications with a million lines of sales."""
    return altered_publication(synthetic, tmp_path_factory.mktemp("large"), repeated(100))


def stream(client: httpx.Client, accept: str = NDJSON, query: dict[str, Any] = QUERY) -> Any:
    return client.stream("POST", "/v1/export", json=query, headers={"Accept": accept})


def take_all(response: httpx.Response, *, pause_s: float = 0) -> int:
    """The bytes of the whole export, read with a pause after each part; raises where it breaks off."""
    size = 0
    for part in response.iter_raw():
        size += len(part)
        time.sleep(pause_s)
    return size


def curl(service: Server, *options: str) -> subprocess.CompletedProcess[str]:
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    headers = ["-H", f"Authorization: Bearer {service.key()}", "-H", "Content-Type: application/json"]
    command = ["curl", "-sS", f"{service.url}/v1/export", *headers, "-d", json.dumps(QUERY), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def is_free(client: httpx.Client, *, within_s: float) -> bool:
    """Whether an export is answered, where there is one place for it."""
    deadline = time.monotonic() + within_s
    while client.post("/v1/export", json=QUERY | {"limit": 1}).status_code != 200:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.parametrize(
    ("accept", "times"),
    [
        (NDJSON, 100),
        (PARQUET, 100),
        pytest.param(CSV, 250, marks=pytest.mark.full),
        pytest.param(ARROW, 450, marks=pytest.mark.full),
        pytest.param(NDJSON, 450, marks=pytest.mark.full),
    ],
)
def test_an_export_of_any_size_takes_a_fixed_amount_of_memory(
    serve: Serve, synthetic: Published, tmp_path: Path, accept: str, times: int
) -> None:
    engine_mb = 256 if times == 100 else 1_024  # in which the rows are summed and sorted, before the first goes out
    publications = altered_publication(synthetic, tmp_path, repeated(times))
    service = serve(publications, engine_memory_mb=engine_mb)
    with service.client(timeout_s=300) as client:
        client.post("/v1/export", json=QUERY | {"limit": 20_000}).raise_for_status()
        before_mb, size_mb, rows = service.memory_mb, 0.0, 0
        with stream(client, accept) as response:
            for part in response.iter_bytes():
                size_mb += len(part) / 2**20
                rows += part.count(b"\n")

        assert service.peak_memory_mb - before_mb < 1.5 * (engine_mb + EXPORT_MB)
    if accept == NDJSON:
        assert rows > 10_000 * times
        assert size_mb > 90


@pytest.fixture(scope="module")
def breaking(large: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service whose exports break off after some batches, as there are more rows than one may have."""
    service = Server(large, tmp_path_factory.mktemp("server"), max_export_rows=50_000)
    service.start()
    yield service
    service.kill()


@pytest.mark.parametrize("accept", [NDJSON, CSV, ARROW, PARQUET])
def test_an_export_that_breaks_off_is_an_error_for_httpx(breaking: Server, accept: str) -> None:
    with breaking.client() as client, stream(client, accept) as response:
        assert response.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            take_all(response)

    assert '"code":"export_too_large"' in breaking.log
    assert "Traceback" not in breaking.log


def test_an_export_that_breaks_off_is_an_error_for_curl(breaking: Server, tmp_path: Path) -> None:
    ended = curl(breaking, "-o", str(tmp_path / "export"), "-w", "%{http_code}")

    assert (ended.returncode, ended.stdout) == (18, "200"), ended.stderr  # 18: a partial file
    assert (tmp_path / "export").stat().st_size > 0


def test_a_service_that_is_killed_leaves_no_export_that_looks_whole(serve: Serve, large: Path) -> None:
    service = serve(large)
    with service.client() as client, stream(client) as response:
        parts = response.iter_raw()
        next(parts)
        service.kill()
        with pytest.raises(httpx.HTTPError):
            sum(map(len, parts))


@pytest.fixture(scope="module")
def one_place(large: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service with one place for exports, and none to wait for it."""
    service = Server(large, tmp_path_factory.mktemp("server"), pool_size=2, queue_size=0, send_timeout_s=1)
    service.start()
    yield service
    service.kill()


def test_a_client_that_goes_away_ends_its_export(one_place: Server) -> None:
    with one_place.client() as client:
        for _ in range(5):
            with stream(client) as response:
                parts = response.iter_raw()
                next(parts)
                refused = client.post("/v1/export", json=QUERY | {"limit": 1})
                assert refused.status_code == 503
            assert is_free(client, within_s=1 + 1.5)


def test_a_client_that_goes_away_before_the_first_rows_ends_its_export(one_place: Server) -> None:
    with one_place.client() as client:
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/export", json=QUERY, timeout=0.3)
        assert is_free(client, within_s=1 + 1.5)


def test_a_client_that_stops_reading_loses_its_export(one_place: Server) -> None:
    with one_place.client() as client, stream(client) as response:
        parts = response.iter_raw()
        next(parts)
        assert is_free(client, within_s=10)
        with pytest.raises(httpx.RemoteProtocolError):
            sum(map(len, parts))


def test_queries_are_answered_while_exports_have_all_the_places_they_get(one_place: Server) -> None:
    with one_place.client() as client, stream(client) as response:
        parts = response.iter_raw()
        next(parts)
        for _ in range(3):
            assert client.post("/v1/query", json=questions.marketing()).status_code == 200


@pytest.mark.full
def test_an_export_that_takes_too_long_in_all_breaks_off(serve: Serve, synthetic: Published, tmp_path: Path) -> None:
    publications = altered_publication(synthetic, tmp_path, repeated(30))  # of which the first rows are out at once
    service = serve(publications, export_timeout_s=6)
    with service.client() as client, stream(client) as response:
        assert response.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            take_all(response, pause_s=0.2)  # it is slow, but it reads

    service.wait_for_log('"code":"export_timeout"')


def test_http_1_0_which_cannot_tell_half_from_whole_gets_no_export(one_place: Server) -> None:
    assert json.loads(curl(one_place, "--http1.0").stdout)["code"] == "http_version"


async def test_others_are_answered_while_an_export_is_written(serve: Serve, large: Path) -> None:
    service = serve(large)
    key = service.key()

    async def read_all() -> int:
        query = QUERY | {"limit": 300_000}
        async with service.async_client(key) as client, client.stream("POST", "/v1/export", json=query) as response:
            return sum([len(part) async for part in response.aiter_bytes()])

    async with service.async_client(key) as client:
        reading = asyncio.create_task(read_all())
        took = []
        while not reading.done():
            started = time.perf_counter()
            (await client.get("/healthz")).raise_for_status()
            took.append(time.perf_counter() - started)
            await asyncio.sleep(0.05)

    assert await reading > 10**6
    assert sorted(took)[len(took) // 2] < 0.5
