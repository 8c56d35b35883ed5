"""The same question over REST and GraphQL: the same rows, the same refusal, the same kept result, the same record."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
from decimal import Decimal
from typing import Any

import httpx
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.audit_store import AuditQuestion, AuditStore
from api.dbt_filter import parse_dbt_filter
from api.errors import Failure, UnknownName
from api.filters import AllOf, AnyOf, Comparison, Filter, Not, Operator
from api.graphql.filter_text import filter_text
from api.graphql.handles import Handle
from api.graphql.pandas_json import pandas_json
from api.graphql.vocabulary import PandasJsonOrient, QueryType
from api.state import open_state
from tests.api.graphql.asked import Json, code, data, polled, refusal, sent
from tests.conftest import Published, service_settings

ASK = """mutation($m: [MetricInput!], $g: [GroupByInput!], $w: [WhereInput!], $o: [OrderByInput!], $l: Int,
                  $c: Boolean, $p: Int! = 1) {
  createSynchronousQuery(metrics: $m, groupBy: $g, where: $w, orderBy: $o, limit: $l, readCache: $c, pageNum: $p) {
    queryId status totalPages rowCount rows publication error columns { name label kind type unit grain } arrowResult
  }
}"""
CREATE = """mutation($m: [MetricInput!], $g: [GroupByInput!], $w: [WhereInput!], $s: String, $l: Int) {
  createQuery(metrics: $m, groupBy: $g, where: $w, savedQuery: $s, limit: $l) { queryId } }"""
POLL = """query($q: String!, $p: Int! = 1) { query(queryId: $q, pageNum: $p) {
    queryId status error errorType errorHint totalPages rowCount rows sql columns { name }
    params { type ... on MetricQueryParams {
      metrics { name alias } groupBy { name } where { sql } savedQuery limit } } } }"""

VALUES = """mutation($m: [MetricInput!], $g: [GroupByInput!]!) {
  createDimensionValuesQuery(metrics: $m, groupBy: $g) { queryId } }"""
RECORDS = """{ queryRecords(pageSize: 2) { totalItems items { queryId status
    queryDetails { ... on SemanticLayerQueryDetails { params { metrics { name } limit } } } } } }"""

METRICS = ["total_revenue", "line_count", "average_order_value"]
DIMENSIONS = ["metric_time__month", "customer__location", "product__category", "customer__gender"]


async def asked(api: httpx.AsyncClient, **variables: Any) -> Json:
    found: Json = (await data(api, ASK, **variables))["createSynchronousQuery"]
    return found


async def created(api: httpx.AsyncClient, **variables: Any) -> Json:
    return await polled(api, POLL, (await data(api, CREATE, **variables))["createQuery"]["queryId"])


async def rest(api: httpx.AsyncClient, body: Json, **headers: str) -> Json:
    response = await api.post("/v1/query", json=body, headers=headers)
    found: Json = json.loads(response.content, parse_float=Decimal)
    return found


@given(
    metrics=st.lists(st.sampled_from(METRICS), min_size=1, max_size=3, unique=True),
    group_by=st.lists(st.sampled_from(DIMENSIONS), max_size=2, unique=True),
    place=st.sampled_from([None, "Chicago", "California", "it's", "{{7*7}}"]),
    limit=st.none() | st.integers(1, 60),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[*HealthCheck])
async def test_any_question_is_answered_as_over_rest_and_from_one_kept_result(
    api: httpx.AsyncClient, metrics: list[str], group_by: list[str], place: str | None, limit: int | None
) -> None:
    body: Json = {"metrics": metrics, "group_by": group_by, "limit": limit}
    where = []
    if place is not None:
        body["where"] = [{"field": "customer__location", "op": "eq", "values": [place]}]
        text = place.replace("'", "''")
        where = [{"sql": f"{{{{ Dimension('customer__location') }}}} = '{text}'"}]
    expected = await rest(api, {name: value for name, value in body.items() if value is not None})
    variables = {"m": [{"name": name} for name in metrics], "g": [{"name": name} for name in group_by], "w": where}

    answer = await sent(api, ASK, **variables, l=limit)

    if "code" in expected:
        error = answer["errors"][0]
        assert (error["extensions"]["code"], error["extensions"]["detail"]) == (expected["code"], expected["detail"])
        return
    found = answer["data"]["createSynchronousQuery"]
    assert found["rows"] == expected["data"]
    assert [item["name"] for item in found["columns"]] == [item["name"] for item in expected["columns"]]
    assert found["publication"] == expected["meta"]["publication"]
    again = await rest(api, {name: value for name, value in body.items() if value is not None})
    assert again["meta"]["cache"]["result"] == "hit"


async def test_either_transport_finds_what_the_other_one_has_kept(api: httpx.AsyncClient) -> None:
    async def origins() -> dict[str, float]:
        text = (await api.get("/metrics")).text
        found = re.findall(r'^insight_answers_total\{origin="(\w+)"\} (\S+)$', text, re.MULTILINE)
        return {origin: float(count) for origin, count in found}

    body = {"metrics": ["total_revenue"], "group_by": ["product__category"], "limit": 37}
    variables = {"m": [{"name": "total_revenue"}], "g": [{"name": "product__category"}], "l": 37}
    await asked(api, **variables)
    assert (await rest(api, body))["meta"]["cache"]["result"] == "hit"
    before = await origins()
    await created(api, **variables)  # a long query takes what is kept, too
    await asked(api, **variables)
    assert await origins() == before | {"hit": before["hit"] + 2}
    await asked(api, **variables, c=False)
    assert (await origins())["bypass"] == before["bypass"] + 1


async def test_each_request_leaves_one_record_that_tells_what_rest_would(
    api: httpx.AsyncClient, synthetic: Published
) -> None:
    store = AuditStore(open_state(service_settings(synthetic).state_url))

    async def record(request_id: str) -> Json:
        for _ in range(100):
            if found := list(store.newest(AuditQuestion(request_id=request_id), limit=10)):
                assert len(found) == 1
                return dict(found[0])
            await asyncio.sleep(0.05)
        raise AssertionError(request_id)

    async def recorded(path: str, body: Json) -> Json:
        response = await api.post(path, json=body)
        return await record(response.headers["x-request-id"])

    question = {"m": [{"name": "line_count"}], "g": [{"name": "customer__gender"}]}
    over_graphql = await recorded("/graphql", {"query": ASK, "variables": question})
    over_rest = await recorded("/v1/query", {"metrics": ["line_count"], "group_by": ["customer__gender"]})
    same = ("decision", "status", "code", "principal_id", "role", "rows", "sql_hash", "publication")
    assert {name: over_graphql.get(name) for name in same} == {name: over_rest.get(name) for name in same}
    assert (over_graphql["transport"], over_graphql["action"]) == ("graphql", "run_query")
    assert over_graphql["what"]["metrics"] == over_rest["what"]["metrics"] == ["line_count"]
    assert over_graphql["what"]["group_by"] == ["customer__gender"]

    refused = await recorded("/api/graphql", {"query": CREATE, "variables": {"m": [{"name": "nonsense"}]}})
    assert (refused["decision"], refused["status"], refused["code"]) == ("refused", 404, "unknown_metric")
    unreadable = await recorded("/", {"query": "{"})
    assert (unreadable["decision"], unreadable["status"]) == ("refused", 400)
    listed = await recorded("/", {"query": "{ metrics { name } }"})
    assert (listed["decision"], listed["action"], listed["what"]) == ("answered", "metrics", {"fields": ["metrics"]})


async def test_pages_hold_every_row_once_and_the_page_after_the_last_is_none(api: httpx.AsyncClient) -> None:
    variables = {"m": [{"name": "total_revenue"}], "g": [{"name": "transaction"}], "l": 2_100}
    pages = [await asked(api, **variables, p=number) for number in (1, 2, 3)]

    assert [len(page["rows"]) for page in pages] == [1_024, 1_024, 52]
    assert {page["totalPages"] for page in pages} == {3}
    assert len({row["transaction"] for page in pages for row in page["rows"]}) == 2_100
    for number in (0, 4, -1):
        assert code(await refusal(api, ASK, **variables, p=number)) == (404, "unknown_page")
    stored = await created(api, **variables)
    assert stored["rows"] == pages[0]["rows"]
    assert (await polled(api, POLL, stored["queryId"], p=3))["rows"] == pages[2]["rows"]
    assert code(await refusal(api, POLL, q=stored["queryId"], p=4)) == (404, "unknown_page")


async def test_an_alias_names_the_column_in_every_layout_and_the_filter_keeps_the_name(api: httpx.AsyncClient) -> None:
    variables = {
        "m": [{"name": "total_revenue", "alias": "umsatz"}, {"name": "line_count"}],
        "g": [{"name": "customer__location"}],
        "w": [{"sql": "{{ Metric('total_revenue') }} > 1"}],
    }
    at_once = await asked(api, **variables, o=[{"metric": {"name": "umsatz"}, "descending": True}])
    later = await created(api, **variables)

    for found in (at_once, later):
        assert [item["name"] for item in found["columns"]] == ["customer__location", "umsatz", "line_count"]
        assert set(found["rows"][0]) == {"customer__location", "umsatz", "line_count"}
    revenue = [row["umsatz"] for row in at_once["rows"]]
    assert revenue == sorted(revenue, reverse=True)
    with pa.ipc.open_stream(base64.b64decode(at_once["arrowResult"])) as stream:
        assert stream.read_all().column("umsatz").to_pylist() == revenue
    assert later["params"]["metrics"] == [
        {"name": "total_revenue", "alias": "umsatz"},
        {"name": "line_count", "alias": None},
    ]
    for alias in ("line_count", "customer__location"):
        wrong = [{"name": "total_revenue", "alias": alias}, {"name": "line_count"}]
        assert code(await refusal(api, ASK, m=wrong, g=variables["g"])) == (422, "duplicate_name")
    for alias in ("", "a b", "1a", "x" * 101, 'a"; drop table x'):
        wrong = [{"name": "total_revenue", "alias": alias}]
        assert code(await refusal(api, ASK, m=wrong)) == (422, "invalid_alias")


async def test_a_stored_query_tells_what_it_was_asked(api: httpx.AsyncClient) -> None:
    place = "{{ Dimension('customer__location') }} = 'Chicago'"
    found = await created(
        api,
        m=[{"name": "total_revenue"}],
        g=[{"name": "metric_time", "timeGranularity": "MONTH"}],
        w=[{"sql": place}],
        l=5,
    )
    assert found["params"] == {
        "type": "METRIC",
        "metrics": [{"name": "total_revenue", "alias": None}],
        "groupBy": [{"name": "metric_time__month"}],
        "where": [{"sql": place}],
        "savedQuery": None,
        "limit": 5,
    }
    assert "SELECT" in found["sql"]
    assert "Chicago" not in found["sql"]
    saved = await created(api, s="revenue_by_category")
    assert saved["params"]["savedQuery"] == "revenue_by_category"
    assert saved["rowCount"] == len(saved["rows"])
    records = (
        await data(
            api,
            RECORDS,
        )
    )["queryRecords"]
    assert [item["status"] for item in records["items"]] == ["SUCCESSFUL", "SUCCESSFUL"]
    assert records["items"][1]["queryId"] == found["queryId"]
    assert records["items"][1]["queryDetails"]["params"]["limit"] == 5


@pytest.mark.parametrize("dimension", ["customer__location", "sale__coupon_code"])  # some sales have no coupon
@pytest.mark.parametrize("metrics", [[], ["total_revenue"]], ids=["of all", "of a metric"])
async def test_dimension_values_are_those_of_rest(api: httpx.AsyncClient, dimension: str, metrics: list[str]) -> None:
    variables = {"m": [{"name": name} for name in metrics], "g": [{"name": dimension}]}
    query_id = (await data(api, VALUES, **variables))["createDimensionValuesQuery"]["queryId"]
    found = await polled(api, POLL, query_id)
    params = {"limit": 1_000} | ({"metrics": ",".join(metrics)} if metrics else {})
    expected = (await api.get(f"/v1/dimensions/{dimension}/values", params=params)).json()["data"]

    assert found["rows"] == [{dimension: value} for value in expected]
    assert [item["name"] for item in found["columns"]] == [dimension]
    assert found["params"]["type"] == "DIMENSION_VALUES"


async def test_the_sql_of_dimension_values_is_told(api: httpx.AsyncClient) -> None:
    compiled = 'mutation { compileDimensionValuesSql(groupBy: [{name: "customer__location"}]) { sql parameters } }'
    assert "SELECT" in (await data(api, compiled))["compileDimensionValuesSql"]["sql"]


async def test_a_refused_question_is_a_failed_query_with_code_and_hint(api: httpx.AsyncClient) -> None:
    found = await created(api, m=[{"name": "total_revehue"}])

    assert (found["status"], found["errorType"], found["totalPages"], found["rows"]) == (
        "FAILED",
        "unknown_metric",
        None,
        None,
    )
    assert "total_revenue" in found["errorHint"]
    assert found["errorHint"] in found["error"]


@pytest.mark.parametrize(
    ("variables", "refused"),
    [
        ({"o": [{"descending": True}]}, (422, "invalid_order")),
        ({"o": [{"metric": {"name": "line_count"}, "groupBy": {"name": "metric_time"}}]}, (422, "invalid_order")),
        ({"o": [{"metric": {"name": "line_count"}}]}, (422, "invalid_order")),
        ({"g": [{"name": "metric_time", "timeGranularity": "fortnight"}]}, (404, "unknown_dimension")),
        ({"g": [{"name": "metric_time", "grain": "HOUR"}]}, (422, "invalid_grain")),
        ({"l": 0}, (422, "invalid_limit")),
        ({"l": 50_001}, (422, "invalid_limit")),
        ({"w": [{"sql": "1=1; DROP TABLE x"}]}, (422, "unsupported_filter")),
        ({"g": [{"name": "customer__gender"}] * 9}, (422, "query_too_complex")),
    ],
    ids=[
        "order by nothing",
        "order by two",
        "order by another",
        "grain",
        "too fine",
        "no rows",
        "rows",
        "filter",
        "many",
    ],
)
async def test_a_question_that_cannot_be_answered_is_refused_with_a_code(
    api: httpx.AsyncClient, variables: Json, refused: tuple[int, str]
) -> None:
    error = await refusal(api, ASK, m=[{"name": "total_revenue"}], **variables)

    assert code(error) == refused
    assert error["extensions"]["hint"] in error["message"]
    assert error["path"] == ["createSynchronousQuery"]


async def test_grains_and_parts_of_dates(api: httpx.AsyncClient) -> None:
    async def columns(**item: str) -> list[str]:
        found = await asked(api, m=[{"name": "total_revenue"}], g=[{"name": "metric_time", **item}])
        return [each["name"] for each in found["columns"]]

    assert await columns(grain="QUARTER") == ["metric_time__quarter", "total_revenue"]
    assert await columns(timeGranularity="Week") == ["metric_time__week", "total_revenue"]
    assert await columns(datePart="DOW") == ["metric_time__extract_dow", "total_revenue"]
    assert await columns(timeGranularity="None") == ["metric_time__day", "total_revenue"]


async def test_a_saved_query_stands_alone(api: httpx.AsyncClient) -> None:
    document = 'mutation { compileSql(savedQuery: "revenue_by_month", metrics: [{name: "line_count"}]) { sql } }'

    assert code(await refusal(api, document)) == (422, "invalid_query")


async def test_lists_are_paged_and_searched(api: httpx.AsyncClient) -> None:
    document = """query($s: String, $t: [String!], $g: [GroupByInput!], $n: Int! = 1, $z: Int) {
      metricsPaginated(search: $s, searchTerms: $t, groupBy: $g, pageNum: $n, pageSize: $z) {
        pageNum pageSize totalItems totalPages items { name config { meta } } } }"""

    async def page(**variables: Any) -> Json:
        return dict((await data(api, document, **variables))["metricsPaginated"])

    whole = await page()
    names = [item["name"] for item in whole["items"]]
    assert (whole["pageNum"], whole["pageSize"], whole["totalPages"], whole["totalItems"]) == (1, None, 1, len(names))
    second = await page(n=2, z=10)
    assert [item["name"] for item in second["items"]] == names[10:20]
    assert second["totalPages"] == -(-len(names) // 10)
    assert (await page(n=99, z=10))["items"] == []
    revenue = {item["name"] for item in (await page(s="revenue"))["items"]}
    coupon = {item["name"] for item in (await page(t=["coupon"]))["items"]}
    assert revenue | coupon == {item["name"] for item in (await page(t=["revenue", "COUPON"]))["items"]}
    joined = {item["name"] for item in (await page(g=[{"name": "customer__location"}]))["items"]}
    assert "total_revenue" in joined
    assert "marketing_spend" not in joined
    for wrong in ({"n": 0}, {"z": 0}, {"z": 1_001}):
        assert code(await refusal(api, document, **wrong)) == (422, "invalid_limit")
    others = """{ dimensionsPaginated(metrics: [{name: "total_revenue"}], search: "location") {
        totalItems items { name } }
      entitiesPaginated(metrics: [{name: "total_revenue"}]) { items { name type } }
      groupBysPaginated(metrics: [{name: "total_revenue"}], pageSize: 3) {
        totalItems items { __typename ... on Entity { name } ... on Dimension { name } } }
      savedQueriesPaginated(search: "by_month") { items { name } }
      savedQuery(savedQueryName: "revenue_by_month") { label }
      queryableGranularities(metrics: [{name: "total_revenue"}])
      queryableTimeGranularities(metrics: [{name: "total_revenue"}])
      metricsForDimensions(dimensions: [{name: "customer__location"}]) { name } }"""
    found = await data(api, others)
    assert [item["name"] for item in found["dimensionsPaginated"]["items"]] == ["customer__location"]
    assert "customer" in {item["name"] for item in found["entitiesPaginated"]["items"]}
    assert len(found["groupBysPaginated"]["items"]) == 3
    assert [item["name"] for item in found["savedQueriesPaginated"]["items"]] == ["revenue_by_month"]
    assert (
        found["queryableGranularities"]
        == found["queryableTimeGranularities"]
        == ["DAY", "WEEK", "MONTH", "QUARTER", "YEAR"]
    )
    assert {item["name"] for item in found["metricsForDimensions"]} == joined


async def test_freshness_and_publications_are_those_of_rest(api: httpx.AsyncClient) -> None:
    document = "{ freshness { publication asOf sources { name rows } } publications { version current } }"
    found = await data(api, document)
    expected = (await api.get("/v1/freshness")).json()

    assert (found["freshness"]["publication"], found["freshness"]["asOf"]) == (
        expected["publication"],
        expected["as_of"],
    )
    assert [item["name"] for item in found["freshness"]["sources"]] == [item["name"] for item in expected["sources"]]
    assert [item["version"] for item in found["publications"] if item["current"]] == [expected["publication"]]


TABLE = pa.table(
    {
        "place": pa.array(["Chicago", None, 'a"b']),
        "day": pa.array([0, 1, None], pa.date32()),
        "count": pa.array([1, 2, 3], pa.int64()),
        "sum": pa.array([Decimal("1.50"), Decimal("-2.25"), None], pa.decimal128(10, 2)),
    }
)


@pytest.mark.parametrize("table", [TABLE, TABLE.slice(0, 0)], ids=["rows", "no rows"])
@pytest.mark.parametrize("orient", list(PandasJsonOrient))
def test_rows_are_laid_out_as_pandas_does(orient: PandasJsonOrient, table: pa.Table) -> None:
    frame = table.set_column(3, "sum", table.column("sum").cast(pa.float64())).to_pandas()
    frame["day"] = [None if day is None else str(day) for day in table.column("day").to_pylist()]
    frame["sum"] = frame["sum"].astype(object).where(frame["sum"].notna(), None)
    expected = json.loads(frame.to_json(orient=orient.value))
    found = json.loads(pandas_json(table, orient))

    if orient is PandasJsonOrient.TABLE:
        assert found["data"] == expected["data"]
        assert [item["name"] for item in found["schema"]["fields"]] == [
            item["name"] for item in expected["schema"]["fields"]
        ]
        assert found["schema"]["primaryKey"] == expected["schema"]["primaryKey"]
        assert {item["name"]: item["type"] for item in found["schema"]["fields"]} == {
            "index": "integer",
            "place": "string",
            "day": "datetime",
            "count": "integer",
            "sum": "number",
        }
    else:
        assert found == expected


async def test_a_client_reads_a_page_into_pandas(api: httpx.AsyncClient) -> None:
    document = """mutation {
      createSynchronousQuery(metrics: [{name: "total_revenue"}], groupBy: [{name: "customer__location"}]) {
      rows encoded: jsonResult bare: jsonResult(encoded: false, orient: RECORDS) } }"""
    found = (await data(api, document))["createSynchronousQuery"]

    frame = pd.read_json(io.StringIO(base64.b64decode(found["encoded"]).decode()), orient="table")
    assert list(frame["customer__location"]) == [row["customer__location"] for row in found["rows"]]
    assert json.loads(found["bare"], parse_float=Decimal) == found["rows"]


LEAF = st.builds(
    lambda field, operator, texts: Comparison(
        field=field,
        operator=operator,
        values=tuple(
            texts[: 2 if operator is Operator.BETWEEN else 1]
            if operator not in (Operator.IS_NULL, Operator.IS_NOT_NULL)
            else ()
        ),
    ),
    st.sampled_from(["customer__location", "metric_time__month"]),
    st.sampled_from(list(Operator)),
    st.lists(st.text("ab'%_!{} \\", min_size=1, max_size=6), min_size=2, max_size=2),
)
TREE: st.SearchStrategy[Filter] = st.recursive(
    LEAF,
    lambda inner: (
        st.builds(Not, inner)
        | st.builds(AllOf, st.lists(inner, min_size=2, max_size=3).map(tuple))
        | st.builds(AnyOf, st.lists(inner, min_size=2, max_size=3).map(tuple))
    ),
    max_leaves=6,
)


@given(TREE)
@settings(max_examples=300, deadline=None)
def test_a_filter_that_is_shown_reads_back_as_the_same(tree: Filter) -> None:
    shown = filter_text(tree)
    read = parse_dbt_filter(shown).where
    assert read is not None
    assert parse_dbt_filter(filter_text(read)).where == read


@given(
    st.builds(
        Handle,
        query_id=st.just("0" * 32),
        kind=st.sampled_from(list(QueryType)),
        aliases=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
        saved_query=st.none() | st.text(max_size=20),
        reads_cache=st.booleans(),
    )
)
def test_a_handle_reads_back(handle: Handle) -> None:
    assert Handle.parse(str(handle)) == handle


@given(st.text() | st.binary().map(lambda content: "refused." + base64.urlsafe_b64encode(content).decode()))
def test_whatever_a_client_sends_for_a_handle_is_one_or_unknown(text: str) -> None:
    try:
        handle = Handle.parse(text)
    except UnknownName:
        return
    assert isinstance(handle.failure, Failure) or handle.query_id == text.partition(".")[0]


async def test_a_handle_of_somebody_else_or_of_nobody_is_unknown(api: httpx.AsyncClient) -> None:
    for text in ("", "0" * 32, "nonsense", "0" * 32 + ".!!", "refused.e30=", "a" * 30_000):
        assert code(await refusal(api, POLL, q=text)) == (404, "unknown_query")
        document = "mutation($q: String!) { cancelQuery(queryId: $q) { queryId } }"
        assert code(await refusal(api, document, q=text)) == (404, "unknown_query")


async def test_there_is_nothing_to_invalidate(api: httpx.AsyncClient) -> None:
    found = await data(api, "mutation { invalidateCache(environmentId: 1) { description invalidationCount } }")

    assert found["invalidateCache"]["invalidationCount"] == 0


async def test_a_query_that_is_cancelled_after_its_end_keeps_its_rows(api: httpx.AsyncClient) -> None:
    found = await created(api, m=[{"name": "line_count"}])
    document = "mutation($q: String!) { cancelQuery(queryId: $q) { queryId } }"

    assert (await data(api, document, q=found["queryId"]))["cancelQuery"] == {"queryId": found["queryId"]}
    assert (await polled(api, POLL, found["queryId"]))["rows"] == found["rows"]
