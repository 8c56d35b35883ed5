"""What a turn names: groups, grains and metrics."""

from __future__ import annotations

from itertools import pairwise

from clients.planner.draft import METRIC_TIME
from clients.planner.reading.board import Board
from clients.planner.reading.quantities import order_by
from clients.planner.spans import Span
from clients.planner.times import Time
from clients.planner.words import Word, key_of


def read_groups(board: Board) -> None:
    """The names behind "by", "which" and "split"; a metric behind "by" is what the rest is ordered by."""
    for place in list(board.places("by", "which", "split")):
        is_by = board.sense(place, "by") is not None
        near = place + 1
        if _is_split_of(board, place):
            continue
        if is_by and _is_ratio(board, place):
            board.found.loose.append(board.dimension(near) or "")
            board.take(near)
            continue
        if is_by and board.found.group_by and board.found.ranking and (ordered := board.sense(near, "metric")):
            order_by(board, near, ordered.name)
            continue
        near = _group_behind(board, near, is_by=is_by)
        is_order = board.found.ranking or board.found.group_by or board.has("dimension", "follow") or place == 0
        if is_by and is_order and near == place + 1 and (sense := board.sense(near, "metric")) is not None:
            order_by(board, near, sense.name)


def _group_behind(board: Board, first: int, *, is_by: bool) -> int:
    """Take the list of groups that begins there; the place after it."""
    near = first
    while near < len(board.items):
        if near == first and near not in board.left:  # the number of "which five cities"
            near += 1
        elif (name := _dimension_behind(board, near, is_by=is_by)) is not None:
            near = board.group(near, name)
        elif (unit := board.sense(near, "unit", "weekend")) and unit.kind == "unit" and not board.sense(near, "filler"):
            near = board.group(near, f"{METRIC_TIME}__{unit.value}")
        elif board.sense(near, "and", "cross") and (board.dimension(near + 1) or board.sense(near + 1, "unit")):
            board.take(*([near] if board.sense(near, "cross") else []))
            near += 1
        else:
            break
    return near


def _dimension_behind(board: Board, place: int, *, is_by: bool) -> str | None:
    """The dimension there, so too in "which products sold fewer than 10 units", where no number of them is asked."""
    span = board.span(place)
    if span is None or span.sense("unit"):
        return None
    if not is_by and len(span.words) > 1 and board.found.having and span.sense("metric"):
        return board.named("dimension", span.words[0].text)
    return None if _is_metric_after(board, place, is_by=is_by) else board.dimension(place)


def _is_split_of(board: Board, place: int) -> bool:
    """Whether it was "the gender split of …", which is a group."""
    name = board.dimension(place - 1) if board.sense(place, "split") else None
    if name is not None:
        board.group(place - 1, name)
        board.take(place)
    return name is not None


def _is_ratio(board: Board, place: int) -> bool:
    """Whether "per" may mean an average, as in "orders per customer", or a row for each: nobody can tell."""
    span, name = board.span(place), board.dimension(place + 1)
    is_per = span is not None and span.words[-1].text in ("per", "pro")
    is_key = name is not None and board.snapshot.dimensions[name]["kind"] == "entity"
    return is_per and is_key and not board.found.ranking


def _is_metric_after(board: Board, place: int, *, is_by: bool) -> bool:
    """Whether a name that may be either is the metric: "which orders", or a list that has gone on to another."""
    is_asked_for = any(board.sense(near, "which") for near in (place - 1, place - 2))
    return board.sense(place, "metric") is not None and not is_by and not is_asked_for


def read_grains(board: Board) -> None:
    """Take "monthly", "trend", and the units that are ranked: "which day had the most …"."""
    for place in list(board.places("grain")):
        sense = board.sense(place, "grain")
        if sense is not None:
            board.found.group_by.append(f"{METRIC_TIME}__{sense.value}")
            board.take(place)
    for place in list(board.places("trend")):
        board.found.is_trend = True
        board.take(place)
    if board.has("change") and board.found.versus is None:  # "how did revenue develop?"
        board.found.is_trend = True
    for place in list(board.places("unit")):
        span, unit = board.span(place), board.sense(place, "unit")
        if span is not None and unit is not None and span.words[0].after == "/":  # "revenue/month"
            board.group(place, f"{METRIC_TIME}__{unit.value}")
    if board.found.ranking or board.found.having or board.has("follow"):
        for place in list(board.places("unit")):
            unit = board.sense(place, "unit")
            if unit is not None and not _is_same(board, place - 1) and not board.sense(place, "filler"):
                board.group(place, f"{METRIC_TIME}__{unit.value}")


def _is_same(board: Board, place: int) -> bool:
    """Whether it is the "same" of "the same quarter", which is a time that nobody told."""
    span = board.span(place)
    return span is not None and "same" in (word.text for word in span.words)


def read_metrics(board: Board) -> None:
    """Take the metrics, but not the nouns of conditions and ranks."""
    for place in list(board.places("metric")):
        if _is_noun_of_condition(board, place):
            continue
        sense = board.sense(place, "metric")
        if sense is not None:
            board.found.metrics[place] = sense.name
            board.take(place)
            board.take(*([place + 1] if board.sense(place + 1, "versus") else []))
            board.take(*([place - 1] if board.sense(place - 1, "versus") else []))
    _read_shortened_metrics(board)


def _is_noun_of_condition(board: Board, place: int) -> bool:
    """Whether it is what has a condition or rank, not what is counted: "customers with at least 10 orders"."""
    has_dimension = board.dimension(place) is not None
    has_other = bool(board.found.metrics)
    return has_dimension and has_other and (bool(board.found.having) or board.found.ranking is not None)


def _read_shortened_metrics(board: Board) -> None:
    """The shortened name in "new and returning customers", which the last word of the name behind completes."""
    for place, item in enumerate(board.items):
        if place not in board.left or not isinstance(item, Span) or item.senses:
            continue
        behind = next((near for near in (place + 1, place + 2) if near in board.found.metrics), None)
        if behind is None:
            continue
        whole = board.items[behind]
        assert isinstance(whole, Span)  # noqa: S101 - a metric was read from it
        words = (item.words[0].text, whole.words[-1].text)
        sense = next((sense for sense in board.index.senses(words) if sense.kind == "metric"), None)
        if sense is not None:
            board.found.metrics[place] = sense.name
            board.take(place, *range(place, behind))


def read_completed_names(board: Board) -> None:
    """Names that end as what was asked, now or before: "spend online/offline"; "split it into online and offline"."""
    words = {
        place: item.words[0].text
        for place, item in enumerate(board.items)
        if place in board.left and isinstance(item, Span) and not item.senses
    }
    whole = [key_of(board.snapshot.metrics[name]["label"]) for name in board.before if not board.found.metrics]
    own = [
        key_of(item.text)
        for place, item in enumerate(board.items)
        if place in board.found.metrics and isinstance(item, Span)
    ]
    for last in [key[-1] for key in (*whole, *own)] if words else ():
        named = {place: name for place, word in words.items() if (name := board.named("metric", word, last))}
        if len(named) == len(words):
            board.found.metrics = dict(named)
            board.take(*named)
            return


def read_rest_of_dimensions(board: Board) -> None:
    """A dimension without a word that says what for is what is ranked or has a condition, else to be asked back."""
    is_group = board.found.ranking or board.found.having or board.has("split", "compare", "add", "drop")
    for place in list(board.places("dimension")):
        if (name := board.dimension(place)) is not None and is_group:
            board.group(place, name)
        elif name is not None and board.told.has("did") and board.sense(place, "buy"):
            board.take(place)  # "how many orders did women place"
        elif name is not None:
            board.found.loose.append(name)
            board.take(place)


def read_partial_names(board: Board) -> None:
    """Words that are a part of metrics' names alone: these metrics are candidates."""
    unknown = [
        place
        for place in sorted(board.left)
        if isinstance(s := board.items[place], Span) and all(sense.kind in ("average", "cost") for sense in s.senses)
    ]
    words = [_word(board, place) for place in unknown]
    speaking = board.index.metrics_speaking_of(words)
    if not words or not speaking:
        return
    near = [place for place in board.found.metrics if min(abs(place - each) for each in unknown) == 1]
    wider = [word.text for place in near for word in _words(board, place)]
    speaking = board.index.metrics_speaking_of([*words, *wider])
    if not speaking:  # "share of revenue" is no metric, though there are other shares
        return
    if len(speaking) == 1 and set(speaking) <= {board.found.metrics[place] for place in near}:
        board.take(*unknown)  # "distinct buyers": more words for what is named already
        return
    for place in near:
        del board.found.metrics[place]
    board.found.candidates = tuple(sorted(speaking, key=board.snapshot.usual_metrics.index))
    board.take(*unknown)


def read_averages(board: Board) -> None:
    """Take "on average" and "mean" beside metrics that are averages anyway; of others nobody knows over what."""
    metrics = board.found.metrics.values()
    if metrics and all(board.snapshot.metrics[name]["type"] == "ratio" for name in metrics):
        board.take(*board.places("on_average", "average"))
    _read_average_of_each(board)


def _read_average_of_each(board: Board) -> None:
    """What a customer spends on average: what is earned of each of them."""
    found, earned, buyer = board.found, board.named("metric", "earned"), board.named("dimension", "buyer")
    average = board.named("metric", "earned", "per", "buyer")
    places = [*board.places("on_average", "average")]
    buyers = {name for name in (board.named("metric", "buyers"), buyer) if name}
    named = {*found.metrics.values(), *found.loose}
    if places and average and earned in named and named - {earned} and named <= {earned, *buyers}:
        found.metrics, found.loose = {places[0]: average}, []
        board.take(*places)


def read_currencies(board: Board) -> None:
    """Take "in dollars" where that is the unit anyway."""
    units = [board.snapshot.metrics[name]["unit"] or "" for name in board.found.metrics.values()]
    if units and all(unit.startswith("USD") for unit in units):
        board.take(*board.places("currency"))


def _word(board: Board, place: int) -> str:
    return _words(board, place)[0].text


def _words(board: Board, place: int) -> tuple[Word, ...]:
    item = board.items[place]
    return item.words if isinstance(item, Span) else ()


def doubt_unconnected_metrics(board: Board) -> None:
    """Metrics that nothing joins are no list: "customer churn" is one, "revenue from new customers" none known."""
    found = board.found
    places = sorted(set(found.metrics) - found.conditioned)
    for first, second in pairwise(places):
        if _is_connected(board, first, second):
            continue
        span = board.items[first]
        if second == first + 1 and isinstance(span, Span) and span.sense("dimension"):
            del found.metrics[first]
        elif found.metrics[first] != found.metrics[second]:
            found.candidates = tuple(dict.fromkeys(found.metrics[place] for place in places))
    if found.candidates:
        found.metrics = {place: name for place, name in found.metrics.items() if place in found.conditioned}


def _is_connected(board: Board, first: int, second: int) -> bool:
    between = board.items[first + 1 : second + 1]
    return any(
        span.words[0].after in (",", "/", ";") or span.sense("and", "versus")
        for item in between
        for span in (item.spans if isinstance(item, Time) else (item,))
    )
