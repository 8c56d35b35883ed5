"""Time zones by their IANA names, for times of day; days are the warehouse's own, in UTC, whatever the zone."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, tzinfo
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from api.catalog import nearest
from api.errors import InvalidQuery, UnknownName


def zone(name: str) -> tzinfo:
    """The zone of that name.

    Raises
    ------
    UnknownName
        There is none; the error carries the nearest names.
    """
    if name == "UTC":
        return UTC
    if name not in _names():
        similar = nearest(name, _names())
        hint = f"Did you mean {' or '.join(similar)}?" if similar else "Use an IANA name, such as Europe/Berlin."
        raise UnknownName(f"There is no time zone {name[:200]!r}", hint=hint, code="unknown_time_zone", nearest=similar)
    return ZoneInfo(name)


@cache  # reads every file of the zone database, some 50 ms
def _names() -> Collection[str]:
    return frozenset(available_timezones()) - {"localtime"}  # the machine's own, whichever that is


def instant(at: datetime, zone: tzinfo) -> datetime:
    """The time in UTC, naive as the warehouse has it; without an offset of its own it is read in the zone.

    Raises
    ------
    InvalidQuery
        The zone's clocks show it twice or never, as they are put back or forward.
    """
    if at.tzinfo is None:
        at = at.replace(tzinfo=zone)
        if at.replace(fold=0).utcoffset() != at.replace(fold=1).utcoffset():
            raise InvalidQuery(
                f"The clocks of {zone} show {at:%Y-%m-%dT%H:%M:%S} twice or never",
                hint=f"Give the offset too, such as {at.isoformat()}.",
                code="invalid_value",
            )
    return at.astimezone(UTC).replace(tzinfo=None)
