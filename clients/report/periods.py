"""What a report is about: a month, a quarter, a half or a year, as written on the command line."""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from clients.report.errors import UnreadablePeriod

_WRITTEN = re.compile(r"(?P<year>\d{4})(?:-(?:(?P<month>\d{1,2})|[qQ](?P<quarter>[1-4])|[hH](?P<half>[12])))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """Whole months; both ends are part of it."""

    name: str
    start: date
    end: date

    @property
    def time_range(self) -> Mapping[str, str]:
        """As a request has it."""
        return {"start": self.start.isoformat(), "end": self.end.isoformat()}


def read_period(text: str) -> Period:
    """The period that is written as 2019-12, 2019-Q4, 2019-H2 or 2019.

    Raises
    ------
    UnreadablePeriod
        It is written otherwise.
    """
    found = _WRITTEN.fullmatch(text.strip())
    months = (found["month"], found["quarter"], found["half"]) if found else ()
    match [int(part) if part else 0 for part in months]:
        case [month, 0, 0] if 1 <= month <= 12:  # noqa: PLR2004 - months
            first, last = month, month
        case [0, quarter, 0] if quarter:
            first, last = 3 * quarter - 2, 3 * quarter
        case [0, 0, half] if half:
            first, last = 6 * half - 5, 6 * half
        case [0, 0, 0] if found and found["month"] is None:
            first, last = 1, 12
        case _:
            raise UnreadablePeriod(f"{text!r} is no period", hint="Write 2019-12, 2019-Q4, 2019-H2 or 2019.")
    year = int(found["year"]) if found else 0
    if year == 0:
        raise UnreadablePeriod("There is no year 0", hint="Write a year as 2019.")
    end = date(year, last, monthrange(year, last)[1])
    return Period(name=text.strip().upper(), start=date(year, first, 1), end=end)


def month_of(day: date) -> str:
    """The month that the day is in, as written."""
    return f"{day:%Y-%m}"
