"""What a query costs before it runs, and that one over its role's budget never does."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from api.cost import estimated_cost
from api.duckdb_engine import open_file
from api.warehouse import EngineLimits, Warehouse
from tests.api.principals import Client, Join, refusal, rows, serving
from tests.api.test_warehouse import LIMITS, RUNAWAY
from tests.conftest import Published

POLICY = """
version: 1
roles:
  admin: {metrics: ["*"], dimensions: ["*"], see_sql: true}
  frugal: {metrics: ["*"], dimensions: ["*"], see_sql: true, max_cost: 100_000}
"""

TOTAL = {"metrics": ["total_revenue"]}
RUNNING_TOTAL = {"metrics": ["cumulative_revenue"], "group_by": ["metric_time__day"]}


@pytest.fixture(scope="module")
def frugal(join: Join) -> Client:
    return join("frugal")


@pytest.fixture
def warehouse(synthetic: Published, tmp_path: Path) -> Iterator[Warehouse]:
    published = synthetic.settings.publication_dir / synthetic.version / "data.duckdb"
    opened = open_file(Path(shutil.copy(published, tmp_path)), limits=LIMITS)
    yield opened
    opened.close()


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every statement that runs from now on."""
    ran: list[str] = []
    query = Warehouse.query

    async def recorded(self: Warehouse, sql: str, parameters: Any) -> Any:
        ran.append(sql)
        return await query(self, sql, parameters)

    monkeypatch.setattr(Warehouse, "query", recorded)
    return ran


async def cost(client: Client, query: dict[str, Any]) -> int:
    response = await client.post("/v1/query/compile", json=query)
    assert response.status_code == 200, response.text
    return int(response.json()["cost"])


async def test_what_reads_joins_and_repeats_more_rows_costs_more(admin: Client) -> None:
    by_month = {"group_by": ["metric_time__month"]}
    costs = [
        await cost(admin, {"metrics": ["marketing_spend"]}),
        await cost(admin, TOTAL),
        await cost(admin, TOTAL | {"group_by": ["metric_time__month", "customer__gender"]}),
        await cost(admin, {"metrics": ["total_revenue", "customer_count", "product_count"]} | by_month),
        await cost(admin, {"metrics": ["revenue_trailing_7d"]} | by_month),
        await cost(admin, RUNNING_TOTAL),
    ]

    assert costs == sorted(costs)
    assert costs[1] > 2 * costs[0]
    assert costs[-1] > 10 * costs[3]


async def test_metrics_side_by_side_do_not_multiply(admin: Client) -> None:
    one = await cost(admin, {"metrics": ["average_order_value"], "group_by": ["calendar_date__day_name"]})
    metrics = ["total_revenue", "average_order_value", "customer_count", "product_count"]
    four = await cost(admin, {"metrics": metrics, "group_by": ["calendar_date__day_name"]})

    # The engine expects 10^11 rows of this one.
    assert one <= four < 8 * one


async def test_a_query_over_the_budget_is_refused_with_what_it_costs_and_never_runs(
    frugal: Client, statements: list[str]
) -> None:
    response = await frugal.post("/v1/query", json=RUNNING_TOTAL)

    assert refusal(response) == (422, "query_too_expensive")
    assert f"{await cost(frugal, RUNNING_TOTAL):,}" in response.json()["detail"]
    assert "100,000" in response.json()["detail"]
    assert "max_cost" in response.json()["hint"]
    assert statements == []


async def test_an_answer_that_somebody_else_paid_for_is_refused_all_the_same(admin: Client, frugal: Client) -> None:
    assert await rows(admin, RUNNING_TOTAL)
    assert refusal(await frugal.post("/v1/query", json=RUNNING_TOTAL)) == (422, "query_too_expensive")


async def test_an_answer_within_the_budget_says_what_it_was_estimated_to_cost(admin: Client, frugal: Client) -> None:
    answers = [await client.post("/v1/query", json=TOTAL) for client in (frugal, frugal, admin)]

    assert [answer.status_code for answer in answers] == [200] * 3
    spent = await cost(admin, TOTAL)
    assert [answer.json()["meta"]["cost"] for answer in answers] == [spent, spent, None]
    assert len({json.dumps(answer.json()["data"]) for answer in answers}) == 1


async def test_saved_queries_and_values_are_paid_from_the_same_budget(
    synthetic: Published, tmp_path: Path, statements: list[str]
) -> None:
    (tmp_path / "policy.yml").write_text(POLICY.replace("100_000", "10"))
    async with serving(synthetic, tmp_path / "policy.yml", tmp_path / "state.db") as join:
        poor = join("frugal")
        answers = [
            await poor.get("/v1/saved-queries/revenue_by_month/results"),
            await poor.get("/v1/dimensions/customer__location/values"),
            await poor.get("/v1/dimensions/customer__location/values", params={"metrics": "line_count", "search": "C"}),
        ]
        ran = list(statements)
        assert (await poor.get("/v1/metrics")).status_code == 200

    assert [refusal(answer) for answer in answers] == [(422, "query_too_expensive")] * 3
    assert ran == []


async def test_compiling_shows_the_cost_over_the_budget_too(frugal: Client) -> None:
    assert await cost(frugal, RUNNING_TOTAL) > 100_000


async def test_values_count_so_an_empty_range_does_not_speak_for_a_long_one(admin: Client, frugal: Client) -> None:
    def ranged(start: str, end: str) -> dict[str, Any]:
        return RUNNING_TOTAL | {"time_range": {"start": start, "end": end}}

    empty, long = ranged("2031-01-01", "2031-12-31"), ranged("2019-01-01", "2019-12-31")

    assert (await admin.post("/v1/query/compile", json=long)).json()["sql"] == (
        await admin.post("/v1/query/compile", json=empty)
    ).json()["sql"]
    assert await cost(frugal, empty) < await cost(frugal, long)
    assert (await frugal.post("/v1/query", json=long)).status_code == 422


async def test_the_same_query_is_estimated_once(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[str] = []
    monkeypatch.setattr(
        "api.duckdb_engine.estimated_cost", lambda plan, tables: plans.append(plan) or estimated_cost(plan, tables)
    )
    sql = "SELECT count(*) FROM marts.fct_sales WHERE transaction_date >= $since"

    values = [{"since": date(2019, 1, 1)}, {"since": date(2019, 6, 1)}, {"since": date(2019, 1, 1)}]
    costs = [await warehouse.estimate(sql, value) for value in values]

    assert costs[0] == costs[2] > 0
    assert len(plans) == 2


async def test_an_estimate_does_not_wait_for_the_queries_that_run(synthetic: Published, tmp_path: Path) -> None:
    published = synthetic.settings.publication_dir / synthetic.version / "data.duckdb"
    limits = EngineLimits(memory_mb=256, threads=2, connections=1, query_timeout=timedelta(seconds=30))
    warehouse = open_file(Path(shutil.copy(published, tmp_path)), limits=limits)
    running = asyncio.create_task(warehouse.query(RUNAWAY, {}))
    try:
        await asyncio.sleep(0.3)
        estimated = await asyncio.wait_for(warehouse.estimate("SELECT 1 FROM marts.fct_sales", {}), timeout=10)
        assert estimated > 0
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        warehouse.close()


def node(name: str, *children: Any, rows: int | None = None, **info: Any) -> dict[str, Any]:
    known = {} if rows is None else {"Estimated Cardinality": str(rows)}
    return {"name": name, "children": list(children), "extra_info": known | info}


def scan(rows: int) -> dict[str, Any]:
    return node("SEQ_SCAN", rows=rows, Table='"data".marts.sales')


TABLES = {"marts.sales": 1_000}
PLANS = {
    "a filtered table is read as a whole": (scan(200), 1_000),
    "nothing is read where nothing can match": (node("EMPTY_RESULT"), 0),
    "renaming costs nothing": (node("PROJECTION", scan(1_000), rows=1_000), 1_000),
    "each row that is grouped counts": (node("HASH_GROUP_BY", scan(200), rows=100), 1_200),
    "an operator that is not known sees its rows once": (node("NEW_THING", scan(200), rows=9), 1_200),
    "rows that a key joins are as many as the engine says": (
        node("HASH_JOIN", scan(200), scan(10), rows=300, Conditions="a = b"),
        2_000 + 210 + 300,
    ),
    "groups do not multiply": (
        node("HASH_JOIN", node("HASH_GROUP_BY", scan(200), rows=100), scan(10), rows=10**9, Conditions="a = b"),
        2_000 + 200 + 110 + 100,
    ),
    "pairs in an order are a third of all": (
        node("PIECEWISE_MERGE_JOIN", scan(300), scan(10), rows=5, Conditions="a <= b"),
        2_000 + 310 + 1_000,
    ),
    "and of two orders a ninth": (
        node("PIECEWISE_MERGE_JOIN", scan(300), scan(30), rows=5, Conditions=["a <= b", "a > c"]),
        2_000 + 330 + 1_000,
    ),
    "what is named once and read twice is made once": (
        node(
            "CTE",
            scan(200),
            node("UNION", node("CTE_SCAN", **{"CTE Index": "7"}), node("CTE_SCAN", **{"CTE Index": "7"})),
            **{"Table Index": "7"},
        ),
        1_000 + 200 + 200 + 400,
    ),
}


@pytest.mark.parametrize(("plan", "expected"), PLANS.values(), ids=[name.replace(" ", "_") for name in PLANS])
def test_of_a_plan(plan: dict[str, Any], expected: int) -> None:
    assert estimated_cost(json.dumps([plan]), TABLES) == expected
