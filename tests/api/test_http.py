"""What HTTP itself expects: methods, paths, headers, encodings; and that nothing unknown is passed over."""

from __future__ import annotations

import gzip
import json
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from api.main import create_app
from tests.api.test_refusals import problem
from tests.conftest import Published, connect, service_settings

QUERY = {"metrics": ["total_revenue"], "group_by": ["metric_time__month"]}
JSON = {"Content-Type": "application/json"}
READ = (
    "/v1/metrics",
    "/v1/metrics/total_revenue",
    "/v1/dimensions/customer__gender/values",
    "/v1/saved-queries/revenue_by_month/results",
    "/v1/freshness",
    "/healthz",
    "/readyz",
)


async def raw(api: httpx.AsyncClient, body: str, path: str = "/v1/query") -> httpx.Response:
    return await api.post(path, content=body.encode(), headers=JSON)


@pytest.mark.parametrize("path", READ)
async def test_head_answers_as_get_without_the_body(api: httpx.AsyncClient, path: str) -> None:
    got, head = await api.get(path), await api.head(path)

    volatile = {"x-request-id", "server-timing", "content-length"}
    assert head.content == b""
    assert head.status_code == 200
    assert {name: value for name, value in head.headers.items() if name not in volatile} == {
        name: value for name, value in got.headers.items() if name not in volatile
    }
    assert "content-length" in head.headers


async def test_head_of_what_is_refused_is_refused(api: httpx.AsyncClient) -> None:
    assert (await api.head("/v1/metrics/nothing")).status_code == 404
    assert (await api.head("/v1/query")).status_code == 405


@pytest.mark.parametrize("method", ["OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "QUERY", "PROPFIND"])
async def test_a_method_that_a_path_does_not_have_is_a_405_that_names_those_it_has(
    api: httpx.AsyncClient, method: str
) -> None:
    response = await api.request(method, "/v1/metrics")

    problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "GET, HEAD"


async def test_a_405_names_the_methods_of_every_route_of_the_path(synthetic: Published) -> None:
    app = create_app(service_settings(synthetic, auth="off"))

    @app.get("/v1/things/{thing}")
    async def read(thing: str) -> str:
        return thing

    @app.delete("/v1/things/{thing}")
    async def delete(thing: str) -> str:
        return thing

    async with app.router.lifespan_context(app), connect(app) as client:
        response = await client.put("/v1/things/one")

    assert response.headers["allow"] == "GET, HEAD, DELETE"


@pytest.mark.parametrize("path", ["/v1/metrics/", "/v1/metrics/total_revenue/", "/healthz/", "/v1/query/"])
async def test_a_slash_at_the_end_is_no_redirect_but_a_404_that_says_so(api: httpx.AsyncClient, path: str) -> None:
    response = await api.get(path, headers={"Host": "evil.test"})

    assert "slash" in problem(response, 404, "unknown_path")["hint"]
    assert "location" not in response.headers


@pytest.mark.parametrize(
    ("path", "code", "said"),
    [
        ("/v1/metrics?serach=revenue", "unknown_parameter", "Did you mean search?"),
        ("/v1/metrics?page=2", "unknown_parameter", "Known here: cursor, limit, search."),
        ("/v1/metrics/total_revenue?verbose=true", "unknown_parameter", "Known here: none."),
        ("/v1/dimensions?metric=total_revenue", "unknown_parameter", "Did you mean metrics?"),
        ("/v1/entities?limit=1", "unknown_parameter", "Known here: none."),
        ("/v1/metrics?limit=1&limit=500", "duplicate_name", "Give it once."),
        ("/v1/metrics?%00=1", "unknown_parameter", "Known here"),
        (f"/v1/metrics?{'a' * 5_000}=1", "unknown_parameter", "Known here"),
    ],
)
async def test_a_parameter_that_is_unknown_or_given_twice_is_refused(
    api: httpx.AsyncClient, path: str, code: str, said: str
) -> None:
    body = problem(await api.get(path), 422, code)

    assert said in body["hint"]
    assert len(json.dumps(body)) < 2_000


async def test_a_parameter_is_refused_on_a_route_that_takes_a_body_too(api: httpx.AsyncClient) -> None:
    problem(await api.post("/v1/query?dry_run=true", json=QUERY), 422, "unknown_parameter")


async def test_a_route_that_is_added_later_refuses_unknown_parameters_too(synthetic: Published) -> None:
    app = create_app(service_settings(synthetic, auth="off"))

    @app.get("/v1/later")
    async def later(known: int = 1) -> int:
        return known

    async with app.router.lifespan_context(app), connect(app) as client:
        assert (await client.get("/v1/later?known=2")).json() == 2
        problem(await client.get("/v1/later?unknown=2"), 422, "unknown_parameter")


@pytest.mark.parametrize("path", ["/v1/query", "/v1/query/compile"])
@pytest.mark.parametrize(
    "body",
    [
        '{"metrics": ["total_revenue"], "metrics": ["line_count"]}',
        '{"metrics": ["total_revenue"], "limit": 1, "limit": 1}',
        '{"metrics": ["line_count"], "where": [{"field": "customer", "op": "eq", "op": "ne", "values": [1]}]}',
        '{"metrics": ["total_revenue"], "metr\\u0069cs": []}',
    ],
)
async def test_a_key_that_comes_twice_is_refused(api: httpx.AsyncClient, path: str, body: str) -> None:
    problem(await raw(api, body, path), 422, "duplicate_name")


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, identity", "x"])
async def test_a_packed_body_is_a_415_unread(api: httpx.AsyncClient, coding: str) -> None:
    content = gzip.compress(json.dumps(QUERY).encode())
    response = await api.post("/v1/query", content=content, headers=JSON | {"Content-Encoding": coding})

    assert "Content-Encoding" in problem(response, 415, "unsupported_media_type")["hint"]


async def test_a_bomb_is_refused_before_it_is_read(api: httpx.AsyncClient) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    response = await api.post("/v1/query", content=bomb, headers=JSON | {"Content-Encoding": "gzip"})

    problem(response, 415, "unsupported_media_type")


async def test_a_body_says_that_it_is_not_packed(api: httpx.AsyncClient) -> None:
    response = await api.post("/v1/query", json=QUERY, headers={"Content-Encoding": "identity"})

    assert response.status_code == 200


async def test_nothing_on_the_way_keeps_an_answer_or_guesses_its_type(api: httpx.AsyncClient, service: FastAPI) -> None:
    async with connect(service) as stranger:
        refused = await stranger.get("/v1/metrics")
    for response in (refused, *[await api.get(path) for path in READ], await api.get("/nowhere")):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] in ("no-store", "private, no-cache")
    answer = await api.post("/v1/query", json=QUERY)
    assert answer.headers["cache-control"] == "private, no-cache"


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("application/json", "application/json"),
        ("text/csv", "text/csv; charset=utf-8"),
        ("application/vnd.apache.arrow.stream", "application/vnd.apache.arrow.stream"),
    ],
)
async def test_a_text_says_its_charset_and_json_needs_none(
    api: httpx.AsyncClient, accept: str, content_type: str
) -> None:
    answer: Any = await api.post("/v1/query", json=QUERY, headers={"Accept": accept})

    assert answer.headers["content-type"] == content_type
