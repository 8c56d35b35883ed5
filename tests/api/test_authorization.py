"""Who may do what: eight principals at every route and method. What is not in the matrix fails: default deny.

A new route needs a row in `MATRIX`: an example request, and what each principal gets.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from api.keys import ApiKeys
from api.main import create_app
from api.state import open_state
from tests.conftest import Published, connect, service_settings
from tests.issuer import AUDIENCE, ISSUER, Issuer

POLICY = """
version: 1
roles:
  admin: {metrics: ["*"], dimensions: ["*"], see_sql: true}
  analyst: {metrics: ["*"], dimensions: ["*"], see_sql: true}
  regional:
    metrics: ["*"]
    dimensions: ["*"]
    see_sql: true
    rows: [{field: customer__location, op: in, claim: regions}]
  viewer: {metrics: ["*"], dimensions: ["*"], hashed: [customer]}
  service:
    metrics: [total_revenue, line_count]
    dimensions: [metric_time, product__category]
    introspection: false
"""

STRANGERS = {"nobody": "missing_key", "expired key": "invalid_key", "wrong audience": "invalid_token"}
KNOWN = ("viewer", "regional analyst", "analyst", "admin", "service")
PRINCIPALS = (*STRANGERS, *KNOWN)

# Beside those that a route serves; RFC 9110 allows any word.
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "NONSENSE")

Outcome = tuple[int, str]  # the status, and the code of the problem

OK: Outcome = (200, "")
TAKEN: Outcome = (202, "")
UNKNOWN_QUERY: Outcome = (404, "unknown_query")
NO_SQL: Outcome = (403, "sql_forbidden")
UNKNOWN_METRIC: Outcome = (404, "unknown_metric")
UNKNOWN_DIMENSION: Outcome = (404, "unknown_dimension")
NO_OUTLOOK: Outcome = (404, "no_outlook")
PARTIAL: Outcome = (403, "partial_data")
NO_SEGMENTS: Outcome = (404, "no_segments")
UNKNOWN_SAVED_QUERY: Outcome = (404, "unknown_saved_query")
HASHED: Outcome = (403, "hashed_dimension")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A request of a route, and what differs from the rule: strangers are refused, everybody else is answered."""

    path: str
    body: Mapping[str, Any] | None = None
    is_open: bool = False
    differs: Mapping[str, Outcome] = field(default_factory=dict)

    def outcome(self, principal: str) -> Outcome:
        """What the principal gets."""
        if principal in STRANGERS and not self.is_open:
            return 401, STRANGERS[principal]
        return self.differs.get(principal, OK)


REVENUE = {"metrics": ["total_revenue"], "group_by": ["product__category"]}
ORDERS = {"metrics": ["order_count"]}
BY_PLACE = {"metrics": ["total_revenue"], "group_by": ["customer__location"]}
NO_QUERY = f"/v1/queries/{0:032x}"  # that one's own are seen by nobody else is in test_deferred.py
LISTED = {"query": "{ metrics { name } dimensions(metrics: []) { name } savedQueries { name } }"}
INTROSPECTED = {"query": "{ __schema { types { name } } }"}
OF_ONE_CUSTOMER = {"metrics": ["line_count"], "where": [{"field": "customer", "op": "is_not_null"}]}

SCORED = {"rows": [{"features": {"recency_days": 12, "frequency": 30, "monetary": 5400.5}}]}
FORESEEN = {"query": '{ forecast(metric: "units_sold") { unit } anomalies { date } backtests { subject } }'}
SEGMENTS = {"query": "{ segments { name customerCount } segment(segmentId: 0) { name } }"}


def at_once(
    metric: str, group_by: str = "product__category", *, mutation: str = "createSynchronousQuery"
) -> Mapping[str, Any]:
    """A document that asks for the metric."""
    selected = "sql" if mutation == "compileSql" else "queryId"
    asked = f'metrics: [{{name: "{metric}"}}], groupBy: [{{name: "{group_by}"}}]'
    return {"query": f"mutation {{ {mutation}({asked}) {{ {selected} }} }}"}


MATRIX: dict[tuple[str, str], tuple[Row, ...]] = {
    ("GET", "/healthz"): (Row(path="/healthz", is_open=True),),
    ("GET", "/readyz"): (Row(path="/readyz", is_open=True),),
    ("GET", "/metrics"): (Row(path="/metrics", is_open=True),),  # it names no principal, no metric, no value
    ("GET", "/docs"): (Row(path="/docs", is_open=True),),
    ("GET", "/docs/{part}"): (Row(path="/docs/swagger-ui.css", is_open=True),),
    ("GET", "/openapi.json"): (Row(path="/openapi.json", is_open=True),),
    ("HEAD", "/openapi.json"): (Row(path="/openapi.json", is_open=True),),
    ("GET", "/graphql"): (Row(path="/graphql", is_open=True),),  # a page, which holds nothing
    ("GET", "/v1/metrics"): (Row(path="/v1/metrics"), Row(path="/v1/metrics?search=revenue&limit=2")),
    ("GET", "/v1/metrics/{metric}"): (
        Row(path="/v1/metrics/total_revenue"),
        Row(path="/v1/metrics/order_count", differs={"service": UNKNOWN_METRIC}),
        Row(
            path="/v1/metrics/marketing_spend",
            differs=dict.fromkeys(("regional analyst", "service"), UNKNOWN_METRIC),
        ),
        Row(path="/v1/metrics/invented", differs=dict.fromkeys(KNOWN, UNKNOWN_METRIC)),
    ),
    ("GET", "/v1/lineage/{metric}"): (
        Row(path="/v1/lineage/total_revenue", differs={"viewer": NO_SQL, "service": NO_SQL}),
        Row(path="/v1/lineage/order_count", differs={"viewer": NO_SQL, "service": NO_SQL}),
    ),
    ("GET", "/v1/dimensions"): (
        Row(path="/v1/dimensions"),
        Row(path="/v1/dimensions?metrics=total_revenue"),
        Row(path="/v1/dimensions?metrics=order_count", differs={"service": UNKNOWN_METRIC}),
    ),
    ("GET", "/v1/dimensions/{dimension}/values"): (
        Row(path="/v1/dimensions/product__category/values?metrics=total_revenue"),
        Row(path="/v1/dimensions/customer__location/values", differs={"service": UNKNOWN_DIMENSION}),
        Row(
            path="/v1/dimensions/customer/values?search=1",
            differs={
                **dict.fromkeys(("viewer", "regional analyst", "analyst", "admin"), (422, "invalid_operator")),
                "service": UNKNOWN_DIMENSION,
            },
        ),
    ),
    ("GET", "/v1/entities"): (Row(path="/v1/entities"),),
    ("GET", "/v1/saved-queries"): (Row(path="/v1/saved-queries"),),
    ("GET", "/v1/saved-queries/{name}/results"): (
        Row(path="/v1/saved-queries/revenue_by_month/results", differs={"service": UNKNOWN_SAVED_QUERY}),
        Row(  # what is spent on marketing has no place
            path="/v1/saved-queries/marketing_performance/results",
            differs=dict.fromkeys(("regional analyst", "service"), UNKNOWN_SAVED_QUERY),
        ),
    ),
    ("POST", "/v1/query"): (
        Row(path="/v1/query", body=REVENUE),
        Row(path="/v1/query", body=ORDERS, differs={"service": UNKNOWN_METRIC}),
        Row(path="/v1/query", body=BY_PLACE, differs={"service": UNKNOWN_DIMENSION}),
        Row(path="/v1/query", body=OF_ONE_CUSTOMER, differs={"viewer": HASHED, "service": UNKNOWN_DIMENSION}),
    ),
    ("POST", "/v1/query/compile"): (
        Row(path="/v1/query/compile", body=REVENUE, differs={"viewer": NO_SQL, "service": NO_SQL}),
        Row(path="/v1/query/compile", body=ORDERS, differs={"viewer": NO_SQL, "service": NO_SQL}),
    ),
    ("POST", "/v1/export"): (
        Row(path="/v1/export", body=REVENUE),
        Row(path="/v1/export", body=ORDERS, differs={"service": UNKNOWN_METRIC}),
        Row(path="/v1/export", body=BY_PLACE, differs={"service": UNKNOWN_DIMENSION}),
        Row(path="/v1/export", body=OF_ONE_CUSTOMER, differs={"viewer": HASHED, "service": UNKNOWN_DIMENSION}),
    ),
    ("POST", "/v1/queries"): (
        Row(path="/v1/queries", body=REVENUE, differs=dict.fromkeys(KNOWN, TAKEN)),
        Row(path="/v1/queries", body=ORDERS, differs=dict.fromkeys(KNOWN, TAKEN) | {"service": UNKNOWN_METRIC}),
        Row(path="/v1/queries", body=BY_PLACE, differs=dict.fromkeys(KNOWN, TAKEN) | {"service": UNKNOWN_DIMENSION}),
        Row(
            path="/v1/queries",
            body=OF_ONE_CUSTOMER,
            differs=dict.fromkeys(KNOWN, TAKEN) | {"viewer": HASHED, "service": UNKNOWN_DIMENSION},
        ),
    ),
    ("GET", "/v1/queries"): (Row(path="/v1/queries"),),
    ("GET", "/v1/queries/{query_id}"): (Row(path=NO_QUERY, differs=dict.fromkeys(KNOWN, UNKNOWN_QUERY)),),
    ("DELETE", "/v1/queries/{query_id}"): (Row(path=NO_QUERY, differs=dict.fromkeys(KNOWN, UNKNOWN_QUERY)),),
    ("GET", "/v1/queries/{query_id}/results"): (
        Row(path=f"{NO_QUERY}/results", differs=dict.fromkeys(KNOWN, UNKNOWN_QUERY)),
    ),
    ("GET", "/v1/segments"): (Row(path="/v1/segments", differs={"service": NO_SEGMENTS}),),
    ("GET", "/v1/segments/{segment_id}"): (
        Row(path="/v1/segments/0", differs={"service": NO_SEGMENTS}),
        Row(
            path="/v1/segments/9",
            differs=dict.fromkeys(KNOWN, (404, "unknown_segment")) | {"service": NO_SEGMENTS},
        ),
    ),
    ("GET", "/v1/segments/{segment_id}/customers"): (
        Row(path="/v1/segments/0/customers", differs={"service": NO_SEGMENTS}),
    ),
    ("GET", "/v1/customers/{customer_id}/segment"): (
        Row(
            path="/v1/customers/1/segment",  # who exists is seen by whom is in test_segments_policy.py
            differs=dict.fromkeys(KNOWN, (404, "unknown_customer")) | {"viewer": HASHED, "service": NO_SEGMENTS},
        ),
    ),
    # What is foreseen is of all the data, so a role that sees a part of it gets none. There is no unproven forecast in
    # the synthetic data; who sees which customer is in test_outlook.py.
    ("GET", "/v1/backtests"): (Row(path="/v1/backtests", differs={"regional analyst": PARTIAL}),),
    ("GET", "/v1/forecasts/{metric}"): (
        Row(path="/v1/forecasts/total_revenue", differs={"regional analyst": PARTIAL}),
        Row(
            path="/v1/forecasts/units_sold",
            differs={"regional analyst": PARTIAL, "service": UNKNOWN_METRIC},
        ),
    ),
    ("GET", "/v1/anomalies"): (
        Row(path="/v1/anomalies", differs={"regional analyst": PARTIAL}),
        Row(path="/v1/anomalies?metrics=units_sold", differs={"regional analyst": PARTIAL, "service": UNKNOWN_METRIC}),
    ),
    ("GET", "/v1/customers/{customer_id}/outlook"): (
        Row(
            path="/v1/customers/1/outlook",
            differs=dict.fromkeys(KNOWN, (404, "unknown_customer")) | {"viewer": HASHED, "service": NO_OUTLOOK},
        ),
    ),
    ("POST", "/v1/segments/score"): (Row(path="/v1/segments/score", body=SCORED, differs={"service": NO_SEGMENTS}),),
    # GraphQL answers 200, and says in `errors` what REST says by its status.
    ("POST", "/"): (Row(path="/", body=LISTED),),
    ("POST", "/api/graphql"): (Row(path="/api/graphql", body=LISTED),),
    ("POST", "/graphql"): (
        Row(path="/graphql", body=LISTED),
        Row(path="/graphql", body=INTROSPECTED, differs={"service": (403, "introspection_forbidden")}),
        Row(path="/graphql", body=at_once("total_revenue")),
        Row(path="/graphql", body=SEGMENTS, differs={"service": NO_SEGMENTS}),
        Row(path="/graphql", body=FORESEEN, differs={"regional analyst": PARTIAL, "service": UNKNOWN_METRIC}),
        Row(path="/graphql", body=at_once("order_count"), differs={"service": UNKNOWN_METRIC}),
        Row(
            path="/graphql", body=at_once("total_revenue", "customer__location"), differs={"service": UNKNOWN_DIMENSION}
        ),
        Row(
            path="/graphql",
            body=at_once("total_revenue", mutation="compileSql"),
            differs={"viewer": NO_SQL, "service": NO_SQL},
        ),
        Row(path="/graphql", body=at_once("order_count", mutation="createQuery")),  # a refusal is told by polling
        Row(
            path="/graphql",
            body={"query": f'{{ query(queryId: "{0:032x}") {{ status }} }}'},
            differs=dict.fromkeys(KNOWN, UNKNOWN_QUERY),
        ),
    ),
    ("GET", "/v1/publications"): (Row(path="/v1/publications"),),
    ("GET", "/v1/freshness"): (Row(path="/v1/freshness"),),
}

CELLS = [
    pytest.param(method, row, principal, id=f"{method} {row.path} {principal}".replace(" ", "_"))
    for (method, _), rows in MATRIX.items()
    for row in rows
    for principal in PRINCIPALS
]


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with Issuer().serving() as made:
        yield made


@pytest.fixture(scope="module")
async def guarded(
    synthetic: Published, issuer: Issuer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[FastAPI, ApiKeys]]:
    """A service that trusts keys and the issuer, and its keys."""
    folder: Path = tmp_path_factory.mktemp("authorization")
    (folder / "policy.yml").write_text(POLICY)
    url = f"sqlite:///{folder / 'state.db'}"
    state = open_state(url)
    app = create_app(service_settings(synthetic, policy_file=folder / "policy.yml", state_url=url, **issuer.settings))
    async with app.router.lifespan_context(app):
        yield app, ApiKeys(state)
    state.dispose()


@pytest.fixture(scope="module")
async def clients(guarded: tuple[FastAPI, ApiKeys], issuer: Issuer) -> AsyncIterator[Mapping[str, httpx.AsyncClient]]:
    """Each principal's client: some have keys, some have tokens."""
    app, keys = guarded
    credentials = {
        "nobody": None,
        "expired key": keys.create("expired", role="admin", lifetime=timedelta(microseconds=1)),
        "wrong audience": issuer.token(role="admin", aud="another service"),
        "viewer": keys.create("viewer", role="viewer"),
        "regional analyst": issuer.token(sub="regional", role="regional", regions=["Chicago", "California"]),
        "analyst": issuer.token(sub="analyst", role="analyst"),
        "admin": keys.create("admin", role="admin"),
        "service": issuer.token(sub="a-service", role="service"),
    }
    made = {principal: connect(app, key=credential) for principal, credential in credentials.items()}
    yield made
    for client in made.values():
        await client.aclose()


@pytest.fixture(scope="module")
async def names(clients: Mapping[str, httpx.AsyncClient]) -> Mapping[str, frozenset[str]]:
    """The names that each known principal may see, of metrics, dimensions and saved queries."""
    seen = {}
    for principal in KNOWN:
        found = set()
        for path in ("/v1/metrics", "/v1/dimensions", "/v1/saved-queries"):
            answer = await clients[principal].get(path, params={"limit": 500} if "saved" not in path else {})
            found |= {item["name"] for item in answer.json()["data"]}
        seen[principal] = frozenset(found)
    return seen


async def ask(client: httpx.AsyncClient, method: str, row: Row) -> httpx.Response:
    return await client.request(method, row.path, json=row.body)


def outcome(answer: httpx.Response, code: str = "") -> Outcome:
    """What the principal got; `code` is taken for granted where the answer has no body, as to HEAD."""
    if answer.status_code < 400:
        for error in errors(answer):
            return error["extensions"]["status"], error["extensions"]["code"]
        return answer.status_code, ""
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["code"] if answer.content else code


def errors(answer: httpx.Response) -> list[dict[str, Any]]:
    """What an answer of GraphQL says went wrong."""
    return list(answer.json().get("errors", ())) if b'"errors":' in answer.content[:1_000] else []


def told(answer: httpx.Response) -> str:
    """What a refusal says, without the path that was asked."""
    if not answer.content:
        return ""
    if refused := errors(answer):
        assert refused[0]["extensions"].pop("request_id") == answer.headers["x-request-id"]
        return str(refused)
    body = answer.json()
    assert body.pop("instance") == answer.request.url.path
    assert body.pop("request_id") == answer.headers["x-request-id"]
    return str(body)


def named_in(text: str, words: frozenset[str] | set[str]) -> set[str]:
    return words & set(re.findall(r"[\w-]+", text))


def served(app: FastAPI) -> set[tuple[str, str]]:
    """Each method and path that the application serves."""
    found = set()
    for route in iter_route_contexts(app.routes):
        methods = getattr(route, "methods", None)
        assert methods, f"{route.path} is no plain route: say in this test what each principal gets there"
        template = re.sub(r":\w+(?=})", "", route.path)  # without what says which texts a parameter takes
        found |= {(method, template) for method in methods}
    return found


def test_every_route_has_a_row_in_the_matrix(guarded: tuple[FastAPI, ApiKeys]) -> None:
    missing = served(guarded[0]) - set(MATRIX)

    assert not missing, f"add to MATRIX in {Path(__file__).name}, with what each principal gets: {sorted(missing)}"


def test_the_matrix_has_no_row_for_a_route_that_is_gone(guarded: tuple[FastAPI, ApiKeys]) -> None:
    assert set(MATRIX) - served(guarded[0]) == set()


def test_every_row_asks_the_route_that_it_stands_for() -> None:
    for (_, template), rows in MATRIX.items():
        pattern = re.sub(r"\{\w+\}", "[^/]+", template)
        assert all(re.fullmatch(pattern, row.path.partition("?")[0]) for row in rows)


@pytest.mark.parametrize(("method", "row", "principal"), CELLS)
async def test_each_principal_gets_what_the_matrix_says(
    clients: Mapping[str, httpx.AsyncClient],
    names: Mapping[str, frozenset[str]],
    method: str,
    row: Row,
    principal: str,
) -> None:
    answer = await ask(clients[principal], method, row)

    assert outcome(answer) == row.outcome(principal), answer.text[:500]
    if answer.status_code >= 400 or errors(answer):
        asked = set(re.findall(r"\w+", f"{row.path} {row.body}"))
        hidden = names["admin"] - names.get(principal, frozenset()) - (asked if principal in KNOWN else set())
        assert named_in(told(answer), hidden) == set()


async def test_a_refused_caller_learns_no_name_of_ours(
    clients: Mapping[str, httpx.AsyncClient], names: Mapping[str, frozenset[str]]
) -> None:
    ours = set(names["admin"]) | {"admin", "analyst", "regional", "viewer", ISSUER, AUDIENCE, "Chicago"}
    for principal in STRANGERS:
        for (method, _), rows in MATRIX.items():
            for row in rows:
                answer = await ask(clients[principal], method, row)
                if not row.is_open:
                    headers = str([item for item in answer.headers.items() if item[0] != "content-type"])
                    assert named_in(told(answer) + headers, ours) == set()
                    assert ISSUER not in answer.text


@pytest.mark.parametrize("principal", STRANGERS)
async def test_a_refused_caller_cannot_tell_what_exists(
    clients: Mapping[str, httpx.AsyncClient], principal: str
) -> None:
    client = clients[principal]
    for real, invented in (
        ("/v1/metrics/total_revenue", "/v1/metrics/total_nonsense"),
        ("/v1/lineage/total_revenue", "/v1/lineage/total_nonsense"),
        ("/v1/dimensions/customer/values", "/v1/dimensions/nonsense/values"),
        ("/v1/dimensions?metrics=total_revenue", "/v1/dimensions?metrics=total_nonsense"),
        ("/v1/metrics?limit=1", "/v1/metrics?limit=nonsense"),
        ("/v1/saved-queries/revenue_by_month/results", "/v1/saved-queries/nonsense/results"),
    ):
        assert told(await client.get(real)) == told(await client.get(invented))
    for path in ("/v1/query", "/v1/query/compile", "/v1/queries", "/v1/export"):
        refusals = [
            told(await client.post(path, json=body))
            for body in (REVENUE, {"metrics": ["total_nonsense"]}, {"metric": 7}, [], None)
        ]
        assert len(set(refusals)) == 1


@pytest.mark.parametrize("principal", PRINCIPALS)
async def test_each_principal_gets_by_head_what_it_gets_by_get(
    clients: Mapping[str, httpx.AsyncClient], principal: str
) -> None:
    for row in (row for (method, _), rows in MATRIX.items() for row in rows if method == "GET"):
        answer = await clients[principal].head(row.path)
        assert answer.status_code == row.outcome(principal)[0], row.path
        assert answer.content == b""


@pytest.mark.parametrize("principal", PRINCIPALS)
async def test_a_method_that_is_not_served_is_a_405_for_everybody(
    guarded: tuple[FastAPI, ApiKeys],
    clients: Mapping[str, httpx.AsyncClient],
    names: Mapping[str, frozenset[str]],
    principal: str,
) -> None:
    routes = served(guarded[0])
    routes |= {("HEAD", path) for method, path in routes if method == "GET"}  # the envelope serves it as GET
    for path in {path for _, path in routes}:
        rows = next(rows for (_, template), rows in MATRIX.items() if template == path)
        for method in METHODS:
            if (method, path) not in routes:
                answer = await clients[principal].request(method, rows[0].path.partition("?")[0], json={})
                assert outcome(answer, "method_not_allowed") == (405, "method_not_allowed"), f"{method} {path}"
                assert set(answer.headers["allow"].split(", ")) == {verb for verb, other in routes if other == path}
                assert named_in(told(answer), names["admin"]) == set()


@pytest.mark.parametrize("principal", PRINCIPALS)
@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v2/metrics", "/admin", "/v1/metrics/", "/v1/keys", "/.env"])
async def test_a_path_that_is_not_served_is_a_404_for_everybody(
    clients: Mapping[str, httpx.AsyncClient], path: str, principal: str
) -> None:
    for method in METHODS:
        answer = await clients[principal].request(method, path, follow_redirects=False)
        assert outcome(answer, "unknown_path") == (404, "unknown_path"), f"{method} {path}"


async def test_the_regional_analyst_sees_its_regions_alone(clients: Mapping[str, httpx.AsyncClient]) -> None:
    places = {
        principal: {row["customer__location"] for row in (await ask(clients[principal], "POST", row)).json()["data"]}
        for row in [Row(path="/v1/query", body=BY_PLACE)]
        for principal in ("regional analyst", "analyst")
    }

    assert places["regional analyst"] == {"Chicago", "California"}
    assert places["analyst"] > places["regional analyst"]


@pytest.mark.parametrize("given_header", ["Authorization", "X-API-Key"])
@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [("good", "bad", 200), ("bad", "good", 401), ("good", "good", 200), ("bad", "bad", 401)],
)
async def test_the_bearer_credential_decides_where_both_headers_come(
    guarded: tuple[FastAPI, ApiKeys], given_header: str, first: str, second: str, expected: int
) -> None:
    app, keys = guarded
    credentials = {"good": keys.create("good", role="analyst"), "bad": "mi_0_guess"}
    headers = {"Authorization": f"Bearer {credentials[first]}", "X-API-Key": credentials[second]}
    ordered = dict(sorted(headers.items(), key=lambda item: item[0] != given_header))

    async with connect(app) as client:
        assert (await client.get("/v1/entities", headers=ordered)).status_code == expected
