"""Time ranges in days: absolute, or relative to the as-of date (never to the wall clock), and the ranges before."""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from typing import Literal, TypeAlias, assert_never

from api.errors import InvalidQuery

MAX_UNITS = 1_000
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class Unit(StrEnum):
    """A calendar unit; a week begins on Monday (ISO 8601)."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"


@dataclass(frozen=True, slots=True, kw_only=True)
class DateRange:
    """Days from `start` to `end`, both included."""

    start: date
    end: date


@dataclass(frozen=True, slots=True, kw_only=True)
class LastUnits:
    """The last `count` units up to the as-of date, whose own unit is the last of them and may be incomplete."""

    count: int
    unit: Unit


class Preset(StrEnum):
    """The as-of date's own unit so far, or the whole unit before it."""

    TODAY = "today"
    YESTERDAY = "yesterday"
    THIS_WEEK = "this_week"
    LAST_WEEK = "last_week"
    THIS_MONTH = "this_month"
    LAST_MONTH = "last_month"
    THIS_QUARTER = "this_quarter"
    LAST_QUARTER = "last_quarter"
    THIS_YEAR = "this_year"
    LAST_YEAR = "last_year"


TimeRange: TypeAlias = DateRange | LastUnits | Preset


class CompareTo(StrEnum):
    """The earlier range that a time range is compared with."""

    PREVIOUS_PERIOD = "previous_period"
    SAME_PERIOD_LAST_YEAR = "same_period_last_year"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """How far back: so many whole months, or so many days."""

    count: int
    unit: Literal[Unit.DAY, Unit.MONTH]

    def maps(self, grain: str) -> bool:
        """Whether each period of the grain lies so far behind another one; at day grain, all that exist do."""
        match grain:
            case Unit.WEEK:
                return self.unit is Unit.DAY and self.count % _UNITS[Unit.WEEK].count == 0
            case Unit.MONTH | Unit.QUARTER | Unit.YEAR:
                return self.unit is Unit.MONTH and self.count % _UNITS[Unit(grain)].count == 0
            case _:
                return True


# What each unit is long: in months, or else in days.
_UNITS = {
    Unit.DAY: Shift(count=1, unit=Unit.DAY),
    Unit.WEEK: Shift(count=7, unit=Unit.DAY),
    Unit.MONTH: Shift(count=1, unit=Unit.MONTH),
    Unit.QUARTER: Shift(count=3, unit=Unit.MONTH),
    Unit.YEAR: Shift(count=12, unit=Unit.MONTH),
}
# The whole weeks of a year, so that Monday stands beside Monday.
_WEEKS_OF_A_YEAR = Shift(count=52 * 7, unit=Unit.DAY)


def day(text: str) -> date:
    """The day written as `2019-01-31`; ValueError for anything else, the other spellings of ISO 8601 among it."""
    if not _DAY.fullmatch(text):
        raise ValueError(text)
    return date.fromisoformat(text)


def days(time_range: TimeRange, as_of: date) -> DateRange:
    """The days that the range means.

    Raises
    ------
    InvalidQuery
        The range ends before it starts, or reaches beyond the calendar.
    """
    try:
        resolved = _resolved(time_range, as_of)
    except (OverflowError, ValueError) as error:
        raise _beyond_the_calendar() from error
    if resolved.start > resolved.end:
        raise InvalidQuery(
            f"The time range ends ({resolved.end}) before it starts ({resolved.start})",
            hint="Swap start and end.",
            code="invalid_time_range",
        )
    return resolved


def whole_units(range_: DateRange, unit: Unit) -> DateRange:
    """The range, widened to whole units at both ends, as far as the calendar goes."""
    try:
        end = _start(range_.end, unit, back=-1) - timedelta(days=1)
    except (OverflowError, ValueError):
        end = date.max
    return DateRange(start=_start(range_.start, unit), end=end)


def shift_to(compare_to: CompareTo, time_range: TimeRange, asked: DateRange, *, is_by_week: bool) -> Shift:
    """How far behind the asked days their earlier ones lie.

    A relative range moves by its own units, so that one which still runs meets the same cut of the units before. An
    absolute one moves by its months if it is made of whole ones, else by its days; by week, by its days always. A year
    is 12 months, by week 52 weeks.

    Parameters
    ----------
    asked
        The days that `time_range` means.
    is_by_week
        Whether the answer is grouped by week.
    """
    if compare_to is CompareTo.SAME_PERIOD_LAST_YEAR:
        return _WEEKS_OF_A_YEAR if is_by_week else _UNITS[Unit.YEAR]
    match time_range:
        case LastUnits(count=count, unit=unit):
            return Shift(count=count * _UNITS[unit].count, unit=_UNITS[unit].unit)
        case Preset.TODAY | Preset.YESTERDAY:
            return _UNITS[Unit.DAY]
        case Preset():
            return _UNITS[Unit(time_range.partition("_")[2])]
        case DateRange() if whole_units(asked, Unit.MONTH) == asked and not is_by_week:
            return Shift(count=_months(asked.end) - _months(asked.start) + 1, unit=Unit.MONTH)
        case DateRange():
            return Shift(count=(asked.end - asked.start).days + 1, unit=Unit.DAY)
        case _:
            assert_never(time_range)


def shifted_back(asked: DateRange, shift: Shift) -> DateRange:
    """The earlier days: whole months for whole months; a day that its month does not have becomes the last that it has.

    Raises
    ------
    InvalidQuery
        They lie before the calendar begins.
    """
    try:
        if shift.unit is Unit.DAY:
            back = timedelta(days=shift.count)
            return DateRange(start=asked.start - back, end=asked.end - back)
        earlier = DateRange(start=_months_back(asked.start, shift.count), end=_months_back(asked.end, shift.count))
    except (OverflowError, ValueError) as error:
        raise _beyond_the_calendar() from error
    return whole_units(earlier, Unit.MONTH) if whole_units(asked, Unit.MONTH) == asked else earlier


def _beyond_the_calendar() -> InvalidQuery:
    return InvalidQuery(
        "The time range reaches beyond the calendar", hint="Ask for fewer units.", code="invalid_time_range"
    )


def _resolved(time_range: TimeRange, as_of: date) -> DateRange:
    match time_range:
        case DateRange():
            return time_range
        case LastUnits(count=count, unit=unit):
            return DateRange(start=_start(as_of, unit, back=count - 1), end=as_of)
        case Preset.TODAY:
            return DateRange(start=as_of, end=as_of)
        case Preset.YESTERDAY:
            return _unit_before(as_of, Unit.DAY)
        case Preset():
            which, _, noun = time_range.partition("_")
            if which == "last":
                return _unit_before(as_of, Unit(noun))
            return DateRange(start=_start(as_of, Unit(noun)), end=as_of)
        case _:
            assert_never(time_range)


def _unit_before(as_of: date, unit: Unit) -> DateRange:
    return DateRange(start=_start(as_of, unit, back=1), end=_start(as_of, unit) - timedelta(days=1))


def _start(day: date, unit: Unit, *, back: int = 0) -> date:
    """The first day of the unit that holds `day`, or of the unit that many units before."""
    match unit:
        case Unit.DAY:
            return day - timedelta(days=back)
        case Unit.WEEK:
            return day - timedelta(days=day.weekday(), weeks=back)
        case Unit.MONTH:
            return _first_of_month(day, months_back=back)
        case Unit.QUARTER:
            return _first_of_month(day, months_back=(day.month - 1) % 3 + 3 * back)
        case Unit.YEAR:
            return date(day.year - back, 1, 1)
        case _:
            assert_never(unit)


def _first_of_month(day: date, *, months_back: int) -> date:
    years, month = divmod(_months(day) - months_back, 12)
    return date(years, month + 1, 1)


def _months_back(day: date, count: int) -> date:
    first = _first_of_month(day, months_back=count)
    return first.replace(day=min(day.day, monthrange(first.year, first.month)[1]))


def _months(day: date) -> int:
    """The months of all years up to the day's own, which counts not."""
    return day.year * 12 + day.month - 1
