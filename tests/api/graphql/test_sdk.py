"""dbt's own Python client, unchanged, against a running service: every method that goes over GraphQL, sync and async.

What its `query` and `dimension_values` do over Flight SQL is tested there; its GraphQL clients have a `query` of their
own. The asynchronous one needs aiohttp.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from decimal import Decimal
from typing import Any

import dbtsl.env
import pyarrow as pa
import pytest
from dbtsl import OrderByGroupBy, OrderByMetric, SemanticLayerClient
from dbtsl.api.graphql.client.sync import SyncGraphQLClient
from dbtsl.api.shared.query_params import GroupByParam, GroupByType
from dbtsl.error import AuthError, QueryFailedError
from dbtsl.models.environment import SqlEngine
from dbtsl.models.query import QueryStatus
from gql.transport.exceptions import TransportQueryError

from tests.server import Server

Ask = Callable[..., Any]

BY_MONTH = {
    "metrics": ["total_revenue", "line_count"],
    "group_by": [GroupByParam(name="metric_time", type=GroupByType.TIME_DIMENSION, grain="month")],
    "order_by": [OrderByMetric(name="total_revenue", descending=True)],
}


async def opened(kind: str, server: Server, key: str, stack: AsyncExitStack, *, environment_id: int = 1) -> Ask:
    """Calls a method of the client by its name, until the stack unwinds."""
    given = {"url_format": f"{server.url}/api/graphql", "lazy": False}
    session: Any
    if kind == "sync":
        session = stack.enter_context(SyncGraphQLClient("127.0.0.1", environment_id, key, **given).session())
    else:
        pytest.importorskip("aiohttp", reason="dbt's asynchronous client needs aiohttp: dbt-sl-sdk[async]")
        from dbtsl.api.graphql.client.asyncio import AsyncGraphQLClient

        client = AsyncGraphQLClient("127.0.0.1", environment_id, key, **given)
        session = await stack.enter_async_context(client.session())

    async def ask(method: str, **given: Any) -> Any:
        answer = getattr(session, method)(**given)
        return await answer if inspect.isawaitable(answer) else answer

    return ask


@pytest.fixture(scope="module")
def key(server: Server) -> str:
    """A key of the running service."""
    return server.key("sdk")


@pytest.fixture(scope="module", params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which of the two clients."""
    return str(request.param)


@pytest.fixture(scope="module")
async def ask(kind: str, server: Server, key: str) -> AsyncIterator[Ask]:
    """Either client with the key, as a function of a method's name."""
    async with AsyncExitStack() as stack:
        yield await opened(kind, server, key, stack)


@pytest.fixture
def rest(server: Server, key: str) -> dict[str, Decimal]:
    """Revenue by month, as REST answers it."""
    body = {"metrics": ["total_revenue"], "group_by": ["metric_time__month"]}
    with server.client(key) as client:
        rows = client.post("/v1/query", json=body).json(parse_float=Decimal)["data"]
    return {row["metric_time__month"]: row["total_revenue"] for row in rows}


@pytest.mark.filterwarnings("ignore:Since the introduction of custom time granularities:DeprecationWarning")
async def test_the_lists_of_the_first_metric_are_those_that_are_asked_for_by_themselves(ask: Ask) -> None:
    first = (await ask("metrics"))[0]

    assert first.dimensions == await ask("dimensions", metrics=[first.name])
    assert first.measures == await ask("measures", metrics=[first.name])
    assert first.entities == await ask("entities", metrics=[first.name])
    assert all((first.dimensions, first.measures, first.entities, first.queryable_time_granularities))


async def test_no_text_is_the_word_none(ask: Ask) -> None:
    for metric in await ask("metrics"):
        assert "None" not in [metric.label, metric.description]
        assert "None" not in [text for entity in metric.entities for text in (entity.role, entity.expr)]


async def test_the_dimensions_of_several_metrics_are_those_that_they_share(ask: Ask) -> None:
    async def names(*metrics: str) -> set[str]:
        return {item.name for item in await ask("dimensions", metrics=list(metrics))}

    both = await names("total_revenue", "marketing_spend")
    assert both == await names("total_revenue") & await names("marketing_spend")
    assert both < await names("total_revenue")


async def test_saved_queries_and_the_environment(ask: Ask) -> None:
    by_name = {item.name: item for item in await ask("saved_queries")}
    assert by_name.keys() == {"revenue_by_month", "revenue_by_category", "marketing_performance", "segment_overview"}
    (month,) = by_name["revenue_by_month"].query_params.group_by
    assert (month.name, month.time_granularity) == ("metric_time", "month")
    assert (await ask("environment_info")).dialect is SqlEngine.DUCKDB


async def test_a_query_answers_what_rest_answers(ask: Ask, rest: dict[str, Decimal]) -> None:
    table = await ask("query", **BY_MONTH)

    rows = table.to_pylist()
    assert {str(row["metric_time__month"]): row["total_revenue"] for row in rows} == rest
    assert [row["total_revenue"] for row in rows] == sorted(rest.values(), reverse=True)
    assert pa.types.is_decimal(table.schema.field("total_revenue").type)


async def test_a_query_of_many_rows_comes_page_by_page(ask: Ask) -> None:
    asked = {"metrics": ["total_revenue"], "group_by": ["transaction"], "limit": 2_500}
    query_id = await ask("create_query", **asked)
    whole = await ask("query", **asked)

    assert whole.num_rows == 2_500
    assert len(set(whole.column("transaction").to_pylist())) == 2_500
    while (page := await ask("get_query_result", query_id=query_id)).status is not QueryStatus.SUCCESSFUL:
        assert page.status in (QueryStatus.PENDING, QueryStatus.RUNNING)
        assert page.total_pages is None
        assert page.arrow_result is None
    assert page.total_pages == 3
    pages = [await ask("get_query_result", query_id=query_id, page_num=number) for number in (1, 2, 3)]
    assert [each.result_table.num_rows for each in pages] == [1_024, 1_024, 452]


async def test_a_query_without_rows_has_a_page_without_rows(ask: Ask) -> None:
    nowhere = "{{ Dimension('customer__location') }} = 'Nowhere'"
    table = await ask("query", metrics=["total_revenue"], group_by=["customer__location"], where=[nowhere])

    assert table.num_rows == 0
    assert table.column_names == ["customer__location", "total_revenue"]


@pytest.mark.parametrize(
    ("asked", "columns"),
    [
        ({"group_by": ["customer__location"]}, ["customer__location"]),
        ({"metrics": ["total_revenue"], "where": ["1=1"]}, ["total_revenue"]),
        (
            {"metrics": ["total_revenue"], "group_by": ["metric_time__month", "metric_time__year"]},
            ["metric_time__month", "metric_time__year", "total_revenue"],
        ),
        (
            {
                "metrics": ["total_revenue"],
                "group_by": [GroupByParam(name="customer__location", type=GroupByType.DIMENSION, grain="day")],
            },
            ["customer__location", "total_revenue"],
        ),
        (
            {
                "metrics": ["total_revenue"],
                "group_by": [GroupByParam(name="metric_time", type=GroupByType.TIME_DIMENSION, grain=None)],
            },
            ["metric_time__day", "total_revenue"],
        ),
        (
            {
                "metrics": ["total_revenue"],
                "group_by": [GroupByParam(name="metric_time", type=GroupByType.TIME_DIMENSION, grain="MONTH")],
                "order_by": [OrderByGroupBy(name="metric_time", grain=None, descending=True)],
            },
            ["metric_time__month", "total_revenue"],
        ),
        ({"metrics": ["total_revenue"], "group_by": ["product"], "limit": 3}, ["product", "total_revenue"]),
        (
            {"metrics": ["total_revenue"], "where": ["{{ Metric('total_revenue') }} > 1", "1 = 1"], "limit": 1},
            ["total_revenue"],
        ),
        ({"saved_query": "revenue_by_category", "limit": 2}, None),
    ],
    ids=[
        "group-by alone",
        "1=1",
        "two grains",
        "grain of no time",
        "no grain",
        "upper case",
        "entity",
        "having",
        "saved",
    ],
)
async def test_cases_that_surprise_servers(ask: Ask, asked: dict[str, object], columns: list[str] | None) -> None:
    table = await ask("query", **asked)

    assert table.num_rows >= 1
    assert columns is None or table.column_names == columns
    assert columns or table.num_rows == 2


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"metrics": ["total_revehue"]}, "Did you mean total_revenue"),
        ({"metrics": ["total_revenue"], "group_by": ["customer__locatoin"]}, "Did you mean customer__location"),
        ({"metrics": ["total_revenue"], "where": ["1=1) OR (1=1"]}, "Filters know"),
        ({"saved_query": "revenue_by_mont"}, "Did you mean revenue_by_month"),
    ],
    ids=["metric", "dimension", "filter", "saved query"],
)
async def test_a_refusal_is_told_when_the_client_polls(ask: Ask, asked: dict[str, object], told: str) -> None:
    with pytest.raises(QueryFailedError, match=told) as refused:
        await ask("query", **asked)
    assert str(refused.value.status) == "QueryStatus.FAILED"


async def test_compiled_sql_is_told_at_once_or_refused_at_once(ask: Ask) -> None:
    sql = await ask("compile_sql", metrics=["total_revenue"], group_by=["customer__location"], limit=7)
    assert "SELECT" in sql
    with pytest.raises(TransportQueryError, match="Did you mean total_revenue"):
        await ask("compile_sql", metrics=["total_revehue"])


async def test_a_query_is_cancelled(ask: Ask) -> None:
    query_id = await ask("create_query", metrics=["total_revenue"])

    for _ in range(2):  # again and again, if need be
        assert await ask("cancel_query", query_id=query_id) == query_id
    result = await ask("get_query_result", query_id=query_id)
    assert result.status in (QueryStatus.SUCCESSFUL, QueryStatus.FAILED)


async def test_a_wrong_token_is_an_error_of_authentication(kind: str, server: Server) -> None:
    async with AsyncExitStack() as stack:
        stranger = await opened(kind, server, "wrong", stack)
        with pytest.raises(AuthError):
            await stranger("metrics")


async def test_another_environment_is_named_in_its_refusal(kind: str, server: Server, key: str) -> None:
    async with AsyncExitStack() as stack:
        lost = await opened(kind, server, key, stack, environment_id=4711)
        with pytest.raises(TransportQueryError, match="4711"):
            await lost("metrics")


@pytest.mark.filterwarnings("ignore:Cannot disable autocommit")
@pytest.mark.filterwarnings("ignore:Since the introduction of custom time granularities:DeprecationWarning")
def test_the_whole_client_reads_what_there_is_with_one_setting(
    server: Server, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The SDK reads DBT_SL_GRAPHQL_URL_FORMAT into this when it is imported.
    monkeypatch.setattr(dbtsl.env, "GRAPHQL_URL_FORMAT", f"http://{{server_host}}:{server.port}/api/graphql")
    # Nobody listens for Flight here, which the client finds out when it first needs it.
    monkeypatch.setattr(dbtsl.env, "ADBC_URL_FORMAT", "grpc://{server_host}:9")
    client = SemanticLayerClient(environment_id=1, auth_token=key, host="127.0.0.1", lazy=True)
    with client.session():
        metric = client.metrics()[0]
        assert metric.dimensions == []
        assert metric.load_dimensions() == client.dimensions(metrics=[metric.name])
