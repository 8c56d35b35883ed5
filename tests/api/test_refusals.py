"""What is refused: with which status and code, always with a hint, and never with a 500."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from api.main import create_app
from tests.api.refused_queries import FEMALE, GROWTH, REFUSED, having, where
from tests.conftest import Published, connect, service_settings

Body = dict[str, Any]

JSON = {"Content-Type": "application/json"}


def problem(response: httpx.Response, status: int, code: str) -> Body:
    """The problem that was answered, known to be whole."""
    assert response.status_code == status, response.text[:500]
    assert response.headers["content-type"] == "application/problem+json"
    body: Body = response.json()
    assert body["code"] == code, body
    assert body["type"] == f"urn:insight:problem:{code}"
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    assert body["hint"]
    assert body["instance"].startswith("/")
    assert body["request_id"] == response.headers["x-request-id"]
    return body


async def post(api: httpx.AsyncClient, content: bytes, **headers: str) -> httpx.Response:
    return await api.post("/v1/query", content=content, headers=JSON | headers)


@pytest.mark.parametrize(
    ("query", "status", "code"), [row[1:] for row in REFUSED], ids=[row[0].replace(" ", "_") for row in REFUSED]
)
@pytest.mark.parametrize("path", ["/v1/query", "/v1/query/compile"])
async def test_a_query_that_is_wrong_is_refused(
    api: httpx.AsyncClient, path: str, query: Body, status: int, code: str
) -> None:
    problem(await api.post(path, json=query), status, code)


@pytest.mark.parametrize(
    "query",
    [
        GROWTH | {"time_range": {"start": "2019-01-01", "end": "9999-12-31"}},
        GROWTH | {"time_range": {"start": "0001-01-01", "end": "2019-12-31"}},
        {"metrics": ["line_count"], "time_range": {"last": 1_000, "unit": "year"}},
        {"metrics": ["line_count"], "offset": 2**53},
        {"metrics": ["line_count"], "limit": 1.0, "offset": 0.0, "time_range": {"last": 3.0, "unit": "month"}},
        where("customer", "eq", 2**63 - 1),
        where("customer__tenure_months", "gt", 2**40),
        where("metric_time__week", "gte", "0001-01-01"),
        where("metric_time__year", "lte", "9999-12-31"),
        having("line_count", "gt", 1e-300),
        having("line_count", "lt", 1e26),
        where("customer", "in", *range(1_000)),
        {"metrics": ["line_count"], "where": [FEMALE] * 20},
    ],
)
async def test_what_lies_just_within_the_limits_is_answered(api: httpx.AsyncClient, query: Body) -> None:
    response = await api.post("/v1/query", json=query)

    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("path", "code", "nearest"),
    [
        ("/v1/metrics/total_revenu", "unknown_metric", "total_revenue"),
        ("/v1/metrics/Total Revenue", "unknown_metric", "total_revenue"),
        ("/v1/lineage/churn", "unknown_metric", "churn_rate"),
        ("/v1/dimensions?metrics=line_count,unit_sold", "unknown_metric", "units_sold"),
        ("/v1/dimensions?metrics=line_count%1e", "unknown_metric", "line_count"),
        ("/v1/dimensions/customer__gendr/values", "unknown_dimension", "customer__gender"),
        ("/v1/dimensions/location/values", "unknown_dimension", "customer__location"),
        ("/v1/dimensions/customer__gender/values?metrics=orders_count", "unknown_metric", "order_count"),
        ("/v1/saved-queries/revenue_by_moth/results", "unknown_saved_query", "revenue_by_month"),
    ],
)
async def test_an_unknown_name_is_a_404_with_the_nearest_names(
    api: httpx.AsyncClient, path: str, code: str, nearest: str
) -> None:
    body = problem(await api.get(path), 404, code)

    assert nearest in body["nearest"]
    assert nearest in body["hint"]


async def test_a_name_that_resembles_none_is_a_404_that_says_where_the_names_are(api: httpx.AsyncClient) -> None:
    for path in ("/v1/metrics/%F0%9F%92%A3", "/v1/metrics/%00", "/v1/metrics/%ff", "/v1/metrics/zzzzzzzz"):
        body = problem(await api.get(path), 404, "unknown_metric")
        assert "nearest" not in body
        assert "GET /v1/metrics" in body["hint"]


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"{", 400, "unreadable_request"),
        (b"metrics=line_count", 400, "unreadable_request"),
        (b"\xff\xfe", 400, "unreadable_request"),
        (b'{"metrics": ["\xff"]}', 400, "unreadable_request"),
        (b"[" * 10_000 + b"]" * 10_000, 400, "unreadable_request"),
        (b'{"not":' * 10_000 + b"1" + b"}" * 10_000, 400, "unreadable_request"),
        (b'{"limit": ' + b"9" * 5_000 + b"}", 400, "unreadable_request"),
        (b"[]", 422, "malformed_request"),
        (b"null", 422, "malformed_request"),
        (b"", 422, "malformed_request"),
        (b'"line_count"', 422, "malformed_request"),
        (b"1", 422, "malformed_request"),
        (b'{"metrics": ["\\ud800"]}', 422, "malformed_request"),
        (b'{"metrics": ["line_count"], "\\ud800": 1}', 422, "malformed_request"),
        (b'{"metrics": ["line_count"], "limit": NaN}', 422, "malformed_request"),
        (json.dumps(having("line_count", "gt", 1)).replace("[1]", "[NaN]").encode(), 422, "malformed_request"),
        (json.dumps(having("line_count", "gt", 1)).replace("[1]", "[-Infinity]").encode(), 422, "malformed_request"),
        (json.dumps(having("line_count", "gt", 1)).replace("[1]", "[1e999]").encode(), 422, "malformed_request"),
        (json.dumps(having("line_count", "gt", int("9" * 400))).encode(), 422, "invalid_value"),
        (json.dumps(where("customer__gender", "eq", "\ud800")).encode(), 422, "invalid_value"),
        (json.dumps(where("\ud800", "eq", "F")).encode(), 422, "malformed_request"),
        (json.dumps(having("\ud800", "eq", 1)).encode(), 422, "malformed_request"),
        (json.dumps({"metrics": ["line_count"], "order_by": [{"field": "\ud800"}]}).encode(), 422, "malformed_request"),
        (json.dumps(having("\0", "eq", 1)).encode(), 422, "invalid_having"),
    ],
)
async def test_a_body_that_is_no_query_is_refused(
    api: httpx.AsyncClient, content: bytes, status: int, code: str
) -> None:
    problem(await post(api, content), status, code)


@pytest.mark.parametrize(
    "content",
    [
        b'{"metrics": [' + b",".join([b"1"] * 400_000) + b"]}",
        b'{"metrics": ["line_count"], "where": [' + b",".join([b"{}"] * 300_000) + b"]}",
        b'{"metrics": ["line_count"], "where": [{"field": "customer", "op": "in", "values": ['
        + b",".join([b"[]"] * 300_000)
        + b"]}]}",
        b"{" + b",".join(b'"%d":1' % number for number in range(80_000)) + b"}",
    ],
    ids=["metrics", "filters", "values", "keys"],
)
async def test_a_body_with_very_many_faults_gets_a_short_answer(api: httpx.AsyncClient, content: bytes) -> None:
    body = problem(await post(api, content), 422, "malformed_request")

    assert 1 <= len(body["errors"]) <= 20
    assert len(json.dumps(body)) < 10_000


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({"metric": ["line_count"]}, "body.metric", "there is no such key here; did you mean metrics?"),
        ({"metrics": "line_count"}, "body.metrics", "write a list, as [1, 2]"),
        (
            {"metrics": ["line_count"], "time_range": {"start": "2019-01-01"}},
            "body.time_range.days.end",
            "it is needed",
        ),
        ({"metrics": ["line_count"], "time_range": {"last": 3}}, "body.time_range.last.unit", "it is needed"),
        ({"metrics": ["line_count"], "where": [{"feld": "x"}]}, "body.where.0.comparison.field", "it is needed"),
        ({"metrics": ["line_count"], "where": [1]}, "body.where.0.comparison", 'write an object, as {"key": 1}'),
    ],
)
async def test_a_fault_is_said_in_the_words_of_json(
    api: httpx.AsyncClient, body: Body, field: str, message: str
) -> None:
    refused = problem(await api.post("/v1/query", json=body), 422, "malformed_request")

    assert {"field": field, "message": message} in refused["errors"]
    assert not any("Body" in fault["field"] for fault in refused["errors"])


async def test_what_is_no_json_is_said_with_its_place(api: httpx.AsyncClient) -> None:
    body = problem(await post(api, b"{'metrics': ['line_count']}"), 400, "unreadable_request")

    assert "double quotes, at character 1" in body["detail"]


async def test_a_grain_alone_is_taken_for_the_time_of_the_metric(api: httpx.AsyncClient) -> None:
    query = {"metrics": ["line_count"], "group_by": ["month"]}
    body = problem(await api.post("/v1/query", json=query), 404, "unknown_dimension")

    assert body["nearest"] == ["metric_time__month"]


async def test_the_root_is_for_graphql_alone_and_says_so(api: httpx.AsyncClient) -> None:
    response = await api.get("/")

    assert "GET /v1/metrics" in problem(response, 405, "method_not_allowed")["hint"]
    assert response.headers["allow"] == "POST"


async def test_each_fault_of_a_body_is_named_with_its_place(api: httpx.AsyncClient) -> None:
    body = problem(await api.post("/v1/query", json={"limit": 0, "offset": -1, "sql": 1}), 422, "malformed_request")

    assert {fault["field"] for fault in body["errors"]} == {"body.limit", "body.offset", "body.sql"}
    assert "and 2 more" in body["detail"]


TOO_LARGE = b'{"metrics": ["' + b"a" * 2_000_000 + b'"]}'


async def chunks() -> AsyncIterator[bytes]:
    for start in range(0, len(TOO_LARGE), 65_536):
        yield TOO_LARGE[start : start + 65_536]


async def test_a_body_that_says_it_is_too_large_is_refused_unread(api: httpx.AsyncClient) -> None:
    problem(await post(api, TOO_LARGE), 413, "request_too_large")


async def test_a_body_that_turns_out_too_large_is_refused(api: httpx.AsyncClient) -> None:
    problem(await api.post("/v1/query", content=chunks(), headers=JSON), 413, "request_too_large")


async def test_a_body_that_lies_about_its_length_is_refused(api: httpx.AsyncClient) -> None:
    problem(await post(api, TOO_LARGE, **{"Content-Length": "10"}), 413, "request_too_large")


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/json", "json", ""]
)
async def test_another_content_type_is_a_415(api: httpx.AsyncClient, content_type: str) -> None:
    content = json.dumps({"metrics": ["line_count"]}).encode()
    headers = {"Content-Type": content_type} if content_type else {}

    body = problem(await api.post("/v1/query", content=content, headers=headers), 415, "unsupported_media_type")

    assert "application/json" in body["hint"]


async def test_a_json_content_type_with_a_suffix_or_parameter_is_read(api: httpx.AsyncClient) -> None:
    for content_type in ("application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.insight+json"):
        response = await post(api, b'{"metrics": ["line_count"]}', **{"Content-Type": content_type})
        assert response.status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", "/v1/query", "POST"), ("DELETE", "/v1/query", "POST"), ("POST", "/v1/metrics", "GET, HEAD")],
)
async def test_a_wrong_method_is_a_405_that_names_the_right_one(
    api: httpx.AsyncClient, method: str, path: str, allowed: str
) -> None:
    response = await api.request(method, path)

    problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == allowed


@pytest.mark.parametrize("path", ["/v1", "/v2/metrics", "/v1/metrics/a%2Fb", "/v1/../etc/passwd", "/%00"])
async def test_an_unknown_path_is_a_404(api: httpx.AsyncClient, path: str) -> None:
    problem(await api.get(path), 404, "unknown_path")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/metrics?cursor=%25", 400, "invalid_cursor"),
        ("/v1/metrics?cursor=_w==", 400, "invalid_cursor"),
        ("/v1/metrics?cursor=ü", 400, "invalid_cursor"),
        (f"/v1/metrics?cursor={'a' * 501}", 422, "malformed_request"),
        ("/v1/metrics?limit=0", 422, "malformed_request"),
        ("/v1/metrics?limit=501", 422, "malformed_request"),
        ("/v1/metrics?limit=ten", 422, "malformed_request"),
        ("/v1/metrics?search=", 422, "malformed_request"),
        (f"/v1/metrics/{'a' * 301}", 422, "malformed_request"),
        ("/v1/dimensions/metric_time/values", 422, "dimension_not_joinable"),
        ("/v1/dimensions/news__category/values?metrics=line_count", 422, "dimension_not_joinable"),
        ("/v1/dimensions/customer__tenure_months/values?search=1", 422, "invalid_operator"),
        ("/v1/dimensions/customer__gender/values?search=%00", 422, "invalid_value"),
        ("/v1/dimensions/customer__gender/values?limit=1001", 422, "malformed_request"),
    ],
)
async def test_a_wrong_parameter_is_refused(api: httpx.AsyncClient, path: str, status: int, code: str) -> None:
    problem(await api.get(path), status, code)


PROTECTED = (
    "/v1/metrics",
    "/v1/metrics/line_count",
    "/v1/dimensions",
    "/v1/dimensions/customer__gender/values",
    "/v1/entities",
    "/v1/saved-queries",
    "/v1/saved-queries/revenue_by_month/results",
    "/v1/lineage/line_count",
    "/v1/freshness",
    "/v1/publications",
    "/v1/segments",
    "/v1/segments/0",
    "/v1/segments/0/customers",
    "/v1/customers/12346/segment",
    "/v1/customers/12346/outlook",
    "/v1/forecasts/line_count",
    "/v1/anomalies",
    "/v1/backtests",
    "/v1/queries",
    f"/v1/queries/{0:032x}",
    f"/v1/queries/{0:032x}/results",
)
ASKED_BY_POST = ("/v1/query", "/v1/query/compile", "/v1/queries", "/v1/export", "/v1/segments/score")


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "missing_key"),
        ({"Authorization": "Bearer"}, "missing_key"),
        ({"Authorization": "Basic eDp5"}, "missing_key"),
        ({"X-API-Key": ""}, "missing_key"),
        ({"Authorization": "Bearer mi_00000000_guessed"}, "invalid_key"),
        ({"Authorization": f"Bearer {'a' * 5_000}"}, "invalid_key"),
        ({"X-API-Key": "' OR '1'='1"}, "invalid_key"),
        ({"X-API-Key": "ü"}, "invalid_key"),
    ],
)
async def test_without_a_valid_key_nothing_is_said(service: FastAPI, headers: dict[str, str], code: str) -> None:
    encoded = {name: value.encode() for name, value in headers.items()}
    async with connect(service) as stranger:
        answers = [await stranger.get(path, headers=encoded) for path in PROTECTED]
        answers += [
            await stranger.post(path, json={"metrics": ["line_count"]}, headers=encoded) for path in ASKED_BY_POST
        ]
        answers.append(await stranger.delete(f"/v1/queries/{0:032x}", headers=encoded))
    for answer in answers:
        problem(answer, 401, code)
        assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_every_route_but_health_telemetry_and_docs_is_among_those_that_need_a_key(service: FastAPI) -> None:
    routes = set(service.openapi()["paths"])
    templates = {
        path.replace("line_count", "{metric}")
        .replace("customer__gender", "{dimension}")
        .replace("revenue_by_month", "{name}")
        .replace(f"{0:032x}", "{query_id}")
        .replace("/segments/0", "/segments/{segment_id}")
        .replace("/12346/", "/{customer_id}/")
        for path in (*PROTECTED, *ASKED_BY_POST)
    }
    assert routes - templates == {"/healthz", "/readyz", "/metrics"}


async def test_a_crash_is_a_500_that_tells_nothing_but_the_request_id(synthetic: Published) -> None:
    app = create_app(service_settings(synthetic))

    @app.get("/crash")
    async def crash() -> None:
        raise ZeroDivisionError("the secret of the service")

    async with app.router.lifespan_context(app), connect(app) as client:
        response = await client.get("/crash")

    problem(response, 500, "internal_error")
    assert "secret" not in response.text
