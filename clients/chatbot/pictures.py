"""The chart that fits an answer, as Vega-Lite; none where a table says it better."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Any

from clients.chatbot.columns import groups_of, is_time, metrics_of, previous_of
from clients.figures import RATIO
from clients.sdk import Answer, Cell, Column

_MOST_BARS = 30
_DATES = {"month": "%b %Y", "quarter": "%b %Y", "year": "%Y"}  # as the axis says them, by grain
_MOST_LINES = 8
_MOST_POINTS = 5_000


class Kind(StrEnum):
    """What an answer looks like."""

    NUMBER = "number"
    LINE = "line"
    BAR = "bar"
    TABLE = "table"


def kind_of(answer: Answer) -> Kind:
    """Numbers without groups, a line over time, bars over a few groups; else a table alone."""
    metrics, groups = _drawn(answer), groups_of(answer)
    if not answer.rows or not metrics:
        return Kind.TABLE
    if not groups:
        return Kind.NUMBER
    if len(answer.rows) == 1 or len(groups) > 2:  # noqa: PLR2004 - one axis, one colour
        return Kind.TABLE
    times = [group for group in groups if is_time(group)]
    others = [group for group in groups if not is_time(group)]
    if len(times) == 1 and len(answer.rows) <= _MOST_POINTS:
        lines = len({row[other["name"]] for other in others for row in answer.rows}) or len(metrics)
        return Kind.LINE if lines <= _MOST_LINES and not (others and len(metrics) > 1) else Kind.TABLE
    return Kind.BAR if len(groups) == 1 else Kind.TABLE


def vega(answer: Answer) -> dict[str, Any] | None:
    """The chart with its data in it; nothing in it is fetched from anywhere."""
    match kind_of(answer):
        case Kind.LINE:
            return _line(answer)
        case Kind.BAR:
            return _bars(answer)
        case Kind.NUMBER | Kind.TABLE:
            return None


def _line(answer: Answer) -> dict[str, Any]:
    metrics, groups = _drawn(answer), groups_of(answer)
    (time,) = (group for group in groups if is_time(group))
    other = next((group for group in groups if group is not time), None)
    x = {"field": "x", "type": "temporal", "title": time["label"], "timeUnit": "utcyearmonthdate"}
    axis = {"format": _DATES.get(time["grain"] or "", "%d %b %Y"), "labelOverlap": True}
    encoding: dict[str, Any] = {"x": x | {"axis": axis}, "y": _y_axis(metrics)}
    if other is not None or len(metrics) > 1:
        legend = {"orient": "bottom", "columns": 2}
        encoding["color"] = {"field": "series", "type": "nominal", "title": None, "legend": legend}
    encoding["tooltip"] = [x, {"field": "series", "type": "nominal", "title": "Series"}, _tooltip(metrics)]
    return _chart({"type": "line", "point": True}, encoding, _points(answer.rows, metrics, time, other))


def _bars(answer: Answer) -> dict[str, Any]:
    metrics, (group,) = _drawn(answer)[:1], groups_of(answer)
    # In the order of the answer, which is the asked one; a part of a date has an order of its own.
    points = list(_points(answer.rows[:_MOST_BARS], metrics, group, None))
    encoding = {
        "y": {"field": "x", "type": "nominal", "sort": None, "title": group["label"], "axis": {"labelLimit": 140}},
        "x": _y_axis(metrics),
        "tooltip": [{"field": "x", "type": "nominal", "title": group["label"]}, _tooltip(metrics)],
    }
    return _chart({"type": "bar"}, encoding, points) | {"height": {"step": 24}}


def _chart(
    mark: Mapping[str, Any], encoding: Mapping[str, Any], points: Sequence[Any] | Iterator[Any]
) -> dict[str, Any]:
    return {"mark": dict(mark), "encoding": dict(encoding), "data": {"values": list(points)}}


def _y_axis(metrics: Sequence[Column]) -> dict[str, Any]:
    title = metrics[0]["label"] if len(metrics) == 1 else None
    unit = metrics[0]["unit"]
    shown = f"{title} ({unit})" if title and unit else title or unit
    return {"field": "y", "type": "quantitative", "title": shown, "axis": {"format": ".0%" if unit == RATIO else "~s"}}


def _tooltip(metrics: Sequence[Column]) -> dict[str, Any]:
    shown = ".1%" if metrics[0]["unit"] == RATIO else ",.4~f"
    return {"field": "y", "type": "quantitative", "title": "Value", "format": shown}


def _points(
    rows: Sequence[Mapping[str, Cell]], metrics: Sequence[Column], axis: Column, other: Column | None
) -> Iterator[dict[str, Any]]:
    for row in rows:
        for metric in metrics:
            value = row[metric["name"]]
            if isinstance(value, Decimal | int):
                series = metric["label"] if other is None else _named(row[other["name"]])
                yield {"x": _named(row[axis["name"]]), "y": float(value), "series": series}


def _named(value: Cell) -> str:
    return "(none)" if value is None else str(value)


def _drawn(answer: Answer) -> list[Column]:
    """What one axis can show: the metrics of the first one's unit, each with what it is compared with."""
    metrics = metrics_of(answer)
    alike = [metric for metric in metrics if metric["unit"] == metrics[0]["unit"]]
    return [column for metric in alike for column in (metric, *previous_of(answer, metric))]
