"""The days that a range is compared with, worked out by hand."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from api.errors import InvalidQuery
from api.periods import CompareTo, DateRange, LastUnits, Preset, Shift, TimeRange, Unit, days, shift_to, shifted_back

PREVIOUS, LAST_YEAR = CompareTo.PREVIOUS_PERIOD, CompareTo.SAME_PERIOD_LAST_YEAR


def between(start: str, end: str) -> DateRange:
    return DateRange(start=date.fromisoformat(start), end=date.fromisoformat(end))


RANGES: tuple[tuple[str, TimeRange, str, CompareTo, DateRange], ...] = (
    ("a month", between("2019-03-01", "2019-03-31"), "", PREVIOUS, between("2019-02-01", "2019-02-28")),
    ("a short month", between("2019-02-01", "2019-02-28"), "", PREVIOUS, between("2019-01-01", "2019-01-31")),
    ("a leap month", between("2020-02-01", "2020-02-29"), "", PREVIOUS, between("2020-01-01", "2020-01-31")),
    ("after a leap month", between("2020-03-01", "2020-03-31"), "", PREVIOUS, between("2020-02-01", "2020-02-29")),
    ("a quarter", between("2019-04-01", "2019-06-30"), "", PREVIOUS, between("2019-01-01", "2019-03-31")),
    ("five months", between("2019-02-01", "2019-06-30"), "", PREVIOUS, between("2018-09-01", "2019-01-31")),
    ("a year", between("2020-01-01", "2020-12-31"), "", PREVIOUS, between("2019-01-01", "2019-12-31")),
    ("ten days", between("2019-03-11", "2019-03-20"), "", PREVIOUS, between("2019-03-01", "2019-03-10")),
    ("a day", between("2019-03-01", "2019-03-01"), "", PREVIOUS, between("2019-02-28", "2019-02-28")),
    ("two weeks", between("2019-03-04", "2019-03-17"), "", PREVIOUS, between("2019-02-18", "2019-03-03")),
    ("all but a day", between("2019-03-01", "2019-03-30"), "", PREVIOUS, between("2019-01-30", "2019-02-28")),
    ("this month so far", Preset.THIS_MONTH, "2020-05-20", PREVIOUS, between("2020-04-01", "2020-04-20")),
    ("this month, longer", Preset.THIS_MONTH, "2019-03-30", PREVIOUS, between("2019-02-01", "2019-02-28")),
    ("this month, whole", Preset.THIS_MONTH, "2019-03-31", PREVIOUS, between("2019-02-01", "2019-02-28")),
    ("this month, short", Preset.THIS_MONTH, "2019-02-28", PREVIOUS, between("2019-01-01", "2019-01-31")),
    ("this quarter so far", Preset.THIS_QUARTER, "2020-05-20", PREVIOUS, between("2020-01-01", "2020-02-20")),
    ("this year so far", Preset.THIS_YEAR, "2020-05-20", PREVIOUS, between("2019-01-01", "2019-05-20")),
    ("this week so far", Preset.THIS_WEEK, "2020-05-20", PREVIOUS, between("2020-05-11", "2020-05-13")),
    ("last week", Preset.LAST_WEEK, "2020-05-20", PREVIOUS, between("2020-05-04", "2020-05-10")),
    ("last month", Preset.LAST_MONTH, "2020-03-20", PREVIOUS, between("2020-01-01", "2020-01-31")),
    ("last quarter", Preset.LAST_QUARTER, "2020-05-20", PREVIOUS, between("2019-10-01", "2019-12-31")),
    ("last year", Preset.LAST_YEAR, "2020-05-20", PREVIOUS, between("2018-01-01", "2018-12-31")),
    ("today", Preset.TODAY, "2020-05-20", PREVIOUS, between("2020-05-19", "2020-05-19")),
    ("yesterday", Preset.YESTERDAY, "2020-05-20", PREVIOUS, between("2020-05-18", "2020-05-18")),
    ("3 days", LastUnits(count=3, unit=Unit.DAY), "2020-05-20", PREVIOUS, between("2020-05-15", "2020-05-17")),
    ("2 weeks", LastUnits(count=2, unit=Unit.WEEK), "2020-05-20", PREVIOUS, between("2020-04-27", "2020-05-06")),
    ("3 months", LastUnits(count=3, unit=Unit.MONTH), "2020-05-20", PREVIOUS, between("2019-12-01", "2020-02-20")),
    ("2 quarters", LastUnits(count=2, unit=Unit.QUARTER), "2020-05-20", PREVIOUS, between("2019-07-01", "2019-11-20")),
    ("a month", between("2020-03-01", "2020-03-31"), "", LAST_YEAR, between("2019-03-01", "2019-03-31")),
    ("a leap month", between("2020-02-01", "2020-02-29"), "", LAST_YEAR, between("2019-02-01", "2019-02-28")),
    (
        "a month after a leap year's",
        between("2021-02-01", "2021-02-28"),
        "",
        LAST_YEAR,
        between("2020-02-01", "2020-02-29"),
    ),
    ("some days", between("2020-01-15", "2020-02-29"), "", LAST_YEAR, between("2019-01-15", "2019-02-28")),
    ("the leap day", between("2020-02-29", "2020-02-29"), "", LAST_YEAR, between("2019-02-28", "2019-02-28")),
    ("this month so far", Preset.THIS_MONTH, "2020-05-20", LAST_YEAR, between("2019-05-01", "2019-05-20")),
    ("this year so far", Preset.THIS_YEAR, "2020-05-20", LAST_YEAR, between("2019-01-01", "2019-05-20")),
)


@pytest.mark.parametrize(
    ("time_range", "as_of", "compare_to", "expected"),
    [row[1:] for row in RANGES],
    ids=[f"{row[0]}_{row[3]}".replace(" ", "_") for row in RANGES],
)
def test_the_earlier_days(time_range: TimeRange, as_of: str, compare_to: CompareTo, expected: DateRange) -> None:
    asked = days(time_range, date.fromisoformat(as_of) if as_of else date.max)

    shift = shift_to(compare_to, time_range, asked, is_by_week=False)

    assert shifted_back(asked, shift) == expected


@pytest.mark.parametrize("compare_to", CompareTo)
def test_by_week_the_earlier_days_begin_on_the_same_weekday(compare_to: CompareTo) -> None:
    asked = between("2021-02-01", "2021-02-28")  # a month, and four weeks

    earlier = shifted_back(asked, shift_to(compare_to, asked, asked, is_by_week=True))

    expected = {PREVIOUS: between("2021-01-04", "2021-01-31"), LAST_YEAR: between("2020-02-03", "2020-03-01")}
    assert earlier == expected[compare_to]


@given(start=st.dates(date(1900, 1, 1), date(2100, 1, 1)), length=st.integers(0, 800))
@example(start=date(2019, 3, 1), length=29)
@example(start=date(2020, 2, 1), length=28)
def test_a_previous_period_ends_where_the_asked_one_begins(start: date, length: int) -> None:
    asked = DateRange(start=start, end=start + timedelta(days=length))

    shift = shift_to(PREVIOUS, asked, asked, is_by_week=False)
    earlier = shifted_back(asked, shift)

    assert earlier.end + timedelta(days=1) == asked.start
    if shift.unit is Unit.DAY:
        assert earlier.end - earlier.start == asked.end - asked.start
    else:
        assert (earlier.start.day, asked.start.day) == (1, 1)


@pytest.mark.parametrize(
    ("shift", "grains"),
    [
        (Shift(count=1, unit=Unit.MONTH), "day month"),
        (Shift(count=3, unit=Unit.MONTH), "day month quarter"),
        (Shift(count=4, unit=Unit.MONTH), "day month"),
        (Shift(count=12, unit=Unit.MONTH), "day month quarter year"),
        (Shift(count=7, unit=Unit.DAY), "day week"),
        (Shift(count=364, unit=Unit.DAY), "day week"),
        (Shift(count=30, unit=Unit.DAY), "day"),
    ],
    ids=str,
)
def test_a_shift_maps_the_grains_whose_periods_it_moves_onto_each_other(shift: Shift, grains: str) -> None:
    assert {unit.value for unit in Unit if shift.maps(unit)} == set(grains.split())


def test_days_before_the_calendar_are_refused() -> None:
    asked = between("0001-02-01", "0001-02-28")

    with pytest.raises(InvalidQuery) as caught:
        shifted_back(asked, Shift(count=2, unit=Unit.MONTH))
    assert caught.value.code == "invalid_time_range"
