"""What the columns of an answer are for."""

from __future__ import annotations

from clients.sdk import Answer, Column

_GROUPS = ("categorical", "time", "entity")


def metrics_of(answer: Answer) -> list[Column]:
    """The metrics that were asked for."""
    return [column for column in answer.columns if column["kind"] == "metric"]


def previous_of(answer: Answer, metric: Column) -> list[Column]:
    """The metric over the earlier range, where it is compared."""
    return [column for column in answer.columns if column["name"] == f"{metric['name']}__previous"]


def groups_of(answer: Answer) -> list[Column]:
    """What the rows are grouped by."""
    return [column for column in answer.columns if is_group(column)]


def is_group(column: Column) -> bool:
    """Whether it is grouped by; otherwise it is a number, a metric's or a comparison's."""
    return column["kind"] in _GROUPS


def is_time(column: Column) -> bool:
    """Whether it is a line of time; a part of a date comes round again."""
    return column["kind"] == "time" and not column["date_part"]
