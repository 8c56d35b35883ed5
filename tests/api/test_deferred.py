"""Long queries: submitted, run in the background, read page by page by whoever submitted them, and by nobody else.

Long, as one policy and its principals stand behind every test.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet
import pytest
import sqlalchemy as sa
from pydantic import ValidationError
from structlog.testing import capture_logs

from api.keys import ApiKeys
from api.main import create_app
from api.policy import REHEARSING, Grant, Role
from api.state import open_state
from tests.altered import HALF_A_SECOND, NEVER, altered_publication, slowed
from tests.conftest import REPOSITORY, Published, connect, service_settings

POLICY = """
version: 1
roles:
  admin: {metrics: ["*"], dimensions: ["*"]}
  chicago:
    metrics: ["*"]
    dimensions: ["*"]
    rows: [{field: customer__location, op: eq, values: [Chicago]}]
  viewer: {metrics: ["*"], dimensions: ["*"], hashed: [customer]}
  narrow: {metrics: [line_count], dimensions: ["customer__*"]}
  clerk: {metrics: ["*"], dimensions: ["*"], hashed: [sale]}
  brief: {metrics: ["*"], dimensions: ["*"], max_rows: 7}
"""

CUSTOMERS = {"metrics": ["line_count", "total_revenue"], "group_by": ["customer", "metric_time__month"]}
COUNT = {"metrics": ["line_count"], "group_by": ["customer__location"]}

ARROW = "application/vnd.apache.arrow.stream"
HEX = re.compile(r"[0-9a-f]{16}")

# A second is what is promised; the rest is for a busy machine.
BOUND_S = 5.0

Client = httpx.AsyncClient
Serve = Callable[..., Awaitable["Service"]]


@dataclass(frozen=True, kw_only=True)
class Service:
    """One replica, and what makes clients of it."""

    app: Any
    keys: ApiKeys
    made: dict[str, str]
    clients: list[Client]

    def join(self, role: str, name: str | None = None) -> Client:
        """A client with a key of the role; the same key for the same name, in every replica."""
        name = name or role
        if name not in self.made:
            self.made[name] = self.keys.create(name, role=role)
        self.clients.append(connect(self.app, key=self.made[name]))
        return self.clients[-1]


@asynccontextmanager
async def serving(published: Published, home: Path) -> AsyncIterator[Serve]:
    """Replicas on one state database, under one policy, each with settings of its own."""
    (home / "policy.yml").write_text(POLICY)
    url = f"sqlite:///{home / 'state.db'}"
    made: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        engine = open_state(url)
        stack.callback(engine.dispose)
        keys = ApiKeys(engine)

        async def serve(**settings: Any) -> Service:
            app = create_app(
                service_settings(published, **({"policy_file": home / "policy.yml", "state_url": url} | settings))
            )
            await stack.enter_async_context(app.router.lifespan_context(app))
            service = Service(app=app, keys=keys, made=made, clients=[])
            stack.push_async_callback(closed, service.clients)
            return service

        yield serve


async def closed(clients: list[Client]) -> None:
    for client in clients:
        await client.aclose()


@pytest.fixture
async def serve(synthetic: Published, tmp_path: Path) -> AsyncIterator[Serve]:
    async with serving(synthetic, tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
async def service(synthetic: Published, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """One replica for the tests that change nothing."""
    async with serving(synthetic, tmp_path_factory.mktemp("deferred")) as serve:
        yield await serve()


@pytest.fixture(scope="module")
def admin(service: Service) -> Client:
    return service.join("admin")


@pytest.fixture
def endless(synthetic: Published, tmp_path: Path) -> Path:
    """Publications whose sales nobody lives to see."""
    return altered_publication(synthetic, tmp_path / "publications", slowed(steps=NEVER))


async def submitted(client: Client, query: dict[str, Any]) -> str:
    """The path of a query that was just submitted."""
    response = await client.post("/v1/queries", json=query)
    assert response.status_code == 202, response.text
    return str(response.headers["location"])


async def state(client: Client, path: str) -> str:
    return str((await client.get(path)).json()["state"])


async def left(client: Client, path: str, *states: str, within_s: float = 60.0) -> dict[str, Any]:
    """The query, once it is in none of the states: by default, once it has finished."""
    deadline = time.monotonic() + within_s
    while (found := (await client.get(path)).json())["state"] in (states or ("queued", "running")):
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.02)
    return dict(found)


async def finished(client: Client, query: dict[str, Any]) -> str:
    """The path of a query that was submitted and has succeeded."""
    path = await submitted(client, query)
    found = await left(client, path)
    assert found["state"] == "succeeded", found
    return path


async def page(client: Client, path: str, **params: Any) -> dict[str, Any]:
    response = await client.get(f"{path}/results", params=params)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = json.loads(response.content, parse_float=Decimal)
    return found


async def asked(client: Client, query: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that the query answers at once."""
    response = await client.post("/v1/query", json=query)
    assert response.status_code == 200, response.text
    rows: list[dict[str, Any]] = json.loads(response.content, parse_float=Decimal)["data"]
    return rows


async def happens(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


def refusal(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


# Submitting and following


async def test_a_submitted_query_is_accepted_and_followed_to_its_end(admin: Client) -> None:
    response = await admin.post("/v1/queries", json=CUSTOMERS)
    accepted = response.json()
    path = response.headers["location"]
    ended = await left(admin, path)

    assert (response.status_code, response.headers["retry-after"]) == (202, "1")
    assert path == f"/v1/queries/{accepted['query_id']}"
    assert (accepted["state"], accepted["metrics"]) == ("queued", CUSTOMERS["metrics"])
    assert ended["state"] == "succeeded"
    assert ended["row_count"] == len(await asked(admin, CUSTOMERS)) > 500
    assert (ended["attempts"], ended["truncated"], ended["error"]) == (1, False, None)
    assert ended["publication"]
    assert ended["timings"]["run_ms"] > 0
    assert ended["created_at"] <= ended["started_at"] <= ended["finished_at"] < ended["expires_at"]
    assert ended["finished_at"].endswith("Z")


@pytest.mark.parametrize("rows", [1, 7, 500, 10_000])
async def test_the_pages_together_are_the_answer(admin: Client, rows: int) -> None:
    query = CUSTOMERS | {"limit": 40} if rows == 1 else CUSTOMERS
    expected = await asked(admin, query)
    path = await finished(admin, query)

    first = await page(admin, path, page_size=rows)
    found = first["data"]
    for number in range(2, first["meta"]["page_count"] + 1):
        found += (await page(admin, path, page=number, page_size=rows))["data"]

    assert found == expected
    assert first["meta"]["page_count"] == -(-len(expected) // rows)
    assert first["meta"]["page_size"] == rows
    assert first["meta"]["total_rows"] == len(expected)
    assert first["columns"] == (await admin.post("/v1/query", json=query)).json()["columns"]


async def test_a_result_without_rows_has_one_page_with_its_columns(admin: Client) -> None:
    nowhere = {"field": "customer__location", "op": "eq", "values": ["Nowhere"]}
    path = await finished(admin, COUNT | {"where": [nowhere]})

    found = await page(admin, path)
    arrow = await admin.get(f"{path}/results", headers={"Accept": ARROW})

    assert (found["data"], found["meta"]["page_count"], found["meta"]["total_rows"]) == ([], 1, 0)
    assert pa.ipc.open_stream(arrow.content).read_all().column_names == ["customer__location", "line_count"]


@pytest.mark.parametrize("number", [2, 2**31])
async def test_a_page_behind_the_last_is_a_404_that_names_the_last(admin: Client, number: int) -> None:
    path = await finished(admin, COUNT)
    response = await admin.get(f"{path}/results", params={"page": number})

    assert refusal(response) == (404, "unknown_page")
    assert "1 to 1" in response.json()["hint"]


@pytest.mark.parametrize("params", [{"page": 0}, {"page": -1}, {"page": "x"}, {"page_size": 0}, {"page_size": 50_001}])
async def test_a_page_that_cannot_be_is_refused(admin: Client, params: dict[str, Any]) -> None:
    path = await finished(admin, COUNT)

    assert (await admin.get(f"{path}/results", params=params)).status_code == 422


async def test_every_format_holds_the_rows_of_the_page(admin: Client) -> None:
    path = await finished(admin, CUSTOMERS)
    expected = (await page(admin, path, page=2, page_size=100))["data"]

    async def raw(accept: str) -> bytes:
        response = await admin.get(f"{path}/results", params={"page": 2, "page_size": 100}, headers={"Accept": accept})
        assert response.headers["content-type"].startswith(accept)
        return response.content

    arrow = pa.ipc.open_stream(await raw(ARROW)).read_all()
    parquet = pyarrow.parquet.read_table(io.BytesIO(await raw("application/vnd.apache.parquet")))
    csv = (await raw("text/csv")).decode().splitlines()

    assert arrow.to_pylist() == parquet.to_pylist()
    assert [row["customer"] for row in arrow.to_pylist()] == [row["customer"] for row in expected]
    assert [row["total_revenue"] for row in arrow.to_pylist()] == [row["total_revenue"] for row in expected]
    assert len(csv) == 101
    assert (await admin.get(f"{path}/results", headers={"Accept": "image/png"})).status_code == 406


async def test_a_page_that_its_reader_has_is_not_sent_again(admin: Client) -> None:
    path = await finished(admin, CUSTOMERS)
    first, second = [await admin.get(f"{path}/results", params={"page": n, "page_size": 10}) for n in (1, 2)]
    known = {"If-None-Match": first.headers["etag"]}

    again = await admin.get(f"{path}/results", params={"page": 1, "page_size": 10}, headers=known)
    other = await admin.get(f"{path}/results", params={"page": 2, "page_size": 10}, headers=known)

    assert (again.status_code, again.content) == (304, b"")
    assert (other.status_code, other.headers["etag"]) == (200, second.headers["etag"])


async def test_a_submitted_query_has_all_its_rows_where_an_answer_at_once_has_a_page(serve: Serve) -> None:
    client = (await serve(default_rows=10, max_rows=20)).join("admin")
    path = await finished(client, CUSTOMERS)
    first = await page(client, path)

    assert len(first["data"]) == 10
    assert first["meta"]["total_rows"] > 500
    assert len((await page(client, path, page_size=20))["data"]) == 20
    assert refusal(await client.get(f"{path}/results", params={"page_size": 21})) == (422, "invalid_limit")


async def test_a_result_is_cut_at_the_most_rows_and_says_so(serve: Serve) -> None:
    client = (await serve(max_deferred_rows=100)).join("admin")
    path = await finished(client, CUSTOMERS)
    ended = (await client.get(path)).json()

    assert (ended["row_count"], ended["truncated"]) == (100, True)
    assert (await page(client, path))["meta"]["truncated"]
    assert refusal(await client.post("/v1/queries", json=CUSTOMERS | {"limit": 101})) == (422, "invalid_limit")


async def test_a_role_has_no_more_rows_than_its_own_limit(service: Service) -> None:
    brief = service.join("brief")
    path = await finished(brief, CUSTOMERS)

    assert len((await page(brief, path))["data"]) == 7
    assert refusal(await brief.post("/v1/queries", json=CUSTOMERS | {"limit": 8})) == (422, "invalid_limit")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"metrics": ["no_such_metric"]}, (404, "unknown_metric")),
        ({"metrics": ["line_count"], "group_by": ["no_such_dimension"]}, (404, "unknown_dimension")),
        ({}, (422, "invalid_query")),
        ({"metrics": ["line_count"], "unknown": 1}, (422, "malformed_request")),
        (COUNT | {"where": ["1 = 1; drop table x"]}, (422, None)),
    ],
)
async def test_what_cannot_be_answered_is_refused_when_it_is_submitted(
    admin: Client, query: dict[str, Any], expected: tuple[int, str | None]
) -> None:
    before = (await admin.get("/v1/queries")).json()["meta"]["total"]
    response = await admin.post("/v1/queries", json=query)

    assert response.status_code == expected[0]
    assert expected[1] in (None, response.json()["code"])
    assert (await admin.get("/v1/queries")).json()["meta"]["total"] == before


async def test_a_list_shows_ones_own_queries_newest_first_page_by_page(serve: Serve) -> None:
    service = await serve()
    ada, bob = service.join("admin", "ada"), service.join("admin", "bob")
    paths = [await finished(ada, COUNT | {"limit": limit}) for limit in range(1, 6)]
    await finished(bob, COUNT)

    found: list[str] = []
    cursor: str | None = None
    for _ in range(3):
        listed = (await ada.get("/v1/queries", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
        found += [f"/v1/queries/{query['query_id']}" for query in listed["data"]]
        assert listed["meta"]["total"] == 5
        cursor = listed["meta"]["next_cursor"]

    assert found == paths[::-1]
    assert cursor is None
    assert refusal(await ada.get("/v1/queries", params={"cursor": "bm9uZQ=="})) == (400, "invalid_cursor")
    assert refusal(await ada.get("/v1/queries", params={"cursor": "%"})) == (400, "invalid_cursor")


@pytest.mark.parametrize("method", ["GET", "DELETE", "RESULTS"])
async def test_a_query_of_somebody_else_is_as_unknown_as_one_that_never_was(service: Service, method: str) -> None:
    ada, bob = service.join("admin", "ada"), service.join("admin", "bob")
    path = await finished(ada, COUNT)
    verb, tail = ("GET", "/results") if method == "RESULTS" else (method, "")

    def told(response: httpx.Response, asked: str) -> dict[str, Any]:
        told = response.json()
        del told["request_id"]
        return {key: str(value).replace(asked, "ID") for key, value in told.items()}

    theirs, nobodys = path.rpartition("/")[2], "0" * 32
    answers = [
        (await bob.request(verb, f"/v1/queries/{asked}{tail}"), asked) for asked in (theirs, nobodys, "no-id", "%00")
    ]

    assert {response.status_code for response, _ in answers} == {404}
    assert told(*answers[0]) == told(*answers[1])
    assert {response.json()["code"] for response, _ in answers} == {"unknown_query"}
    assert (await page(ada, path))["data"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/queries"),
        ("GET", "/v1/queries"),
        ("GET", f"/v1/queries/{'0' * 32}"),
        ("GET", f"/v1/queries/{'0' * 32}/results"),
        ("DELETE", f"/v1/queries/{'0' * 32}"),
    ],
)
async def test_nobody_without_a_key_learns_anything(service: Service, method: str, path: str) -> None:
    async with connect(service.app) as stranger:
        response = await stranger.request(method, path, json=COUNT if method == "POST" else None)

    assert response.status_code == 401


# Waiting, running, ending


async def test_a_query_that_has_not_finished_has_no_rows_yet(serve: Serve, endless: Path) -> None:
    client = (await serve(publication_dir=endless)).join("admin")
    path = await submitted(client, COUNT)
    await left(client, path, "queued")
    early, status = await client.get(f"{path}/results"), await client.get(path)

    assert refusal(early) == (409, "query_not_finished")
    assert early.headers["retry-after"] == "1"
    assert status.json()["state"] == "running"
    assert status.headers["retry-after"] == "1"
    assert (status.json()["row_count"], status.json()["publication"]) == (None, None)


async def test_a_running_query_that_is_cancelled_stops_in_the_engine_and_stays_cancelled(
    serve: Serve, endless: Path
) -> None:
    # One connection: as long as the statement runs, nothing else is answered.
    client = (await serve(publication_dir=endless, pool_size=1, deferred_running=1)).join("admin")
    path = await submitted(client, COUNT)
    await left(client, path, "queued")
    await asyncio.sleep(0.3)

    started = time.monotonic()
    ended = await client.delete(path)
    values = await client.get("/v1/dimensions/product__category/values")
    took_s = time.monotonic() - started

    assert (ended.status_code, ended.content) == (204, b"")
    assert "content-type" not in ended.headers
    assert values.status_code == 200
    assert took_s < BOUND_S
    assert await state(client, path) == "cancelled"
    await asyncio.sleep(1)
    assert await state(client, path) == "cancelled"
    assert refusal(await client.get(f"{path}/results")) == (409, "query_cancelled")
    assert "retry-after" not in (await client.get(f"{path}/results")).headers
    assert (await client.delete(path)).status_code == 204
    assert await state(client, path) == "cancelled"


async def test_a_query_that_is_cancelled_while_it_waits_never_runs(serve: Serve) -> None:
    waiting = (await serve(deferred_running=0)).join("admin")
    path = await submitted(waiting, COUNT)
    assert (await waiting.delete(path)).status_code == 204

    working = (await serve()).join("admin")
    await finished(working, COUNT)

    cancelled = (await working.get(path)).json()
    assert (cancelled["state"], cancelled["attempts"], cancelled["started_at"]) == ("cancelled", 0, None)


async def test_a_result_that_is_let_go_is_gone_and_may_be_let_go_again(serve: Serve) -> None:
    client = (await serve()).join("admin")
    path = await finished(client, COUNT)

    assert [(await client.delete(path)).status_code for _ in range(2)] == [204, 204]
    assert refusal(await client.get(path)) == (404, "query_expired")
    assert refusal(await client.get(f"{path}/results")) == (404, "query_expired")
    assert (await client.get("/v1/queries")).json()["data"] == []


async def test_a_query_that_takes_too_long_fails_and_tells_why(serve: Serve, endless: Path) -> None:
    client = (await serve(publication_dir=endless, deferred_timeout_s=0.5, query_timeout_s=300)).join("admin")
    path = await submitted(client, COUNT)
    failed = await left(client, path)
    results = await client.get(f"{path}/results")

    assert failed["state"] == "failed"
    assert (failed["error"]["code"], failed["error"]["status"]) == ("query_timeout", 504)
    assert "0.5 s" in failed["error"]["detail"]
    assert "INSIGHT_DEFERRED_TIMEOUT_S" in failed["error"]["hint"]
    assert failed["error"]["type"] == "urn:insight:problem:query_timeout"
    assert failed["error"]["instance"] == path
    assert refusal(results) == (409, "query_failed")
    assert "0.5 s" in results.json()["detail"]


async def test_a_submitted_query_has_more_time_than_one_that_is_answered_at_once(
    serve: Serve, synthetic: Published, tmp_path: Path
) -> None:
    slow = altered_publication(synthetic, tmp_path / "publications", slowed(steps=HALF_A_SECOND))
    client = (await serve(publication_dir=slow, query_timeout_s=0.1)).join("admin")

    assert refusal(await client.post("/v1/query", json=COUNT)) == (504, "query_timeout")
    await finished(client, COUNT)


async def test_no_more_run_at_once_than_allowed_and_nobody_waits_behind_all_of_another(
    serve: Serve, synthetic: Published, tmp_path: Path
) -> None:
    slow = altered_publication(synthetic, tmp_path / "publications", slowed(steps=HALF_A_SECOND))
    service = await serve(publication_dir=slow, deferred_running=1)
    ada, bob = service.join("admin", "ada"), service.join("admin", "bob")
    many = [await submitted(ada, COUNT | {"limit": limit}) for limit in range(1, 5)]
    one = await submitted(bob, COUNT)

    most, deadline = 0, time.monotonic() + 60
    while await state(bob, one) != "succeeded":
        running = [await state(ada, path) for path in many].count("running")
        most = max(most, running)
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)

    assert most == 1
    assert [await state(ada, path) for path in many].count("queued") >= 2
    for path in many:
        await left(ada, path)


async def test_whoever_has_too_many_waiting_comes_back_later(serve: Serve) -> None:
    service = await serve(deferred_running=0, deferred_waiting_each=2, deferred_waiting=3)
    ada, bob = service.join("admin", "ada"), service.join("admin", "bob")
    paths = [await submitted(ada, COUNT) for _ in range(2)]
    third = await ada.post("/v1/queries", json=COUNT)
    await submitted(bob, COUNT)
    fourth = await bob.post("/v1/queries", json=COUNT)

    assert refusal(third) == (429, "too_many_waiting")
    assert refusal(fourth) == (503, "queue_full")
    assert int(third.headers["retry-after"]) >= 1
    assert int(fourth.headers["retry-after"]) >= 1
    assert (await ada.get("/v1/queries")).json()["meta"]["total"] == 2

    await ada.delete(paths[0])
    await submitted(ada, COUNT)


async def test_whoever_keeps_too_much_lets_some_go_first(serve: Serve, synthetic: Published, tmp_path: Path) -> None:
    many = altered_publication(synthetic, tmp_path / "publications", slowed(copies=30))
    service = await serve(publication_dir=many, deferred_kept_mb=1)
    client = service.join("admin")
    path = await finished(client, {"metrics": ["line_count"], "group_by": ["sale"]})
    refused = await client.post("/v1/queries", json=COUNT)

    assert refusal(refused) == (429, "too_much_kept")
    assert int(refused.headers["retry-after"]) >= 1
    await finished(service.join("admin", "other"), COUNT)

    await client.delete(path)
    await finished(client, COUNT)


# Keeping


def in_state(home: Path, statement: str, **values: Any) -> list[Any]:
    """The rows of a statement over the state database, which may change it."""
    engine = sa.create_engine(f"sqlite:///{home / 'state.db'}")
    with engine.begin() as connection:
        result = connection.execute(sa.text(statement), values)
        rows = list(result) if result.returns_rows else []
    engine.dispose()
    return rows


async def test_a_result_expires_and_its_rows_are_removed_in_the_background(serve: Serve, tmp_path: Path) -> None:
    client = (await serve(deferred_keep_h=1.5 / 3600)).join("admin")
    path = await finished(client, COUNT)
    assert (await page(client, path))["data"]
    assert in_state(tmp_path, "select count(*) from deferred_rows") == [(1,)]

    await happens(lambda: in_state(tmp_path, "select count(*) from deferred_rows") == [(0,)])

    expired = await client.get(f"{path}/results")
    assert refusal(expired) == (404, "query_expired")
    assert "Submit it again" in expired.json()["hint"]
    assert refusal(await client.get(path)) == (404, "query_expired")
    assert (await client.get("/v1/queries")).json()["data"] == []
    assert (await client.delete(path)).status_code == 204

    long_ago = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=8)
    in_state(tmp_path, "update deferred_queries set expires_at = :at", at=str(long_ago))
    await happens(lambda: in_state(tmp_path, "select count(*) from deferred_queries") == [(0,)])
    assert refusal(await client.get(path)) == (404, "unknown_query")


async def test_a_result_outlives_the_service(serve: Serve, synthetic: Published, tmp_path: Path) -> None:
    async with serving(synthetic, tmp_path) as earlier:
        client = (await earlier()).join("admin")
        expected = (await page(client, path := await finished(client, CUSTOMERS)))["data"]
        key = client.headers["authorization"]

    again = (await serve()).join("admin")
    again.headers["authorization"] = key
    assert (await page(again, path))["data"] == expected


# Several replicas, and their ends


async def test_every_replica_shows_what_another_has_run(serve: Serve) -> None:
    working, showing = (await serve()).join("admin"), (await serve(deferred_running=0)).join("admin")
    path = await finished(working, CUSTOMERS)

    assert (await page(showing, path))["data"] == (await page(working, path))["data"]
    assert (await showing.get("/v1/queries")).json()["data"] == (await working.get("/v1/queries")).json()["data"]


async def test_of_several_replicas_one_runs_a_query(serve: Serve) -> None:
    with capture_logs() as lines:
        clients = [(await serve()).join("admin") for _ in range(3)]
        paths = [await submitted(clients[n % 3], COUNT | {"limit": 1 + n}) for n in range(15)]
        ended = [await left(clients[0], path) for path in paths]

    begun = [line["query_id"] for line in lines if line["event"] == "deferred_query_started"]
    assert [query["state"] for query in ended] == ["succeeded"] * 15
    assert sorted(begun) == sorted(path.rpartition("/")[2] for path in paths)


async def test_a_query_that_runs_elsewhere_is_cancelled_within_a_second(serve: Serve, endless: Path) -> None:
    working = (await serve(publication_dir=endless, pool_size=1, deferred_running=1)).join("admin")
    other = (await serve(deferred_running=0)).join("admin")
    path = await submitted(other, COUNT)
    await left(other, path, "queued")
    await asyncio.sleep(0.3)

    started = time.monotonic()
    await other.delete(path)
    assert (await working.get("/v1/dimensions/product__category/values")).status_code == 200

    assert time.monotonic() - started < BOUND_S
    assert await state(working, path) == "cancelled"


async def test_a_service_that_stops_puts_its_queries_back_for_the_next_at_once(
    serve: Serve, synthetic: Published, tmp_path: Path, endless: Path
) -> None:
    async with serving(synthetic, tmp_path) as earlier:
        client = (await earlier(publication_dir=endless, deferred_lease_s=3600)).join("admin")
        path = await submitted(client, COUNT)
        await left(client, path, "queued")
        key = client.headers["authorization"]

    again = (await serve()).join("admin")
    again.headers["authorization"] = key
    ended = await left(again, path)
    assert (ended["state"], ended["attempts"]) == ("succeeded", 1)


async def test_a_query_waits_out_a_warehouse_that_is_away(serve: Serve, synthetic: Published, tmp_path: Path) -> None:
    later = tmp_path / "later"
    accepting = (await serve(deferred_running=0)).join("admin")
    path = await submitted(accepting, COUNT)
    with capture_logs() as lines:
        working = (await serve(publication_dir=later, publication_poll_s=0.1)).join("admin")
        await happens(lambda: any(line["event"] == "deferred_query_put_back" for line in lines))
    assert await state(working, path) in ("queued", "running")

    later.symlink_to(synthetic.settings.publication_dir)
    ended = await left(working, path)
    assert (ended["state"], ended["attempts"]) == ("succeeded", 1)


async def test_a_query_that_ended_the_service_thrice_fails_and_says_so(serve: Serve, tmp_path: Path) -> None:
    client = (await serve(deferred_running=0)).join("admin")
    path = await submitted(client, COUNT)
    in_state(tmp_path, "update deferred_queries set state = 'running', claim = 'of the dead', attempts = 3")

    failed = await left((await serve()).join("admin"), path)

    assert (failed["state"], failed["error"]["code"]) == ("failed", "query_abandoned")
    assert "3 times" in failed["error"]["detail"]


async def test_a_question_of_another_release_fails_and_the_others_go_on(serve: Serve, tmp_path: Path) -> None:
    client = (await serve(deferred_running=0)).join("admin")
    path = await submitted(client, COUNT)
    in_state(tmp_path, """update deferred_queries set question = '{"MetricQuery":{"colour":"red"}}'""")
    working = (await serve()).join("admin")

    failed = await left(working, path)

    assert (failed["state"], failed["error"]["code"], failed["metrics"]) == ("failed", "query_unreadable", [])
    await finished(working, COUNT)


async def test_a_result_of_another_release_is_said_to_be_gone(serve: Serve, tmp_path: Path) -> None:
    client = (await serve()).join("admin")
    path = await finished(client, COUNT)
    in_state(tmp_path, """update deferred_queries set answer = '{"colour": "red"}'""")

    assert (await client.get(path)).json()["row_count"] == 5
    assert refusal(await client.get(f"{path}/results")) == (404, "query_expired")


async def test_a_state_database_that_is_away_costs_time_and_no_query(serve: Serve, tmp_path: Path) -> None:
    client = (await serve()).join("admin")
    path = await finished(client, COUNT)
    in_state(tmp_path, "alter table deferred_queries rename to away")
    try:
        await asyncio.sleep(1)
        for response in (await client.post("/v1/queries", json=COUNT), await client.get(f"{path}/results")):
            assert refusal(response) == (503, "state_unavailable")
            assert int(response.headers["retry-after"]) >= 1
    finally:
        in_state(tmp_path, "alter table away rename to deferred_queries")

    assert (await page(client, path))["data"]
    await finished(client, COUNT)


# Policy


@pytest.mark.parametrize(("role", "group_by"), [("chicago", "customer__location"), ("viewer", "customer")])
async def test_a_role_reads_of_a_submitted_query_what_it_is_answered_at_once(
    service: Service, role: str, group_by: str
) -> None:
    client, query = service.join(role), {"metrics": ["line_count"], "group_by": [group_by]}
    found = (await page(client, await finished(client, query)))["data"]

    assert found == await asked(client, query)
    assert found != await asked(service.join("admin"), query)


async def test_what_a_role_may_not_ask_it_may_not_submit(service: Service) -> None:
    assert refusal(await service.join("narrow").post("/v1/queries", json=CUSTOMERS)) == (404, "unknown_metric")


async def test_what_a_role_sees_hashed_is_stored_hashed(serve: Serve, tmp_path: Path) -> None:
    client = (await serve()).join("viewer")
    await finished(client, {"metrics": ["line_count"], "group_by": ["customer"]})
    ((content,),) = in_state(tmp_path, "select content from deferred_rows")

    customers = pa.ipc.open_stream(content).read_all().column("customer")
    assert pa.types.is_string(customers.type)
    assert all(HEX.fullmatch(text) for text in customers.to_pylist())


async def test_of_many_rows_every_one_is_hashed(serve: Serve, synthetic: Published, tmp_path: Path) -> None:
    many = altered_publication(synthetic, tmp_path / "publications", slowed(copies=2))
    client = (await serve(publication_dir=many)).join("clerk")
    path = await finished(client, {"metrics": ["line_count"], "group_by": ["sale"]})
    found = await client.get(f"{path}/results", params={"page_size": 50_000}, headers={"Accept": ARROW})

    sales = pa.ipc.open_stream(found.content).read_all().column("sale").to_pylist()
    assert len(set(sales)) == len(sales) > 20_000
    assert all(HEX.fullmatch(sale) for sale in sales)


def change(policy: Path, old: str, new: str) -> None:
    text = policy.read_text()
    assert old in text
    fresh = policy.with_suffix(".fresh")
    fresh.write_text(text.replace(old, new))
    fresh.replace(policy)


@pytest.mark.parametrize(
    ("role", "old", "new"),
    [
        ("chicago", "values: [Chicago]", "values: [California]"),
        ("viewer", "hashed: [customer]", "hashed: [customer__gender]"),
        ("narrow", "metrics: [line_count]", "metrics: [total_revenue]"),
        ("narrow", 'dimensions: ["customer__*"]', "dimensions: [customer__gender]"),
        ("narrow", "narrow: {", "narrow: {max_rows: 3, "),
    ],
)
async def test_rows_are_not_shown_once_the_role_may_see_others(
    serve: Serve, tmp_path: Path, role: str, old: str, new: str
) -> None:
    client = (await serve()).join(role)
    path = await finished(client, COUNT)

    change(tmp_path / "policy.yml", old, new)
    await asyncio.sleep(1.2)  # the file is looked at once a second
    refused = await client.get(f"{path}/results")

    assert refusal(refused) == (403, "policy_changed")
    assert "Submit it again" in refused.json()["hint"]
    assert await state(client, path) == "succeeded"


async def test_rows_stay_while_another_role_changes_and_come_back_with_the_role(serve: Serve, tmp_path: Path) -> None:
    client = (await serve()).join("chicago")
    path = await finished(client, COUNT)

    change(tmp_path / "policy.yml", "max_rows: 7", "max_rows: 8")
    await asyncio.sleep(1.2)
    assert (await page(client, path))["data"]

    change(tmp_path / "policy.yml", "  chicago:", "  boston:")
    await asyncio.sleep(1.2)
    assert refusal(await client.get(f"{path}/results")) == (403, "unknown_role")

    change(tmp_path / "policy.yml", "  boston:", "  chicago:")
    await asyncio.sleep(1.2)
    assert (await page(client, path))["data"]


async def test_a_query_runs_with_what_its_principal_may_see_by_then(serve: Serve, tmp_path: Path) -> None:
    waiting = (await serve(deferred_running=0)).join("chicago")
    moved = await submitted(waiting, COUNT)
    narrow = (await serve(deferred_running=0)).join("narrow")
    hidden = await submitted(narrow, COUNT)

    change(tmp_path / "policy.yml", "values: [Chicago]", "values: [California]")
    change(tmp_path / "policy.yml", "metrics: [line_count]", "metrics: [total_revenue]")
    service = await serve()

    chicago, narrow = service.join("chicago"), service.join("narrow")
    assert (await left(chicago, moved))["state"] == "succeeded"
    assert [row["customer__location"] for row in (await page(chicago, moved))["data"]] == ["California"]
    failed = await left(narrow, hidden)
    assert (failed["state"], failed["error"]["code"], failed["error"]["status"]) == ("failed", "unknown_metric", 404)


def test_a_grant_is_named_alike_in_another_process() -> None:
    script = "from api.policy import REHEARSING; print(REHEARSING.digest)"
    for seed in ("0", "1"):
        environment = {"PYTHONPATH": str(REPOSITORY), "PYTHONHASHSEED": seed}
        other = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        assert other.stdout.strip() == REHEARSING.digest


@pytest.mark.parametrize("name", Role.model_fields)
def test_a_grant_is_named_otherwise_as_soon_as_anything_in_its_role_changes(name: str) -> None:
    def digest(role: Role) -> str:
        return Grant(role_name="a", role=role, rows=None).digest

    changed = []
    for value in (True, False, 3, ("a",), ({"field": "a", "op": "is_null"},)):  # whichever the field takes
        with suppress(ValidationError):
            changed.append(Role.model_validate({name: value}))
    changed = [role for role in changed if role != Role()]
    assert changed
    assert digest(Role()) not in map(digest, changed)


async def test_a_query_that_waits_while_its_role_gets_a_floor_of_customers_does_not_run(
    serve: Serve, tmp_path: Path
) -> None:
    path = await submitted((await serve(deferred_running=0)).join("admin"), COUNT)
    (tmp_path / "policy.yml").write_text(
        'version: 1\nroles: {admin: {metrics: ["*"], dimensions: ["*"], min_customers: 2}}'
    )
    client = (await serve()).join("admin")

    failed = await left(client, path)
    assert failed["state"] == "failed", failed
    assert failed["error"]["code"] == "anonymity_floor"
    assert refusal(await client.post("/v1/queries", json=COUNT)) == (403, "anonymity_floor")
