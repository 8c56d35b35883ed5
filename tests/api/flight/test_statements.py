"""Statements in the language of dbt's Semantic Layer: what REST answers to the same question, or a refusal."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from api.flight.calls import Named, parse_call
from tests.api.flight.flown import Flown

BY_MONTH = '{{ semantic_layer.query(metrics=["total_revenue"],group_by=["metric_time__month"]) }}'


async def rest_rows(flown: Flown, body: dict[str, Any], *, key: str | None = None) -> list[dict[str, Any]]:
    async with flown.rest(key) as client:
        response = await client.post("/v1/query", json=body, headers={"Accept": "application/vnd.apache.arrow.stream"})
    assert response.status_code == 200, response.text
    return pa.ipc.open_stream(response.content).read_all().to_pylist()


REVENUE_BY_MONTH = {"metrics": ["total_revenue"], "group_by": ["metric_time__month"]}
WOMEN = [{"field": "customer__gender", "op": "eq", "values": ["F"]}]

SAME = [
    ('metrics=["total_revenue"],group_by=["metric_time__month"]', REVENUE_BY_MONTH),
    ('metrics=["total_revenue"],group_by=[Dimension("metric_time").grain("month")]', REVENUE_BY_MONTH),
    ('metrics=["total_revenue"],group_by=[TimeDimension("metric_time", "MONTH")]', REVENUE_BY_MONTH),
    ('metrics=["total_revenue"],group_by=[TimeDimension("metric_time", "None")]',
     {"metrics": ["total_revenue"], "group_by": ["metric_time"]}),
    ('metrics=["total_revenue"],group_by=[Dimension("metric_time").date_part("month")]',
     {"metrics": ["total_revenue"], "group_by": ["metric_time__extract_month"]}),
    ('metrics=["total_revenue"],group_by=[Entity("product")],limit=5,order_by=[Metric("total_revenue").descending(True)]',
     {"metrics": ["total_revenue"], "group_by": ["product"], "limit": 5,
      "order_by": [{"field": "total_revenue", "descending": True}]}),
    ('metrics=["total_revenue"],group_by=["customer__location"],order_by=["-total_revenue"]',
     {"metrics": ["total_revenue"], "group_by": ["customer__location"],
      "order_by": [{"field": "total_revenue", "descending": True}]}),
    ('metrics=["total_revenue"],group_by=[Dimension("customer__location").grain("month")]',
     {"metrics": ["total_revenue"], "group_by": ["customer__location"]}),
    ('group_by=["metric_time__month"],metrics=["total_revenue"],where=["{{ Dimension(\'customer__gender\')}} = \'F\'"]',
     REVENUE_BY_MONTH | {"where": WOMEN}),
    ('metrics=["total_revenue"],group_by=["customer__location"],where="{{ Metric(\'total_revenue\') }} > 100000"',
     {"metrics": ["total_revenue"], "group_by": ["customer__location"],
      "having": [{"field": "total_revenue", "op": "gt", "values": [100000]}]}),
    ('metrics=[],group_by=["customer__location"]', {"group_by": ["customer__location"]}),
    ('saved_query="revenue_by_category",limit=3',
     {"metrics": ["total_revenue", "gross_revenue", "discount_rate", "units_sold"], "group_by": ["product__category"],
      "limit": 3}),
    ('metrics=["total_revenue"],read_cache=False', {"metrics": ["total_revenue"]}),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "body"), SAME, ids=[arguments[:90] for arguments, _ in SAME])
async def test_a_call_is_answered_as_the_same_question_over_rest(
    flown: Flown, arguments: str, body: dict[str, Any]
) -> None:
    table = await flown.table(f"{{{{ semantic_layer.query({arguments}) }}}}")

    assert table.to_pylist() == await rest_rows(flown, body)
    assert table.num_rows > 0


async def test_a_metric_is_shown_under_its_alias_and_filtered_under_its_name(flown: Flown) -> None:
    call = 'metrics=[Metric("total_revenue", alias="money")],group_by=["customer__location"]'
    where = "where=\"{{ Metric('total_revenue') }} > 0\""

    table = await flown.table(f"{{{{ semantic_layer.query({call},{where}) }}}}")

    assert table.column_names == ["customer__location", "money"]
    assert table.column("money").type.scale == 10


async def test_a_compiled_question_is_its_sql(flown: Flown) -> None:
    table = await flown.table('{{ semantic_layer.query(metrics=["total_revenue"], compile=True) }}')
    async with flown.rest() as client:
        compiled = (await client.post("/v1/query/compile", json={"metrics": ["total_revenue"]})).json()

    assert table.to_pylist() == [{"SQL": compiled["sql"]}]


async def test_values_of_a_dimension_are_those_of_rest(flown: Flown) -> None:
    table = await flown.table('{{ semantic_layer.dimension_values(group_by="customer__location",metrics=[]) }}')
    among = await flown.table(
        '{{ semantic_layer.dimension_values(group_by="product__category",metrics=["total_revenue"]) }}'
    )
    async with flown.rest() as client:
        listed = (await client.get("/v1/dimensions/customer__location/values")).json()["data"]
        listed_among = (
            await client.get("/v1/dimensions/product__category/values", params={"metrics": "total_revenue"})
        ).json()["data"]

    assert table.column("customer__location").to_pylist() == listed
    assert among.column(0).to_pylist() == listed_among


async def test_a_select_around_a_call_runs_over_its_rows(flown: Flown) -> None:
    inner = '{{ semantic_layer.query(metrics=["total_revenue"],group_by=["metric_time__month"]) }}'
    table = await flown.table(
        f"SELECT metric_time__month AS month, total_revenue FROM {inner} AS answer "
        "WHERE metric_time__month >= DATE '2019-06-01' ORDER BY total_revenue DESC LIMIT 2;"
    )

    rows = [row for row in await rest_rows(flown, REVENUE_BY_MONTH) if row["metric_time__month"].month >= 6]
    best = sorted(rows, key=lambda row: row["total_revenue"], reverse=True)[:2]
    assert [tuple(row.values()) for row in table.to_pylist()] == [tuple(row.values()) for row in best]
    assert table.column_names == ["month", "total_revenue"]


async def test_select_star_around_a_call_is_the_call(flown: Flown) -> None:
    assert await flown.table(f"SELECT * FROM {BY_MONTH}") == await flown.table(BY_MONTH)


@pytest.mark.parametrize(
    ("call", "columns"),
    [
        ("metrics()", ["NAME", "DESCRIPTION", "LABEL", "TYPE", "UNIT", "DIMENSIONS", "QUERYABLE_GRANULARITIES"]),
        ('metrics(search="revenue", page_size=2, page_number=1)', None),
        ('dimensions(metrics=["total_revenue"])', ["NAME", "DESCRIPTION", "LABEL", "TYPE", "QUERYABLE_GRANULARITIES"]),
        ('entities(metrics=["total_revenue"])', ["NAME", "DESCRIPTION", "LABEL"]),
        ('queryable_granularities(metrics=["total_revenue"])', ["NAME"]),
        ('metrics_for_dimensions(group_by=["customer__location"])', None),
        ('measures(metrics=["total_revenue"])', ["NAME", "AGG_TIME_DIMENSION", "AGG", "EXPR"]),
        ("saved_queries()", ["NAME", "DESCRIPTION", "LABEL", "METRICS", "GROUP_BY", "WHERE_FILTER"]),
    ],
)
async def test_what_there_is_is_listed(flown: Flown, call: str, columns: list[str] | None) -> None:
    table = await flown.table(f"SELECT * FROM {{{{ semantic_layer.{call} }}}}")

    assert table.num_rows > 0
    assert columns is None or table.column_names == columns


async def test_the_listed_metrics_are_those_of_rest(flown: Flown) -> None:
    listed = await flown.table("select NAME from {{ semantic_layer.metrics() }} order by name")
    joined = await flown.table("SELECT name FROM semantic_layer.dimensions(metrics=['marketing_spend'])")
    async with flown.rest() as client:
        metrics = (await client.get("/v1/metrics", params={"limit": 500})).json()["data"]
        common = (await client.get("/v1/dimensions", params={"metrics": "marketing_spend", "limit": 500})).json()[
            "data"
        ]

    assert listed.column(0).to_pylist() == sorted(metric["name"] for metric in metrics)
    assert joined.column(0).to_pylist() == sorted(each["name"] for each in common if each["kind"] != "entity")


async def test_a_misspelt_metric_is_refused_with_the_nearest_ones(flown: Flown) -> None:
    refusal = await flown.refusal('{{ semantic_layer.query(metrics=["total_revenu"]) }}')

    assert refusal.startswith("INVALID_ARGUMENT")
    assert "Did you mean total_revenue" in refusal
    assert "[unknown_metric]" in refusal
    assert "Traceback" not in refusal


HOSTILE = [
    "{{ 7*7 }}",
    "{{ semantic_layer.query(metrics=[x for x in (1,)]) }}",
    "{{ semantic_layer.query(metrics=[__import__('os').getcwd()]) }}",
    "{{ semantic_layer.query(**{'metrics': []}) }}",
    "{{ semantic_layer.__class__() }}",
    "{{ semantic_layer.query.__globals__ }}",
    "{{ semantic_layer.query(metrics=['total_revenue']) ~ 'x' }}",
    "{{ semantic_layer.query(metrics=[lambda: 1]) }}",
    "{{ semantic_layer.query(metrics=[f'{1}']) }}",
    "{% for i in range(9) %}x{% endfor %}",
    "SELECT * FROM {{ semantic_layer.metrics() }} JOIN {{ semantic_layer.metrics() }} ON 1=1",
    "SELECT * FROM {{ semantic_layer.metrics() }}; DROP TABLE x",
    "SELECT * FROM {{ semantic_layer.metrics() }} UNION SELECT 1",
    "SELECT (SELECT 1) FROM {{ semantic_layer.metrics() }}",
    "SELECT * FROM {{ semantic_layer.metrics() }}, read_csv('/etc/passwd')",
    "SELECT getenv('HOME') FROM {{ semantic_layer.metrics() }}",
    "SELECT * FROM {{ semantic_layer.metrics() }} WHERE NAME IN (SELECT 1)",
    "WITH a AS (SELECT 1) SELECT * FROM {{ semantic_layer.metrics() }}",
    "COPY (SELECT * FROM {{ semantic_layer.metrics() }}) TO 'x.csv'",
    "ATTACH 'x.db'",
    "SET threads = 4",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM query('SELECT 1')",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM marts.fct_sales",
    "SELECT * FROM information_schema.tables",
    "SELECT total_revenue FROM METRICS.ALL WHERE customer__location IN (SELECT location FROM marts.dim_customer)",
    "SELECT total_revenue FROM METRICS.ALL UNION ALL SELECT 1",
    "SELECT total_revenue FROM METRICS.ALL; SELECT 1",
    "SELECT total_revenue FROM METRICS.ALL, METRICS.ALL AS other",
    "SELECT total_revenue FROM METRICS.ALL TABLESAMPLE 10%",
    "SELECT total_revenue FROM (SELECT * FROM METRICS.ALL) AS x",
    "SELECT total_revenue FROM METRICS.ALL WHERE customer__location = 'a' OR lower(customer__location) = 'b'",
    "SELECT total_revenue FROM METRICS.ALL WHERE customer__location = ''' OR 1=1 --' OR sleep(1)",
    "DELETE FROM METRICS.ALL",
    ";",
    "x" * 60_000,
    "(" * 10_000,
    "SELECT total_revenue FROM METRICS.ALL WHERE " + "(" * 500 + "1=1" + ")" * 500,
    "{{ semantic_layer.query(metrics=" + "[" * 150 + "]" * 150 + ") }}",
    '{{ semantic_layer.query(metrics=["\\ud83d"]) }}',
]


@pytest.mark.parametrize("statement", HOSTILE, ids=[statement[:70] for statement in HOSTILE])
async def test_a_hostile_statement_is_refused_before_anything_runs(flown: Flown, statement: str) -> None:
    refusal = await flown.refusal(statement)

    assert refusal.startswith("INVALID_ARGUMENT"), refusal
    assert len(refusal) < 2_000


async def test_a_value_never_becomes_sql_or_template_text(flown: Flown) -> None:
    value = "{{ 7*7 }}' OR '1'='1"
    where = json.dumps("{{ Dimension('customer__location') }} = '" + value.replace("'", "''") + "'")

    table = await flown.table(f'{{{{ semantic_layer.query(metrics=["line_count"],where={where}) }}}}')

    assert table.column("line_count").to_pylist() in ([None], [Decimal(0)], [])


def test_a_text_beyond_16_bits_arrives_whole() -> None:
    text = "\N{ROCKET} ü"
    call = parse_call(f"semantic_layer.query(where={json.dumps(text)})")

    assert call.arguments == {"where": text}


def test_a_call_names_its_parts() -> None:
    call = parse_call(
        "semantic_layer.query(group_by=[Dimension('Name', entity_path=['a']).grain('MONTH').descending(True)])"
    )

    assert call.arguments == {"group_by": (Named(name="a__name", grain="month", is_descending=True),)}


async def test_measures_are_those_that_graphql_lists(flown: Flown) -> None:
    document = '{ measures(metrics: [{name: "average_order_value"}]) { name aggTimeDimension agg expr } }'
    async with flown.rest() as client:
        response = await client.post("/graphql", json={"query": document})
    listed = [tuple(item.values()) for item in response.json()["data"]["measures"]]

    table = await flown.table('{{ semantic_layer.measures(metrics=["average_order_value"]) }}')
    assert [tuple(row.values()) for row in table.to_pylist()] == listed
    assert len(listed) == 2
    everything = await flown.table("SELECT NAME FROM {{ semantic_layer.measures() }}")
    assert everything.num_rows > 10
