"""Asking over REST: what is answered, against SQL written by hand over the raw tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from itertools import pairwise
from typing import Any

import duckdb
import httpx
import pytest

from tests.conftest import Published

GRAINS = ("day", "week", "month", "quarter", "year")

Body = dict[str, Any]


@pytest.fixture(scope="module")
def raw(synthetic: Published) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(synthetic.warehouse, read_only=True) as connection:
        yield connection


async def rows(api: httpx.AsyncClient, body: Body) -> list[Body]:
    return list((await answer(api, body))["data"])


async def answer(api: httpx.AsyncClient, body: Body) -> Body:
    response = await api.post("/v1/query", json=body)
    assert response.status_code == 200, response.text
    parsed: Body = json.loads(response.content, parse_float=Decimal)
    return parsed


def filtered(*where: Body, metrics: tuple[str, ...] = ("line_count",), **more: Any) -> Body:
    return {"metrics": metrics, "where": where, **more}


def compare(field: str, op: str, *values: object) -> Body:
    return {"field": field, "op": op, "values": values}


async def test_a_metric_without_a_group_by_is_one_row(api: httpx.AsyncClient, synthetic: Published) -> None:
    response = await api.post("/v1/query", json={"metrics": ["line_count"]})

    assert response.status_code == 200
    lines = len((synthetic.data / "Online_Sales.csv").read_text().splitlines()) - 1
    assert response.json()["data"] == [{"line_count": lines}]


@pytest.mark.parametrize("grain", GRAINS)
async def test_a_group_by_works_at_every_grain(
    api: httpx.AsyncClient, raw: duckdb.DuckDBPyConnection, grain: str
) -> None:
    got = await rows(api, {"metrics": ["units_sold"], "group_by": [f"metric_time__{grain}"]})

    sql = f"SELECT date_trunc('{grain}', transaction_date)::date, sum(quantity) FROM raw.online_sales GROUP BY 1"
    assert [(row[f"metric_time__{grain}"], row["units_sold"]) for row in got] == [
        (day.isoformat(), units) for day, units in raw.sql(f"{sql} ORDER BY 1").fetchall()
    ]


async def test_several_grains_stand_side_by_side(api: httpx.AsyncClient, raw: duckdb.DuckDBPyConnection) -> None:
    body = {"metrics": ["line_count"], "group_by": ["metric_time__quarter", "metric_time__month", "customer__gender"]}
    got = await rows(api, body)

    expected = raw.sql(
        "SELECT date_trunc('quarter', s.transaction_date)::date, date_trunc('month', s.transaction_date)::date, "
        "c.gender, count(*) FROM raw.online_sales s JOIN raw.customers c USING (customer_id) GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    assert [tuple(row.values()) for row in got] == [
        (quarter.isoformat(), month.isoformat(), gender, lines) for quarter, month, gender, lines in expected
    ]


async def test_an_entity_groups_by_its_key(api: httpx.AsyncClient, raw: duckdb.DuckDBPyConnection) -> None:
    got = await rows(api, {"metrics": ["gross_revenue"], "group_by": ["customer"]})

    sql = "SELECT customer_id, sum(quantity * avg_price) FROM raw.online_sales GROUP BY 1 ORDER BY 1"
    assert [(row["customer"], row["gross_revenue"]) for row in got] == raw.sql(sql).fetchall()


async def test_group_bys_without_metrics_are_their_distinct_values(
    api: httpx.AsyncClient, raw: duckdb.DuckDBPyConnection
) -> None:
    got = await rows(api, {"group_by": ["customer__location", "customer__gender"]})

    expected = raw.sql("SELECT DISTINCT location, gender FROM raw.customers ORDER BY ALL").fetchall()
    assert [tuple(row.values()) for row in got] == expected


async def test_columns_come_in_the_order_that_was_asked_for(api: httpx.AsyncClient) -> None:
    got = await answer(
        api,
        {"metrics": ["units_sold", "line_count"], "group_by": ["product__category", "metric_time"], "limit": 1},
    )

    names = ["product__category", "metric_time__day", "units_sold", "line_count"]
    assert list(got["data"][0]) == names
    assert [(column["name"], column["kind"], column["type"], column["grain"]) for column in got["columns"]] == [
        ("product__category", "categorical", "string", None),
        ("metric_time__day", "time", "date", "day"),
        ("units_sold", "metric", "integer", None),
        ("line_count", "metric", "integer", None),
    ]


async def test_decimals_are_exact_json_numbers(api: httpx.AsyncClient, raw: duckdb.DuckDBPyConnection) -> None:
    metrics = ["gross_revenue", "discount_amount", "net_revenue", "tax_amount"]
    got = await rows(api, {"metrics": metrics, "group_by": ["product__category"]})

    expected = raw.sql(
        """
        WITH lines AS (
          SELECT s.product_category, s.quantity * s.avg_price AS gross, t.gst,
            CASE WHEN s.coupon_status = 'Used' THEN coalesce(d.discount_pct, 0) ELSE 0 END AS pct
          FROM raw.online_sales s
          LEFT JOIN raw.discount_coupons d
            ON d.product_category = s.product_category AND d.coupon_month = month(s.transaction_date)
          LEFT JOIN raw.tax_amounts t ON t.product_category = s.product_category
        )
        SELECT product_category, sum(gross) AS gross, sum(gross * pct) AS hundredfold,
          sum(gross * 100 - gross * pct) AS net, sum((gross * 100 - gross * pct) * gst) AS tax
        FROM lines GROUP BY 1 ORDER BY 1
        """
    ).fetchall()
    assert [tuple(row.values()) for row in got] == [
        (name, gross, discount / 100, net / 100, tax / 100) for name, gross, discount, net, tax in expected
    ]
    assert any(isinstance(row["tax_amount"], Decimal) and row["tax_amount"].as_tuple().exponent < -4 for row in got)


async def test_booleans_are_booleans(api: httpx.AsyncClient, raw: duckdb.DuckDBPyConnection) -> None:
    got = await rows(api, {"metrics": ["line_count"], "group_by": ["calendar_date__is_weekend"]})

    sql = "SELECT isodow(transaction_date) > 5, count(*) FROM raw.online_sales GROUP BY 1 ORDER BY 1"
    assert [tuple(row.values()) for row in got] == raw.sql(sql).fetchall()
    assert [row["calendar_date__is_weekend"] for row in got] == [False, True]


async def test_a_null_is_null_and_comes_last_either_way(api: httpx.AsyncClient) -> None:
    for descending in (False, True):
        order = [{"field": "sale__coupon_code", "descending": descending}]
        got = await rows(api, {"metrics": ["line_count"], "group_by": ["sale__coupon_code"], "order_by": order})
        codes = [row["sale__coupon_code"] for row in got]
        assert codes[-1] is None
        assert codes[:-1] == sorted(codes[:-1], reverse=descending)
        assert None not in codes[:-1]


async def test_a_metric_that_is_null_comes_last_either_way(api: httpx.AsyncClient) -> None:
    for descending in (False, True):
        order = [{"field": "revenue_growth_mom", "descending": descending}]
        body = {"metrics": ["revenue_growth_mom"], "group_by": ["metric_time__month"], "order_by": order}
        growth = [row["revenue_growth_mom"] for row in await rows(api, body)]
        assert growth[-1] is None
        assert growth[:-1] == sorted(growth[:-1], reverse=descending)


# Each filter beside the SQL that means the same over a sale's line and its customer.
LINE = "raw.online_sales s JOIN raw.customers c USING (customer_id)"
FILTERS: tuple[tuple[Body, str], ...] = (
    (compare("customer__gender", "eq", "F"), "gender = 'F'"),
    (compare("customer__gender", "ne", "F"), "gender <> 'F'"),
    (compare("customer__location", "lt", "Chicago"), "location < 'Chicago'"),
    (compare("customer__location", "gte", "New Jersey"), "location >= 'New Jersey'"),
    (compare("customer__tenure_months", "lte", 12), "tenure_months <= 12"),
    (compare("customer__tenure_months", "gt", 40), "tenure_months > 40"),
    (compare("customer__tenure_months", "between", 10, 20), "tenure_months BETWEEN 10 AND 20"),
    (compare("customer__tenure_months", "in", 7, 8, 9), "tenure_months IN (7, 8, 9)"),
    (compare("customer__tenure_months", "not_in", 7, 8, 9), "tenure_months NOT IN (7, 8, 9)"),
    (compare("product__description", "contains", "Google"), "contains(product_description, 'Google')"),
    (compare("product__category", "starts_with", "Nest"), "starts_with(product_category, 'Nest')"),
    (compare("product__category", "ends_with", "s"), "suffix(product_category, 's')"),
    ({"field": "calendar_date__is_weekend", "op": "eq", "values": [True]}, "isodow(transaction_date) > 5"),
    ({"field": "calendar_date__is_weekend", "op": "in", "values": [True, False]}, "true"),
    (compare("metric_time__day", "eq", "2019-03-05"), "transaction_date = '2019-03-05'"),
    (compare("metric_time__month", "in", "2019-02-01", "2019-05-01"), "month(transaction_date) IN (2, 5)"),
    (compare("metric_time__week", "lt", "2019-02-04"), "transaction_date < '2019-02-04'"),
    (compare("sale__transaction_date__quarter", "gte", "2019-07-01"), "transaction_date >= '2019-07-01'"),
    (compare("transaction", "gt", 40_000), "transaction_id > 40000"),
    (compare("customer__gender", "is_null"), "gender IS NULL"),
    (compare("customer__gender", "is_not_null"), "gender IS NOT NULL"),
    (
        {"any_of": [compare("customer__gender", "eq", "F"), compare("sale__coupon_status", "eq", "Used")]},
        "gender = 'F' OR coupon_status = 'Used'",
    ),
    (
        {"all_of": [compare("customer__gender", "eq", "F"), compare("sale__coupon_status", "eq", "Used")]},
        "gender = 'F' AND coupon_status = 'Used'",
    ),
    ({"not": compare("customer__location", "in", "Chicago", "New York")}, "location NOT IN ('Chicago', 'New York')"),
    (
        {
            "not": {
                "any_of": [
                    compare("customer__gender", "eq", "M"),
                    {"all_of": [compare("sale__coupon_status", "ne", "Used"), compare("product", "contains", "A")]},
                ]
            }
        },
        "NOT (gender = 'M' OR (coupon_status <> 'Used' AND contains(product_sku, 'A')))",
    ),
)


@pytest.mark.parametrize(("where", "sql"), FILTERS, ids=[sql for _, sql in FILTERS])
async def test_a_filter_keeps_what_the_same_sql_keeps(
    api: httpx.AsyncClient, raw: duckdb.DuckDBPyConnection, where: Body, sql: str
) -> None:
    got = await rows(api, filtered(where, group_by=["customer"]))

    expected = raw.sql(f"SELECT customer_id, count(*) FROM {LINE} WHERE {sql} GROUP BY 1 ORDER BY 1").fetchall()
    assert [tuple(row.values()) for row in got] == expected


async def test_several_filters_must_all_hold(api: httpx.AsyncClient, raw: duckdb.DuckDBPyConnection) -> None:
    got = await rows(
        api, filtered(compare("customer__gender", "eq", "F"), compare("customer__tenure_months", "lt", 30))
    )

    expected = raw.sql(f"SELECT count(*) FROM {LINE} WHERE gender = 'F' AND tenure_months < 30").fetchall()
    assert [tuple(row.values()) for row in got] == expected


@pytest.mark.parametrize(
    ("where", "holds"),
    [
        (compare("sale__coupon_code", "is_null"), lambda code: code is None),
        (compare("sale__coupon_code", "is_not_null"), lambda code: code is not None),
        (compare("sale__coupon_code", "ne", "ELEC10"), lambda code: code is not None and code != "ELEC10"),
        (compare("sale__coupon_code", "not_in", "ELEC10"), lambda code: code is not None and code != "ELEC10"),
        ({"not": compare("sale__coupon_code", "eq", "ELEC10")}, lambda code: code is not None and code != "ELEC10"),
        ({"not": compare("sale__coupon_code", "is_null")}, lambda code: code is not None),
    ],
)
async def test_a_null_satisfies_no_operator_but_is_null(api: httpx.AsyncClient, where: Body, holds: Any) -> None:
    everything = {"metrics": ["line_count"], "group_by": ["sale__coupon_code"]}
    expected = [row for row in await rows(api, everything) if holds(row["sale__coupon_code"])]

    assert await rows(api, {**everything, "where": [where]}) == expected
    assert expected


async def test_having_filters_after_aggregation(api: httpx.AsyncClient) -> None:
    everything = {"metrics": ["total_revenue", "line_count"], "group_by": ["product__category"]}
    whole = await rows(api, everything)
    middle = sorted(row["total_revenue"] for row in whole)[len(whole) // 2]
    having = [
        compare("total_revenue", "gte", float(middle)),
        {"not": compare("line_count", "between", 0, 100)},
    ]

    got = await rows(api, {**everything, "having": having})

    assert got == [row for row in whole if row["total_revenue"] >= middle and row["line_count"] > 100]
    assert 0 < len(got) < len(whole)


async def test_having_compares_a_decimal_to_its_last_digit(api: httpx.AsyncClient) -> None:
    total = (await rows(api, {"metrics": ["total_revenue"]}))[0]["total_revenue"]
    for op, count in (("eq", 1), ("gt", 0), ("ne", 0)):
        body = {"metrics": ["total_revenue"], "having": [compare("total_revenue", op, float(total))]}
        assert len(await rows(api, body)) == count


async def test_an_order_by_a_metric_is_kept_and_ties_are_stable(api: httpx.AsyncClient) -> None:
    order = [{"field": "line_count", "descending": True}, {"field": "product__category"}]
    got = await rows(api, {"metrics": ["line_count"], "group_by": ["product__category", "customer"], "order_by": order})

    keys = [(-row["line_count"], row["product__category"], row["customer"]) for row in got]
    assert keys == sorted(keys)
    assert any(left[0] == right[0] for left, right in pairwise(keys))


@pytest.mark.parametrize("size", [1, 7, 100])
async def test_pages_concatenate_to_the_whole(api: httpx.AsyncClient, size: int) -> None:
    body = {
        "metrics": ["total_revenue"],
        "group_by": ["metric_time__week"],
        "order_by": [{"field": "total_revenue", "descending": True}],
    }
    whole = await rows(api, body)
    paged: list[Body] = []
    while True:
        page = await answer(api, {**body, "limit": size, "offset": len(paged)})
        assert page["meta"]["row_count"] == len(page["data"]) <= size
        assert (page["meta"]["limit"], page["meta"]["offset"]) == (size, len(paged))
        paged += page["data"]
        assert page["meta"]["truncated"] == (len(paged) < len(whole))
        if not page["meta"]["truncated"]:
            break

    assert paged == whole


async def test_a_page_that_ends_with_the_last_row_is_not_truncated(api: httpx.AsyncClient) -> None:
    body = {"metrics": ["line_count"], "group_by": ["metric_time__month"]}

    assert (await answer(api, {**body, "limit": 12}))["meta"]["truncated"] is False
    assert (await answer(api, {**body, "limit": 11}))["meta"]["truncated"] is True
    assert (await answer(api, {**body, "offset": 12}))["data"] == []


@pytest.mark.parametrize(
    ("time_range", "start", "end"),
    [
        ({"start": "2019-02-10", "end": "2019-03-20"}, "2019-02-10", "2019-03-20"),
        ({"start": "2019-05-01", "end": "2019-05-01"}, "2019-05-01", "2019-05-01"),
        ({"last": 1, "unit": "day"}, "2019-12-31", "2019-12-31"),
        ({"last": 2, "unit": "week"}, "2019-12-23", "2019-12-31"),
        ({"last": 3, "unit": "month"}, "2019-10-01", "2019-12-31"),
        ({"last": 2, "unit": "quarter"}, "2019-07-01", "2019-12-31"),
        ({"last": 1, "unit": "year"}, "2019-01-01", "2019-12-31"),
        ({"preset": "today"}, "2019-12-31", "2019-12-31"),
        ({"preset": "yesterday"}, "2019-12-30", "2019-12-30"),
        ({"preset": "this_week"}, "2019-12-30", "2019-12-31"),
        ({"preset": "last_week"}, "2019-12-23", "2019-12-29"),
        ({"preset": "this_month"}, "2019-12-01", "2019-12-31"),
        ({"preset": "last_month"}, "2019-11-01", "2019-11-30"),
        ({"preset": "this_quarter"}, "2019-10-01", "2019-12-31"),
        ({"preset": "last_quarter"}, "2019-07-01", "2019-09-30"),
        ({"preset": "this_year"}, "2019-01-01", "2019-12-31"),
        ({"preset": "last_year"}, "2018-01-01", "2018-12-31"),
    ],
)
async def test_a_time_range_is_inclusive_and_relative_to_the_as_of_date(
    api: httpx.AsyncClient, raw: duckdb.DuckDBPyConnection, time_range: Body, start: str, end: str
) -> None:
    got = await answer(api, {"metrics": ["units_sold"], "group_by": ["metric_time__day"], "time_range": time_range})

    sql = "SELECT transaction_date, sum(quantity) FROM raw.online_sales WHERE transaction_date BETWEEN $1 AND $2"
    expected = raw.execute(f"{sql} GROUP BY 1 ORDER BY 1", [start, end]).fetchall()
    assert [(date.fromisoformat(row["metric_time__day"]), row["units_sold"]) for row in got["data"]] == expected
    assert got["meta"]["as_of"] == "2019-12-31"
    assert got["meta"]["time_range"] == {"start": start, "end": end}
