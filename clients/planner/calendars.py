"""Days of calendar units, seasons and holidays, all counted from the as-of date as the service counts them."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import TypeAlias

_MONTHS_OF = {"month": 1, "quarter": 3, "year": 12}
# Meteorological, by the month that they begin in.
_SEASONS = {"spring": 3, "summer": 6, "autumn": 9, "winter": 12}
_MOST_UNITS = 1_000  # as many as the service takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Days:
    """Days, both ends included.

    Attributes
    ----------
    unit
        The calendar unit of which they are `count` in a row, if they are.
    whole_end
        The last day of the unit where the days stop earlier, as this month does at the as-of date.
    yearly
        The same days of any year, where no year was named.
    """

    start: date
    end: date
    unit: str | None = None
    count: int = 1
    whole_end: date | None = None
    yearly: Yearly | None = None

    @property
    def whole(self) -> Days:
        """With the rest of the unit that still runs."""
        return replace(self, end=self.whole_end, whole_end=None) if self.whole_end else self


Yearly: TypeAlias = Callable[[int], Days]


def unit_of(day: date, unit: str, *, back: int = 0) -> Days:
    """The whole unit that holds the day, or the one so many before; a week begins on Monday."""
    start = _start(day, unit, back=back)
    return Days(start=start, end=_start(day, unit, back=back - 1) - timedelta(days=1), unit=unit)


def this_unit(as_of: date, unit: str) -> Days:
    """The unit that runs, up to the as-of date."""
    whole = unit_of(as_of, unit)
    return replace(whole, end=as_of, whole_end=whole.end)


def last_units(as_of: date, unit: str, count: int) -> Days:
    """The last units, of which the one that runs is the last; ValueError for more than there can be."""
    if not 1 <= count <= _MOST_UNITS:
        raise ValueError(count)
    whole = unit_of(as_of, unit)
    return Days(start=_start(as_of, unit, back=count - 1), end=as_of, unit=unit, count=count, whole_end=whole.end)


def past_unit(as_of: date, unit: str) -> Days:
    """As many days as the unit has, up to the as-of date: "the past year" is not the calendar's last one."""
    if unit in ("day", "week"):
        return Days(start=as_of - timedelta(days=1 if unit == "day" else 6), end=as_of)
    return Days(start=_months_back(as_of + timedelta(days=1), _MONTHS_OF[unit]), end=as_of)


def month(year: int, number: int, *, months: int = 1) -> Days:
    """So many months from the first of that one."""
    last_year, last = divmod(year * 12 + number - 1 + months - 1, 12)
    unit = next((name for name, length in _MONTHS_OF.items() if length == months), None)
    return Days(
        start=date(year, number, 1), end=date(last_year, last + 1, monthrange(last_year, last + 1)[1]), unit=unit
    )


def quarter(year: int, number: int) -> Days:
    """The quarter, 1 to 4."""
    return month(year, 3 * number - 2, months=3)


def half(year: int, number: int) -> Days:
    """The half of the year, 1 or 2."""
    return month(year, 6 * number - 5, months=6)


def season(year: int, name: str) -> Days:
    """The three months of the season that begins in the year."""
    return replace(month(year, _SEASONS[name], months=3), unit=None)


def one_day(day: date) -> Days:
    """That day alone."""
    return Days(start=day, end=day, unit="day")


def holiday(year: int, name: str) -> Days:
    """The day of the holiday; KeyError for one that is not known."""
    return one_day(_HOLIDAYS[name](year))


def latest(yearly: Yearly, as_of: date, *, back: int = 0) -> Days:
    """The days in the latest year in which they have begun by the as-of date."""
    year = as_of.year if yearly(as_of.year).start <= as_of else as_of.year - 1
    return replace(yearly(year - back), yearly=yearly)


def nth_unit(within: Days, unit: str, number: int) -> Days | None:
    """The first, second, … day or seven days of the days (-1 for the last), cut to them; None if there is none."""
    length = timedelta(days=7 if unit == "week" else 1)
    start = within.start + (number - 1) * length if number > 0 else within.end + timedelta(days=1) - length
    end = start + length - timedelta(days=1)
    return Days(start=start, end=min(end, within.end)) if start <= within.end else None


def before(days: Days) -> Days:
    """As many days, or whole months, right before."""
    whole = days.whole
    if whole.start.day == 1 and (whole.end + timedelta(days=1)).day == 1:
        months = (whole.end.year - whole.start.year) * 12 + whole.end.month - whole.start.month + 1
        first = _start(whole.start, "month", back=months)
        return replace(month(first.year, first.month, months=months), unit=days.unit, count=days.count)
    length = whole.end - whole.start + timedelta(days=1)
    return replace(whole, start=whole.start - length, end=whole.end - length, yearly=None)


def year_before(days: Days) -> Days:
    """The same days of the year before; the 28th for a 29th of February."""
    return replace(days, start=_months_back(days.start, 12), end=_months_back(days.end, 12), yearly=None)


def _months_back(day: date, count: int) -> date:
    first = _start(day, "month", back=count)
    return first.replace(day=min(day.day, monthrange(first.year, first.month)[1]))


def _start(day: date, unit: str, *, back: int) -> date:
    match unit:
        case "day":
            return day - timedelta(days=back)
        case "week":
            return day - timedelta(days=day.weekday(), weeks=back)
        case _:
            months = day.year * 12 + day.month - 1
            length = _MONTHS_OF[unit]
            year, number = divmod(months - months % length - back * length, 12)
            return date(year, number + 1, 1)


def _nth_weekday(year: int, number: int, *, weekday: int, nth: int) -> date:
    first = date(year, number, 1)
    return first + timedelta(days=(weekday - first.weekday()) % 7, weeks=nth - 1)


def _thanksgiving(year: int) -> date:
    return _nth_weekday(year, 11, weekday=3, nth=4)


# Holidays of the United States, where the shop sells: 5 U.S.C. 6103 for Thanksgiving, retail's days after it.
_HOLIDAYS: Mapping[str, Callable[[int], date]] = {
    "new_years_day": lambda year: date(year, 1, 1),
    "valentines_day": lambda year: date(year, 2, 14),
    "independence_day": lambda year: date(year, 7, 4),
    "halloween": lambda year: date(year, 10, 31),
    "thanksgiving": _thanksgiving,
    "black_friday": lambda year: _thanksgiving(year) + timedelta(days=1),
    "cyber_monday": lambda year: _thanksgiving(year) + timedelta(days=4),
    "christmas_eve": lambda year: date(year, 12, 24),
    "christmas": lambda year: date(year, 12, 25),
    "new_years_eve": lambda year: date(year, 12, 31),
}
