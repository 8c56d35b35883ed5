"""What a turn means without naming it: the number that a verb stands for, the place that "where" asks for.

Only what can mean nothing else: money that is brought in is revenue, heads that buy are customers, what sells is units.
The catalog says by its synonyms which metric that is; where it knows none, nothing is implied.
"""

from __future__ import annotations

from dataclasses import replace

from clients.planner.index import Sense
from clients.planner.reading.board import Board
from clients.planner.spans import Span
from clients.planner.times import Time
from clients.planner.words import key_of, read_words


def read_instead(board: Board) -> None:
    """Take "instead of revenue": what is left out is what was asked before, or is not asked for."""
    for place in list(board.places("instead_of")):
        near = place + 1 + bool(board.sense(place + 1, "by"))
        if near < len(board.items) and (isinstance(board.items[near], Time) or _is_named(board, near)):
            board.take(*range(place, near + 1))
            board.found.is_instead = True


def _is_named(board: Board, place: int) -> bool:
    return board.sense(place, "metric", "dimension", "value", "unit") is not None


def read_spending(board: Board) -> None:
    """What customers spend is what is earned; only what "we" spend is the metric of that name."""
    earned, buyer = _earned(board), board.named("dimension", "buyer")
    if earned is None or buyer is None:
        return
    subject = False
    for place, item in enumerate(board.items):
        if not isinstance(item, Span):
            continue
        is_spending = item.sense("metric") and all(word.text in _SPENDING for word in item.words)
        if is_spending and (subject or board.told.has("people")):
            senses = tuple(sense for sense in item.senses if sense.kind != "metric")
            board.replace(place, replace(item, senses=(Sense(kind="metric", name=earned), *senses)))
        subject = subject or _is_of(item, buyer)


_SPENDING = frozenset(("spend", "spent", "spends", "spending"))


def _is_of(span: Span, entity: str) -> bool:
    """Whether the span says who: the entity, or a value of what is known of it."""
    return any(
        (sense.kind == "dimension" and sense.name == entity)
        or (sense.kind == "value" and sense.name.startswith(f"{entity}__"))
        for sense in span.senses
    )


def read_money(board: Board) -> None:
    """Take "money", which is what is earned, or says no more than a number in money that is named."""
    for place in list(board.places("money")):
        metrics = board.found.metrics.values()
        if any((board.snapshot.metrics[name]["unit"] or "").startswith("USD") for name in metrics):
            board.take(place)
        elif (
            not metrics
            and (board.told.has("earn") or _is_spent_by_customers(board))
            and (earned := _earned(board)) is not None
        ):
            board.found.metrics[place] = earned
            board.take(place)


def read_costs(board: Board) -> None:
    """Take "what does it cost to win a customer", which is a cost and no number of customers."""
    cost = board.named("metric", "acquisition", "cost")
    won = (board.named("metric", "acquired", "customers"), board.named("metric", "buyers"))
    places = [place for place, name in board.found.metrics.items() if name in won]
    if cost is not None and len(places) == 1 and board.has("cost") and board.told.has("win"):
        board.found.metrics[places[0]] = cost
        board.take(*board.places("cost"))
    units = [board.snapshot.metrics[name]["unit"] for name in board.found.metrics.values()]
    if units == ["USD"] and _earned(board) not in board.found.metrics.values():  # "what we paid for delivery"
        board.take(*board.places("pay"))


def read_winning(board: Board) -> None:
    """Customers that were won are not all customers, if the catalog knows a metric of those."""
    if not board.told.has("win"):
        return
    for place, name in board.found.metrics.items():
        label = [word.text for word in read_words(board.snapshot.metrics[name]["label"])]
        board.found.metrics[place] = board.named("metric", *label, "acquired") or name


def read_metric(board: Board) -> None:
    """The metric that the verbs stand for, where none is named."""
    found, told = board.found, board.told
    if found.is_sold:
        _group_by_product(board)
    _count_those_with(board)
    if found.metrics or found.candidates:
        _doubt_what_is_earned(board)
        _doubt_what_is_counted(board)
        return
    implied: tuple[str | None, ...] = ()
    if found.is_sold:
        implied = (board.named("metric", "units", "sold"),)
    elif told.has("many"):
        implied = (_counted(board),)
    elif (
        told.is_sure_of_earning
        or (told.has("earn") and (told.has("amount", "what") or found.having))
        or _is_spent_by_customers(board)
    ):
        implied = (_earned(board),)
    elif told.has("amount", "what") and told.has("sell"):
        implied = (_earned(board), board.named("metric", "units", "sold"))
    known = tuple(name for name in implied if name is not None)
    if len(known) == 1:
        found.metrics[len(board.items)] = known[0]
    elif known:
        found.candidates = known


def _doubt_what_is_earned(board: Board) -> None:
    """A verb of earning beside metrics that are no money is not explained by them: "how much did we make per order"."""
    found, earned = board.found, _earned(board)
    if earned is None or not (board.told.has("amount") and board.told.has("earn")):
        return
    units = [board.snapshot.metrics[name]["unit"] or "" for name in found.metrics.values()]
    if board.told.earns_and and earned not in found.metrics.values():
        found.metrics[-1] = earned
    elif units and not any(unit.startswith("USD") or unit == "ratio" for unit in units):
        found.candidates = tuple(dict.fromkeys((earned, *found.metrics.values())))
        found.metrics.clear()


def _count_those_with(board: Board) -> None:
    """How many customers have at least 5 orders is a number of customers, of each of whom that is asked.

    The number of each is over all of the data, whatever else is asked; so only where nothing else is.
    """
    found, buyer, span = board.found, board.named("dimension", "buyer"), board.told.counted
    is_counted = span is not None and buyer is not None and _is_of(span, buyer)
    names = {*(name for name, _, _ in found.values), *(condition.field for condition in found.where)}
    is_of_buyers = all((name or "").startswith(f"{buyer}__") for name in names)  # each has one, over all of the data
    is_all = is_of_buyers and not (found.time or found.ranking) and set(found.group_by) <= {buyer}
    conditions = [condition for condition in found.having if condition.field is not None]
    metric = board.named("metric", "buyers")
    if not is_counted or not is_all or not conditions or metric is None or set(found.metrics) != found.conditioned:
        return
    found.where += [replace(condition, per=buyer) for condition in conditions]
    found.having, found.group_by, found.conditioned = [], [], set()
    found.metrics = {0: metric}


def _doubt_what_is_counted(board: Board) -> None:
    """Nobody counts money: "how many sales" may be what was earned, or how often, or how much, was sold."""
    span, metrics = board.told.counted, board.found.metrics
    sense = span.sense("metric") if span is not None else None
    if sense is None or sense.name not in metrics.values() or len(metrics) > 1:
        return
    if (board.snapshot.metrics[sense.name]["unit"] or "") == "USD":
        counts = (board.named("metric", "orders"), board.named("metric", "units", "sold"))
        board.found.candidates = (sense.name, *(name for name in counts if name is not None))
        metrics.clear()


def _earned(board: Board) -> str | None:
    return board.named("metric", "earned")


def _is_spent_by_customers(board: Board) -> bool:
    buyer = board.named("dimension", "buyer")
    names = {name for name, _, _ in board.found.values} | set(board.found.group_by) | set(board.found.loose)
    return board.told.has("spend_on") and buyer is not None and any(name.startswith(buyer) for name in names)


def _group_by_product(board: Board) -> None:
    """Best sellers are products, if nothing else is ranked."""
    is_asked = board.told.has("where", "when")
    if not is_asked and not board.found.group_by and (product := board.named("dimension", "product")) is not None:
        board.found.group_by.append(product)


def _counted(board: Board) -> str | None:
    """The metric that counts what stands behind "how many": buyers, or what was sold of a product."""
    span, told = board.told.counted, board.told
    if span is None:
        return None
    buyer, product = board.named("dimension", "buyer"), board.named("dimension", "product")
    if span.sense("people"):
        return board.named("metric", "buyers") if told.has("buy") else None
    if buyer is not None and _is_of(span, buyer):
        _no_longer_loose(board, span)
        return board.named("metric", "buyers")
    of_product = (product or "").partition("__")[0]
    if of_product and _is_of(span, of_product) and told.has("sell", "buy"):
        _no_longer_loose(board, span)
        return board.named("metric", "units", "sold")
    name = board.named("metric", *key_of(span.text), "sold") if told.has("sell", "buy") else None
    if name is not None:
        _no_longer_loose(board, span)
    return name


def _no_longer_loose(board: Board, span: Span) -> None:
    counted = {sense.name for sense in span.all_of("dimension")}
    board.found.loose = [name for name in board.found.loose if name not in counted]


def read_places(board: Board) -> None:
    """Group by the place that "where" asks for, if something is ranked; else it is to be asked back."""
    place = board.named("dimension", "place")
    if not board.told.has("where") or place is None or any(name == place for name, _, _ in board.found.values):
        return
    if board.found.ranking is not None and not board.found.group_by:
        board.found.group_by.append(place)
    elif board.found.metrics and not board.found.group_by:
        board.found.loose.append(place)
