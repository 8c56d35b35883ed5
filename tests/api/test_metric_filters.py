"""Filters on the value that a metric has for each of an entity, against SQL over the raw tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.served import Body, Served, answer

# What is counted for each entity, and which column of a line is its key; over all of the data, whatever is asked.
METRICS = {
    "total_revenue": "sum(total)",
    "line_count": "count(*)",
    "transaction_count": "count(distinct transaction_id)",
    "average_order_value": "sum(total)::double / count(distinct transaction_id)",
    "discount_rate": "sum(discount)::double / nullif(sum(gross), 0)",
    "units_sold": "sum(quantity)",
}
ENTITIES = {
    "customer": "customer_id",
    "product": "product_sku",
    "transaction": "transaction_id",
    "calendar_date": "day",
}
OPERATORS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<=", "eq": "=", "ne": "<>"}


def by_metric(metric: str, entity: str, op: str, *values: float) -> Body:
    return {"metric": metric, "per": [entity], "op": op, "values": values}


def those(metric: str, entity: str, condition: str) -> str:
    """The lines of the entities for which the metric is so."""
    key = ENTITIES[entity]
    return f"{key} in (select {key} from line group by {key} having {METRICS[metric]} {condition})"


BIG, MANY = by_metric("total_revenue", "customer", "gt", 1500.5), by_metric("line_count", "product", "gte", 40)
BIG_SQL, MANY_SQL = those("total_revenue", "customer", "> 1500.5"), those("line_count", "product", ">= 40")
USED = {"field": "sale__coupon_status", "op": "eq", "values": ["Used"]}

CASES: tuple[tuple[str, list[object], str], ...] = (
    ("a sum per customer", [BIG], BIG_SQL),
    ("a count per product", [MANY], MANY_SQL),
    (
        "a distinct count",
        [by_metric("transaction_count", "customer", "eq", 1)],
        those("transaction_count", "customer", "= 1"),
    ),
    (
        "a ratio",
        [by_metric("average_order_value", "customer", "lt", 120.25)],
        those("average_order_value", "customer", "< 120.25"),
    ),
    (
        "a ratio, some null",
        [by_metric("discount_rate", "product", "gt", 0.05)],
        those("discount_rate", "product", "> 0.05"),
    ),
    (
        "per transaction",
        [by_metric("line_count", "transaction", "between", 2, 3)],
        those("line_count", "transaction", "between 2 and 3"),
    ),
    (
        "per day",
        [by_metric("average_order_value", "calendar_date", "lte", 200)],
        those("average_order_value", "calendar_date", "<= 200"),
    ),
    (
        "one of several",
        [by_metric("line_count", "customer", "in", 3, 4, 5)],
        those("line_count", "customer", "in (3, 4, 5)"),
    ),
    (
        "none of several",
        [by_metric("line_count", "customer", "not_in", 3, 4)],
        those("line_count", "customer", "not in (3, 4)"),
    ),
    ("two together", [BIG, MANY], f"{BIG_SQL} and {MANY_SQL}"),
    ("two under one or", [{"any_of": [BIG, MANY]}], f"({BIG_SQL} or {MANY_SQL})"),
    ("not one", [{"not": BIG}], f"not {BIG_SQL}"),
    (
        "the same metric twice",
        [by_metric("total_revenue", "customer", "gt", 300), by_metric("total_revenue", "product", "gt", 300)],
        f"{those('total_revenue', 'customer', '> 300')} and {those('total_revenue', 'product', '> 300')}",
    ),
    (
        "a dimension of the line beside it, which does not reach it",
        [USED, by_metric("line_count", "customer", "gt", 10)],
        f"coupon_status = 'Used' and {those('line_count', 'customer', '> 10')}",
    ),
    (
        "a dimension of the customer beside it, under one or",
        [{"any_of": [{"field": "customer__gender", "op": "eq", "values": ["F"]}, BIG]}],
        f"(gender = 'F' or {BIG_SQL})",
    ),
    ("as dbt writes it", ["{{ Metric('total_revenue', ['customer']) }} > 1500.5"], BIG_SQL),
    ("as dbt writes it by name", ["{{ Metric('total_revenue', group_by=['customer']) }} > 1500.5"], BIG_SQL),
    (
        "as dbt writes it, under one or with a dimension",
        ["({{ Metric('line_count', ('product',)) }} >= 40 OR {{ Dimension('sale__coupon_status') }} = 'Used')"],
        f"({MANY_SQL} or coupon_status = 'Used')",
    ),
    (
        "as dbt writes it, with NOT and BETWEEN",
        ["NOT {{ Metric('line_count', ['transaction']) }} BETWEEN 2 AND 3"],
        f"not {those('line_count', 'transaction', 'between 2 and 3')}",
    ),
)


async def agrees(served: Served, where: list[object], condition: str) -> None:
    body = {"metrics": ["total_revenue", "customer_count"], "group_by": ["customer__location"], "where": where}
    selected = "select location, sum(total), count(distinct customer_id) from line"
    for time_range, within in (
        ({}, "true"),
        ({"time_range": {"start": "2019-06-01", "end": "2019-09-15"}}, "day between '2019-06-01' and '2019-09-15'"),
    ):
        found = (await answer(served, body | time_range))["data"]

        expected = served.raw.sql(f"{selected} where ({condition}) and {within} group by all order by 1").fetchall()
        everything = served.raw.sql(f"{selected} where {within} group by all order by 1").fetchall()
        assert [tuple(row.values()) for row in found] == expected
        assert expected
        assert expected != everything


@pytest.mark.parametrize(("where", "condition"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
async def test_a_metric_filters_the_rows_of_an_entity(two: Served, where: list[object], condition: str) -> None:
    await agrees(two, where, condition)


@pytest.mark.parametrize(("where", "condition"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
async def test_a_metric_filters_real_rows(one: Served, where: list[object], condition: str) -> None:
    await agrees(one, where, condition)


async def test_the_range_reaches_what_is_asked_and_not_what_filters(two: Served) -> None:
    body = {"metrics": ["line_count"], "where": [by_metric("line_count", "customer", "gte", 12)]}
    may = {"time_range": {"start": "2019-05-01", "end": "2019-05-31"}}
    (found,) = (await answer(two, body | may))["data"]

    inner = "select customer_id from line where {} group by 1 having count(*) >= 12"
    outer = "select count(*) from line where month(day) = 5 and year(day) = 2019 and customer_id in ({})"
    over_all, over_may = (
        two.raw.sql(outer.format(inner.format(days))).fetchall()[0][0]
        for days in ("true", "month(day) = 5 and year(day) = 2019")
    )
    assert found["line_count"] == over_all != over_may


async def test_metrics_of_other_models_are_filtered_through_the_entity(two: Served) -> None:
    body = {"metrics": ["new_customers", "total_revenue"], "group_by": ["customer__gender"], "where": [BIG]}
    found = (await answer(two, body))["data"]

    expected = two.raw.sql(
        f"""
        select gender, count(distinct customer_id), sum(total) from line where {BIG_SQL} group by all order by all"""
    ).fetchall()
    assert [tuple(row.values()) for row in found] == expected


async def test_days_are_filtered_by_a_metric_of_another_model(two: Served) -> None:
    body = {"metrics": ["total_revenue"], "where": [by_metric("marketing_spend", "calendar_date", "gt", 5000)]}
    (found,) = (await answer(two, body))["data"]

    dear = "select day from spend group by 1 having sum(online + offline) > 5000"
    assert found["total_revenue"] == two.raw.sql(f"select sum(total) from line where day in ({dear})").fetchall()[0][0]


async def test_values_are_listed_by_a_metric_and_what_has_none_of_it_is_null(two: Served) -> None:
    group_by = {"group_by": ["customer"], "limit": 50_000}
    bought = await answer(two, group_by | {"where": [by_metric("line_count", "customer", "is_not_null")]})
    never = await answer(two, group_by | {"where": [by_metric("line_count", "customer", "is_null")]})
    big = await answer(two, group_by | {"where": [BIG]})

    expected = two.raw.sql("select distinct customer_id from line order by 1").fetchall()
    assert [(row["customer"],) for row in bought["data"]] == expected
    assert not {row["customer"] for row in never["data"]} & {row["customer"] for row in bought["data"]}
    sql = f"select distinct customer_id from line where {BIG_SQL} order by 1"
    assert [(row["customer"],) for row in big["data"]] == two.raw.sql(sql).fetchall()


async def test_it_holds_in_both_halves_of_a_comparison(two: Served) -> None:
    body = {"metrics": ["total_revenue"], "where": [BIG], "compare_to": "previous_period"}
    (found,) = (await answer(two, body | {"time_range": {"start": "2019-03-01", "end": "2019-03-31"}}))["data"]

    march, february = (
        two.raw.sql(
            f"select sum(total) from line where {BIG_SQL} and month(day) = {month} and year(day) = 2019"
        ).fetchall()[0][0]
        for month in (3, 2)
    )
    assert (found["total_revenue"], found["total_revenue__previous"]) == (march, february)


async def test_values_are_bound_and_one_plan_serves_them_all(two: Served) -> None:
    body = {"metrics": ["line_count"], "group_by": ["customer__gender"]}
    made, again = [
        (
            await two.api.post(
                "/v1/query/compile", json=body | {"where": [by_metric("units_sold", "customer", "gt", value)]}
            )
        ).json()
        for value in (987654.5, 1)
    ]

    assert "987654" not in made["sql"]
    assert 987654.5 in made["parameters"].values()
    assert (again["plan"], again["sql"]) == ("hit", made["sql"])


PLAIN: Body = {"metrics": ["line_count"]}


@pytest.mark.parametrize(
    ("body", "status", "code", "says"),
    [
        ({"where": [by_metric("total_revenu", "customer", "gt", 1)]}, 404, "unknown_metric", "total_revenue"),
        ({"where": [by_metric("customer__gender", "customer", "gt", 1)]}, 404, "unknown_metric", ""),
        ({"where": [by_metric("total_revenue", "custmer", "gt", 1)]}, 404, "unknown_dimension", "customer"),
        ({"where": [by_metric("total_revenue", "customer__gender", "gt", 1)]}, 422, "invalid_metric_filter", "product"),
        ({"where": [by_metric("total_revenue", "metric_time", "gt", 1)]}, 422, "invalid_metric_filter", "customer"),
        ({"where": [by_metric("total_revenue", "news", "gt", 1)]}, 422, "invalid_metric_filter", "customer"),
        (
            {"where": [by_metric("coupon_conversion_rate", "product", "gt", 1)]},
            422,
            "invalid_metric_filter",
            "customer",
        ),
        (
            {"where": [by_metric("total_revenue", "customer", "gt", 1) | {"per": ["customer", "product"]}]},
            422,
            "invalid_metric_filter",
            "one entity",
        ),
        ({"where": [by_metric("total_revenue", "customer", "gt", 1) | {"per": []}]}, 422, "malformed_request", "per"),
        ({"where": [by_metric("revenue_mtd", "customer", "gt", 1)]}, 422, "metric_time_required", "over time"),
        ({"where": [by_metric("revenue_growth_mom", "customer", "gt", 1)]}, 422, "metric_time_required", "over time"),
        (
            {"metrics": ["news_count"], "where": [by_metric("total_revenue", "customer", "gt", 1)]},
            422,
            "dimension_not_joinable",
            "customer",
        ),
        ({"where": [by_metric("total_revenue", "customer", "gt")]}, 422, "invalid_value_count", "one value"),
        ({"where": [by_metric("total_revenue", "customer", "contains", 1)]}, 422, "invalid_operator", ""),
        (
            {"where": [{"metric": "total_revenue", "per": ["customer"], "op": "gt", "values": ["1"]}]},
            422,
            "malformed_request",
            "",
        ),
        ({"where": [{"metric": "total_revenue", "op": "gt", "values": [1]}]}, 422, "malformed_request", "per"),
        ({"where": [BIG | {"field": "customer"}]}, 422, "malformed_request", "field"),
        ({"having": [by_metric("line_count", "customer", "gt", 1)]}, 422, "invalid_having", "where"),
        ({"where": [BIG] * 10}, 422, "query_too_complex", "metrics"),
        ({"where": ["{{ Metric('total_revenue', []) }} > 1"]}, 422, "unsupported_filter", "group_by"),
        (
            {"where": ["{{ Metric('total_revenue', ['customer', 'product']) }} > 1"]},
            422,
            "invalid_metric_filter",
            "one entity",
        ),
        ({"where": ["{{ Metric('total_revenue', ['customer']) }} > 'x'"]}, 422, "invalid_value", "99.95"),
        ({"where": ["{{ Metric('total_revenue', ['customer']) }}"]}, 422, "invalid_value", "99.95"),
    ],
    ids=str,
)
async def test_what_is_no_metric_filter_is_refused_with_a_hint(
    two: Served, body: Body, status: int, code: str, says: str
) -> None:
    response = await two.api.post("/v1/query", json=PLAIN | body)

    assert response.status_code == status, response.text
    problem = response.json()
    assert problem["code"] == code
    assert says in problem["hint"] + problem["detail"]


# Who may

POLICY = """
version: 1
roles:
  admin: {metrics: ["*"], dimensions: ["*"], see_sql: true}
  chicago:
    metrics: ["*"]
    dimensions: ["*"]
    see_sql: true
    rows: [{field: customer__location, op: eq, values: [Chicago]}]
  narrow:
    metrics: [line_count, units_sold]
    dimensions: [metric_time, "customer__*", product]
  viewer: {metrics: ["*"], dimensions: ["*"], hashed: [customer]}
"""


@pytest.mark.parametrize(
    "where",
    [BIG, {"not": BIG}, {"any_of": [USED, {"all_of": [BIG]}]}, "{{ Metric('line_count', ['product']) }} > 3"],
    ids=str,
)
async def test_a_role_with_row_filters_may_not_filter_by_metrics(roles: Mapping[str, Served], where: object) -> None:
    """MetricFlow does not filter the metric of a filter, so it would tell of rows that the role must not see."""
    for path in ("/v1/query", "/v1/query/compile"):
        response = await roles["chicago"].api.post(path, json=PLAIN | {"where": [where]})
        assert (response.status_code, response.json()["code"]) == (403, "metric_filter_forbidden")
        assert "having" in response.json()["hint"]
    assert (await roles["chicago"].api.post("/v1/query", json=PLAIN)).status_code == 200


async def test_names_that_a_role_does_not_see_are_unknown_in_metric_filters(roles: Mapping[str, Served]) -> None:
    narrow = roles["narrow"].api
    hidden = await narrow.post("/v1/query", json=PLAIN | {"where": [BIG]})
    entity = await narrow.post("/v1/query", json=PLAIN | {"where": [by_metric("units_sold", "customer", "gt", 1)]})
    seen = await narrow.post("/v1/query", json=PLAIN | {"where": [by_metric("units_sold", "product", "gt", 1)]})
    listed = await narrow.post("/v1/query", json=PLAIN | {"where": [by_metric("units_sold", "metric_time", "gt", 1)]})

    assert (hidden.status_code, hidden.json()["code"]) == (404, "unknown_metric")
    assert "revenue" not in hidden.text.replace(BIG["metric"], "")
    assert (entity.status_code, entity.json()["code"]) == (404, "unknown_dimension")
    assert seen.status_code == 200
    assert listed.json()["hint"] == "Name one of: product."


async def test_a_hashed_entity_may_be_counted_per_as_it_may_be_grouped_by(roles: Mapping[str, Served]) -> None:
    body = PLAIN | {"where": [BIG], "group_by": ["customer__gender"]}

    assert (await answer(roles["viewer"], body))["data"] == (await answer(roles["admin"], body))["data"]


# Drawn


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    metric=st.sampled_from(list(METRICS)),
    entity=st.sampled_from(list(ENTITIES)),
    op=st.sampled_from(list(OPERATORS)),
    data=st.data(),
)
async def test_any_metric_per_any_entity_agrees_with_sql(
    two: Served, metric: str, entity: str, op: str, data: st.DataObject
) -> None:
    key = ENTITIES[entity]
    known = two.raw.sql(f"select {METRICS[metric]} from line group by {key}").fetchall()
    threshold: Any = data.draw(st.sampled_from(sorted({row[0] for row in known if row[0] is not None})))
    shown = json.loads(json.dumps(threshold, default=float))
    body = {
        "metrics": ["line_count"],
        "group_by": ["product__category"],
        "where": [by_metric(metric, entity, op, shown)],
    }

    found = (await answer(two, body))["data"]

    condition = those(metric, entity, f"{OPERATORS[op]} {Decimal(repr(shown)) if isinstance(shown, float) else shown}")
    sql = f"select product_category, count(*) from line where {condition} group by all order by 1"
    assert [tuple(row.values()) for row in found] == two.raw.sql(sql).fetchall()
