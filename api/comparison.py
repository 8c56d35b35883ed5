"""What `compare_to` asks: each metric beside itself over an earlier range, group by group."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from api.catalog import METRIC_TIME, DimensionKind, GroupBy, Metric, ValueType
from api.errors import InvalidQuery
from api.periods import CompareTo, DateRange, Shift, TimeRange, Unit, shift_to, shifted_back, whole_units

# Behind a metric's name; no name of a metric holds two underscores.
PREVIOUS, CHANGE, CHANGE_RATIO = "previous", "change", "change_ratio"


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """The days that the asked ones are compared with, and how far back they lie."""

    days: DateRange
    shift: Shift


def compared(metric: str, what: str) -> str:
    """The name of a column that the comparison adds to the metric: `total_revenue__previous`."""
    return f"{metric}__{what}"


def compared_columns(metrics: Iterable[str]) -> Iterator[str]:
    """The names of all the columns that the comparison adds."""
    for metric in metrics:
        yield from (compared(metric, what) for what in (PREVIOUS, CHANGE, CHANGE_RATIO))


def moves(item: GroupBy) -> bool:
    """Whether the earlier group is the one so much earlier; every other group is compared with its like."""
    return item.dimension.name == METRIC_TIME and item.grain is not None


def earlier(
    compare_to: CompareTo,
    time_range: TimeRange,
    asked: DateRange,
    *,
    metrics: Iterable[Metric],
    group_by: Iterable[GroupBy],
    filtered: Iterable[GroupBy],
) -> Earlier:
    """The days to compare the asked ones with, known to fit the groups.

    Parameters
    ----------
    asked
        The days that `time_range` means.
    filtered
        The fields of the caller's filters.

    Raises
    ------
    InvalidQuery
        A time does not move with the range: a grain whose periods do not lie so far apart, a time of the counted rows
        that is not metric_time, or a filter on the time itself.
    """
    groups, own_times = tuple(group_by), {time for metric in metrics for time in metric.own_times}
    grains = [item.grain for item in groups if item.grain and moves(item)]
    shift = shift_to(compare_to, time_range, asked, is_by_week=Unit.WEEK in grains)
    for grain in grains:
        if not shift.maps(grain):
            raise _incomparable(
                f"The earlier range lies {shift.count} {shift.unit}s back, and no {grain} lies that far behind another",
                hint=_mappable(grain, grains, asked),
            )
    for item in groups:
        if _is_a_day(item, own_times):
            raise _incomparable(
                f"{item.column} has other values in the earlier range, so nothing stands beside it",
                hint="Group by metric_time: compare_to moves it along.",
            )
    for item in filtered:
        if moves(item) or _is_a_day(item, own_times):
            raise _incomparable(
                f"A filter on {item.column} would leave nothing of the earlier range",
                hint="Name the days in time_range.",
            )
    return Earlier(days=shifted_back(asked, shift), shift=shift)


def _is_a_day(item: GroupBy, own_times: set[str]) -> bool:
    """Whether it tells the day of a row, so that no value of it lies in both ranges."""
    if item.dimension.kind is DimensionKind.ENTITY:
        return item.dimension.type in (ValueType.DATE, ValueType.TIMESTAMP)
    return item.grain is not None and item.dimension.name in own_times


def _mappable(grain: str, grains: Collection[str], asked: DateRange) -> str:
    if grain != Unit.WEEK and Unit.WEEK in grains:
        return f"Group by week or by {grain}, not by both."
    whole = whole_units(asked, Unit(grain))
    return f"Ask for whole {grain}s, {whole.start} to {whole.end} for instance."


def _incomparable(detail: str, *, hint: str) -> InvalidQuery:
    return InvalidQuery(detail, hint=hint, code="incomparable")


def beside(
    asked: str, earlier: str, *, metrics: Iterable[str], group_by: Iterable[GroupBy], shift: Shift, back: str
) -> str:
    """One SELECT of each asked row with the earlier values of its group; as many rows as `asked` has.

    Parameters
    ----------
    asked, earlier
        The same SELECT over the two ranges.
    back
        The placeholder of the shift's count.
    """
    groups = tuple(group_by)
    columns = ",\n  ".join((*(f"asked.{item.column}" for item in groups), *map(_values, metrics)))
    matches = "\n  AND ".join(_matches(item, shift.unit, back) for item in groups) or "TRUE"
    return f"SELECT\n  {columns}\nFROM (\n{asked}\n) AS asked\nLEFT JOIN (\n{earlier}\n) AS earlier\nON {matches}"


def _values(metric: str) -> str:
    asked, earlier = f"asked.{metric}", f"earlier.{metric}"
    values = {
        PREVIOUS: earlier,
        CHANGE: f"{asked} - {earlier}",
        CHANGE_RATIO: f"CAST({asked} - {earlier} AS DOUBLE) / NULLIF(CAST({earlier} AS DOUBLE), 0)",
    }
    return ", ".join((asked, *(f"{value} AS {compared(metric, what)}" for what, value in values.items())))


def _matches(item: GroupBy, unit: Unit, back: str) -> str:
    """That the earlier group belongs to the asked one. At most one does: months are counted, and the day is the same.

    Going back by an interval would not do: a month before the 28th to the 31st of March is the 28th of February.
    """
    asked, earlier = f"asked.{item.column}", f"earlier.{item.column}"
    if not moves(item):
        return f"{asked} IS NOT DISTINCT FROM {earlier}"
    if unit is Unit.DAY:
        parts = [f"CAST({asked} AS DATE) = CAST({earlier} AS DATE) + CAST({back} AS INTEGER)"]
    else:
        parts = [f"{_months(asked)} = {_months(earlier)} + {back}", _same("day", asked, earlier)]
    return " AND ".join([*parts, _same("hour", asked, earlier)] if item.grain == "hour" else parts)


def _months(time: str) -> str:
    return f"EXTRACT(year FROM {time}) * 12 + EXTRACT(month FROM {time})"


def _same(part: str, one: str, other: str) -> str:
    return f"EXTRACT({part} FROM {one}) = EXTRACT({part} FROM {other})"
