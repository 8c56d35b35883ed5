"""Plain SQL over the virtual tables, as BI tools send it: the answer of the metric request that it means."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.flight.flown import Flown
from tests.api.flight.test_statements import rest_rows

DESCENDING = [{"field": "total_revenue", "descending": True}]
BY_PLACE = {"metrics": ["total_revenue"], "group_by": ["customer__location"]}
BY_MONTH = {"metrics": ["total_revenue"], "group_by": ["metric_time__month"]}
WOMEN = {"field": "customer__gender", "op": "eq", "values": ["F"]}

SAME: list[tuple[str, dict[str, Any]]] = [
    ("SELECT customer_location, SUM(total_revenue) FROM ALL GROUP BY customer_location", BY_PLACE),
    ('SELECT "customer__location", AVG("total_revenue") AS x FROM "insight"."METRICS"."ALL" AS t GROUP BY 1', BY_PLACE),
    ("SELECT t.customer__location, t.total_revenue FROM METRICS.all t", BY_PLACE),
    (
        (
            "SELECT customer__location AS place, SUM(total_revenue) AS r FROM METRICS.ALL "
            "WHERE customer__gender = 'F' GROUP BY place ORDER BY r DESC LIMIT 3"
        ),
        BY_PLACE | {"where": [WOMEN], "order_by": DESCENDING, "limit": 3},
    ),
    ("SELECT DATE_TRUNC('month', metric_time) AS m, SUM(total_revenue) FROM ALL GROUP BY 1 ORDER BY 1",
     BY_MONTH | {"order_by": [{"field": "metric_time__month"}]}),
    ("SELECT CAST(metric_time AS DATE), SUM(total_revenue) FROM ALL GROUP BY 1 LIMIT 10 OFFSET 5",
     {"metrics": ["total_revenue"], "group_by": ["metric_time__day"], "limit": 10, "offset": 5}),
    ("SELECT EXTRACT(YEAR FROM metric_time) AS y, MONTH(metric_time), SUM(total_revenue) FROM ALL GROUP BY 1, 2",
     {"metrics": ["total_revenue"], "group_by": ["metric_time__extract_year", "metric_time__extract_month"]}),
    (
        (
            "SELECT metric_time__month, SUM(total_revenue) FROM ALL WHERE metric_time >= DATE '2019-03-01' "
            "AND metric_time < TIMESTAMP '2019-06-01 00:00:00' AND customer__location IN ('Chicago', 'California') "
            "AND NOT (product__category LIKE 'App%' OR product__category IS NULL) GROUP BY 1"
        ),
        BY_MONTH | {"where": [
            {"field": "metric_time", "op": "gte", "values": ["2019-03-01"]},
            {"field": "metric_time", "op": "lt", "values": ["2019-06-01"]},
            {"field": "customer__location", "op": "in", "values": ["Chicago", "California"]},
            {"not": {"any_of": [
                {"field": "product__category", "op": "starts_with", "values": ["App"]},
                {"field": "product__category", "op": "is_null"},
            ]}},
        ]},
    ),
    ("SELECT customer__location, SUM(total_revenue) FROM ALL GROUP BY 1 HAVING SUM(total_revenue) > 100000",
     BY_PLACE | {"having": [{"field": "total_revenue", "op": "gt", "values": [100000]}]}),
    ("SELECT customer__location, total_revenue FROM ALL WHERE total_revenue BETWEEN 1 AND 100000.5",
     BY_PLACE | {"having": [{"field": "total_revenue", "op": "between", "values": [1, 100000.5]}]}),
    ("SELECT DISTINCT customer__location FROM ALL ORDER BY 1",
     {"group_by": ["customer__location"], "order_by": [{"field": "customer__location"}]}),
    ("SELECT COUNT(DISTINCT transaction_count) FROM ALL", {"metrics": ["transaction_count"]}),
    ("SELECT * FROM METRICS.revenue_by_month",
     {"metrics": ["total_revenue", "net_revenue", "transaction_count", "average_order_value"],
      "group_by": ["metric_time__month"]}),
    ("SELECT metric_time, SUM(total_revenue) FROM REVENUE_BY_MONTH GROUP BY metric_time", BY_MONTH),
    ("SELECT SUM(total_revenue) FROM METRICS.revenue_by_month", {"metrics": ["total_revenue"]}),
    # Tableau writes its probe for rows so.
    ("SELECT SUM(total_revenue) FROM ALL HAVING (COUNT(1) > 0)", {"metrics": ["total_revenue"]}),
    ("SELECT SUM(total_revenue) FROM ALL HAVING COUNT(*) > 0 AND 1 = 1", {"metrics": ["total_revenue"]}),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "body"), SAME, ids=[sql[:80] for sql, _ in SAME])
async def test_sql_is_answered_as_the_question_that_it_means(flown: Flown, sql: str, body: dict[str, Any]) -> None:
    answered = (await flown.table(sql)).to_pylist()

    expected = await rest_rows(flown, body)
    assert [tuple(row.values()) for row in answered] == [tuple(row.values()) for row in expected]
    assert answered


async def test_constants_are_answered_as_tools_try_a_connection_with_them(flown: Flown) -> None:
    assert (await flown.table("SELECT 1")).to_pylist() == [{"1": 1}]
    assert (await flown.table("SELECT 1 AS one, 'text'")).to_pylist() == [{"one": 1, "text": "text"}]
    assert "[unsupported_statement]" in await flown.refusal("SELECT 1 + 1")
    assert "[unsupported_statement]" in await flown.refusal("SELECT version()")


async def test_columns_have_the_names_that_were_asked_for(flown: Flown) -> None:
    table = await flown.table(
        "SELECT SUM(total_revenue), customer_location, DATE_TRUNC('year', metric_time) AS \"Year\" "
        "FROM ALL GROUP BY 2, 3"
    )

    assert table.column_names == ["sum(total_revenue)", "customer_location", "Year"]


async def test_what_is_grouped_sorted_or_filtered_by_need_not_be_shown(flown: Flown) -> None:
    table = await flown.table(
        "SELECT SUM(total_revenue) AS r FROM ALL WHERE net_revenue > 0 GROUP BY customer__location ORDER BY line_count"
    )
    asked = BY_PLACE | {"metrics": ["total_revenue", "line_count"], "order_by": [{"field": "line_count"}]}

    assert table.column("r").to_pylist() == [row["total_revenue"] for row in await rest_rows(flown, asked)]


async def test_an_unknown_table_is_told_which_there_are(flown: Flown) -> None:
    for unknown in ("information_schema.tables", "revenue_by_mont"):
        refusal = await flown.refusal(f"SELECT * FROM {unknown}")
        assert all(name in refusal for name in ("ALL", "revenue_by_month", "segment_overview"))


@pytest.mark.parametrize("probe", ["LIMIT 0", "WHERE 1 = 0"])
async def test_a_probe_for_the_columns_has_no_rows(flown: Flown, probe: str) -> None:
    table = await flown.table(f"SELECT customer__location, total_revenue FROM ALL {probe}")

    assert (table.num_rows, table.column_names) == (0, ["customer__location", "total_revenue"])


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("SELECT * FROM ALL", "unsupported_statement"),
        ("SELECT total_revenu FROM ALL", "unknown_column"),
        ("SELECT DATE_TRUNC('month', invented) FROM ALL", "unknown_column"),
        ("SELECT total_revenue FROM invented", "unknown_table"),
        ("SELECT total_revenue FROM marts.ALL", "unknown_table"),
        ("SELECT units_sold FROM revenue_by_month", "unknown_column"),
        ("SELECT DATE_TRUNC('day', metric_time) FROM revenue_by_month", "unknown_column"),
        ("SELECT COUNT(*) FROM ALL", "unsupported_statement"),
        ("SELECT MIN(customer__location) FROM ALL", "unsupported_statement"),
        ("SELECT total_revenue + 1 FROM ALL", "unsupported_statement"),
        ("SELECT customer__location, SUM(total_revenue) FROM ALL GROUP BY product__category", "unsupported_statement"),
        ("SELECT customer__location FROM ALL GROUP BY ROLLUP (customer__location)", "unsupported_statement"),
        ("SELECT customer__location FROM ALL ORDER BY 1 NULLS FIRST", "unsupported_statement"),
        ("SELECT customer__location FROM ALL ORDER BY 7", "unsupported_statement"),
        ("SELECT customer__location FROM ALL LIMIT 10%", "unsupported_statement"),
        ("SELECT customer__location FROM ALL LIMIT 1 + 1", "unsupported_statement"),
        ("SELECT DISTINCT total_revenue FROM ALL GROUP BY customer__location", "unsupported_statement"),
        ("SELECT SUM(total_revenue) OVER () FROM ALL", "unsupported_statement"),
        ("SELECT total_revenue FROM ALL WHERE x.customer__location = 'a'", "unsupported_statement"),
        ("SELECT total_revenue FROM ALL WHERE customer__location = customer__gender", "unsupported_filter"),
        ("SELECT total_revenue FROM ALL WHERE customer__location ILIKE 'a%'", "unsupported_filter"),
        ("SELECT total_revenue FROM ALL WHERE customer__location = 'a' OR total_revenue > 1", "unsupported_filter"),
        ("SELECT marketing_spend, customer__location FROM ALL", "dimension_not_joinable"),
        ("SELECT total_revenue FROM ALL WHERE metric_time = 'soon'", "invalid_value"),
    ],
)
async def test_what_means_no_question_is_refused_with_a_code(flown: Flown, sql: str, code: str) -> None:
    refusal = await flown.refusal(sql)

    assert refusal.startswith("INVALID_ARGUMENT")
    assert f"[{code}]" in refusal


async def test_sql_and_a_call_and_rest_share_one_kept_answer(flown: Flown) -> None:
    body = {"metrics": ["net_revenue", "units_sold"], "group_by": ["product__category"], "limit": 7}
    await rest_rows(flown, body)
    call = 'metrics=["net_revenue","units_sold"],group_by=["product__category"],limit=7'
    async with flown.rest() as client:
        before = (await client.get("/metrics")).text
        await flown.table(f"{{{{ semantic_layer.query({call}) }}}}")
        await flown.table("SELECT product__category, net_revenue, units_sold FROM ALL LIMIT 7")
        after = (await client.get("/metrics")).text

    runs = 'insight_stage_seconds_count{stage="run"}'
    counted = [[line for line in text.splitlines() if line.startswith(runs)] for text in (before, after)]
    assert counted[0] == counted[1] != []
