"""What a turn says of time: when, and compared with when."""

from __future__ import annotations

from clients.planner.calendars import Days
from clients.planner.draft import METRIC_TIME, Versus
from clients.planner.reading.board import Board
from clients.planner.times import Time, When


def read_times(board: Board) -> None:
    """Take the times: the one that is asked for, and the one that it is compared with."""
    places = [place for place, item in enumerate(board.items) if isinstance(item, Time)]
    for place in places:
        time = board.items[place]
        assert isinstance(time, Time)  # noqa: S101 - as selected
        board.take(place)
        if board.sense(place - 1, "versus") or board.is_than(place - 1):
            board.take(place - 1)
            board.found.versus = Versus(days=time.days, is_year_before=time.when is When.YEAR_EARLIER)
        elif time.days is None and (board.found.time is not None or board.has("compare")):
            board.found.versus = Versus(is_year_before=time.when is When.YEAR_EARLIER)
        elif board.found.time is None:
            board.found.time = time
            _group_each(board, place, time)
        else:
            _join_times(board, place, time)
    _read_change_between(board)


def _group_each(board: Board, place: int, time: Time) -> None:
    """A row for each of several units: "each of the last 4 weeks"."""
    if board.sense(place - 1, "by") and time.days is not None and time.days.unit is not None and time.days.count > 1:
        board.take(place - 1)
        board.found.group_by.append(f"{METRIC_TIME}__{time.days.unit}")


def _join_times(board: Board, place: int, time: Time) -> None:
    """A second time: compared with the first, or next to it."""
    first = board.found.time
    if first is None or first.days is None or time.days is None:
        board.refuse(time.spans)
    if board.has("compare", "change", "more"):
        board.found.versus = Versus(days=time.days)
    elif (time.days.start - first.days.end).days == 1 and _is_listed(board, place):
        board.found.time = Time(
            when=When.IN, days=Days(start=first.days.start, end=time.days.end), spans=first.spans + time.spans
        )
    else:
        board.refuse(time.spans)


def _is_listed(board: Board, place: int) -> bool:
    """Whether it goes on with a list of times: after "and", or right behind another one."""
    before = board.items[place - 1]
    return isinstance(before, Time) or before.sense("and") is not None


def _read_change_between(board: Board) -> None:
    """A range of two neighbours, where a change is asked for, compares them."""
    time = board.found.time
    if time and time.parts and board.has("compare", "change"):
        first, second = time.parts
        board.found.time = Time(when=When.IN, days=second, spans=time.spans)
        board.found.versus = Versus(days=first)


def read_changes(board: Board) -> None:
    """Take comparisons that name no period of their own: "year over year"."""
    for place in list(board.places("on_year", "on_year_of", "on_period")):
        sense = board.sense(place, "on_year", "on_year_of", "on_period")
        if sense is None:
            continue
        board.take(place)
        board.take(*([place - 1] if board.sense(place - 1, "versus") or board.is_than(place - 1) else []))
        unit = None if sense.value in (None, "any") else str(sense.value)
        is_year = sense.kind != "on_period"
        board.found.versus = Versus(unit="year" if sense.kind == "on_year" else unit, is_year_before=is_year)


def read_growth(board: Board) -> None:
    """Take "did it go up in May?", which compares May with what was before it; without a period it is a trend."""
    places = [*board.places("grow"), *(place for place in board.places("drop") if place > 0)]
    if not places or not (board.found.metrics or board.has("metric")):
        return
    if board.found.ranking is not None:  # what grew the most is no order that the service has
        board.refuse([span for place in places if (span := board.span(place))])
    board.take(*places)
    time, is_how = board.found.time, board.told.has("manner") and not board.told.has("amount")
    if board.found.versus is not None:
        return
    if time is None or time.days is None or time.when is not When.IN or time.parts or is_how:
        board.found.is_trend = True
    else:
        board.found.versus = Versus()


def read_more(board: Board) -> None:
    """Take "more" where something is compared: "more orders than last month"."""
    if board.found.versus is not None or board.found.is_compared or board.has("compare"):
        board.take(*board.places("more"))
