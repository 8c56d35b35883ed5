"""Answers on a terminal: a table, or a chart."""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

_MOST_BARS = 40
_CHART_ROWS = 20


def render_table(rows: Sequence[Mapping[str, Any]], *, columns: Sequence[str]) -> str:
    """The rows under their headings, as wide as the terminal; numbers stand to the right, nulls as `-`."""
    table = Table(box=SIMPLE_HEAD)
    for name in columns:
        is_number = any(isinstance(row[name], int | Decimal) for row in rows)
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row[name]) for name in columns))
    target = io.StringIO()
    Console(file=target, width=_width(), markup=False, highlight=False).print(table)
    return target.getvalue().strip("\n")


def render_chart(rows: Sequence[Mapping[str, Any]], *, columns: Sequence[Mapping[str, Any]]) -> str:
    """The first metric over the first group-by: a line over time, else bars. One number is just said."""
    import plotext

    metric = next((column for column in columns if column["kind"] == "metric"), None)
    axis = next((column for column in columns if column["kind"] != "metric"), None)
    shown = [row for row in rows if metric and row[metric["name"]] is not None][: None if axis else 1]
    if metric is None or axis is None or not shown:
        return render_table(rows, columns=[column["name"] for column in columns])
    labels = [str(row[axis["name"]]) for row in shown]
    values = [float(row[metric["name"]]) for row in shown]
    unit = f" ({metric['unit']})" if metric["unit"] else ""
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plot_size(min(_width(), 120), _CHART_ROWS)
    plotext.title(f"{metric['label']}{unit} by {axis['label'].lower()}")
    if axis["kind"] == "time":
        positions = list(range(len(labels)))
        plotext.plot(positions, values, marker="braille")
        step = max(1, len(labels) // 8)
        plotext.xticks(positions[::step], labels[::step])
        return str(plotext.build())
    plotext.simple_bar(labels[:_MOST_BARS], values[:_MOST_BARS], width=min(_width(), 100))
    return str(plotext.build())


def _cell(value: Any) -> str:  # noqa: ANN401 - whatever JSON holds
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case Decimal():
            return f"{value:,f}"
        case int():
            return f"{value:,}"
        case _:
            return str(value)


def _width() -> int:
    return shutil.get_terminal_size((100, 24)).columns
