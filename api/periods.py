"""Time ranges in days: absolute, or relative to the as-of date (never to the wall clock)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from typing import TypeAlias, assert_never

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
        raise InvalidQuery(
            "The time range reaches beyond the calendar", hint="Ask for fewer units.", code="invalid_time_range"
        ) from error
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
    years, month = divmod(day.year * 12 + day.month - 1 - months_back, 12)
    return date(years, month + 1, 1)
