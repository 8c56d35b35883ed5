"""What a turn says with numbers: conditions, keys, the first so many."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from clients.planner.draft import METRIC_TIME, Condition, Ranking, Scalar
from clients.planner.errors import Unanswerable
from clients.planner.reading.board import Board, is_plural_span
from clients.planner.reading.values import absorb
from clients.planner.spans import Span

_DEFAULT_LIMIT = 10
_OCCASIONS = ("time", "times")
_COMPARATORS = ("gt", "gte", "lt", "lte", "eq", "between")


def read_conditions(board: Board) -> None:
    """Take comparators with their numbers, and what they are conditions on."""
    for place in list(board.places(*_COMPARATORS)):
        comparator = board.sense(place, *_COMPARATORS)
        if comparator is None:
            continue
        numbers, after = _numbers(board, place + 1, is_pair=comparator.kind == "between")
        if numbers:
            _condition(board, comparator.kind, place, after, numbers)


def _numbers(board: Board, place: int, *, is_pair: bool) -> tuple[list[Span], int]:
    """The one or two numbers there, and the place after them."""
    first = board.span(place)
    if first is None or first.sense("number", "cardinal") is None:
        return [], place
    if not is_pair:
        return [first], place + 1
    second = board.span(place + 2)
    if second is None or second.sense("number", "cardinal") is None or not board.sense(place + 1, "and", "to"):
        return [], place
    return [first, second], place + 3


def _condition(board: Board, operator: str, place: int, after: int, numbers: list[Span]) -> None:
    """A condition on the metric right behind the numbers, else on what stands before the comparator."""
    before = (board.sense(place - 1, "and", "which") and board.span(place - 2)) or board.span(place - 1)
    if board.sense(after, "unit"):  # "more than 36 months" is on a length of time, not on the number before
        _length(board, operator, place, after, numbers)
        return
    behind = board.span(after)
    if behind is not None and behind.words[-1].text in _OCCASIONS:
        _occasions(board, operator, place, after, numbers)
        return
    board.take(*range(place, after))
    if board.sense(after, "currency"):
        board.take(after)
        behind = board.span(after + 1)
    if behind is not None and (sense := behind.sense("metric")) is not None:
        _having(board, after, sense.name, operator, numbers)
    elif before is not None and (numeric := _numeric(board, before)) is not None:
        board.take(place - 1)
        values = tuple(_scalar(number) for number in numbers)
        board.found.where.append(Condition(field=numeric, op=operator, values=values))
        absorb(board, place - 1, numeric)
    elif before is not None and (sense := before.sense("metric")) is not None:
        _having(board, board.items.index(before), sense.name, operator, numbers)
    else:
        values = tuple(_scalar(number) for number in numbers)
        board.found.having.append(Condition(field=None, op=operator, values=values))


def _occasions(board: Board, operator: str, place: int, after: int, numbers: list[Span]) -> None:
    """A condition on how often each customer bought: "customers who ordered at least three times"."""
    metric, buyer = board.named("metric", "purchases"), board.named("dimension", "buyer")
    is_asked = buyer is not None and any(board.dimension(near) == buyer for near in board.places("dimension"))
    behind = board.span(after)
    if behind is not None and (metric is None or not is_asked or not board.told.has("buy")):
        board.refuse((behind,))
    board.take(*range(place, after))
    _having(board, after, metric or "", operator, numbers)


def _length(board: Board, operator: str, place: int, after: int, numbers: list[Span]) -> None:
    """A condition on the dimension that is a length: "tenure over 24 months", "more than 24 months tenure"."""
    for near in (place - 1, after + 1):
        span = board.span(near)
        if span is not None and (numeric := _numeric(board, span)) is not None:
            values = tuple(_scalar(number) for number in numbers)
            board.found.where.append(Condition(field=numeric, op=operator, values=values))
            board.take(near, *range(place, after + 1))
            absorb(board, min(near, place), numeric)
            return


def _having(board: Board, place: int, metric: str, operator: str, numbers: list[Span]) -> None:
    board.take(place)
    board.found.metrics[place] = metric
    board.found.conditioned.add(place)
    is_ratio = board.snapshot.metrics[metric]["unit"] == "ratio"
    values = tuple(_scalar(number, is_ratio=is_ratio) for number in numbers)
    board.found.having.append(Condition(field=metric, op=operator, values=values))


def _numeric(board: Board, span: Span) -> str | None:
    """The dimension of whole numbers that the span names."""
    for sense in span.all_of("dimension"):
        dimension = board.snapshot.dimensions[sense.name]
        if dimension["kind"] == "categorical" and dimension["type"] == "integer":
            return sense.name
    return None


def read_keys(board: Board) -> None:
    """An entity and one of its keys: "customer 12347"."""
    for place in list(board.places("dimension")):
        span, key = board.span(place), board.span(place + 1)
        if span is None or key is None or len(key.words) != 1 or key.words[0].is_percent or is_plural_span(span):
            continue
        for sense in span.all_of("dimension"):
            dimension = board.snapshot.dimensions[sense.name]
            value = _key(key, dimension["type"]) if dimension["kind"] == "entity" else None
            if value is not None and not board.sense(place - 1, "top", "bottom"):
                board.found.values.append((sense.name, value, False))
                board.take(place, place + 1)
                break


def read_ranking(board: Board) -> None:
    """Take "top 5", "highest first", "rank", with the number and the noun."""
    for place in list(board.places("sort")):
        sense = board.sense(place, "sort")
        board.found.ranking = Ranking(descending=sense is not None and sense.value == "desc")
        board.take(place)
    for place in list(board.places("top", "bottom")):
        sense = board.sense(place, "top", "bottom")
        if sense is None:
            continue
        board.take(place)
        board.found.is_sold = board.found.is_sold or sense.value == "sell"
        if board.found.ranking is not None and sense.value == "sell":  # "top 5 best sellers"
            continue
        limit = _limit(board, place)
        is_quality = sense.value == "quality"
        board.found.ranking = Ranking(descending=sense.kind == "top", limit=limit, is_quality=is_quality)
        _group_the_ranked(board, place, is_amount=sense.value == "amount")
    for place in list(board.places("rank")):
        _rank(board, place)
    _read_more_than_others(board)


def _read_more_than_others(board: Board) -> None:
    """Take "which city has more orders", which is the one that has the most."""
    asked = [near for near in board.places("which") if board.dimension(near + 1) or board.sense(near + 1, "unit")]
    is_compared = any(
        board.is_than(place) or board.sense(place, "versus", "compare") for place in range(len(board.items))
    )
    for place in list(board.places("more")) if asked and not is_compared and not board.found.versus else ():
        sense = board.sense(place, "more")
        board.take(place)
        board.found.ranking = Ranking(
            descending=sense is not None and sense.value == "more", limit=_limit(board, place)
        )


def _rank(board: Board, place: int) -> None:
    """Order by what stands behind "sort by", or rank what stands behind "rank"."""
    span = board.span(place)
    behind = board.sense(place + 1, "metric")
    if span is not None and span.words[-1].text == "by" and behind is not None:
        order_by(board, place + 1, behind.name)
    elif board.found.ranking is None:
        board.found.ranking = Ranking(descending=True)
        _group_the_ranked(board, place, is_amount=False)


def _limit(board: Board, place: int) -> int:
    asked = [near + 1 for near in board.places("which")]  # "which five cities have the most …"
    for near in (place + 1, place - 1, *asked):
        span = board.span(near)
        if span is not None and (sense := span.sense("number", "cardinal")) is not None:
            number = int(span.words[0].number or 0) if sense.kind == "number" else int(sense.value or 0)
            board.take(near)
            if number < 1 or span.words[0].is_percent:
                board.refuse((span,))
            return number
    if (counted := _counted(board)) is not None:
        return counted
    if board.told.has("where", "one_of"):
        return 1
    ranked = next((board.span(near) for near in board.places("dimension", "unit")), None)
    if ranked is None:
        return 1 if board.has("grain") else _DEFAULT_LIMIT
    return 1 if not is_plural_span(ranked) else _DEFAULT_LIMIT


def _counted(board: Board) -> int | None:
    """The number before what is ranked, where the rank stands behind: "5 locations with the lowest …"."""
    for near in board.places("number", "cardinal"):
        span, name, unit = board.span(near), board.dimension(near + 1), board.sense(near + 1, "unit")
        if span is None or not board.is_plural(near + 1) or not (name or unit):
            continue
        number = _scalar(span)
        if not isinstance(number, int) or number < 1 or span.words[0].is_percent:
            return None
        board.take(near)
        board.group(near + 1, name or f"{METRIC_TIME}__{unit.value if unit else ''}")
        return number
    return None


def _group_the_ranked(board: Board, place: int, *, is_amount: bool) -> None:
    """What stands behind "top 5" is what is ranked; behind "most" it may be what is counted."""
    behind = next((near for near in range(place + 1, place + 4) if _is_ranked(board, near)), None)
    if behind is None:
        return
    is_amount = is_amount or any(
        board.dimension(near + 1) or board.sense(near + 1, "unit") for near in board.places("which")
    )
    if (name := board.dimension(behind)) is not None and not (is_amount and _is_only_metric(board, behind)):
        board.group(behind, name)
    elif (unit := board.sense(behind, "unit")) is not None:
        board.group(behind, f"{METRIC_TIME}__{unit.value}")


def _is_ranked(board: Board, place: int) -> bool:
    """Whether it may be the noun of "top 5": what is left there, and no value, as in "top 5 Apparel products"."""
    span = board.span(place)
    return span is not None and not (span.sense("value") and not span.sense("metric", "dimension"))


def _is_only_metric(board: Board, place: int) -> bool:
    """Whether the name behind "most" is what is counted, as in "which city has the most orders"."""
    has_metric = board.sense(place, "metric") is not None
    others = [near for near in board.places("metric") if near != place]
    return has_metric and not others and not board.found.metrics


def order_by(board: Board, place: int, metric: str) -> None:
    """Order by the metric there, which is in the answer too."""
    ranking = board.found.ranking or Ranking(descending=True)
    board.found.ranking = replace(ranking, metric=metric)
    board.found.metrics[place] = metric
    board.found.conditioned.add(place)
    board.take(place)


def _scalar(span: Span, *, is_ratio: bool = False) -> Scalar:
    word = span.words[0]
    sense = span.sense("cardinal")
    number = word.number if word.number is not None else Decimal(sense.value or 0) if sense else Decimal(0)
    if word.is_percent:
        if not is_ratio:
            raise Unanswerable(f"{span.text} is a percentage, the number that it is set against is not.", instead="")
        number = number / 100
    return int(number) if number == int(number) else float(number)


def _key(span: Span, type_: str) -> Scalar | None:
    """The key that the word is: a whole number, or a code that has digits and letters."""
    raw = span.words[0].raw
    if type_ == "integer":
        return int(raw) if raw.isascii() and raw.isdigit() else None
    is_code = not span.senses and any(letter.isdigit() for letter in raw) and raw.isalnum()
    return raw if is_code else None
