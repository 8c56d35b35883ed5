"""S9: secrets that a caller or an operator hands over turn up nowhere but where they belong.

A real service, its log at DEBUG, with PostgreSQL, Redis and a collector of traces behind it. Canaries go in at every
door; afterwards everything that came out is searched: log, traces, series, problems, audit.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from api.audit_store import AuditQuestion, AuditStore
from api.keys import ApiKeys
from api.state import open_state
from tests.collector import Collector, collecting
from tests.conftest import Published
from tests.services import PostgresServer, RedisServer, free_port, running_postgres, running_redis

INSIGHT = Path(sys.executable).with_name("insight")

# Each is looked for by the part that nothing else could have produced.
CANARIES = {
    "valid bearer key": "",  # made by the service
    "valid X-API-Key": "",
    "revoked key": "",
    "secret of the masks": "",
    "unknown key": "mi_0badcafe_canaryUnknownKey" + "x" * 31,
    "malformed key": "mi_canaryMalformedKey",
    "cut key": "mi_0badcafe_canaryCut",
    "bearer of another kind": "canary-bearer-of-another-kind",
    "basic credentials": "Y2FuYXJ5OmJhc2lj",
    "token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.canaryTokenSignature",
    "malformed X-API-Key": "canary malformed header",
    "key in an unknown parameter": "canary-unknown-parameter",
    "key in a known parameter": "mi_0badcafe_canaryKnownParameter",
    "key in the path": "mi_0badcafe_canaryPath",
    "key as a request id": "mi_0badcafe_canaryRequestId",
    "key in an unknown field": "canary-unknown-field",
    "key as a metric": "mi_0badcafe_canaryMetric",
    "key as a filter value": "mi_0badcafe_canaryFilterValue",
    "key in broken JSON": "canary-broken-json",
    "cookie": "canary-cookie",
    "password of Redis": "canaryPasswordOfRedis",
    "password of the state": "canaryPasswordOfTheState",
    "password of the collector": "canary-password-of-the-collector",
}
# A caller's values may be a person's; the audit alone may keep them.
VALUES = {
    "filter value": "canary value of a filter",
    "filter value that does not fit": "canary value for a number",
    "filter value in a text": "canary value in a text",
    "searched value": "canary value that is searched",
}


@dataclass
class Outcome:
    """Everything that came out."""

    canaries: dict[str, str]
    log: str = ""
    traces: bytes = b""
    series: str = ""
    problems: list[str] = field(default_factory=list)
    audit: str = ""
    request_ids: set[str] = field(default_factory=set)
    collector_headers: list[dict[str, str]] = field(default_factory=list)
    collector_paths: set[str] = field(default_factory=set)


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def outcome(
    synthetic: Published, postgres: PostgresServer, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Outcome:
    """What a service put out that was handed every canary, and whose state then went away."""
    folder = tmp_path_factory.mktemp("secrets")
    url = postgres.url.replace("insight@", f"insight:{CANARIES['password of the state']}@")
    made = Outcome(canaries=dict(CANARIES))
    with collecting() as collector:
        port = free_port()
        environment = os.environ | {
            "INSIGHT_PUBLICATION_DIR": str(synthetic.settings.publication_dir),
            "INSIGHT_STATE_URL": url,
            "INSIGHT_REDIS_URL": redis.url.replace("//", f"//:{CANARIES['password of Redis']}@"),
            "INSIGHT_AUDIT_DIR": str(folder / "audit"),
            "INSIGHT_LOG_LEVEL": "debug",
            "INSIGHT_PORT": str(port),
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "FASTAPI_OTEL_AUTO_CONFIGURE": "true",
            "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={CANARIES['password of the collector']}",
        }
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([INSIGHT, "serve"], env=environment, stdout=log, stderr=log)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                _wait_until_ready(client, folder / "log")
                _hand_over(client, made, url)
                made.audit = _audit(client, url)
                made.series = client.get("/metrics").text
                _lose_the_state(client, made, postgres)
        finally:
            process.terminate()
            process.wait(timeout=60)
        _read(made, folder, collector)
    return made


def _wait_until_ready(client: httpx.Client, log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.1)
    pytest.fail(f"the service did not start:\n{log.read_text()[-3_000:]}")


def _hand_over(client: httpx.Client, made: Outcome, url: str) -> None:
    state = open_state(url)
    keys = ApiKeys(state)
    made.canaries["valid bearer key"] = keys.create("bearer", role="admin")
    made.canaries["valid X-API-Key"] = keys.create("header", role="admin")
    made.canaries["revoked key"] = revoked = keys.create("revoked", role="admin")
    keys.revoke(revoked.split("_")[1])
    with state.connect() as connection:
        secret = connection.execute(sa.text("SELECT secret FROM secrets WHERE purpose = 'mask'")).scalar_one()
    made.canaries["secret of the masks"] = bytes(secret).hex()
    state.dispose()
    for method, path, sent in _requests(made.canaries):
        response = client.request(method, path, **sent)
        made.request_ids.add(response.headers["X-Request-Id"])
        if response.status_code >= 400:
            made.problems.append(response.text)


def _requests(canaries: Mapping[str, str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each canary at its door."""
    valid = {"Authorization": f"Bearer {canaries['valid bearer key']}"}
    yield "GET", "/v1/metrics", {"headers": valid}
    yield "GET", "/v1/metrics", {"headers": {"X-API-Key": canaries["valid X-API-Key"]}}
    for name in ("revoked key", "unknown key", "malformed key", "cut key", "bearer of another kind", "token"):
        yield "GET", "/v1/metrics", {"headers": {"Authorization": f"Bearer {canaries[name]}"}}
    yield "GET", "/v1/metrics", {"headers": {"Authorization": f"Basic {canaries['basic credentials']}"}}
    yield "GET", "/v1/metrics", {"headers": {"X-API-Key": canaries["malformed X-API-Key"]}}
    yield "GET", "/v1/metrics", {"headers": valid | {"X-Request-Id": canaries["key as a request id"]}}
    yield "GET", "/v1/metrics", {"headers": valid | {"Cookie": f"session={canaries['cookie']}"}}
    yield "GET", f"/v1/metrics?api_key={canaries['key in an unknown parameter']}", {"headers": valid}
    yield "GET", f"/v1/metrics?search={canaries['key in a known parameter']}", {"headers": valid}
    yield "GET", f"/v1/metrics?limit={canaries['key in a known parameter']}", {"headers": valid}
    yield "GET", f"/v1/metrics/{canaries['key in the path']}", {"headers": valid}
    yield "GET", f"/v1/{canaries['key in the path']}", {"headers": valid}
    search = {"search": VALUES["searched value"]}
    yield "GET", "/v1/dimensions/customer__gender/values", {"headers": valid, "params": search}
    yield "POST", "/v1/query", {"headers": valid, "content": f'{{"{canaries["key in broken JSON"]}'}
    for body in _bodies(canaries):
        yield "POST", "/v1/query", {"headers": valid, "json": body}
        yield "POST", "/v1/query/compile", {"headers": valid, "json": body}


def _bodies(canaries: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    def where(value: str, field: str = "customer__gender") -> dict[str, Any]:
        return {"metrics": ["total_revenue"], "where": [{"field": field, "op": "eq", "values": [value]}]}

    yield {"metrics": ["total_revenue"], "api_key": canaries["key in an unknown field"]}
    yield {"metrics": [canaries["key as a metric"]], "group_by": [canaries["key as a metric"]]}
    yield where(canaries["key as a filter value"])
    yield where(canaries["token"])
    yield where(VALUES["filter value"])
    yield where(VALUES["filter value that does not fit"], "customer__tenure_months")
    yield where(VALUES["filter value that does not fit"], "metric_time__day")
    text = f"{{{{ Dimension('customer__gender') }}}} = '{VALUES['filter value in a text']}'"
    yield {"metrics": ["total_revenue"], "where": [text]}
    yield {"metrics": ["total_revenue"], "where": [text.replace("=", "SOUNDS LIKE")]}


def _audit(client: httpx.Client, url: str) -> str:
    """Every record, once all are in the database."""
    deadline = time.monotonic() + 30
    while "insight_audit_backlog 0.0" not in client.get("/metrics").text:
        assert time.monotonic() < deadline, "records are not moved"
        time.sleep(0.1)
    state = open_state(url)
    records = AuditStore(state).newest(AuditQuestion(), limit=1_000)
    state.dispose()
    return json.dumps(records, default=str, ensure_ascii=False)


def _lose_the_state(client: httpx.Client, made: Outcome, postgres: PostgresServer) -> None:
    postgres.stop()
    time.sleep(2.5)  # until no key is remembered any more, and records cannot be moved
    lost = client.get("/v1/metrics", headers={"Authorization": f"Bearer {made.canaries['valid bearer key']}"})
    assert lost.status_code >= 500
    made.problems.append(lost.text)
    time.sleep(1.5)


def _read(made: Outcome, folder: Path, collector: Collector) -> None:
    made.log = (folder / "log").read_text()
    made.traces = b"".join(collector.bodies)
    made.collector_headers = collector.headers
    made.collector_paths = set(collector.paths)
    made.audit += "".join(file.read_text() for file in (folder / "audit").iterdir())


def found(text: str, canaries: Mapping[str, str]) -> list[str]:
    return [name for name, canary in canaries.items() if canary.split("_", 2)[-1] in text]


def test_every_canary_was_handed_over_and_everything_was_said_of_it(outcome: Outcome) -> None:
    assert len(outcome.canaries) >= 20
    assert all(len(canary.split("_", 2)[-1]) >= 8 for canary in outcome.canaries.values())
    logged = [json.loads(line) for line in outcome.log.splitlines()]
    assert outcome.request_ids <= {line.get("request_id") for line in logged}
    assert {line["level"] for line in logged} >= {"debug", "info", "warning", "error"}
    assert {line["event"] for line in logged} >= {"result_cache_redis_lost", "audit_delayed", "request_failed"}
    assert "[credential]" in outcome.log
    assert outcome.traces.count(b"POST /v1/query") >= 10
    assert 'insight_refusals_total{code="invalid_key"}' in outcome.series
    assert len(outcome.problems) >= 15
    # The collector got what was meant for it.
    assert outcome.collector_headers[0]["authorization"] == CANARIES["password of the collector"]


@pytest.mark.parametrize("values", [{}, VALUES], ids=["credentials", "values"])
def test_none_is_in_the_log(outcome: Outcome, values: Mapping[str, str]) -> None:
    assert found(outcome.log, values or outcome.canaries) == []


def test_none_is_in_a_trace(outcome: Outcome) -> None:
    assert outcome.collector_paths == {"/v1/traces"}  # nobody sends logs or measurements there behind our back
    assert found(outcome.traces.decode(errors="replace"), outcome.canaries | VALUES) == []


def test_none_is_in_the_series(outcome: Outcome) -> None:
    assert found(outcome.series, outcome.canaries | VALUES) == []


def test_none_is_in_a_problem(outcome: Outcome) -> None:
    assert {
        problem: names for problem in outcome.problems if (names := found(problem, outcome.canaries | VALUES))
    } == {}


def test_no_credential_is_in_the_audit_but_what_was_filtered_by_is(outcome: Outcome) -> None:
    assert found(outcome.audit, outcome.canaries) == []
    assert found(outcome.audit, VALUES) == list(VALUES)


@pytest.mark.parametrize("flags", [(), ("--debug",)])
def test_a_state_that_cannot_be_reached_does_not_show_its_password(tmp_path: Path, flags: tuple[str, ...]) -> None:
    environment = os.environ | {
        "INSIGHT_STATE_URL": f"postgresql+psycopg://insight:canaryPassword@127.0.0.1:{free_port()}/insight",
        "INSIGHT_PUBLICATION_DIR": str(tmp_path),
        "INSIGHT_PORT": str(free_port()),
        "INSIGHT_LOG_LEVEL": "debug",
    }
    ended = subprocess.run(
        [INSIGHT, *flags, "serve"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )

    assert ended.returncode == 1
    assert "canary" not in ended.stdout + ended.stderr


def test_a_setting_that_is_wrong_does_not_show_its_value(tmp_path: Path) -> None:
    environment = os.environ | {"INSIGHT_PUBLICATION_DIR": str(tmp_path), "INSIGHT_PORT": "canaryPort"}

    ended = subprocess.run(
        [INSIGHT, "--debug", "serve"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )

    assert ended.returncode == 1
    assert "INSIGHT_PORT" in ended.stderr
    assert "canary" not in ended.stdout + ended.stderr
