"""Expressions of time: which spans of a question say which days.

A small grammar over the classes of the lexicon. A *period* is the longest pattern of the table below that matches; two
periods, or one and a word such as "since", make a range.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from enum import StrEnum
from functools import partial
from typing import Any, TypeAlias

from clients.planner import calendars
from clients.planner.calendars import Days, latest
from clients.planner.errors import Unanswerable
from clients.planner.spans import Span

_FIRST_YEAR, _LAST_YEAR = 1990, 2100


class When(StrEnum):
    """How the days of a time are meant."""

    IN = "in"
    UNTIL = "until"  # anything up to their end
    BEFORE = "before"  # anything up to the day before
    EARLIER = "earlier"  # right before those that are asked for; they are not known here
    YEAR_EARLIER = "year_earlier"  # the same, a year before


@dataclass(frozen=True, slots=True, kw_only=True)
class Time:
    """A stretch of a question that says when; `parts` are the two periods of a range."""

    when: When
    days: Days | None
    spans: tuple[Span, ...]
    parts: tuple[Days, Days] | None = None


Item: TypeAlias = Span | Time


def read_times(spans: Sequence[Span], as_of: date) -> tuple[Item, ...]:
    """The spans with those that speak of time made into times.

    Raises
    ------
    Unanswerable
        They speak of the future.
    """
    reader = _Reader(tuple(_without_fillers(spans)), as_of)
    return tuple(reader.items())


def _without_fillers(spans: Sequence[Span]) -> Iterator[Span]:
    """The spans that say something, each after the comma that stood before its fillers: "revenue, total orders"."""
    after = ""
    for place, span in enumerate(spans):
        after = after or span.words[0].after
        if not span.is_filler or _goes_on(spans, place):
            yield (
                span
                if span.words[0].after
                else replace(span, words=(replace(span.words[0], after=after), *span.words[1:]))
            )
            after = ""


def _goes_on(spans: Sequence[Span], place: int) -> bool:
    """Whether it is the end of "from March on", with nothing after it that it could belong to: "on weekends"."""
    return spans[place].sense("on") is not None and (
        place + 1 == len(spans) or spans[place + 1].sense("by") is not None
    )


class _Reader:
    def __init__(self, spans: tuple[Span, ...], as_of: date) -> None:
        self._spans = spans
        self._as_of = as_of

    def items(self) -> Iterator[Item]:
        start = 0
        while start < len(self._spans):
            time, length = self._range(start) or (None, 1)
            yield time or self._spans[start]
            start += length

    def _range(self, start: int) -> tuple[Time, int] | None:
        """The time that begins here and how many spans it takes."""
        for read in (self._bracketed, self._opened, self._plain):
            if (found := read(start)) is not None:
                return found
        return None

    def _bracketed(self, start: int) -> tuple[Time, int] | None:
        """A range that is written with both its ends: from … to …, between … and …, Jan-Mar."""
        opening = self._is(start, "between", "from", "since")
        first = self._period(start + 1) if opening else self._period(start)
        if first is None:
            return self._days_of_a_month(start) if opening in ("between", "from") else None
        at = start + bool(opening) + first[1]
        if self._is(at, "to", "until") and (opening in ("between", "from") or not self._is(at, "and")):
            at += 1
        elif not self._is_after_dash(at):
            return None
        second = self._period(at)
        if second is None:
            return None
        one, two = _anchored(first[0], second[0])
        if one.start > two.end:
            return None
        return self._time(start, at + second[1], replace(one, end=two.end, unit=None, yearly=None), parts=(one, two))

    def _days_of_a_month(self, start: int) -> tuple[Time, int] | None:
        """Days whose month is said once: "between the 1st and the 15th of June"."""
        day = self._value(start + 1, "day_of_month")
        last = self._period(start + 3) if day and self._is(start + 2, "to", "and") else None
        if last is None or last[0].unit != "day" or not day <= last[0].end.day:
            return None
        days = Days(start=last[0].end.replace(day=day), end=last[0].end)
        return self._time(start, start + 3 + last[1], days)

    def _opened(self, start: int) -> tuple[Time, int] | None:
        """Since, until, before, after …, and the period before an unnamed one."""
        if self._is(start, "unit") and self._is(start + 1, "earlier") and self._period(start + 2) is None:
            is_year = self._value(start, "unit") == "year"
            return self._time(start, start + 2, None, when=When.YEAR_EARLIER if is_year else When.EARLIER)
        word = self._is(start, "since", "until", "before", "after")
        found = self._period(start + 1) if word else None
        if word is None or found is None:
            return None
        days, end = found[0], start + 1 + found[1]
        match word:
            case "since" if days.start <= self._as_of:
                return self._time(start, end, Days(start=days.start, end=self._as_of))
            case "after" if days.end < self._as_of:
                return self._time(start, end, Days(start=days.end + timedelta(days=1), end=self._as_of))
            case "until" | "before":
                return self._time(start, end, days, when=When(word))
            case _:
                return None

    def _plain(self, start: int) -> tuple[Time, int] | None:
        is_led = self._is(start, "from") is not None
        found = self._period(start + is_led)
        onward = ("onward", "on") if is_led else ("onward",)
        if found and found[0].start <= self._as_of and self._is(start + is_led + found[1], *onward):
            days = Days(start=found[0].start, end=self._as_of)
            return self._time(start, start + is_led + found[1] + 1, days)
        return self._time(start, start + is_led + found[1], found[0]) if found else None

    def _time(
        self, start: int, end: int, days: Days | None, *, when: When = When.IN, parts: tuple[Days, Days] | None = None
    ) -> tuple[Time, int]:
        if days is not None and days.start > self._as_of:
            _future(self._as_of)
        return Time(when=when, days=days, spans=self._spans[start:end], parts=parts), end - start

    def _period(self, start: int) -> tuple[Days, int] | None:
        """The longest period that begins here."""
        for pattern, build in _PATTERNS:
            values, end = self._matched(pattern, start)
            if end > start and (days := build(self._as_of, *values)) is not None:
                return days, end - start
        return None

    def _matched(self, pattern: tuple[str, ...], start: int) -> tuple[list[Any], int]:
        """What the spans from there on carry, and the place after them; `start` itself if they are no such period."""
        values: list[Any] = []
        place = start
        for symbol in pattern:
            # A word that may be mere filler is passed over where it is not the symbol: "enero de 2019".
            while (value := self._value(place, symbol)) is None:
                if place == start or self._is(place, "filler") is None:
                    return [], start
                place += 1
            values.append(value)
            place += 1
        return values, place

    def _value(self, place: int, symbol: str) -> Any:  # noqa: ANN401 - each symbol carries its own kind of value
        is_counted = symbol == "year" and 0 < place <= len(self._spans) and _is_comparator(self._spans[place - 1])
        return None if is_counted or place >= len(self._spans) else _value(self._spans[place], symbol)

    def _is(self, place: int, *kinds: str) -> str | None:
        sense = self._spans[place].sense(*kinds) if 0 <= place < len(self._spans) else None
        return sense.kind if sense else None

    def _is_after_dash(self, place: int) -> bool:
        return 0 <= place < len(self._spans) and self._spans[place].words[0].after == "-"


def _is_comparator(span: Span) -> bool:
    return span.sense("gt", "gte", "lt", "lte", "eq", "top") is not None and span.sense("filler") is None


def _value(span: Span, symbol: str) -> Any:  # noqa: ANN401 - each symbol carries its own kind of value
    """What the span carries as the symbol; None if it is none."""
    kind, _, wanted = symbol.partition("=")
    word = span.words[0]
    match kind:
        case "year":
            year = int(word.raw) if word.kind == "number" and word.raw.isdigit() and len(word.raw) == 4 else 0  # noqa: PLR2004
            return year if _FIRST_YEAR <= year <= _LAST_YEAR else None
        case "n" | "day_of_month":
            number = _count(span)
            return number if number is not None and (kind == "n" or 1 <= number <= 31) else None  # noqa: PLR2004
        case "date":
            return word.day
        case _:
            found = [sense for sense in span.senses if sense.kind == kind and wanted in ("", str(sense.value))]
            if not found:
                return None
            return True if found[0].value is None else found[0].value


def _count(span: Span) -> int | None:
    word = span.words[0]
    if word.kind in ("number", "ordinal") and word.number is not None and word.number == int(word.number):
        return int(word.number) if word.raw.rstrip("stndrh").isdigit() else None
    sense = span.sense("cardinal")
    return int(sense.value) if sense and sense.value is not None else None


def _anchored(one: Days, two: Days) -> tuple[Days, Days]:
    """Both periods, the one without a year in the year that the other one says; else the first before the second."""
    if one.yearly and two.yearly is None:
        one = one.yearly(two.start.year)
    elif two.yearly and one.yearly is None:
        two = two.yearly(one.end.year)
    if one.yearly and one.start > two.end:
        one = replace(one.yearly(one.start.year - 1), yearly=one.yearly)
    return one, two


Build: TypeAlias = Callable[..., Days | None]


def _future(as_of: date, *_: object) -> Days | None:
    raise Unanswerable(
        f"The data end on {as_of}; what comes after is not in them.", instead="Ask for days up to then, as last month."
    )


def _of_year(make: Callable[[int, Any], Days]) -> Build:
    return lambda _, value, year: make(year, value)


def _any_year(make: Callable[[int, Any], Days], *, back: int = 0) -> Build:
    return lambda as_of, *values: latest(
        partial(_swapped, make, next(v for v in values if v is not True)), as_of, back=back
    )


def _swapped(make: Callable[[int, Any], Days], value: object, year: int) -> Days:
    return make(year, value)


def _day(year: int, value: tuple[int, int]) -> Days:
    month, day = value
    return calendars.one_day(date(year, month, day))


def _dated(month: int, day: int, year: int) -> Days | None:
    try:
        return _day(year, (month, day))
    except ValueError:
        return None


def _dated_any(as_of: date, month: int, day: int) -> Days | None:
    if _dated(month, day, 2000) is None or (month, day) == (2, 29):
        return None
    return latest(partial(_swapped, _day, (month, day)), as_of)


def _last_named(make: Callable[[int, Any], Days]) -> Build:
    """The latest one that was over before the as-of date's month."""

    def build(as_of: date, _: object, value: object) -> Days:
        year = as_of.year if make(as_of.year, value).end < as_of.replace(day=1) else as_of.year - 1
        return make(year, value)

    return build


def _nth(as_of: date, number: int, unit: str, month: int, year: int | None = None) -> Days | None:
    if unit not in ("day", "week"):
        return None
    days = calendars.month(year, month) if year else latest(lambda any_: calendars.month(any_, month), as_of)
    return calendars.nth_unit(days, unit, number)


def _first_count(as_of: date, number: int, count: int, unit: str, month: int, year: int | None = None) -> Days | None:
    """The first so many days or weeks of a month."""
    first, last = (_nth(as_of, each, unit, month, year) for each in (1, count))
    return replace(first, end=last.end) if number == 1 and first and last else None


def _last_of(as_of: date, count: int, unit: str, month: int, year: int | None = None) -> Days | None:
    """The last so many days or weeks of a month."""
    last = _nth(as_of, -1, unit, month, year)
    start = last.end - timedelta(days=count * (7 if unit == "week" else 1) - 1) if last else None
    return replace(last, start=start) if last and start and start.month == month else None


def _week_of(day: Days | None) -> Days | None:
    return calendars.unit_of(day.start, "week") if day else None


def _weekend(as_of: date, *, back: int) -> Days:
    saturday = calendars.unit_of(as_of, "week", back=back).start + timedelta(days=5)
    return Days(start=saturday, end=saturday + timedelta(days=1))


def _last_weekday(as_of: date, _: object, weekday: int) -> Days:
    return calendars.one_day(as_of - timedelta(days=(as_of.isoweekday() - weekday - 1) % 7 + 1))


def _last(as_of: date, unit: str) -> Days:
    return calendars.unit_of(as_of, unit, back=1)


def _last_count(as_of: date, count: int, unit: str) -> Days | None:
    try:
        return calendars.last_units(as_of, unit, count)
    except (ValueError, OverflowError):
        return None


def _ago(as_of: date, count: int, unit: str) -> Days | None:
    try:
        return calendars.unit_of(as_of, unit, back=count)
    except (ValueError, OverflowError):
        return None


def _day_back(as_of: date, count: int) -> Days:
    return calendars.one_day(as_of - timedelta(days=count))


def _in_year(make: Callable[[int, Any], Days], *, back: int) -> Build:
    """The one of the as-of date's year, or of one before it: "March last year"."""
    return lambda as_of, value, *_: make(as_of.year - back, value)


_MONTH = calendars.month
_TABLE: Mapping[str, Build] = {
    "date": lambda _, day: calendars.one_day(day),
    "month day_of_month year": lambda _, month, day, year: _dated(month, day, year),
    "day_of_month month year": lambda _, day, month, year: _dated(month, day, year),
    "month day_of_month": _dated_any,
    "day_of_month month": lambda as_of, day, month: _dated_any(as_of, month, day),
    "month year": _of_year(_MONTH),
    "last month": _last_named(_MONTH),
    "this month": lambda as_of, _, month: calendars.month(as_of.year, month),
    "month": _any_year(_MONTH),
    "quarter year": _of_year(calendars.quarter),
    "year quarter": lambda _, year, number: calendars.quarter(year, number),
    "ordinal unit=quarter year": lambda _, number, __, year: _numbered(calendars.quarter, number, 4, year),
    "unit=quarter n year": lambda _, __, number, year: _numbered(calendars.quarter, number, 4, year),
    "unit=quarter n": lambda as_of, _, number: _numbered_any(as_of, calendars.quarter, number, 4),
    "ordinal unit=quarter": lambda as_of, number, _: _numbered_any(as_of, calendars.quarter, number, 4),
    "last unit=quarter year": lambda _, __, ___, year: calendars.quarter(year, 4),
    "last quarter": _last_named(calendars.quarter),
    "quarter": _any_year(calendars.quarter),
    "half year": _of_year(calendars.half),
    "ordinal half_unit year": lambda _, number, __, year: _numbered(calendars.half, number, 2, year),
    "ordinal half_unit": lambda as_of, number, _: _numbered_any(as_of, calendars.half, number, 2),
    "half": _any_year(calendars.half),
    "season year": _of_year(calendars.season),
    "last season": _last_named(calendars.season),
    "this season": lambda as_of, _, name: calendars.season(as_of.year, name),
    "season": _any_year(calendars.season),
    "holiday year": _of_year(calendars.holiday),
    "last holiday": _any_year(calendars.holiday),
    "holiday": _any_year(calendars.holiday),
    "ordinal unit month year": _nth,
    "ordinal unit month": _nth,
    "last n unit month year": lambda as_of, _, count, unit, month, year: _last_of(as_of, count, unit, month, year),
    "last n unit month": lambda as_of, _, count, unit, month: _last_of(as_of, count, unit, month),
    "last unit=week month year": lambda as_of, _, unit, month, year: _nth(as_of, -1, unit, month, year),
    "last unit=week month": lambda as_of, _, unit, month: _nth(as_of, -1, unit, month),
    "last unit=day month": lambda as_of, _, unit, month: _nth(as_of, -1, unit, month),
    "month last unit=year": _in_year(_MONTH, back=1),
    "month this unit=year": _in_year(_MONTH, back=0),
    "quarter last unit=year": _in_year(calendars.quarter, back=1),
    "quarter this unit=year": _in_year(calendars.quarter, back=0),
    "season last unit=year": _in_year(calendars.season, back=1),
    "season this unit=year": _in_year(calendars.season, back=0),
    "holiday last unit=year": _in_year(calendars.holiday, back=1),
    "last n unit": lambda as_of, _, count, unit: _last_count(as_of, count, unit),
    "n last unit": lambda as_of, count, _, unit: _last_count(as_of, count, unit),
    "unit=week ago": lambda as_of, unit, _: _ago(as_of, 1, unit),
    "unit=month ago": lambda as_of, unit, _: _ago(as_of, 1, unit),
    "unit=quarter ago": lambda as_of, unit, _: _ago(as_of, 1, unit),
    "ordinal n unit month year": _first_count,
    "ordinal n unit month": _first_count,
    "unit=week month day_of_month year": lambda _, __, month, day, year: _week_of(_dated(month, day, year)),
    "unit=week day_of_month month year": lambda _, __, day, month, year: _week_of(_dated(month, day, year)),
    "unit=week month day_of_month": lambda as_of, _, month, day: _week_of(_dated_any(as_of, month, day)),
    "unit=week day_of_month month": lambda as_of, _, day, month: _week_of(_dated_any(as_of, month, day)),
    "unit=week date": lambda _, __, day: calendars.unit_of(day, "week"),
    "n unit ago": lambda as_of, count, unit, _: _ago(as_of, count, unit),
    "past n unit": lambda as_of, _, count, unit: _last_count(as_of, count, unit),
    "past unit": lambda as_of, _, unit: calendars.past_unit(as_of, unit),
    "last unit": lambda as_of, _, unit: _last(as_of, unit),
    "unit last_after": lambda as_of, unit, _: _last(as_of, unit),
    "this unit to_date": lambda as_of, _, unit, __: calendars.this_unit(as_of, unit),
    "to_date this unit": lambda as_of, _, __, unit: calendars.this_unit(as_of, unit),
    "this unit": lambda as_of, _, unit: calendars.this_unit(as_of, unit),
    "unit to_date": lambda as_of, unit, _: calendars.this_unit(as_of, unit),
    "so_far": calendars.this_unit,
    "last weekend": lambda as_of, _, __: _weekend(as_of, back=1),
    "this weekend": lambda as_of, _, __: _weekend(as_of, back=0),
    "last weekday": _last_weekday,
    "day_back": _day_back,
    "unit=month month year": lambda _, __, month, year: calendars.month(year, month),
    "unit=month month": lambda as_of, _, month: latest(partial(_swapped, _MONTH, month), as_of),
    "unit=year year": lambda _, __, year: calendars.month(year, 1, months=12),
    "year": lambda _, year: calendars.month(year, 1, months=12),
    "next unit": _future,
    "next n unit": _future,
    "next season": _future,
    "next month": _future,
    "future": _future,
}


def _numbered(make: Callable[[int, int], Days], number: int, most: int, year: int) -> Days | None:
    return make(year, number) if 1 <= number <= most else None


def _numbered_any(as_of: date, make: Callable[[int, int], Days], number: int, most: int) -> Days | None:
    return latest(partial(_swapped, make, number), as_of) if 1 <= number <= most else None


_PATTERNS: tuple[tuple[tuple[str, ...], Build], ...] = tuple(
    sorted(((tuple(name.split()), build) for name, build in _TABLE.items()), key=lambda item: -len(item[0]))
)
