"""What is foreseen: as the papers have it, better than a baseline where there is something to see, else not served."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from api.outlook_model import CUSTOMERS_FILE, OUTLOOK_FILE, OutlookModel, read_outlook
from ml.anomalies import PAST_DAYS, find_anomalies
from ml.backtest import Backtest, Window
from ml.buying import Frequency, Repeats, Value
from ml.errors import BadFeaturesError, TooShortHistoryError
from ml.expectation import AVERAGE, HORIZON_DAYS, PROCESS, conduct, expect
from ml.forecast import SAME_WEEKDAY, forecast
from ml.history import History, history
from ml.outlook import Outlook, look_ahead
from ml.outlook_card import section, summary
from tests.ml.histories import CDNOW, FIRST, drawn_purchases, made, weekly
from workers.segments import write_outlook

DAYS = 365
FREQUENT = Frequency(r=0.6, alpha=6.0, a=0.6, b=1.5)


def repeats(count: Any, last: Any, age: Any, value: Any = 0.0) -> Repeats:
    made_up = (np.atleast_1d(np.asarray(each, dtype=float)) for each in (count, last, age, value))
    return Repeats(**dict(zip(("count", "last", "age", "value"), made_up, strict=True)))


@pytest.fixture(scope="module")
def shop() -> History:
    """A year of a shop whose customers buy as BG/NBD has it."""
    return made(drawn_purchases(FREQUENT, 1_500, days=DAYS, seed=4), days=DAYS)


@pytest.fixture(scope="module")
def outlook(shop: History) -> Outlook:
    return look_ahead(shop)


# Buying as a process, beside what is published


def test_the_expected_purchases_are_those_of_the_papers_example() -> None:
    # Fader, Hardie and Lee, Implementing the BG/NBD Model in Excel (2005): two repeats, the last one in week 30.43.
    assert CDNOW.purchases_within(39, repeats(2, 30.43, 38.86)) == pytest.approx(1.226, abs=5e-4)


def test_the_value_of_a_purchase_is_that_of_the_papers_table() -> None:
    # Fader and Hardie, The Gamma-Gamma Model of Monetary Value (2013): customers 1, 2, 3, 6 and 9 of CDNOW.
    model = Value(p=6.25, q=3.74, v=15.44)
    seen = repeats([2, 1, 0, 7, 2], [1] * 5, [2] * 5, [22.35, 11.77, 0, 73.74, 25.55])

    assert model.expected(seen) == pytest.approx([24.65, 18.91, 35.17, 71.46, 27.28], abs=0.06)


def test_nothing_within_some_weeks_is_as_likely_as_to_have_been_silent_for_so_long_more() -> None:
    for count, last, age in ((0, 0, 20), (1, 3, 20), (5, 19, 20), (12, 6, 30)):
        now, later = repeats(count, last, age), repeats(count, last, age + 13)
        ratio = np.exp(CDNOW.log_likelihood(later) - CDNOW.log_likelihood(now))

        assert CDNOW.none_within(13, now) == pytest.approx(ratio)


def test_soon_after_the_expected_purchases_are_the_rate_of_those_who_are_alive() -> None:
    seen = repeats([0, 1, 6], [0, 5, 30], [20, 25, 33])
    rate = CDNOW.alive(seen) * (CDNOW.r + seen.count) / (CDNOW.alpha + seen.age)

    assert CDNOW.purchases_within(1e-3, seen) / 1e-3 == pytest.approx(rate, rel=1e-3)


def test_the_parameters_of_a_drawn_population_are_found_again() -> None:
    drawn = made(drawn_purchases(CDNOW, 6_000, days=DAYS, seed=8), days=DAYS)

    found = Frequency.fit(conduct(drawn.purchases, DAYS - 1).seen)

    assert (found.r, found.alpha) == pytest.approx((CDNOW.r, CDNOW.alpha), rel=0.2)
    assert found.a / (found.a + found.b) == pytest.approx(CDNOW.a / (CDNOW.a + CDNOW.b), abs=0.08)


def test_the_order_of_the_customers_changes_nothing(shop: History) -> None:
    # Sums in another order differ in their last digits, as those of another processor do.
    seen = conduct(shop.purchases, DAYS - 1).seen
    turned = Repeats(count=seen.count[::-1], last=seen.last[::-1], age=seen.age[::-1], value=seen.value[::-1])
    expected, again = (
        Frequency.fit(each).purchases_within(13, seen) * Value.fit(each).expected(seen) for each in (seen, turned)
    )

    assert again == pytest.approx(expected, rel=1e-6)


# What customers had done


def test_what_a_customer_had_done_by_a_day_is_told_without_the_days_after() -> None:
    bought = [(0, 0), (0, 7), (0, 35), (0, 70), (1, 50)]
    shop = made(bought, days=100)
    net = shop.purchases.net

    by = conduct(shop.purchases, 40)

    assert by.who.tolist() == [0]
    assert (by.seen.count[0], by.seen.last[0], by.seen.age[0]) == (2, 5, pytest.approx(40 / 7))
    assert by.seen.value[0] == pytest.approx((net[1] + net[2]) / 2)
    assert by.features[0].tolist() == pytest.approx(
        [5, 40, 3, net[:3].sum(), net[:3].mean(), 1, net[2], 3, net[:3].sum()]
    )


def test_days_without_a_row_are_zero_and_days_after_the_as_of_date_are_left_out() -> None:
    bought = pa.table(
        {
            "customer": [7, 7, 8],
            "metric_time__day": [FIRST, date(2019, 1, 9), date(2019, 1, 3)],
            "net_revenue": [1, 2, 4],
        }
    )
    daily = pa.table({"metric_time__day": [date(2018, 12, 31), date(2019, 1, 3)], "units_sold": [9, 5]})

    found = history(bought, daily, as_of=date(2019, 1, 5), publication="p")

    assert found.purchases.customer_ids.tolist() == [7, 8]
    assert found.purchases.day.tolist() == [0, 2]
    assert found.daily["units_sold"].tolist() == [0, 0, 5, 0, 0]


def test_hidden_ids_are_refused() -> None:
    rows = pa.table({"customer": ["a"], "metric_time__day": [FIRST], "net_revenue": [1.0]})

    with pytest.raises(BadFeaturesError, match="hidden"):
        history(rows, rows, as_of=FIRST, publication="p")


# Customers


def test_what_is_expected_of_customers_beats_the_baselines_where_there_is_something_to_see(outlook: Outlook) -> None:
    customers = outlook.customers
    assert customers is not None

    assert customers.churn_backtest.best == PROCESS
    assert customers.churn_backtest.is_proven
    assert customers.value_backtest.error(customers.value_backtest.best) < customers.value_backtest.error(AVERAGE)
    assert {window.last - window.first for window in customers.churn_backtest.windows} == {
        date(2019, 3, 31) - date(2019, 1, 1)
    }
    assert customers.churn_backtest.windows[-1].last == outlook.history.as_of


def test_the_expectations_come_true_on_the_whole(outlook: Outlook) -> None:
    cut = DAYS - 1 - HORIZON_DAYS
    before = replace(outlook.history, as_of=outlook.history.date_of(cut))
    past = replace(before, purchases=before.purchases.until(cut))
    said = expect(past)
    after = outlook.history.purchases.between(cut, DAYS - 1)
    known = np.isin(after.customer_ids, said.customer_ids)

    assert said.churn.mean() == pytest.approx((after.days()[known] == 0).mean(), abs=0.05)
    assert said.value.sum() == pytest.approx(after.spent()[known].sum(), rel=0.25)


def test_where_nothing_tells_customers_apart_nothing_is_proven() -> None:
    drawn = np.random.default_rng(2)
    # Everybody comes on day 0, and buys with the same chance each day, so the past says nothing.
    bought = sorted({(c, int(d)) for c in range(400) for d in (0, *drawn.choice(DAYS, drawn.poisson(8)))})

    customers = expect(made(bought, days=DAYS))

    assert not customers.churn_backtest.is_proven


def test_two_looks_at_one_history_are_the_same(shop: History, outlook: Outlook) -> None:
    again = look_ahead(shop)

    assert again.document() == outlook.document()
    assert again.customer_table() == outlook.customer_table()


# Metrics


def test_a_forecast_keeps_the_week_and_its_intervals_hold_what_they_promise(shop: History) -> None:
    found = forecast(shop, "total_revenue")
    value, low, high = found.paths.days()

    assert (low < value).all()
    assert (value < high).all()
    assert (DAYS + value[:7].argmax()) % 7 == 4  # the best day of the drawn week
    assert 0.65 < found.coverage < 0.95
    assert found.backtest.is_proven
    assert found.paths.total()[0] == pytest.approx(value.sum())


def test_a_forecast_that_is_no_better_than_the_same_weekday_is_not_proven() -> None:
    regular = weekly(DAYS, seed=1, noise=0.0)

    found = forecast(made([(0, 0)], days=DAYS, daily=regular), "total_revenue")

    assert found.backtest.error(SAME_WEEKDAY) == pytest.approx(0)
    assert not found.backtest.is_proven


def test_planted_days_are_flagged_and_others_are_not() -> None:
    series = weekly(DAYS, seed=3, noise=0.05)
    series[200] *= 0.4
    series[300] *= 2.5

    found = find_anomalies(made([(0, 0)], days=DAYS, daily=series), "units_sold")
    flagged = {int(found.judged.day[place]): found.judged.score[place] for place in found.flagged}

    assert flagged[200] < 0 < flagged[300]
    assert len(flagged) < 8
    assert found.backtest.is_proven


def test_a_day_is_judged_by_the_days_before_it_alone() -> None:
    series = weekly(DAYS, seed=3)
    changed = np.concatenate([series[:250], series[250:] * 7])
    shops = [made([(0, 0)], days=DAYS, daily=each) for each in (series, changed)]

    first, second = (find_anomalies(shop, "units_sold").judged for shop in shops)

    assert first.score[: 250 - PAST_DAYS].tolist() == second.score[: 250 - PAST_DAYS].tolist()


# Judging


def window(**errors: float) -> Window:
    return Window(first=FIRST, last=FIRST, errors=errors)


@pytest.mark.parametrize(
    ("windows", "expected"),
    [
        ([window(model=1, naive=2), window(model=1, naive=2)], True),
        ([window(model=1.99, naive=2), window(model=1.99, naive=2)], False),  # within the margin
        ([window(model=1, naive=9), window(model=3, naive=2), window(model=3, naive=2)], False),  # by one month alone
        ([window(model=2, naive=2)], False),
    ],
)
def test_what_beats_its_baseline_clearly_and_mostly_is_proven(windows: list[Window], expected: object) -> None:
    test = Backtest(subject="s", measure="m", baseline="naive", windows=tuple(windows))

    assert test.best == "model"
    assert test.is_proven is expected


def test_too_short_a_history_is_left_out_and_noted() -> None:
    short = made([(customer, customer % 40) for customer in range(300)], days=50)

    found = look_ahead(short)

    assert (found.customers, found.forecasts, found.anomalies) == (None, (), ())
    assert found.notes[0].startswith("No outlook of customers: 50 days of sales are too few")
    assert len(found.notes) == 8
    with pytest.raises(TooShortHistoryError):
        expect(short)


def test_a_shop_to_which_nobody_returns_has_no_outlook_of_customers() -> None:
    found = look_ahead(made([(customer, customer % 300) for customer in range(900)], days=DAYS))

    assert found.customers is None
    assert found.notes == ("No outlook of customers: 0 customers who bought again are too few",)


def test_a_metric_that_was_nothing_most_days_has_a_forecast_of_numbers() -> None:
    sparse = np.zeros(DAYS)
    sparse[::50] = 1e6

    found = look_ahead(made([(0, 0)], days=DAYS, daily=sparse)).document()

    assert OutlookModel.model_validate(found).forecasts  # it takes finite numbers alone


# What is told and published of it


def test_the_card_and_the_command_show_every_back_test_and_what_is_not_served(outlook: Outlook) -> None:
    unproven = replace(
        outlook.forecasts[0].backtest, windows=(window(**{"exponential smoothing": 2.0, SAME_WEEKDAY: 1.0}),)
    )
    worse = replace(outlook, forecasts=(replace(outlook.forecasts[0], backtest=unproven), *outlook.forecasts[1:]))

    card, told = "\n".join(section(worse)), "\n".join(summary(worse))

    for about, test in worse.backtests():
        assert about[1:] in card
        assert about in told
        assert test.baseline in card
    assert "**does not beat its baseline: not served**" in card
    assert "NOT served" in told


def test_what_is_published_is_what_the_service_reads(outlook: Outlook, tmp_path: Path) -> None:
    for name, content in write_outlook(outlook).items():
        (tmp_path / name).write_bytes(content)

    read = read_outlook(tmp_path)

    assert outlook.customers is not None
    assert read is not None
    assert read.customers is not None
    assert read.model == OutlookModel.model_validate(outlook.document())
    ids = outlook.customers.customer_ids.tolist()
    for place in (0, len(ids) // 2, len(ids) - 1):
        found = read.customers.find(ids[place])
        assert found is not None
        assert found.churn_probability == pytest.approx(outlook.customers.churn[place], abs=1e-4)
        assert found.net_revenue == pytest.approx(outlook.customers.value[place], abs=0.01)
    assert (read.customers.find(0), read.customers.find(10**9)) == (None, None)


@pytest.mark.parametrize("name", [OUTLOOK_FILE, CUSTOMERS_FILE])
def test_a_damaged_outlook_makes_the_publication_a_damaged_one(outlook: Outlook, tmp_path: Path, name: str) -> None:
    from api.errors import Unavailable

    for each, content in write_outlook(outlook).items():
        (tmp_path / each).write_bytes(content)
    (tmp_path / name).write_bytes(b"{")

    with pytest.raises(Unavailable, match="damaged"):
        read_outlook(tmp_path)
