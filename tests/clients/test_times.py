"""Which days an expression of time means, by its as-of date."""

from __future__ import annotations

from datetime import date

import pytest

from clients.planner import Action, KeylessPlanner, Snapshot

END, NOVEMBER, MARCH, LEAP = date(2019, 12, 31), date(2019, 11, 15), date(2020, 3, 5), date(2020, 2, 29)


@pytest.fixture(scope="module")
def planner(snapshot: Snapshot) -> KeylessPlanner:
    return KeylessPlanner(snapshot)


@pytest.mark.parametrize(
    ("said", "as_of", "start", "end"),
    [
        ("last week", NOVEMBER, "2019-11-04", "2019-11-10"),
        ("this week", NOVEMBER, "2019-11-11", "2019-11-15"),
        ("last quarter", MARCH, "2019-10-01", "2019-12-31"),
        ("this year", MARCH, "2020-01-01", "2020-03-05"),
        ("last 30 days", MARCH, "2020-02-05", "2020-03-05"),
        ("past 12 months", NOVEMBER, "2018-12-01", "2019-11-15"),
        ("the past year", NOVEMBER, "2018-11-16", "2019-11-15"),
        ("last 2 years", MARCH, "2019-01-01", "2020-03-05"),
        ("in February", LEAP, "2020-02-01", "2020-02-29"),
        ("in March", LEAP, "2019-03-01", "2019-03-31"),
        ("last December", MARCH, "2019-12-01", "2019-12-31"),
        ("March last year", MARCH, "2019-03-01", "2019-03-31"),
        ("winter 2019", MARCH, "2019-12-01", "2020-02-29"),
        ("from November to February", MARCH, "2019-11-01", "2020-02-29"),
        ("between 5 and 20 March 2019", END, "2019-03-05", "2019-03-20"),
        ("from March on", END, "2019-03-01", "2019-12-31"),
        ("Dec 24 to Dec 26", END, "2019-12-24", "2019-12-26"),
        ("2019-03-01 - 2019-03-15", END, "2019-03-01", "2019-03-15"),
        ("15.03.2019", END, "2019-03-15", "2019-03-15"),
        ("March 2018 to February 2019", END, "2018-03-01", "2019-02-28"),
        ("2018 to 2019", END, "2018-01-01", "2019-12-31"),
        ("second quarter of 2019", END, "2019-04-01", "2019-06-30"),
        ("quarter 3 2019", END, "2019-07-01", "2019-09-30"),
        ("last quarter of 2018", END, "2018-10-01", "2018-12-31"),
        ("first half", MARCH, "2020-01-01", "2020-06-30"),
        ("last week of March", END, "2019-03-25", "2019-03-31"),
        ("two weeks ago", NOVEMBER, "2019-10-28", "2019-11-03"),
        ("last Monday", NOVEMBER, "2019-11-11", "2019-11-11"),
        ("last Friday", NOVEMBER, "2019-11-08", "2019-11-08"),
        ("Thanksgiving 2018", END, "2018-11-22", "2018-11-22"),
        ("Cyber Monday", NOVEMBER, "2018-11-26", "2018-11-26"),
        ("Halloween", NOVEMBER, "2019-10-31", "2019-10-31"),
        ("week to date", NOVEMBER, "2019-11-11", "2019-11-15"),
        ("since Monday", NOVEMBER, None, None),
        ("29 February 2019", END, None, None),
        ("seit Oktober", END, "2019-10-01", "2019-12-31"),
        ("entre marzo y mayo", END, "2019-03-01", "2019-05-31"),
        ("du 1 mars au 15 mars 2019", END, "2019-03-01", "2019-03-15"),
    ],
)
def test_an_expression_means_these_days(
    planner: KeylessPlanner, said: str, as_of: date, start: str | None, end: str | None
) -> None:
    plan = planner.plan([f"revenue {said}"], as_of=as_of)

    if start is None:  # better none than other days
        assert plan.action is not Action.QUERY
    else:
        assert plan.request == {"metrics": ["total_revenue"], "time_range": {"start": start, "end": end}}, plan.message


def test_a_beginning_goes_on_unless_something_else_is_on_it(planner: KeylessPlanner) -> None:
    by_category = planner.plan(["revenue from March 2019 on by category"]).request
    on_weekends = planner.plan(["revenue from March 2019 on weekends"]).request

    assert by_category is not None
    assert on_weekends is not None
    assert by_category["time_range"] == {"start": "2019-03-01", "end": "2019-12-31"}
    assert on_weekends["time_range"] == {"start": "2019-03-01", "end": "2019-03-31"}
    assert on_weekends["where"]


@pytest.mark.parametrize(
    "said", ["tomorrow", "next month", "next quarter", "in the next 3 weeks", "in 2025", "in December 2019"]
)
def test_the_future_is_declined_with_the_day_on_which_the_data_end(planner: KeylessPlanner, said: str) -> None:
    plan = planner.plan([f"revenue {said}"], as_of=NOVEMBER)

    assert plan.action is Action.REFUSE
    assert "2019-11-15" in plan.message


@pytest.mark.parametrize(
    ("said", "condition"),
    [
        ("until June 2019", {"field": "metric_time__day", "op": "lte", "values": ["2019-06-30"]}),
        ("before June 2019", {"field": "metric_time__day", "op": "lt", "values": ["2019-06-01"]}),
    ],
)
def test_a_range_without_a_beginning_is_a_filter(
    planner: KeylessPlanner, said: str, condition: dict[str, object]
) -> None:
    assert planner.plan([f"revenue {said}"]).request == {"metrics": ["total_revenue"], "where": [condition]}


def test_a_month_that_still_runs_is_compared_as_a_whole(planner: KeylessPlanner) -> None:
    plan = planner.plan(["revenue this month vs last month"], as_of=NOVEMBER)

    assert plan.request == {
        "metrics": ["total_revenue"],
        "time_range": {"start": "2019-11-01", "end": "2019-11-30"},
        "compare_to": "previous_period",
    }


def test_two_months_that_are_no_neighbours_stand_side_by_side(planner: KeylessPlanner) -> None:
    assert planner.plan(["compare March and June revenue"]).request == {
        "metrics": ["total_revenue"],
        "group_by": ["metric_time__month"],
        "where": [{"field": "metric_time__month", "op": "in", "values": ["2019-03-01", "2019-06-01"]}],
    }
