"""A role sees over GraphQL what it sees over REST, and learns of nothing else: names, rows, hashes, SQL, limits."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.api.graphql.asked import Json, code, data, polled, refusal, sent
from tests.api.principals import Client, Join, names, rows

POLICY = """
version: 1
roles:
  admin: {metrics: ["*"], dimensions: ["*"], see_sql: true}
  regional:
    metrics: ["*"]
    dimensions: ["*"]
    see_sql: true
    rows: [{field: customer__location, op: in, claim: regions}]
  viewer: {metrics: ["*"], dimensions: ["*"], hashed: [customer], introspection: false}
  narrow:
    metrics: [total_revenue, line_count, average_order_value]
    dimensions: [metric_time, "customer__*"]
    hidden: [customer__gender]
  floored: {metrics: ["*"], dimensions: ["*"], min_customers: 5}
  slow: {metrics: ["*"], dimensions: ["*"], requests_per_minute: 2}
  quota: {metrics: ["*"], dimensions: ["*"], rows_per_day: 3}
"""

REGIONS = {"regions": ("California", "Chicago")}
ASK = """mutation($m: [MetricInput!], $g: [GroupByInput!], $w: [WhereInput!], $o: [OrderByInput!]) {
  createSynchronousQuery(metrics: $m, groupBy: $g, where: $w, orderBy: $o) { rows sql } }"""
CREATE = """mutation($m: [MetricInput!], $g: [GroupByInput!]) { createQuery(metrics: $m, groupBy: $g) { queryId } }"""
VALUES = """mutation($g: [GroupByInput!]!) { createDimensionValuesQuery(groupBy: $g) { queryId } }"""
POLL = "query($q: String!) { query(queryId: $q) { status error errorType rows sql } }"
EVERYTHING = """{ metrics { name description filter { whereSqlTemplate } config { meta } semanticModels { name }
    typeParams { expr measure { name } inputMeasures { name filter { whereSqlTemplate } } metrics { name alias }
                 numerator { name } denominator { name } }
    dimensions { name expr } measures { name expr } entities { name expr } }
  dimensions(metrics: []) { name expr } entities(metrics: []) { name expr } measures(metrics: []) { name expr }
  savedQueries { name queryParams { metrics { name } groupBy { name } where { whereSqlTemplate } } } }"""


def asking(metric: str, *group_by: str, **more: Any) -> Json:
    return {"m": [{"name": metric}], "g": [{"name": name} for name in group_by], **more}


async def answer(client: httpx.AsyncClient, **variables: Any) -> Json:
    found: Json = (await data(client, ASK, **variables))["createSynchronousQuery"]
    return found


async def later(client: httpx.AsyncClient, document: str, **variables: Any) -> Json:
    """The query that the document creates, once it has ended."""
    (made,) = (await data(client, document, **variables)).values()
    return await polled(client, POLL, made["queryId"])


async def test_row_filters_hold_at_once_and_later(join: Join, admin: Client) -> None:
    regional = join("regional", **REGIONS)
    variables = asking("total_revenue", "customer__location")
    expected = await rows(regional, {"metrics": ["total_revenue"], "group_by": ["customer__location"]})

    assert {row["customer__location"] for row in expected} == {"California", "Chicago"}
    assert (await answer(regional, **variables))["rows"] == expected
    assert (await later(regional, CREATE, **variables))["rows"] == expected
    assert len((await answer(admin, **variables))["rows"]) > 2
    total = (await answer(regional, **asking("total_revenue")))["rows"][0]["total_revenue"]
    assert total == sum(row["total_revenue"] for row in expected)
    found = await later(regional, VALUES, g=[{"name": "customer__location"}])
    assert [row["customer__location"] for row in found["rows"]] == ["California", "Chicago"]
    sql = 'mutation { compileSql(metrics: [{name: "total_revenue"}]) { sql parameters } }'
    compiled = (await data(regional, sql))["compileSql"]
    assert {"California", "Chicago"} <= set(compiled["parameters"].values())
    assert "Chicago" not in compiled["sql"]


async def test_a_hidden_name_is_unknown_and_found_nowhere(join: Join, admin: Client) -> None:
    narrow = join("narrow")
    hidden = (await names(admin, "/v1/metrics") | await names(admin, "/v1/dimensions")) - (
        await names(narrow, "/v1/metrics") | await names(narrow, "/v1/dimensions")
    )
    everything = json.dumps(await data(narrow, EVERYTHING), default=str)

    # A measure may have the name of a metric; the words of descriptions are not names.
    words = {text for text in everything.split('"') if text in hidden}
    assert words == set()
    assert "total_revenue" in everything
    assert code(await refusal(narrow, ASK, **asking("marketing_spend"))) == (404, "unknown_metric")
    assert code(await refusal(narrow, ASK, **asking("total_revenue", "customer__gender"))) == (404, "unknown_dimension")
    for metric in ("marketing_spend", "no_such_metric"):
        message = (await refusal(narrow, ASK, **asking(metric)))["message"]
        assert not [name for name in hidden - {metric} if f"{name}" in message.split()]
    document = 'query { dimensions(metrics: [{name: "marketing_spend"}]) { name } }'
    assert code(await refusal(narrow, document)) == (404, "unknown_metric")
    gender = "{{ Dimension('customer__gender') }} = 'F'"
    assert code(await refusal(narrow, ASK, **asking("line_count"), w=[{"sql": gender}])) == (404, "unknown_dimension")


async def test_expressions_and_filters_are_for_those_who_see_sql(join: Join, admin: Client) -> None:
    shown, bare = await data(admin, EVERYTHING), await data(join("viewer"), EVERYTHING)

    assert any("case when" in item["expr"] for item in shown["measures"])
    assert all(item["expr"] == item["name"] for item in [*bare["measures"], *bare["entities"]])
    assert [item for item in bare["metrics"] if item["filter"] or item["typeParams"]["expr"]] == []
    assert any(item["typeParams"]["expr"] for item in shown["metrics"])
    assert [item["name"] for item in bare["metrics"]] == [item["name"] for item in shown["metrics"]]


async def test_sql_is_for_those_who_see_it(join: Join, admin: Client) -> None:
    viewer = join("viewer")

    assert (await answer(admin, **asking("line_count")))["sql"]
    assert (await answer(viewer, **asking("line_count")))["sql"] is None
    assert (await later(viewer, CREATE, **asking("line_count")))["sql"] is None
    compiled = "mutation($m: [MetricInput!]) { compileSql(metrics: $m) { sql } }"
    assert code(await refusal(viewer, compiled, m=[{"name": "line_count"}])) == (403, "sql_forbidden")


async def test_a_hashed_dimension_is_hashed_and_nothing_sorts_or_filters_by_it(join: Join, admin: Client) -> None:
    viewer = join("viewer")
    variables = asking("line_count", "customer")
    known = {row["customer"] for row in (await answer(admin, **variables))["rows"]}
    seen = {row["customer"] for row in (await answer(viewer, **variables))["rows"]}

    assert len(seen) == len(known)
    assert not seen & {str(name) for name in known}
    kept = await later(viewer, CREATE, **variables)
    assert {row["customer"] for row in kept["rows"]} <= seen
    found = await later(viewer, VALUES, g=[{"name": "customer"}])
    assert {row["customer"] for row in found["rows"]} <= seen
    sort = [{"groupBy": {"name": "customer"}}]
    assert code(await refusal(viewer, ASK, **variables, o=sort)) == (403, "hashed_dimension")
    one = [{"sql": "{{ Entity('customer') }} = 17850"}]
    assert code(await refusal(viewer, ASK, **variables, w=one)) == (403, "hashed_dimension")


async def test_the_schema_is_for_roles_that_may_ask_for_it(join: Join, admin: Client) -> None:
    viewer = join("viewer")
    for document in (
        "{ __schema { types { name } } }",
        '{ __type(name: "Query") { name } }',
        "{ ...A } fragment A on Query { __schema { queryType { name } } }",
        "{ metrics { name } a: __schema { types { name } } }",
    ):
        assert code(await refusal(viewer, document)) == (403, "introspection_forbidden")
        assert await data(admin, document)
    assert (await data(viewer, "{ __typename metrics { __typename } }"))["__typename"] == "Query"


@pytest.mark.parametrize("header", [None, "Bearer wrong", "bearer ", "Basic abc", "Token wrong"])
async def test_a_stranger_learns_nothing(join: Join, header: str | None) -> None:
    stranger = join("admin")
    del stranger.headers["authorization"]
    if header:
        stranger.headers["authorization"] = header
    for document in ("{ metrics { name } }", "{ __schema { types { name } } }", "{ nonsense", "{ metricz }"):
        found = await sent(stranger, document)
        assert found["data"] is None
        assert found["errors"][0]["message"] == "User is not authorized"
        assert code(found["errors"][0])[0] == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "Token", "TOKEN"])
async def test_a_key_comes_under_any_of_the_words_that_clients_use(join: Join, scheme: str) -> None:
    client = join("admin")
    key = client.headers["authorization"].partition(" ")[2]
    client.headers["authorization"] = f"{scheme} {key}"
    assert await data(client, "{ environmentInfo { dialect } }")
    del client.headers["authorization"]
    client.headers["x-api-key"] = key
    assert await data(client, "{ environmentInfo { dialect } }")


async def test_a_floor_holds_and_refuses_what_is_answered_later(join: Join, admin: Client) -> None:
    floored = join("floored")
    variables = asking("line_count", "product")
    expected = await rows(floored, {"metrics": ["line_count"], "group_by": ["product"]})

    assert (await answer(floored, **variables))["rows"] == expected[:1_024]
    assert len(expected) < len(await rows(admin, {"metrics": ["line_count"], "group_by": ["product"]}))
    assert (await later(floored, CREATE, **variables))["errorType"] == "anonymity_floor"


async def test_requests_are_counted_with_those_over_rest(join: Join) -> None:
    slow = join("slow")
    await slow.get("/v1/metrics")
    answered = await slow.post("/graphql", json={"query": "{ metrics { name } }"})
    assert answered.headers["ratelimit-remaining"] == "0"
    refused = await slow.post("/graphql", json={"query": "{ metrics { name } }"})
    error = refused.json()["errors"][0]

    assert refused.status_code == 200
    assert code(error) == (429, "rate_limited")
    assert int(refused.headers["retry-after"]) == error["extensions"]["retry_after"]
    assert (await slow.get("/v1/metrics")).status_code == 429


async def test_rows_are_counted_with_those_over_rest(join: Join) -> None:
    quota = join("quota")
    await answer(quota, **asking("line_count", "customer__gender"))
    await rows(quota, {"metrics": ["total_revenue"]})

    assert code(await refusal(quota, ASK, **asking("line_count"))) == (429, "row_quota_used")


async def test_a_query_is_its_owners_alone(join: Join) -> None:
    owner, other = join("admin"), join("admin")
    query_id = (await data(owner, CREATE, **asking("line_count")))["createQuery"]["queryId"]

    assert await data(owner, POLL, q=query_id)
    assert code(await refusal(other, POLL, q=query_id)) == (404, "unknown_query")
    document = "mutation($q: String!) { cancelQuery(queryId: $q) { queryId } }"
    assert code(await refusal(other, document, q=query_id)) == (404, "unknown_query")
    assert (await data(other, "{ queryRecords { totalItems } }"))["queryRecords"]["totalItems"] == 0
