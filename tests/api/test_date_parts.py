"""Parts of dates to group and filter by, against SQL over the raw tables."""

from __future__ import annotations

from contextlib import closing
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.opened import open_publication
from api.policy import REHEARSING
from api.query import MetricQuery, PageLimits
from api.warehouse import EngineLimits
from tests.api.served import Body, Served, answer
from tests.conftest import Published

# The parts as SQL takes them; the week begins on Monday, with 1.
PARTS = {
    "year": "year({0})",
    "quarter": "quarter({0})",
    "month": "month({0})",
    "day": "day({0})",
    "dow": "isodow({0})",
    "doy": "dayofyear({0})",
}
FIRST_DAY = "(select first_day from customer where customer.customer_id = line.customer_id)"
LAST_DAY = "(select last_day from customer where customer.customer_id = line.customer_id)"
TIMES = {
    "metric_time": "day",
    "sale__transaction_date": "day",
    "customer__first_purchase_date": FIRST_DAY,
    "customer__last_purchase_date": LAST_DAY,
}
LEAP_DAY = {"field": "metric_time__extract_doy", "op": "eq", "values": [366]}


def sql_of(column: str) -> str:
    time, _, part = column.rpartition("__extract_")
    return PARTS[part].format(TIMES[time])


async def agrees(served: Served, group_by: list[str], *, condition: str = "true", **body: Any) -> None:
    found = await answer(served, {"metrics": ["total_revenue", "customer_count"], "group_by": group_by} | body)

    selected = ", ".join(map(sql_of, group_by))
    counted = f"select {selected}, sum(total), count(distinct customer_id) from line where {condition} group by all"
    expected = served.raw.sql(f"{counted} order by all").fetchall()
    assert [tuple(row.values()) for row in found["data"]] == expected
    assert expected


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("part", PARTS)
async def test_a_part_of_a_date_groups(two: Served, time: str, part: str) -> None:
    await agrees(two, [f"{time}__extract_{part}"])


@pytest.mark.parametrize("part", PARTS)
async def test_a_part_of_a_date_groups_real_data(one: Served, part: str) -> None:
    await agrees(one, [f"metric_time__extract_{part}", "customer__first_purchase_date__extract_month"])


async def test_parts_stand_beside_each_other_beside_grains_and_under_a_range(two: Served) -> None:
    body: Body = {
        "metrics": ["total_revenue"],
        "group_by": ["metric_time__extract_dow", "metric_time__month", "metric_time__extract_year", "customer__gender"],
        "time_range": {"start": "2019-11-15", "end": "2020-03-10"},
        "order_by": [{"field": "metric_time__extract_dow", "descending": True}],
    }
    found = (await answer(two, body))["data"]

    expected = two.raw.sql(
        "select isodow(day), date_trunc('month', day)::date, year(day), gender, sum(total) from line "
        "where day between '2019-11-15' and '2020-03-10' group by all order by 1 desc, 2, 3, 4"
    ).fetchall()
    assert [(row["metric_time__month"], tuple(row.values())[2:]) for row in found] == [
        (str(month), tuple(rest)) for _, month, *rest in expected
    ]
    assert [row["metric_time__extract_dow"] for row in found] == [row[0] for row in expected]
    assert {row[0] for row in expected} == set(range(1, 8))


async def test_a_part_is_an_integer_column_that_says_which(two: Served) -> None:
    found = await answer(two, {"metrics": ["line_count"], "group_by": ["metric_time__extract_month"], "limit": 1})

    assert found["columns"][0] == {
        "name": "metric_time__extract_month",
        "label": "Time",
        "kind": "time",
        "type": "integer",
        "unit": None,
        "grain": None,
        "date_part": "month",
    }
    assert found["data"][0]["metric_time__extract_month"] == 1


@pytest.mark.parametrize(
    ("where", "condition"),
    [
        ({"field": "metric_time__extract_month", "op": "in", "values": [2, 3]}, "month(day) in (2, 3)"),
        ({"field": "metric_time__extract_day", "op": "between", "values": [28, 31]}, "day(day) between 28 and 31"),
        ({"not": {"field": "metric_time__extract_dow", "op": "gte", "values": [6]}}, "isodow(day) < 6"),
        (
            {"field": "customer__first_purchase_date__extract_year", "op": "eq", "values": [2020]},
            f"year({FIRST_DAY}) = 2020",
        ),
        (
            {
                "any_of": [
                    {"field": "metric_time__extract_quarter", "op": "eq", "values": [4]},
                    {"field": "customer__last_purchase_date__extract_month", "op": "lt", "values": [3]},
                ]
            },
            f"quarter(day) = 4 or month({LAST_DAY}) < 3",
        ),
        ("{{ TimeDimension('metric_time', date_part_name='month') }} = 2", "month(day) = 2"),
        ("{{ TimeDimension('metric_time').date_part('dow') }} IN (6, 7)", "isodow(day) in (6, 7)"),
        ("{{ Dimension('metric_time').date_part('DOY') }} = 60", "dayofyear(day) = 60"),
        ("metric_time__extract_day = 29", "day(day) = 29"),
        (
            "customer > 0 AND {{ TimeDimension('metric_time', 'None', date_part_name=\"year\") }} = 2019",
            "year(day) = 2019",
        ),
    ],
    ids=str,
)
async def test_a_part_of_a_date_filters(two: Served, where: object, condition: str) -> None:
    await agrees(two, ["metric_time__extract_quarter"], condition=condition, where=[where])


async def test_the_leap_day_is_counted_once_in_two_years(two: Served) -> None:
    leap = await answer(
        two,
        {
            "metrics": ["line_count"],
            "group_by": ["metric_time__extract_year"],
            "where": [
                {"field": "metric_time__extract_month", "op": "eq", "values": [2]},
                {"field": "metric_time__extract_day", "op": "eq", "values": [29]},
            ],
        },
    )

    lines = two.raw.sql("select count(*) from line where day = '2020-02-29'").fetchall()[0][0]
    assert leap["data"] == [{"metric_time__extract_year": 2020, "line_count": lines}]


async def test_weekdays_are_compared_with_weekdays(two: Served) -> None:
    body = {"metrics": ["total_revenue"], "group_by": ["metric_time__extract_dow"]}
    march = {"time_range": {"start": "2019-03-01", "end": "2019-03-31"}}
    february = {"time_range": {"start": "2019-02-01", "end": "2019-02-28"}}

    beside = (await answer(two, body | march | {"compare_to": "previous_period"}))["data"]

    assert len(beside) == 7
    assert [row["total_revenue__previous"] for row in beside] == [
        row["total_revenue"] for row in (await answer(two, body | february))["data"]
    ]


# What is known of them


async def test_times_list_their_parts_and_nothing_else_has_any(two: Served) -> None:
    listed = (await two.api.get("/v1/dimensions", params={"limit": 500})).json()["data"]

    for item in listed:
        assert item["date_parts"] == (list(PARTS) if item["kind"] == "time" else []), item["name"]


async def test_what_looks_back_has_no_parts(two: Served) -> None:
    for metric in ("cumulative_revenue", "revenue_mtd", "revenue_growth_mom"):
        listed = (await two.api.get("/v1/dimensions", params={"metrics": f"line_count,{metric}"})).json()["data"]
        assert listed
        assert {tuple(item["date_parts"]) for item in listed} == {()}


async def test_the_values_of_a_part_are_listed(two: Served) -> None:
    path = "/v1/dimensions/metric_time__extract_dow/values"
    listed = (await two.api.get(path, params={"metrics": "line_count"})).json()
    assert listed["data"] == [1, 2, 3, 4, 5, 6, 7]
    assert listed["meta"]["dimension"] == "metric_time__extract_dow"


@pytest.mark.parametrize(
    ("body", "status", "code", "says"),
    [
        ({"group_by": ["metric_time__extract_week"]}, 422, "invalid_date_part", "dow"),
        ({"group_by": ["metric_time__extract_"]}, 422, "invalid_date_part", "dow"),
        ({"group_by": ["metric_time__extract_MONTH"]}, 422, "invalid_date_part", "month"),
        ({"group_by": ["customer__gender__extract_month"]}, 422, "invalid_date_part", "Only a time"),
        ({"group_by": ["customer__extract_month"]}, 422, "invalid_date_part", "Only a time"),
        ({"group_by": ["metric_time__month__extract_month"]}, 404, "unknown_dimension", "metric_time"),
        ({"group_by": ["nobody__extract_month"]}, 404, "unknown_dimension", ""),
        ({"group_by": ["metric_time__extract_month"] * 2}, 422, "duplicate_name", ""),
        (
            {"metrics": ["cumulative_revenue"], "group_by": ["metric_time__extract_month"]},
            422,
            "invalid_date_part",
            "grain",
        ),
        (
            {"metrics": ["revenue_growth_mom"], "group_by": ["metric_time__extract_month"]},
            422,
            "invalid_date_part",
            "grain",
        ),
        (
            {
                "metrics": ["revenue_trailing_7d"],
                "group_by": ["metric_time__day", "customer__first_purchase_date__extract_year"],
            },
            422,
            "invalid_date_part",
            "grain",
        ),
        (
            {"metrics": ["revenue_mtd"], "group_by": ["metric_time__day"], "where": [LEAP_DAY]},
            422,
            "invalid_date_part",
            "grain",
        ),
        (
            {"metrics": ["news_count"], "group_by": ["customer__first_purchase_date__extract_year"]},
            422,
            "dimension_not_joinable",
            "",
        ),
        ({"metrics": [], "group_by": ["metric_time__extract_year"]}, 422, "dimension_not_joinable", "metric"),
        (
            {"where": [{"field": "metric_time__extract_month", "op": "eq", "values": ["2019-01-01"]}]},
            422,
            "invalid_value",
            "12",
        ),
        (
            {"where": [{"field": "metric_time__extract_month", "op": "contains", "values": ["1"]}]},
            422,
            "invalid_operator",
            "",
        ),
        (
            {"where": ["{{ TimeDimension('metric_time', 'month', date_part_name='year') }} = 1"]},
            404,
            "unknown_dimension",
            "",
        ),
        ({"where": ["{{ TimeDimension('metric_time', date_part_name='week') }} = 1"]}, 422, "invalid_date_part", "dow"),
        ({"where": ["{{ TimeDimension('metric_time', date_part_name='month') }} = 'May'"]}, 422, "invalid_value", "12"),
    ],
    ids=str,
)
async def test_what_is_no_part_of_a_date_is_refused_with_a_hint(
    two: Served, body: Body, status: int, code: str, says: str
) -> None:
    response = await two.api.post("/v1/query", json={"metrics": ["line_count"]} | body)

    assert response.status_code == status, response.text
    problem = response.json()
    assert problem["code"] == code
    assert says in problem["hint"] + problem["detail"]


async def test_every_part_that_is_offered_compiles(years: Published) -> None:
    folder = years.settings.publication_dir / years.version
    # The service's own, as a process opens a DuckDB file with one configuration.
    limits = EngineLimits(memory_mb=512, threads=2, connections=1, query_timeout=timedelta(seconds=10))
    one_page, offered = PageLimits(default_rows=1, max_rows=1), 0
    with closing(open_publication(folder, limits)) as publication:
        for metric in publication.catalog.metrics:
            times = [item for item in publication.catalog.common_dimensions([metric]) if item.date_parts]
            for number, time in enumerate(times):
                part = time.date_parts[number % len(time.date_parts)]
                query = MetricQuery(metrics=(metric,), group_by=(f"{time.name}__extract_{part}",))
                await publication.compile(query, REHEARSING, one_page)
                offered += 1
    assert offered > 60


# Drawn


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    columns=st.lists(
        st.builds("{}__extract_{}".format, st.sampled_from(list(TIMES)), st.sampled_from(list(PARTS))),
        min_size=1,
        max_size=3,
        unique=True,
    ),
    start=st.dates(date(2019, 1, 1), date(2020, 5, 20)),
    length=st.integers(0, 500),
)
async def test_any_parts_of_any_range_add_up_to_its_total(
    two: Served, columns: list[str], start: date, length: int
) -> None:
    body = {
        "metrics": ["total_revenue"],
        "time_range": {"start": str(start), "end": str(start + timedelta(days=length))},
    }

    parts = (await answer(two, body | {"group_by": columns, "limit": 50_000}))["data"]
    (whole,) = (await answer(two, body))["data"]

    assert len({tuple(row[name] for name in columns) for row in parts}) == len(parts)
    assert sum((row["total_revenue"] for row in parts), start=Decimal(0)) == (whole["total_revenue"] or 0)
