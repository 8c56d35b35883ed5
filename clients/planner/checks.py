"""The checks that every planned request passes, whoever made it: names, joins, grains, values the caller may see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from clients.planner.errors import Unanswerable
from clients.planner.snapshot import Snapshot

_PARTS = "extract_"
_MOST_METRICS, _MOST_GROUPS, _MOST_ROWS = 10, 8, 10_000
_NEW_COLUMNS = ("__previous", "__change", "__change_ratio")


def check(request: Mapping[str, Any], snapshot: Snapshot) -> None:
    """Return if the service can be asked this, as far as the catalog tells.

    Raises
    ------
    Unanswerable
        A name is unknown, does not join, or cannot be used so; the message says what can be.
    """
    metrics = _named_metrics(request, snapshot)
    for field in (*request.get("group_by", ()), *_fields(request.get("where", ()))):
        _check_dimension(field, metrics, snapshot)
    _check_values(request, snapshot)
    columns = {*metrics, *request.get("group_by", ())}
    if request.get("compare_to"):
        columns |= {f"{name}{suffix}" for name in metrics for suffix in _NEW_COLUMNS}
        if "time_range" not in request:
            raise Unanswerable("A comparison needs days to compare.", instead="Name a month or quarter.")
    ordered = [item["field"] for item in (*request.get("having", ()), *request.get("order_by", ())) if "field" in item]
    for field in ordered:
        if field not in columns:
            raise Unanswerable(f"{field} is not in the answer.", instead="Ask for it as well.")
    if not 0 < request.get("limit", 1) <= _MOST_ROWS:
        raise Unanswerable("That is no number of rows.", instead=f"Ask for 1 to {_MOST_ROWS:,}.")


def _named_metrics(request: Mapping[str, Any], snapshot: Snapshot) -> tuple[str, ...]:
    metrics = tuple(request.get("metrics", ()))
    if not 0 < len(metrics) <= _MOST_METRICS or len(request.get("group_by", ())) > _MOST_GROUPS:
        raise Unanswerable(
            "That is more than one request can hold.", instead=f"Ask for 1 to {_MOST_METRICS} numbers at once."
        )
    filtered = [item["metric"] for item in _conditions(request.get("where", ())) if "metric" in item]
    for name in (*metrics, *filtered):
        if name not in snapshot.metrics:
            raise Unanswerable(f"There is no metric {name[:100]!r}.", instead=_usual(snapshot))
    return metrics


def _usual(snapshot: Snapshot) -> str:
    labels = ", ".join(snapshot.metrics[name]["label"] for name in snapshot.usual_metrics[:4])
    return f"Ask for numbers such as {labels}."


def _conditions(filters: Any) -> Iterator[Mapping[str, Any]]:  # noqa: ANN401 - JSON, groups of groups
    for each in filters:
        for key in ("any_of", "all_of"):
            yield from _conditions(each.get(key, ()))
        if "not" in each:
            yield from _conditions([each["not"]])
        if "field" in each or "metric" in each:
            yield each


def _fields(filters: Any) -> Iterator[str]:  # noqa: ANN401 - as above
    for item in _conditions(filters):
        yield from (item["field"],) if "field" in item else item["per"]


def _check_dimension(field: str, metrics: tuple[str, ...], snapshot: Snapshot) -> None:
    name, _, grain = (field, "", "") if field in snapshot.dimensions else field.rpartition("__")
    dimension = snapshot.dimensions.get(name)
    if dimension is None:
        raise Unanswerable(f"There is no dimension {field[:100]!r}.", instead=_joining(metrics, snapshot))
    known = (*dimension["grains"], *(f"{_PARTS}{part}" for part in dimension["date_parts"]))
    if grain and grain not in known:
        raise Unanswerable(f"{dimension['label']} has no grain {grain!r}.", instead=f"It has {', '.join(known)}.")
    for metric in metrics:
        if name not in snapshot.metrics[metric]["dimensions"]:
            label = snapshot.metrics[metric]["label"]
            raise Unanswerable(
                f"{label} is not known by {dimension['label'].lower()}.", instead=_joining((metric,), snapshot)
            )


def _joining(metrics: tuple[str, ...], snapshot: Snapshot) -> str:
    labels = [snapshot.dimensions[name]["label"] for name in snapshot.usual_dimensions(metrics)[:5]]
    return f"It can be split by {', '.join(('time', *labels))}." if labels else "It can be split by time."


def _check_values(request: Mapping[str, Any], snapshot: Snapshot) -> None:
    """A text filter on equality has to be a value that there is: a made-up one would answer with nothing."""
    for item in _conditions(request.get("where", ())):
        known = snapshot.values.get(item.get("field", ""), ())
        if not known or item["op"] not in ("eq", "ne", "in", "not_in"):
            continue
        for value in item["values"]:
            if value not in known:
                label = snapshot.dimensions[item["field"]]["label"]
                some = ", ".join(str(each) for each in known[:5])
                raise Unanswerable(f"{label} has no value {str(value)[:100]!r}.", instead=f"It has {some}, ….")
