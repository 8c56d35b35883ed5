"""`compare_to`: each metric beside itself over an earlier range, against two sums of the raw tables joined by hand.

Long, as one oracle and its cases stand behind it; which days are compared is in `test_earlier_range.py`.
"""

from __future__ import annotations

import json
import math
from calendar import monthrange
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import duckdb
import pytest
import sqlglot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.compiler import Compiler, Dialect
from api.opened import open_publication
from api.periods import CompareTo, DateRange, Unit, whole_units
from api.query import MetricQuery, PageLimits, check
from api.warehouse import EngineLimits
from tests.api.served import Body, Served, answer
from tests.api.two_years import AS_OF
from tests.conftest import Published

Key = tuple[object, ...]

PREVIOUS, LAST_YEAR = CompareTo.PREVIOUS_PERIOD, CompareTo.SAME_PERIOD_LAST_YEAR


def between(start: str, end: str) -> DateRange:
    return DateRange(start=date.fromisoformat(start), end=date.fromisoformat(end))


# What is counted, in SQL over the oracle's views; and what is grouped by.
METRICS = {
    "total_revenue": ("line", "sum(total)"),
    "transaction_count": ("line", "count(distinct transaction_id)"),
    "customer_count": ("line", "count(distinct customer_id)"),
    "average_order_value": ("line", "sum(total)::double / count(distinct transaction_id)"),
    "discount_rate": ("line", "sum(discount)::double / nullif(sum(gross), 0)"),
    "marketing_spend": ("spend", "sum(online) + sum(offline)"),
    "new_customers": ("(select *, first_day as day from customer)", "count(*)"),
}
GROUPS = {
    **{f"metric_time__{unit}": f"date_trunc('{unit}', day)::date" for unit in Unit},
    "customer__gender": "gender",
    "customer__location": "location",
    "product__category": "product_category",
    "sale__coupon_code": "coupon_code",
    "calendar_date__day_name": "dayname(day)",
    "calendar_date__month_name": "monthname(day)",
    "customer__first_purchase_date__quarter": (
        "(select date_trunc('quarter', first_day)::date from customer where customer.customer_id = line.customer_id)"
    ),
}


def counted(
    raw: duckdb.DuckDBPyConnection, metric: str, groups: tuple[str, ...], within: DateRange, where: str = "true"
) -> dict[Key, Any]:
    """The metric over the days, by key."""
    source, value = METRICS[metric]
    selected = ", ".join((*(GROUPS[group] for group in groups), value))
    sql = f"select {selected} from {source} where day between $start and $end and {where} group by all"
    rows = raw.execute(sql, {"start": within.start, "end": within.end}).fetchall()
    return {row[:-1]: row[-1] for row in rows}


def back(*, months: int = 0, days: int = 0) -> Callable[[date], date | None]:
    """The day so long before; None where its month has no such day."""

    def earlier(day: date) -> date | None:
        year, month = divmod(day.year * 12 + day.month - 1 - months, 12)
        if day.day > monthrange(year, month + 1)[1]:
            return None
        return day.replace(year=year, month=month + 1) - timedelta(days=days)

    return earlier


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A question, the earlier days, and how its times move; all worked out by hand."""

    metrics: tuple[str, ...] = ("total_revenue", "average_order_value", "transaction_count")
    group_by: tuple[str, ...] = ()
    asked: DateRange
    compare_to: CompareTo
    earlier: DateRange
    moved: Callable[[date], date | None] | None = None
    where: str = "true"
    body: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.compare_to}-by-{'-'.join(self.group_by) or 'nothing'}-{self.asked.start}"


MARCH, FEBRUARY = between("2019-03-01", "2019-03-31"), between("2019-02-01", "2019-02-28")
SECOND, FIRST = between("2019-04-01", "2019-06-30"), between("2019-01-01", "2019-03-31")
TEN, TEN_BEFORE = between("2019-03-11", "2019-03-20"), between("2019-03-01", "2019-03-10")
WEEKS, WEEKS_BEFORE = between("2019-03-04", "2019-03-17"), between("2019-02-18", "2019-03-03")

ONE_YEAR = (
    Case(asked=MARCH, compare_to=PREVIOUS, earlier=FEBRUARY),
    Case(asked=MARCH, compare_to=PREVIOUS, earlier=FEBRUARY, metrics=tuple(METRICS)),
    *(
        Case(asked=MARCH, compare_to=PREVIOUS, earlier=FEBRUARY, moved=back(months=1), group_by=group_by)
        for group_by in (
            ("metric_time__day",),
            ("metric_time__month",),
            ("metric_time__month", "metric_time__day"),
            ("customer__gender", "metric_time__day"),
            ("product__category",),
            ("sale__coupon_code", "metric_time__month"),
            ("calendar_date__day_name",),
            ("calendar_date__month_name",),
        )
    ),
    Case(
        asked=FEBRUARY,
        compare_to=PREVIOUS,
        earlier=between("2019-01-01", "2019-01-31"),
        moved=back(months=1),
        group_by=("metric_time__day", "customer__location"),
    ),
    *(
        Case(asked=SECOND, compare_to=PREVIOUS, earlier=FIRST, moved=back(months=3), group_by=group_by)
        for group_by in (
            ("metric_time__quarter",),
            ("metric_time__month", "product__category"),
            ("metric_time__day",),
            ("customer__first_purchase_date__quarter", "metric_time__month"),
        )
    ),
    Case(
        asked=SECOND,
        compare_to=PREVIOUS,
        earlier=FIRST,
        moved=back(months=3),
        group_by=("metric_time__month",),
        metrics=("new_customers", "marketing_spend", "customer_count"),
    ),
    Case(asked=TEN, compare_to=PREVIOUS, earlier=TEN_BEFORE),
    Case(asked=TEN, compare_to=PREVIOUS, earlier=TEN_BEFORE, moved=back(days=10), group_by=("metric_time__day",)),
    *(
        Case(asked=WEEKS, compare_to=PREVIOUS, earlier=WEEKS_BEFORE, moved=back(days=14), group_by=group_by)
        for group_by in (("metric_time__week",), ("metric_time__week", "metric_time__day", "customer__gender"))
    ),
    Case(
        asked=MARCH,
        compare_to=PREVIOUS,
        earlier=FEBRUARY,
        moved=back(months=1),
        group_by=("metric_time__day",),
        where="gender = 'F' and product_category <> 'Apparel'",
        body={
            "where": [
                {"field": "customer__gender", "op": "eq", "values": ["F"]},
                {"not": {"field": "product__category", "op": "eq", "values": ["Apparel"]}},
            ]
        },
    ),
)
THIS_MONTH, MONTH_LAST_YEAR = between("2020-05-01", "2020-05-20"), between("2019-05-01", "2019-05-20")
TWO_YEARS = (
    Case(
        asked=THIS_MONTH,
        compare_to=PREVIOUS,
        earlier=between("2020-04-01", "2020-04-20"),
        moved=back(months=1),
        group_by=("metric_time__day",),
        body={"time_range": {"preset": "this_month"}},
    ),
    *(
        Case(
            asked=THIS_MONTH,
            compare_to=LAST_YEAR,
            earlier=MONTH_LAST_YEAR,
            moved=back(months=12),
            group_by=group_by,
            body={"time_range": {"last": 1, "unit": "month"}},
        )
        for group_by in ((), ("metric_time__month",), ("metric_time__day",), ("metric_time__year", "customer__gender"))
    ),
    Case(
        asked=between("2020-02-01", "2020-03-31"),
        compare_to=LAST_YEAR,
        earlier=between("2019-02-01", "2019-03-31"),
        moved=back(months=12),
        group_by=("metric_time__day",),
    ),
    Case(
        asked=between("2020-02-29", "2020-02-29"),
        compare_to=LAST_YEAR,
        earlier=between("2019-02-28", "2019-02-28"),
    ),
    Case(
        asked=between("2020-01-01", "2020-03-31"),
        compare_to=LAST_YEAR,
        earlier=between("2019-01-01", "2019-03-31"),
        moved=back(months=12),
        group_by=("metric_time__quarter", "calendar_date__month_name"),
    ),
    *(
        Case(
            asked=between("2020-02-24", "2020-03-15"),
            compare_to=LAST_YEAR,
            earlier=between("2019-02-25", "2019-03-17"),
            moved=back(days=364),
            group_by=group_by,
        )
        for group_by in (("metric_time__week",), ("metric_time__day", "metric_time__week"))
    ),
    Case(
        asked=between("2020-01-01", "2020-05-20"),
        compare_to=LAST_YEAR,
        earlier=between("2019-01-01", "2019-05-20"),
        moved=back(months=12),
        group_by=("metric_time__year",),
        metrics=("customer_count", "discount_rate", "total_revenue"),
    ),
)


@pytest.mark.parametrize("case", ONE_YEAR, ids=str)
async def test_real_data_agree_with_two_sums_joined_by_hand(one: Served, case: Case) -> None:
    await agrees(one, case)


@pytest.mark.parametrize("case", [*ONE_YEAR, *TWO_YEARS], ids=str)
async def test_synthetic_data_agree_with_two_sums_joined_by_hand(two: Served, case: Case) -> None:
    await agrees(two, case)


async def agrees(served: Served, case: Case) -> None:
    body = {
        "metrics": case.metrics,
        "group_by": case.group_by,
        "time_range": {"start": str(case.asked.start), "end": str(case.asked.end)},
        "compare_to": case.compare_to,
    } | case.body

    found = await answer(served, body)

    assert found["meta"]["time_range"] == {"start": str(case.asked.start), "end": str(case.asked.end)}
    assert found["meta"]["compared_with"] == {"start": str(case.earlier.start), "end": str(case.earlier.end)}
    rows = {tuple(typed(row[name]) for name in case.group_by): row for row in found["data"]}
    assert len(rows) == len(found["data"])
    for metric in case.metrics:
        now = counted(served.raw, metric, case.group_by, case.asked, case.where)
        before = counted(served.raw, metric, case.group_by, case.earlier, case.where)
        assert now.keys() <= rows.keys()
        assert now
        for key, row in rows.items():
            value, previous = now.get(key), before.get(moved(case, key))
            assert equal(row[metric], value), (key, row)
            assert equal(row[f"{metric}__previous"], previous), (key, row)
            has_both = value is not None and previous is not None
            assert equal(row[f"{metric}__change"], value - previous if has_both else None), (key, row)
            ratio = float(value - previous) / float(previous) if has_both and previous else None
            assert equal(row[f"{metric}__change_ratio"], ratio), (key, row)


def typed(value: object) -> object:
    try:
        return date.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        return value


def moved(case: Case, key: Key) -> Key:
    return tuple(
        case.moved(part) if case.moved and name.startswith("metric_time") and isinstance(part, date) else part
        for name, part in zip(case.group_by, key, strict=True)
    )


def equal(found: object, expected: object) -> bool:
    if isinstance(expected, float):
        return found is not None and math.isclose(float(str(found)), expected, rel_tol=1e-9, abs_tol=1e-12)
    return found == expected


async def test_the_cases_meet_nulls_zeros_and_both_ends_of_the_calendar(two: Served) -> None:
    """So that the oracle above cannot agree by having nothing to disagree about."""
    body = {"metrics": ["line_count"], "group_by": ["metric_time__day"], "compare_to": PREVIOUS}
    march = await answer(two, body | {"time_range": {"start": "2019-03-01", "end": "2019-03-31"}})
    previous = {row["metric_time__day"]: row["line_count__previous"] for row in march["data"]}
    first_month = await answer(two, body | {"time_range": {"start": "2019-01-01", "end": "2019-01-31"}})

    assert len(previous) == 31
    assert [previous[f"2019-03-{day}"] for day in (29, 30, 31)] == [None, None, None]
    assert None not in [previous[f"2019-03-{day:02}"] for day in range(1, 29)]
    assert {row["line_count__previous"] for row in first_month["data"]} == {None}


async def test_a_change_over_zero_is_null_and_a_change_to_zero_is_minus_one(two: Served) -> None:
    days_of = {"start": "2019-07-01", "end": "2019-12-31"}
    body = {"metrics": ["discount_amount"], "group_by": ["customer"], "time_range": days_of, "compare_to": PREVIOUS}
    rows = (await answer(two, body))["data"]
    from_zero = [row for row in rows if row["discount_amount__previous"] == 0]
    to_zero = [row for row in rows if row["discount_amount"] == 0 and row["discount_amount__previous"]]

    assert from_zero
    assert to_zero
    assert {row["discount_amount__change_ratio"] for row in from_zero} == {None}
    assert all(row["discount_amount__change"] == row["discount_amount"] for row in from_zero)
    assert {row["discount_amount__change_ratio"] for row in to_zero} == {-1}


async def test_what_is_added_are_columns_with_their_meaning_and_never_rows(two: Served) -> None:
    days_of = {"start": "2019-03-01", "end": "2019-03-31"}
    plain = {"metrics": ["total_revenue", "line_count"], "group_by": ["customer"], "time_range": days_of}

    alone, beside = await answer(two, plain), await answer(two, plain | {"compare_to": PREVIOUS})

    names = [column["name"] for column in alone["columns"]]
    assert [{name: row[name] for name in names} for row in beside["data"]] == alone["data"]
    assert list(beside["data"][0]) == [column["name"] for column in beside["columns"]]
    assert [
        tuple(column[key] for key in ("name", "label", "kind", "type", "unit")) for column in beside["columns"]
    ] == [
        ("customer", "Customer", "entity", "integer", None),
        ("total_revenue", "Total revenue", "metric", "decimal", "USD"),
        ("total_revenue__previous", "Total revenue, before", "previous", "decimal", "USD"),
        ("total_revenue__change", "Total revenue, change", "change", "decimal", "USD"),
        ("total_revenue__change_ratio", "Total revenue, relative change", "change_ratio", "float", "ratio"),
        ("line_count", "Sales lines", "metric", "integer", "lines"),
        ("line_count__previous", "Sales lines, before", "previous", "integer", "lines"),
        ("line_count__change", "Sales lines, change", "change", "integer", "lines"),
        ("line_count__change_ratio", "Sales lines, relative change", "change_ratio", "float", "ratio"),
    ]
    assert alone["meta"]["compared_with"] is None


async def test_order_and_having_may_name_what_is_added(two: Served) -> None:
    body = {
        "metrics": ["total_revenue"],
        "group_by": ["product__category"],
        "time_range": {"start": "2019-04-01", "end": "2019-06-30"},
        "compare_to": PREVIOUS,
    }
    every = (await answer(two, body))["data"]
    found = await answer(
        two,
        body
        | {
            "having": [
                {"field": "total_revenue__change_ratio", "op": "gt", "values": [-0.5]},
                {"field": "total_revenue__previous", "op": "is_not_null"},
            ],
            "order_by": [{"field": "total_revenue__change", "descending": True}],
        },
    )

    kept = [
        row for row in every if row["total_revenue__previous"] is not None and row["total_revenue__change_ratio"] > -0.5
    ]
    assert 1 < len(kept) < len(every)
    assert found["data"] == sorted(kept, key=lambda row: -row["total_revenue__change"])


async def test_the_statement_is_one_and_its_values_are_bound(two: Served) -> None:
    body = {
        "metrics": ["total_revenue"],
        "group_by": ["metric_time__month", "customer__gender"],
        "where": [{"field": "customer__location", "op": "eq", "values": ["Chicago"]}],
        "time_range": {"start": "2019-04-01", "end": "2019-06-30"},
        "compare_to": PREVIOUS,
    }
    made = (await two.api.post("/v1/query/compile", json=body)).json()
    other = body | {"time_range": {"start": "2019-05-01", "end": "2019-06-30"}}
    again = (await two.api.post("/v1/query/compile", json=other)).json()

    days_bound = {name: value for name, value in made["parameters"].items() if name.endswith(("start", "end"))}
    assert sorted(days_bound.values()) == ["2019-01-01", "2019-03-31", "2019-04-01", "2019-06-30"]
    assert made["parameters"]["back"] == 3
    assert not any(text in made["sql"] for text in ("2019", "Chicago"))
    assert again["plan"] == "hit"
    assert again["sql"] == made["sql"]


async def test_the_statement_is_one_that_snowflake_parses_too(years: Published) -> None:
    folder = years.settings.publication_dir / years.version
    # The service's own, as a process opens a DuckDB file with one configuration.
    limits = EngineLimits(memory_mb=512, threads=2, connections=1, query_timeout=timedelta(seconds=1))
    with closing(open_publication(folder, limits)) as publication:
        question = MetricQuery(
            metrics=("total_revenue",),
            group_by=("metric_time__day", "customer__gender"),
            time_range=MARCH,
            compare_to=PREVIOUS,
        )
        page = PageLimits(default_rows=1, max_rows=1)
        checked = check(question, publication.catalog, as_of=AS_OF, limits=page)
        manifest = (folder / "semantic_manifest.json").read_text(encoding="utf-8")

        made = await Compiler(manifest, dialect=Dialect.SNOWFLAKE).compile(checked)

    placeholders = {name: name for name in made.parameters}
    statement = sqlglot.parse_one(made.sql % placeholders, dialect="snowflake")
    assert isinstance(statement, sqlglot.exp.Query)
    assert {column.name for column in statement.find_all(sqlglot.exp.Column)} >= {*made.parameters} - {
        "limit",
        "offset",
    }


async def test_metrics_that_look_back_are_compared_day_by_day(two: Served) -> None:
    body = {"metrics": ["cumulative_revenue", "revenue_mtd"], "group_by": ["metric_time__day"]}
    april = {"time_range": {"start": "2019-04-01", "end": "2019-04-30"}}
    march = {"time_range": {"start": "2019-03-01", "end": "2019-03-31"}}

    found = (await answer(two, body | april | {"compare_to": PREVIOUS}))["data"]

    before = {row["metric_time__day"]: row for row in (await answer(two, body | march))["data"]}
    assert len(found) == 30
    for row in found:
        earlier = before[row["metric_time__day"].replace("-04-", "-03-")]
        assert [row[f"{metric}__previous"] for metric in body["metrics"]] == [earlier[m] for m in body["metrics"]]


# Drawn questions: the engine's own answer over the earlier days is what stands beside.

often = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
TIMES = ("metric_time__day", "metric_time__week", "metric_time__month", "metric_time__quarter", "metric_time__year")
OTHERS = ("customer__gender", "sale__coupon_code", "product__category", "customer", "calendar_date__day_name")


@often
@given(
    start=st.dates(date(2019, 1, 1), AS_OF),
    length=st.integers(0, 400),
    compare_to=st.sampled_from(CompareTo),
    grain=st.sampled_from([None, *TIMES]),
    others=st.lists(st.sampled_from(OTHERS), max_size=2, unique=True),
    widened=st.sampled_from([None, *Unit]),
)
async def test_what_stands_beside_is_the_answer_over_the_earlier_days(
    two: Served,
    start: date,
    length: int,
    compare_to: CompareTo,
    grain: str | None,
    others: list[str],
    widened: Unit | None,
) -> None:
    asked = DateRange(start=start, end=start + timedelta(days=length))
    group_by = [grain, *others] if grain else others
    body = {"metrics": ["total_revenue", "transaction_count"], "group_by": group_by, "limit": 50_000}
    response = await two.api.post("/v1/query", json=body | ranged(whole(asked, widened)) | {"compare_to": compare_to})
    if response.status_code == 422:
        assert response.json()["code"] == "incomparable"
        assert grain not in (None, "metric_time__day")
        return
    found = json.loads(response.content, parse_float=Decimal)
    earlier = await answer(two, body | {"time_range": found["meta"]["compared_with"]})

    expected = {tuple(row[name] for name in group_by): row for row in earlier["data"]}
    shift = moved_by(found["meta"], compare_to, grain)
    for row in found["data"]:
        key = tuple(row[name] for name in group_by)
        before = expected.get((shift(row[grain]), *key[1:]) if grain else key, {})
        assert row["total_revenue__previous"] == before.get("total_revenue")
        assert row["transaction_count__previous"] == before.get("transaction_count")
    alone = await answer(two, body | {"time_range": found["meta"]["time_range"]})
    assert [{name: row[name] for name in alone["data"][0]} for row in found["data"]] == alone["data"]


def whole(asked: DateRange, unit: Unit | None) -> DateRange:
    """The range, often widened to whole units, so that most grains can be compared."""
    return whole_units(asked, unit) if unit else asked


def ranged(asked: DateRange) -> Body:
    return {"time_range": {"start": str(asked.start), "end": str(asked.end)}}


def moved_by(meta: Body, compare_to: CompareTo, grain: str | None) -> Callable[[str], str | None]:
    """How a period moves: by months if they are whole or a year's, else by the distance of the ranges' first days."""
    start, end = (date.fromisoformat(meta["time_range"][name]) for name in ("start", "end"))
    earlier = date.fromisoformat(meta["compared_with"]["start"])
    is_whole = start.day == 1 and (end + timedelta(days=1)).day == 1
    is_by_months = grain != "metric_time__week" and (is_whole or compare_to is LAST_YEAR)
    months = (start.year - earlier.year) * 12 + start.month - earlier.month
    move = back(months=months) if is_by_months else back(days=(start - earlier).days)

    def shifted(text: str) -> str | None:
        day = move(date.fromisoformat(text))
        return str(day) if day else None

    return shifted


# What cannot be compared


FAIR = {
    "metrics": ["total_revenue"],
    "time_range": {"start": "2019-03-01", "end": "2019-03-31"},
    "compare_to": PREVIOUS,
}
CUT = {"start": "2019-03-05", "end": "2019-03-20"}
BY_DAY_TIME = {"field": "metric_time__day", "op": "gte", "values": ["2019-03-05"]}


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        ({**FAIR, "time_range": None}, "time_range_required", "time_range"),
        ({**FAIR, "group_by": ["metric_time__week"]}, "incomparable", "Ask for whole weeks, 2019-02-25 to 2019-03-31"),
        (
            {**FAIR, "group_by": ["metric_time__quarter"]},
            "incomparable",
            "Ask for whole quarters, 2019-01-01 to 2019-03-31",
        ),
        ({**FAIR, "group_by": ["metric_time__year"]}, "incomparable", "Ask for whole years, 2019-01-01 to 2019-12-31"),
        ({**FAIR, "group_by": ["metric_time__month"], "time_range": CUT}, "incomparable", "Ask for whole months"),
        ({**FAIR, "group_by": ["metric_time__week"], "time_range": CUT}, "incomparable", "Ask for whole weeks"),
        (
            {**FAIR, "group_by": ["metric_time__week", "metric_time__month"], "compare_to": LAST_YEAR},
            "incomparable",
            "Group by week or by month",
        ),
        ({**FAIR, "group_by": ["sale__transaction_date__month"]}, "incomparable", "metric_time"),
        ({**FAIR, "group_by": ["calendar_date"]}, "incomparable", "metric_time"),
        (
            {**FAIR, "metrics": ["new_customers"], "group_by": ["customer__first_purchase_date__month"]},
            "incomparable",
            "metric_time",
        ),
        ({**FAIR, "where": [BY_DAY_TIME]}, "incomparable", "time_range"),
        ({**FAIR, "where": [{"not": BY_DAY_TIME}]}, "incomparable", "time_range"),
        (
            {**FAIR, "where": ["{{ TimeDimension('metric_time', 'month') }} = '2019-03-01'"]},
            "incomparable",
            "time_range",
        ),
        (
            {**FAIR, "where": [{"field": "calendar_date", "op": "eq", "values": ["2019-03-05"]}]},
            "incomparable",
            "time_range",
        ),
        ({**FAIR, "metrics": [], "group_by": ["customer__gender"]}, "dimension_not_joinable", "metric"),
        ({**FAIR, "order_by": [{"field": "total_revenue__before"}]}, "invalid_order", "total_revenue__previous"),
        (
            {**FAIR, "compare_to": None, "order_by": [{"field": "total_revenue__change"}]},
            "invalid_order",
            "total_revenue",
        ),
        (
            {**FAIR, "compare_to": None, "having": [{"field": "total_revenue__change", "op": "gt", "values": [1]}]},
            "invalid_having",
            "compare_to",
        ),
        ({**FAIR, "compare_to": "last_week"}, "malformed_request", "previous_period"),
        ({**FAIR, "time_range": {"start": "0001-01-01", "end": "0001-01-31"}}, "invalid_time_range", "calendar"),
        (
            {
                **FAIR,
                "metrics": ["revenue_growth_mom"],
                "group_by": ["metric_time__month"],
                "time_range": {"preset": "this_month"},
            },
            "partial_period",
            "whole month",
        ),
    ],
)
async def test_what_cannot_be_compared_is_refused_with_a_hint(two: Served, body: Body, code: str, says: str) -> None:
    given_ = {key: value for key, value in body.items() if value is not None}
    response = await two.api.post("/v1/query", json=given_)

    assert response.status_code == 422, response.text
    problem = response.json()
    assert problem["code"] == code
    assert says in problem["hint"] + problem["detail"]


async def test_a_filter_on_a_weekday_or_a_customers_date_holds_in_both_ranges(two: Served) -> None:
    weekend = {"field": "calendar_date__is_weekend", "op": "eq", "values": [True]}
    early = {"field": "customer__first_purchase_date__day", "op": "lt", "values": ["2019-02-15"]}

    found = (await answer(two, FAIR | {"where": [weekend, early]}))["data"]

    where = (
        "dayname(day) in ('Saturday', 'Sunday') and customer_id in "
        "(select customer_id from customer where first_day < date '2019-02-15')"
    )
    expected = [counted(two.raw, "total_revenue", (), within, where)[()] for within in (MARCH, FEBRUARY)]
    assert [found[0]["total_revenue"], found[0]["total_revenue__previous"]] == expected
    assert None not in expected


# Who may see what


POLICY = """
version: 1
roles:
  admin: {metrics: ["*"], dimensions: ["*"], see_sql: true}
  chicago:
    metrics: ["*"]
    dimensions: ["*"]
    rows: [{field: customer__location, op: eq, values: [Chicago]}]
  recent:
    metrics: ["*"]
    dimensions: ["*"]
    rows: [{field: metric_time__day, op: gte, values: ["2019-03-10"]}]
  viewer: {metrics: ["*"], dimensions: ["*"], hashed: [customer]}
"""


async def test_row_filters_hold_in_both_ranges(roles: Mapping[str, Served]) -> None:
    body = FAIR | {"metrics": ["total_revenue", "customer_count"], "group_by": ["metric_time__day"]}
    in_chicago = {"field": "customer__location", "op": "eq", "values": ["Chicago"]}

    found = (await answer(roles["chicago"], body))["data"]

    assert found == (await answer(roles["admin"], body | {"where": [in_chicago]}))["data"]
    assert found != (await answer(roles["admin"], body))["data"]
    assert any(row["total_revenue__previous"] for row in found)


async def test_a_role_that_sees_recent_rows_compares_with_nothing_older(roles: Mapping[str, Served]) -> None:
    days_of = {"time_range": {"start": "2019-03-11", "end": "2019-03-20"}}
    (found,) = (await answer(roles["recent"], FAIR | days_of))["data"]
    (free,) = (await answer(roles["admin"], FAIR | days_of))["data"]

    last_day = {"time_range": {"start": "2019-03-10", "end": "2019-03-10"}}
    (tenth,) = (await answer(roles["admin"], {"metrics": ["total_revenue"]} | last_day))["data"]
    assert found["total_revenue"] == free["total_revenue"]
    assert found["total_revenue__previous"] == tenth["total_revenue"] < free["total_revenue__previous"]


async def test_hashed_values_stay_hashed_beside_their_earlier_values(roles: Mapping[str, Served]) -> None:
    body = FAIR | {"group_by": ["customer"]}

    hashed = (await answer(roles["viewer"], body))["data"]
    clear = (await answer(roles["admin"], body))["data"]

    assert not {row["customer"] for row in hashed} & {row["customer"] for row in clear}
    assert [row["total_revenue__previous"] for row in hashed] == [row["total_revenue__previous"] for row in clear]
