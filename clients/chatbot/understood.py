"""What was understood of a question, piece by piece, so that a piece can be taken away again."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from clients.planner import Snapshot
from clients.planner.wording import sentence

_LISTS = ("metrics", "group_by", "where", "having", "order_by")
_SINGLES = ("time_range", "compare_to", "limit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """A piece of a request: where it stands in it, and how it reads."""

    key: str
    position: int
    text: str


def chips_of(request: Mapping[str, Any], snapshot: Snapshot) -> tuple[Chip, ...]:
    """The pieces of the request, in the order in which its sentence names them."""
    return tuple(_chips(request, snapshot))


def _chips(request: Mapping[str, Any], snapshot: Snapshot) -> Iterator[Chip]:
    first = request["metrics"][:1]
    label = snapshot.metrics[first[0]]["label"]
    for position, name in enumerate(request["metrics"]):
        yield Chip(key="metrics", position=position, text=snapshot.metrics[name]["label"])
    for key in (*_LISTS[1:], *_SINGLES):
        pieces = request.get(key) or ()
        for position, piece in enumerate(pieces if key in _LISTS else (pieces,) if pieces else ()):
            alone = {"metrics": first, key: [piece] if key in _LISTS else piece}
            yield Chip(key=key, position=position, text=sentence(alone, snapshot).removeprefix(label).strip(" ,"))


def without(request: Mapping[str, Any], chips: Collection[Chip]) -> dict[str, Any] | None:
    """The request less these pieces, and less what no longer means anything then; None if no metric is left."""
    gone = {(chip.key, chip.position) for chip in chips}
    rest: dict[str, Any] = {}
    for key, value in request.items():
        if key not in _LISTS:
            if (key, 0) not in gone:
                rest[key] = value
        elif kept := [piece for position, piece in enumerate(value) if (key, position) not in gone]:
            rest[key] = kept
    if "metrics" not in rest:
        return None
    return _consistent(rest)


def _consistent(request: dict[str, Any]) -> dict[str, Any]:
    """The request less orders and thresholds on what is not asked for, and less a comparison without days."""
    if "time_range" not in request:
        request.pop("compare_to", None)
    if not request.get("group_by"):
        for key in ("order_by", "limit"):
            request.pop(key, None)
    columns = {*request["metrics"], *request.get("group_by", ())}
    for key in ("order_by", "having"):
        kept = [piece for piece in request.get(key, ()) if _columns(piece) <= columns]
        if kept:
            request[key] = kept
        else:
            request.pop(key, None)
    return request


def _columns(piece: Mapping[str, Any]) -> set[str]:
    """The columns that an order or a threshold speaks of; those of a comparison belong to their metric."""
    if "field" in piece:
        name, separator, suffix = piece["field"].rpartition("__")
        return {name if separator and suffix in ("previous", "change", "change_ratio") else piece["field"]}
    parts = [*piece.get("any_of", ()), *piece.get("all_of", ()), *([piece["not"]] if "not" in piece else [])]
    return set().union(*(_columns(part) for part in parts))
