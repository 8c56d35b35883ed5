"""One turn of a conversation, read: spans and times become a draft.

Each pass takes the items that it can explain off the board, in an order that settles what a word stands for: a number
after "over" is a condition before it can be anything else, a name after "by" a group before it can be a metric. What no
pass explains, and is no mere connective, is named in the refusal: nothing of a question is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from clients.planner.draft import Cue, Draft
from clients.planner.index import Index
from clients.planner.reading import implied, moments, names, quantities, values
from clients.planner.reading.board import Board
from clients.planner.reading.told import Told
from clients.planner.snapshot import Snapshot
from clients.planner.spans import Span
from clients.planner.times import Item, When

_PASSES: tuple[Callable[[Board], None], ...] = (
    implied.read_instead,
    implied.read_spending,
    moments.read_times,
    quantities.read_conditions,
    quantities.read_keys,
    quantities.read_ranking,
    moments.read_changes,
    values.read_everywhere,
    values.read_left_out,
    values.read_codes,
    values.read_swapped,
    values.read_values,
    names.read_groups,
    moments.read_growth,
    names.read_grains,
    names.read_metrics,
    names.read_completed_names,
    implied.read_costs,
    names.read_rest_of_dimensions,
    implied.read_money,
    names.read_averages,
    names.read_partial_names,
    names.doubt_unconnected_metrics,
    implied.read_winning,
    implied.read_metric,
    implied.read_places,
    moments.read_more,
    names.read_currencies,
)
# Connectives: they say how the rest belongs together, and may be left over.
_CONNECTIVES = frozenset(
    ("filler", "noun", "by", "for", "from", "to", "and", "which", "follow", "add", "drop", "all", "split")
).union(("compare", "change", "grow", "rank", "this", "eq", "sort", "trend", "as", "vague", "new_question"))


def read_turn(items: Sequence[Item], index: Index, snapshot: Snapshot, told: Told, before: Sequence[str] = ()) -> Draft:
    """What the turn says; `told` is what its silent words tell, `before` are the metrics that were asked before.

    Raises
    ------
    Unanswerable
        A word is unknown, or has no place in any request.
    """
    board = Board(items, index, snapshot, told, before)
    cue = _cue(board)
    for read in _PASSES:
        read(board)
    _refuse_the_rest(board)
    found = board.found
    if found.metrics and found.conditioned >= set(found.metrics) and not found.group_by:
        cue |= Cue.FOLLOWS  # "more than 50 orders", "sort by orders": of what was asked before
        cue |= Cue.NONE if _is_instead(board) else Cue.ADDS
    if found.is_instead:
        cue |= Cue.FOLLOWS
    return Draft(
        metrics=tuple(dict.fromkeys(found.metrics[place] for place in sorted(found.metrics))),
        candidates=found.candidates,
        group_by=tuple(dict.fromkeys(found.group_by)),
        loose=tuple(found.loose),
        where=(*values.filters(board), *found.where),
        having=tuple(found.having),
        days=found.time.days if found.time else None,
        when=found.time.when if found.time else When.IN,
        versus=found.versus,
        ranking=found.ranking,
        is_trend=found.is_trend,
        is_vague=found.ranking is None and board.has("vague"),
        everywhere=tuple(found.everywhere),
        cue=cue,
    )


def _cue(board: Board) -> Cue:
    cues = {
        "follow": Cue.FOLLOWS,
        "add": Cue.ADDS,
        "split": Cue.BREAKS_DOWN,
        "break": Cue.BREAKS_DOWN,
        "drop": Cue.DROPS,
        "new_question": Cue.RESTARTS,
    }
    cue = Cue.NONE
    for kind, meant in cues.items():
        if any(not (kind == "drop" and _is_fall(board, place)) for place in board.places(kind)):
            cue |= meant
    if board.items and board.sense(0, "and", "by", "as"):
        cue |= Cue.FOLLOWS
    return cue


def _is_fall(board: Board, place: int) -> bool:
    """Whether it is "did revenue drop", and not "drop the revenue"."""
    return any(board.sense(before, "metric") for before in range(place))


def _is_instead(board: Board) -> bool:
    spans = [board.span(place) for place in board.places("follow")]
    return any(span is not None and span.words[-1].text == "instead" for span in spans)


def _refuse_the_rest(board: Board) -> None:
    left = [board.items[place] for place in sorted(board.left)]
    unexplained = [
        item for item in left if isinstance(item, Span) and not any(sense.kind in _CONNECTIVES for sense in item.senses)
    ]
    if unexplained:
        board.refuse(unexplained)
