"""Traces, read where they arrive: by a collector that decodes them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs

from api import observation
from api.keys import ApiKeys
from api.main import create_app
from api.state import open_state
from tests.collector import Collector, Received, collecting
from tests.conftest import Published, connect, service_settings
from tests.services import free_port

SERVER_KIND, INTERNAL_KIND = 2, 1
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
QUERY = {
    "metrics": ["total_revenue"],
    "group_by": ["metric_time__month"],
    "where": [{"field": "customer__location", "op": "eq", "values": ["Chicago"]}],
}


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as made:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", made.url)
        yield made


@asynccontextmanager
async def serving(published: Published, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    url = f"sqlite:///{folder / 'state.db'}"
    app = create_app(service_settings(published, state_url=url))
    state = open_state(url)
    key = ApiKeys(state).create("tests", role="admin")
    state.dispose()
    async with app.router.lifespan_context(app), connect(app, key=key) as client:
        yield client


def named(collector: Collector, name: str) -> Received:
    (span,) = [span for span in collector.spans() if span.name == name]
    return span


async def test_a_query_is_a_span_with_its_stages_in_order(
    collector: Collector, synthetic: Published, tmp_path: Path
) -> None:
    began_ns = time.time_ns()
    async with serving(synthetic, tmp_path) as client:
        answer = await client.post("/v1/query", json=QUERY)  # the end of the service flushes

    request = named(collector, "POST /v1/query")
    assert request.kind == SERVER_KIND
    assert request.parent_id == ""
    assert not request.is_error
    assert began_ns <= request.began_ns < request.ended_ns <= time.time_ns()
    assert request.resource["service.name"] == "marketing-insight"
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/query",
        "http.response.status_code": 200,
        "insight.request_id": answer.headers["X-Request-Id"],
        "insight.action": "run_query",
        "insight.decision": "answered",
        "insight.query_id": answer.json()["meta"]["query_id"],
        "insight.metrics": ["total_revenue"],
        "insight.rows": 12,
        "insight.publication": synthetic.version,
        "insight.cache": "miss",
    }
    stages = sorted((span for span in collector.spans() if span.kind == INTERNAL_KIND), key=lambda span: span.began_ns)
    assert [span.name for span in stages] == ["compile", "cache", "wait", "run", "render"]
    for stage in stages:
        assert (stage.trace_id, stage.parent_id, stage.attributes) == (request.trace_id, request.span_id, {})
        assert request.began_ns <= stage.began_ns <= stage.ended_ns <= request.ended_ns
    compiling, caching, waiting, run, rendering = stages
    assert (
        compiling.ended_ns
        <= caching.began_ns
        <= waiting.began_ns
        <= waiting.ended_ns
        <= run.began_ns
        <= run.ended_ns
        <= caching.ended_ns
    )
    assert caching.ended_ns <= rendering.began_ns


async def test_the_caller_s_trace_is_continued_and_named_in_the_log(
    collector: Collector, synthetic: Published, tmp_path: Path
) -> None:
    async with serving(synthetic, tmp_path) as client:
        with capture_logs(processors=[observation.named]) as logs:
            await client.get("/v1/metrics/total_revenue", headers={"traceparent": f"00-{TRACE}-{CALLER}-01"})
            await client.get("/v1/metrics/total_revenue", headers={"traceparent": "00-nonsense"})

    continued, own = [span for span in collector.spans() if span.name == "GET /v1/metrics/{metric}"]
    assert (continued.trace_id, continued.parent_id) == (TRACE, CALLER)
    assert own.trace_id != TRACE
    assert own.parent_id == ""
    assert [entry["trace_id"] for entry in logs if entry["event"] == "request"] == [TRACE, own.trace_id]


async def test_a_trace_that_its_caller_does_not_record_is_not_recorded_here(
    collector: Collector, synthetic: Published, tmp_path: Path
) -> None:
    async with serving(synthetic, tmp_path) as client:
        await client.post("/v1/query", json=QUERY, headers={"traceparent": f"00-{TRACE}-{CALLER}-00"})

    assert collector.spans() == []


async def test_refusals_and_crashes_say_their_code_and_nothing_that_was_asked(
    collector: Collector, synthetic: Published, tmp_path: Path
) -> None:
    async with serving(synthetic, tmp_path) as client:
        await client.get("/v1/dimensions/canary-in-the-path/values?search=canary-in-the-query")
        await client.post("/v1/query", json=QUERY | {"metrics": ["canary-metric"]})
        await client.post("/v1/query", json={"metrics": [], "canary": "canary"})
        await client.get("/v1/canary", headers={"Authorization": "Bearer canary", "X-Canary": "canary"})

    codes = [span.attributes["error.type"] for span in collector.spans() if span.kind == SERVER_KIND]
    assert codes == ["unknown_dimension", "unknown_metric", "malformed_request", "unknown_path"]
    assert not [body for body in collector.bodies if b"canary" in body or b"Chicago" in body or b"SELECT" in body]


async def test_spans_are_exported_while_the_service_runs(
    collector: Collector, synthetic: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    async with serving(synthetic, tmp_path) as client:
        await client.get("/v1/freshness")
        collector.wait_for("GET /v1/freshness")


async def test_a_collector_that_is_away_delays_no_answer_and_not_the_end(
    synthetic: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    async with serving(synthetic, tmp_path) as client:
        assert (await client.post("/v1/query", json=QUERY)).status_code == 200
        ending = time.monotonic()
    assert time.monotonic() - ending < 20


async def test_without_a_collector_named_there_are_no_traces(synthetic: Published, tmp_path: Path) -> None:
    async with serving(synthetic, tmp_path) as client:
        response = await client.get("/v1/metrics", headers={"traceparent": f"00-{TRACE}-{CALLER}-01"})
    assert response.status_code == 200


def test_without_a_collector_named_what_exports_is_not_even_imported() -> None:
    program = (
        "import sys, api.main, api.observer, api.cli\n"
        "assert api.observer._open_tracing() is None\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry.exporter')]"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_without_the_extra_the_service_says_so_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "import sys\n"
        "sys.modules['opentelemetry.sdk.trace'] = None  # as if it were not installed\n"
        "import api.observer; assert api.observer._open_tracing() is None"
    )
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    ended = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)

    assert "tracing_not_installed" in ended.stdout
