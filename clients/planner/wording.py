"""A request in words, so that whoever asked sees what was understood."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from clients.figures import shown
from clients.planner.snapshot import Snapshot
from clients.sdk import Answer

_OPERATORS = {
    "eq": "is", "ne": "is not", "in": "is one of", "not_in": "is none of", "gt": "is over", "gte": "is at least",
    "lt": "is under", "lte": "is at most", "between": "is between", "contains": "contains",
    "starts_with": "starts with", "ends_with": "ends with", "is_null": "is empty", "is_not_null": "is not empty",
}  # fmt: skip
_COMPARED = {"previous_period": "the period before", "same_period_last_year": "the same days a year before"}


def sentence(request: Mapping[str, Any], snapshot: Snapshot) -> str:
    """One line: "Total revenue by month, where location is Chicago, from 2019-01-01 to 2019-03-31"."""
    return ", ".join(_parts(request, snapshot))


def headline(understood: str, answer: Answer) -> str:
    """The sentence with its number, if the answer is one number; else with how many rows there are."""
    columns = [column for column in answer.columns if column["kind"] == "metric"]
    if len(answer.rows) == 1 and len(columns) == 1 and len(answer.columns) == 1:
        return f"{understood}: {shown(answer.rows[0][columns[0]['name']], columns[0]['unit'])}."
    count = len(answer.rows)
    return f"{understood}: {'no data' if count == 0 else '1 row' if count == 1 else f'{count:,} rows'}."


def _parts(request: Mapping[str, Any], snapshot: Snapshot) -> Iterator[str]:
    labels = [snapshot.metrics[name]["label"] for name in request["metrics"]]
    groups = [_group(name, snapshot) for name in request.get("group_by", ())]
    by = f" by {_listed(groups)}" if groups else ""
    yield f"{_listed(labels)}{by}"
    for condition in request.get("where", ()):
        yield f"where {_condition(condition, snapshot)}"
    for condition in request.get("having", ()):
        yield f"with {_condition(condition, snapshot)}"
    if days := request.get("time_range"):
        yield f"from {days['start']} to {days['end']}"
    if compared := request.get("compare_to"):
        yield f"compared with {_COMPARED[compared]}"
    for order in request.get("order_by", ()):
        direction = "highest" if order["descending"] else "lowest"
        label = snapshot.metrics[order["field"]]["label"] if order["field"] in snapshot.metrics else order["field"]
        yield f"{direction} {label.lower()} first"
    if limit := request.get("limit"):
        yield f"the first {limit}"


def _group(name: str, snapshot: Snapshot) -> str:
    if name in snapshot.dimensions:
        return snapshot.dimensions[name]["label"].lower()
    dimension, _, grain = name.rpartition("__")
    words = grain.replace("extract_", "").replace("dow", "day of the week").replace("doy", "day of the year")
    return words if dimension == "metric_time" else f"{snapshot.dimensions[dimension]['label'].lower()} ({words})"


def _condition(condition: Mapping[str, Any], snapshot: Snapshot) -> str:
    for key, word in (("any_of", " or "), ("all_of", " and ")):
        if key in condition:
            return f"({word.join(_condition(part, snapshot) for part in condition[key])})"
    if "not" in condition:
        return f"not {_condition(condition['not'], snapshot)}"
    if "metric" in condition:
        entities = " and ".join(snapshot.dimensions[name]["label"].lower() for name in condition["per"])
        own = {"field": condition["metric"], "op": condition["op"], "values": condition.get("values", ())}
        return f"the {entities}'s {_condition(own, snapshot)}"
    field = condition["field"]
    label = snapshot.metrics[field]["label"].lower() if field in snapshot.metrics else _group(field, snapshot)
    word = " and " if condition["op"] == "between" else ", "
    values = word.join(_value(value) for value in condition.get("values", ()))
    return f"{label} {_OPERATORS[condition['op']]} {values}".rstrip()


def _value(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"{value:,}"
        case _:
            return str(value)


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
