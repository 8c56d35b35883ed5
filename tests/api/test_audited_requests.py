"""What the audit says of requests over REST: one record each, whatever they asked and however they ended."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from api.audit_store import AuditQuestion, AuditStore
from api.keys import ApiKeys
from api.main import create_app
from api.state import open_state
from tests.conftest import Published, connect, service_settings

QUERY = {
    "metrics": ["total_revenue"],
    "group_by": ["metric_time__month"],
    "where": [{"field": "customer__gender", "op": "eq", "values": ["F"]}],
    "time_range": {"start": "2019-01-01", "end": "2019-03-31"},
    "limit": 2,
}


class Audited:
    """A service, a client of it, and the records of what that client asked."""

    def __init__(self, app: FastAPI, client: httpx.AsyncClient, state_url: str) -> None:
        self.folder = Path(f"{state_url.removeprefix('sqlite:///')}-audit")
        self.app = app
        self.client = client
        self._state_url = state_url
        self._before: set[str] = set()

    async def forget(self) -> None:
        """Let the records that there are be somebody else's."""
        self._before |= {record["id"] for record in await self.records()}

    async def records(self) -> list[dict[str, Any]]:
        """All of them, as they are in the state database; oldest first."""
        state = open_state(self._state_url)
        async with asyncio.timeout(30):
            while "insight_audit_backlog 0.0" not in (await self.client.get("/metrics")).text:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        found = AuditStore(state).newest(AuditQuestion(), limit=10_000)
        state.dispose()
        return [record for record in found[::-1] if record["id"] not in self._before]

    async def record(self) -> dict[str, Any]:
        """The only one."""
        (record,) = await self.records()
        return record


@asynccontextmanager
async def serving(
    published: Published, folder: Path, *, role: str = "admin", **settings: Any
) -> AsyncIterator[Audited]:
    url = f"sqlite:///{folder / 'state.db'}"
    app = create_app(service_settings(published, state_url=url, **settings))
    state = open_state(url)
    key = ApiKeys(state).create("tests", role=role)
    state.dispose()
    async with app.router.lifespan_context(app), connect(app, key=key) as client:
        yield Audited(app, client, url)


@pytest.fixture(scope="module")
async def shared(synthetic: Published, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Audited]:
    async with serving(synthetic, tmp_path_factory.mktemp("audited")) as made:
        yield made


@pytest.fixture
async def audited(shared: Audited) -> AsyncIterator[Audited]:
    await shared.forget()
    headers = dict(shared.client.headers)
    yield shared
    shared.client.headers = httpx.Headers(headers)


async def test_a_repeat_of_a_request_has_a_record_of_its_own_that_says_the_same(audited: Audited) -> None:
    ids = [(await audited.client.post("/v1/query", json=QUERY)).json()["meta"]["query_id"] for _ in range(3)]

    records = await audited.records()

    own = {"id", "request_id", "at", "ms", "cache"}
    assert len(set(ids)) == len(records) == 3
    assert [record["cache"] for record in records[1:]] == ["hit", "hit"]
    assert all(
        {name: value for name, value in record.items() if name not in own}
        == {name: value for name, value in records[0].items() if name not in own}
        for record in records
    )


async def test_an_answer_s_record_says_who_asked_for_what_and_what_came_of_it(audited: Audited) -> None:
    sql = (await audited.client.post("/v1/query/compile", json=QUERY)).json()["sql"]
    response = await audited.client.post("/v1/query", json=QUERY, headers={"X-Request-Id": "asked.by-me"})

    compiled, record = await audited.records()

    meta = response.json()["meta"]
    assert record["request_id"] == response.headers["X-Request-Id"] == "asked.by-me"
    assert (record["principal_name"], record["role"]) == ("tests", "admin")
    assert len(record["principal_id"]) == 8
    assert (record["transport"], record["action"]) == ("rest", "run_query")
    assert record["what"] == {
        "metrics": ["total_revenue"],
        "group_by": ["metric_time__month"],
        "where": {"field": "customer__gender", "op": "eq", "values": ["F"]},
        "time_range": {"start": "2019-01-01", "end": "2019-03-31"},
        "limit": 2,
    }
    assert (record["decision"], record["status"], record["code"]) == ("answered", 200, None)
    assert (record["rows"], record["cache"]) == (2, meta["cache"]["result"])
    assert record["publication"] == meta["publication"]
    assert record["sql_hash"] == compiled["sql_hash"] == hashlib.sha256(sql.encode()).hexdigest()
    assert record["ms"] >= meta["timings"]["total_ms"] > 0
    assert (compiled["action"], compiled["rows"], compiled["what"]) == ("compile_query", None, record["what"])


async def test_an_answer_from_the_cache_is_recorded_like_any_other(audited: Audited) -> None:
    query = QUERY | {"limit": 3}
    first = await audited.client.post("/v1/query", json=query)
    await audited.client.post("/v1/query", json=query)
    again = await audited.client.post("/v1/query", json=query, headers={"If-None-Match": first.headers["ETag"]})

    records = await audited.records()

    assert again.status_code == 304
    assert [record["cache"] for record in records] == ["miss", "hit", "hit"]
    assert [(record["decision"], record["status"]) for record in records] == [
        ("answered", 200),
        ("answered", 200),
        ("answered", 304),
    ]


async def test_lists_are_recorded_with_the_parameters_that_their_route_knows(audited: Audited) -> None:
    await audited.client.get("/v1/metrics", params={"search": "revenue", "limit": 2, "api_key": "not for the audit"})
    await audited.client.get("/v1/metrics/total_revenue")
    await audited.client.get("/v1/dimensions/customer__gender/values", params={"search": "F"})
    await audited.client.get("/v1/saved-queries/revenue_by_month/results")
    await audited.client.get("/v1/freshness")

    found = [(record["action"], record["what"]) for record in await audited.records()]

    assert found[0] == ("list_metrics", {"search": "revenue", "limit": "2"})
    assert found[1] == ("get_metric", {"metric": "total_revenue"})
    assert found[2][1]["where"]["all_of"][1] == {"field": "customer__gender", "op": "contains", "values": ["F"]}
    assert found[3][1]["name"] == "revenue_by_month"
    assert "total_revenue" in found[3][1]["metrics"]
    assert found[4] == ("get_freshness", {})


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "action"),
    [
        ("POST", "/v1/query", '{"metrics": ["total_revenu"]}', 404, "unknown_metric", "run_query"),
        ("POST", "/v1/query", '{"metrics": ["total_revenue"], "limit": 0}', 422, "malformed_request", "run_query"),
        ("POST", "/v1/query", "{", 400, "unreadable_request", "run_query"),
        ("POST", "/v1/query", " " * 2_000_000, 413, "request_too_large", "unknown"),
        ("PUT", "/v1/query", "", 405, "method_not_allowed", "unknown"),
        ("BREW", "/v1/query", "", 405, "method_not_allowed", "unknown"),
        ("GET", "/v1/nowhere", "", 404, "unknown_path", "unknown"),
        ("GET", "/v1", "", 404, "unknown_path", "unknown"),
        ("GET", "/v1/metrics?limit=none", "", 422, "malformed_request", "list_metrics"),
    ],
)
async def test_a_refusal_is_recorded_with_its_code(
    audited: Audited, method: str, path: str, body: str, status: int, code: str, action: str
) -> None:
    headers = {"Content-Type": "application/json"}
    response = await audited.client.request(method, path, content=body, headers=headers)

    record = await audited.record()

    assert (response.status_code, response.json()["code"]) == (status, code)
    assert (record["decision"], record["status"], record["code"]) == ("refused", status, code)
    assert record["request_id"] == response.json()["request_id"]
    assert record["action"] == action
    if action == "unknown":
        assert record["what"] == {"method": method, "path": path}


async def test_what_was_asked_in_vain_is_recorded(audited: Audited) -> None:
    await audited.client.post("/v1/query", json=QUERY | {"group_by": ["nonsense"]})

    assert (await audited.record())["what"] == QUERY | {"group_by": ["nonsense"], "where": QUERY["where"][0]}  # type: ignore[index]


async def test_whoever_has_no_valid_key_is_recorded_as_nobody(audited: Audited) -> None:
    del audited.client.headers["Authorization"]
    await audited.client.get("/v1/metrics")
    await audited.client.get("/v1/metrics", headers={"Authorization": "Bearer mi_01234567_wrong"})

    records = await audited.records()

    assert [record["code"] for record in records] == ["missing_key", "invalid_key"]
    assert {record["principal_id"] for record in records} == {None}
    assert "wrong" not in str(records)


async def test_what_the_policy_forbids_is_recorded_with_who_wanted_it(synthetic: Published, tmp_path: Path) -> None:
    async with serving(synthetic, tmp_path, role="viewer") as audited:
        await audited.client.post("/v1/query/compile", json=QUERY)
        record = await audited.record()

    assert (record["decision"], record["code"], record["role"]) == ("refused", "sql_forbidden", "viewer")
    assert record["what"]["metrics"] == ["total_revenue"]


async def test_a_crash_is_recorded_as_a_failure(audited: Audited) -> None:
    @audited.app.get("/v1/crash")
    async def crash() -> None:
        raise ZeroDivisionError

    response = await audited.client.get("/v1/crash")
    record = await audited.record()

    assert response.status_code == 500
    assert (record["decision"], record["status"], record["code"]) == ("failed", 500, "internal_error")
    assert record["request_id"] == response.headers["X-Request-Id"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/openapi.json", "/nowhere", "/v1x"])
async def test_what_is_not_the_api_is_not_recorded(audited: Audited, path: str) -> None:
    await audited.client.get(path)

    assert await audited.records() == []


async def test_a_request_whose_caller_leaves_is_recorded_as_cancelled(audited: Audited) -> None:
    reached = asyncio.Event()

    @audited.app.get("/v1/slow")
    async def slow() -> None:
        reached.set()
        await asyncio.sleep(60)

    asking = asyncio.create_task(audited.client.get("/v1/slow"))
    await reached.wait()
    asking.cancel()
    await asyncio.wait((asking,))

    record = await audited.record()
    assert (record["decision"], record["status"]) == ("cancelled", 499)
    assert record["principal_id"] is None


@pytest.mark.parametrize(("fault", "decision"), [(ZeroDivisionError, "failed"), (asyncio.CancelledError, "cancelled")])
async def test_a_stream_that_breaks_has_one_record_that_says_so(
    audited: Audited, fault: type[BaseException], decision: str
) -> None:
    async def rows() -> AsyncIterator[bytes]:
        yield b"a row\n"
        raise fault

    @audited.app.get(f"/v1/stream-{decision}")
    async def stream() -> StreamingResponse:
        return StreamingResponse(rows())

    with suppress(Exception, asyncio.CancelledError):  # however the client meets it
        await audited.client.get(f"/v1/stream-{decision}")

    assert (await audited.record())["decision"] == decision


async def test_the_record_is_on_disk_before_the_first_byte_of_the_answer_leaves(
    audited: Audited,
) -> None:
    found: list[bool] = []

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            journals = audited.folder.glob("*.jsonl")
            found.append(any(b'"early"' in journal.read_bytes() for journal in journals))

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/v1/metrics",
        "raw_path": b"/v1/metrics",
        "query_string": b"",
        "headers": [(b"x-request-id", b"early"), (b"authorization", audited.client.headers["Authorization"].encode())],
        "http_version": "1.1",
        "scheme": "http",
        "client": None,
        "server": ("insight.test", 80),
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    await audited.app(scope, receive, send)

    assert found == [True]


async def test_requests_at_once_are_each_recorded_as_their_own(audited: Audited) -> None:
    months = [f"2019-{month:02}-01" for month in range(1, 13)]
    bodies = [
        {"metrics": ["total_revenue"], "time_range": {"start": start, "end": "2019-12-31"}, "limit": limit}
        for start in months
        for limit in range(1, 6)
    ]
    headers = [{"X-Request-Id": f"r{number}"} for number in range(len(bodies))]

    await asyncio.gather(
        *(audited.client.post("/v1/query", json=body, headers=head) for body, head in zip(bodies, headers, strict=True))
    )

    found = {record["request_id"]: record["what"] for record in await audited.records()}
    assert found == {f"r{number}": body for number, body in enumerate(bodies)}


async def test_without_a_journal_there_is_a_503_instead_of_an_answer(synthetic: Published, tmp_path: Path) -> None:
    folder = tmp_path / "state.db-audit"
    async with serving(synthetic, tmp_path) as audited:
        await audited.client.post("/v1/query", json=QUERY)
        await audited.records()
        folder.rmdir()
        folder.touch()

        refused = await audited.client.post("/v1/query", json=QUERY)
        crashed = await audited.client.get("/v1/metrics/nonsense")
        folder.unlink()
        answered = await audited.client.post("/v1/query", json=QUERY)

    assert (refused.status_code, refused.json()["code"]) == (503, "audit_unavailable")
    assert "data" not in refused.json()
    assert refused.headers["Retry-After"]
    assert refused.headers["X-Request-Id"] == refused.json()["request_id"]
    assert crashed.json()["code"] == "audit_unavailable"
    assert answered.status_code == 200


async def test_best_effort_answers_without_a_journal(synthetic: Published, tmp_path: Path) -> None:
    folder = tmp_path / "state.db-audit"
    async with serving(synthetic, tmp_path, audit="best_effort") as audited:
        await audited.client.post("/v1/query", json=QUERY)
        await audited.records()
        folder.rmdir()
        folder.touch()

        assert (await audited.client.post("/v1/query", json=QUERY)).status_code == 200
        assert "insight_audit_unwritten_total 1.0" in (await audited.client.get("/metrics")).text
