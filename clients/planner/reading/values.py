"""What a turn says by values: filters, and groups that are set against each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from clients.planner.draft import Condition, Scalar
from clients.planner.index import Sense
from clients.planner.reading.board import Board
from clients.planner.words import key_of


def read_everywhere(board: Board) -> None:
    """All of a dimension, as in "for all locations": no filter on it, and no group."""
    for place in list(board.places("all")):
        name = board.dimension(place + 1)
        if name is not None and board.sense(place - 1, "which"):  # "list all categories with …"
            board.take(place)
            continue
        if name is not None and not board.sense(place + 1, "metric") and not board.sense(place - 1, "by"):
            board.found.everywhere.append(name)
            board.found.group_by += [name] if board.has("compare") else []  # "all locations side by side"
            board.take(place, place + 1)


def read_left_out(board: Board) -> None:
    """Take "leave Apparel out", whose two words say no more than "without", and "break revenue down"."""
    for place in list(board.places("leave")):
        span = board.span(place)
        out = next((near for near in board.places("out") if near > place), None)
        if span is not None and out is not None and any(place < near < out for near in board.places("value")):
            board.replace(place, replace(span, senses=(Sense(kind="not"),)))
            board.take(out)
    for place in list(board.places("break")):
        down = next((near for near in board.places("out") if near > place), None)
        if down is not None and (down == place + 1 or any(place < near < down for near in board.places("metric"))):
            board.take(place, down)


def read_codes(board: Board) -> None:
    """Letters that are codes are values where two of a dimension stand together: "M vs F"."""
    for first in list(board.places("code")):
        for second in (first + 1, first + 2):
            codes = board.sense(first, "code"), board.sense(second, "code") if second < len(board.items) else None
            one, two = codes
            if one is None or two is None or one.name != two.name or not _is_joined(board, first, second):
                continue
            for place, code in ((first, one), (second, two)):
                span = board.span(place)
                if span is not None:
                    board.replace(place, replace(span, senses=(replace(code, kind="value"),)))


def read_swapped(board: Board) -> None:
    """Take "swap Chicago for New York", whose second value takes the place of the first anyway."""
    for place in list(board.places("swap")):
        near = place + 2 + bool(board.sense(place + 2, "for", "by", "to"))
        gone, come = board.sense(place + 1, "value"), board.sense(near, "value") if near < len(board.items) else None
        if gone is not None and come is not None and gone.name == come.name:
            board.take(*range(place, near))


def _is_joined(board: Board, first: int, second: int) -> bool:
    """Whether nothing but a word that joins or a stroke is between the two."""
    span = board.span(second)
    return bool(board.sense(second - 1, "versus", "and", "to")) or (
        second == first + 1 and span is not None and span.words[0].after in ("/", "-", ",")
    )


def read_values(board: Board) -> None:
    """Take the values with the nouns beside them; each is a filter, unless several are set against each other."""
    has_metric = bool(board.found.metrics) or any(_is_sure_metric(board, place) for place in board.places("metric"))
    is_excluded, last_taken = False, -2
    groups: dict[str, int] = {}
    versus = set(board.places("versus")) | {place for place in board.places("gt", "lt") if board.is_than(place)}
    for place in range(len(board.items)):
        if board.sense(place, "not") or (place > 0 and board.sense(place, "drop")):
            is_excluded = _leads_to_value(board, place)
            board.take(*([place] if is_excluded else []))
            last_taken = place
            continue
        if board.sense(place, "between") and board.has("compare", "split") and board.sense(place + 1, "value"):
            board.take(place)
            continue
        if not _is_value(board, place, has_metric=has_metric):
            if place in board.left and not board.sense(place, "and") and place - last_taken > 1:
                is_excluded = is_excluded and bool(board.sense(place, "for", "dimension"))
            continue
        sense = _value(board, place)
        if board.sense(place - 1, "to") and not board.sense(place - 1, "and") and last_taken == place - 2:
            board.refuse([span for near in (place - 1, place) if (span := board.span(near))])
        board.found.values.append((sense.name, sense.value, is_excluded))  # type: ignore[arg-type]  # a value's
        groups[sense.name] = groups.get(sense.name, 0) + 1
        board.take(place)
        last_taken = place
        absorb(board, place, sense.name)
        if is_excluded and place - 1 not in board.left:  # "customers outside New York"
            absorb(board, place - 1, sense.name)
    _group_the_compared(board, groups, versus)


def _leads_to_value(board: Board, place: int) -> bool:
    near = place + 1
    while board.sense(near, "for", "all", "by") or (board.sense(near, "dimension") and not board.sense(near, "value")):
        near += 1
    return board.sense(near, "value") is not None


def _is_sure_metric(board: Board, place: int) -> bool:
    span = board.span(place)
    return span is not None and span.sense("metric") is not None and span.sense("value") is None


def _is_value(board: Board, place: int, *, has_metric: bool) -> bool:
    span = board.span(place)
    if span is None or span.sense("value") is None:
        return False
    if span.sense("metric") is not None:
        return has_metric and not (board.sense(place - 1, "and") and board.sense(place - 2, "metric"))
    if span.sense("dimension") is not None:
        return not board.sense(place - 1, "by", "which", "top", "split")
    return True


def _value(board: Board, place: int) -> Sense:
    """The value; of those of several dimensions the one whose dimension is named beside it, else the finest."""
    span = board.span(place)
    assert span is not None  # noqa: S101 - as asked before
    beside = {
        sense.name for near in (place - 1, place + 1) for sense in (board.senses(near, "dimension")) if sense.name
    }
    candidates = span.all_of("value")
    return min(
        candidates, key=lambda sense: (sense.name not in beside, -len(board.snapshot.values.get(sense.name, ())))
    )


def absorb(board: Board, place: int, dimension: str) -> None:
    """Take the noun beside a value, which says nothing more: "Apparel category", "customers in Chicago"."""
    entity = board.snapshot.dimensions[dimension]["entity"]
    for step in (-1, 1):
        near = place + step
        while True:
            if board.sense(near, "eq", "for"):
                near += step
            names = {sense.name for sense in board.senses(near, "dimension")}
            is_led = board.sense(near - 1, "and", "which", "top") or (
                board.sense(near - 1, "by") and not board.is_plural(near)
            )
            # Not "customers in Chicago with more than 5 orders", where each of them has the condition.
            is_asked = board.found.having and not board.has("by", "which", "split", "grain")
            is_noun = entity in names and _has_metric_beside(board, near) and not is_led and not is_asked
            is_kin = dimension in names or (not is_led and any(_is_kin(board, name, dimension) for name in names))
            if not is_noun and not is_kin:
                break
            board.take(near)
            near += step


def _is_kin(board: Board, name: str, dimension: str) -> bool:
    """Whether the name is a shorter one of the same thing: "tenure" of a tenure band."""
    named, own = board.snapshot.dimensions[name], board.snapshot.dimensions[dimension]
    is_shorter = set(key_of(named["label"])) < set(key_of(own["label"]))
    return named["entity"] == own["entity"] and is_shorter


def _has_metric_beside(board: Board, place: int) -> bool:
    return bool(board.found.metrics) or any(near != place for near in board.places("metric"))


def _group_the_compared(board: Board, groups: dict[str, int], versus: set[int]) -> None:
    """Values that are set against each other are groups, as are all that there are."""
    is_compared = bool(versus) or board.has("compare", "split", "more")
    for dimension, count in groups.items():
        if count > 1 and (is_compared or count == len(board.snapshot.values.get(dimension, ()))):
            board.found.group_by.append(dimension)
            board.found.is_compared = True
            board.take(*versus)


def filters(board: Board) -> Iterator[Condition]:
    """The filters that the values make; none for all values of a dimension."""
    by_field: dict[tuple[str, bool], list[Scalar]] = {}
    for name, value, is_excluded in board.found.values:
        by_field.setdefault((name, is_excluded), []).append(value)
    for (name, is_excluded), values in by_field.items():
        distinct = tuple(dict.fromkeys(values))
        is_all = not is_excluded and set(distinct) == set(board.snapshot.values.get(name, ()))
        if is_all and len(distinct) > 1:
            continue
        one, several = ("ne", "not_in") if is_excluded else ("eq", "in")
        yield Condition(field=name, op=one if len(distinct) == 1 else several, values=distinct)
