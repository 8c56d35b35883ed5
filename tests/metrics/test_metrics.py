"""Every metric agrees with hand-written SQL over the raw tables."""

import math
from collections.abc import Iterable
from datetime import UTC, date, datetime, time
from decimal import Decimal

import duckdb
import pytest
from fastapi.testclient import TestClient

from tests.metrics import oracle
from tests.metrics.conftest import Answer, Rows

_RELATIVE = 1e-9


def _plain(value: object) -> object:
    """A time in UTC, without its zone; a day where it is the beginning of one, as either side may write it so."""
    if not isinstance(value, datetime):
        return value
    moment = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
    return moment.date() if moment.time() == time() else moment


def _sorted(rows: Iterable[tuple[object, ...]]) -> Rows:
    plain = [tuple(_plain(value) for value in row) for row in rows]
    return sorted(plain, key=lambda row: tuple(str(value) for value in row[:-1]))


def _agree(actual: object, expected: object) -> bool:
    if isinstance(actual, float) or isinstance(expected, float):
        return (
            actual is not None
            and expected is not None
            and math.isclose(float(str(actual)), float(str(expected)), rel_tol=_RELATIVE, abs_tol=1e-12)
        )
    return actual == expected


@pytest.mark.parametrize("case", oracle.CASES, ids=str)
def test_a_metric_agrees_with_hand_written_sql(
    case: oracle.Case, answer: Answer, raw: duckdb.DuckDBPyConnection
) -> None:
    expected = _sorted(raw.sql(case.sql).fetchall())
    actual = _sorted(answer([case.metric], case.group_by))
    assert expected
    assert [row[:-1] for row in actual] == [row[:-1] for row in expected]
    wrong = [
        (row[:-1], row[-1], wanted[-1])
        for row, wanted in zip(actual, expected, strict=True)
        if not _agree(row[-1], wanted[-1])
    ]
    assert not wrong[:5], f"{len(wrong)} of {len(actual)} rows differ"


SAMPLE = ("gross_revenue", "total_revenue", "average_order_value", "revenue_growth_mom", "revenue_mtd",
          "revenue_trailing_7d", "coupon_conversion_rate", "churn_rate", "new_customers", "return_on_ad_spend",
          "bitcoin_price_latest", "bitcoin_volatility", "crypto_news_share")  # fmt: skip


@pytest.mark.parametrize("data_set", ["synthetic"], indirect=True)
def test_a_sample_of_the_metrics_answers_on_snowflake_as_on_duckdb(answer: Answer, answer_on_snowflake: Answer) -> None:
    """One of each kind; `make test-full` has all of them there, built there."""
    differing = {}
    for metric in SAMPLE:
        (group_by,) = [case.group_by for case in oracle.CASES if case.metric == metric and case.group_by][-1:]
        here, there = _sorted(answer([metric], group_by)), _sorted(answer_on_snowflake([metric], group_by))
        if [row[:-1] for row in here] != [row[:-1] for row in there]:
            differing[metric] = (here[:3], there[:3])
        elif wrong := [(one, other) for one, other in zip(here, there, strict=True) if not _agree(one[-1], other[-1])]:
            differing[metric] = wrong[:3]
    assert differing == {}


def test_every_metric_has_cases_with_and_without_a_grouping(client: TestClient) -> None:
    asked: dict[str, set[tuple[str, ...]]] = {}
    for case in oracle.CASES:
        asked.setdefault(case.metric, set()).add(case.group_by)
    assert asked
    defined = {metric["name"] for metric in client.get("/v1/metrics?limit=500").json()["data"]}
    assert defined == set(asked)
    assert not {metric for metric, group_bys in asked.items() if len(group_bys) < 2}


@pytest.mark.parametrize("metric", ["gross_revenue", "total_revenue", "delivery_charges", "marketing_spend"])
def test_money_is_decimal(metric: str, answer: Answer) -> None:
    ((value,),) = answer([metric], ())
    assert isinstance(value, Decimal | int)


def test_metrics_asked_together_answer_as_they_do_alone(answer: Answer) -> None:
    metrics = ("total_revenue", "marketing_spend", "new_customers", "revenue_growth_mom", "coupon_conversion_rate")
    together = {_plain(row[0]): row[1:] for row in answer(metrics, ("metric_time__month",))}
    for position, metric in enumerate(metrics):
        alone = {_plain(day): value for day, value in answer([metric], ("metric_time__month",))}
        assert alone
        assert set(alone) <= set(together)
        assert {day: values[position] for day, values in together.items() if day in alone} == alone


def test_shares_add_up_to_the_total_at_any_grain(answer: Answer) -> None:
    ((total, delivery),) = answer(("total_revenue", "delivery_charges"), ())
    for dimension in ("metric_time__day", "product", "customer", "sale__sale_size", "calendar_date__day_name"):
        parts = answer(("total_revenue", "delivery_charges"), (dimension,))
        assert len(parts) > 1
        assert sum(Decimal(str(row[1])) for row in parts) == total
        assert sum(Decimal(str(row[2])) for row in parts) == delivery


@pytest.mark.parametrize(("metric", "known"), oracle.REAL_TOTALS.items())
@pytest.mark.parametrize("data_set", ["real"], indirect=True)
def test_the_real_data_give_the_known_totals(metric: str, known: str, answer: Answer) -> None:
    ((value,),) = answer([metric], ())
    digits = len(known.partition(".")[2])
    assert round(Decimal(str(value)), digits) == Decimal(known)


def test_days_of_the_answer_are_dates_of_the_data(answer: Answer, raw: duckdb.DuckDBPyConnection) -> None:
    ((first, last),) = raw.sql("select min(day), max(day) from calendar").fetchall()
    days = [_plain(day) for day, _ in answer(["cumulative_revenue"], ["metric_time__day"])]
    assert days
    assert all(isinstance(day, date) and first <= day <= last for day in days)
