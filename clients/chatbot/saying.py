"""An answer in one sentence, with its number."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from clients.chatbot.columns import groups_of, is_time, metrics_of
from clients.figures import shown
from clients.sdk import Answer, Cell, Column


def said(understood: str, answer: Answer) -> str:
    """What was understood, and the number; of several rows the highest, and of a series the last."""
    asked, groups = metrics_of(answer), groups_of(answer)
    if not answer.rows or not asked:
        return f"{understood}: no data."
    if not groups:
        return f"{understood}: {'; '.join(_number(column, answer.rows[0], len(asked)) for column in asked)}."
    return f"{understood}: {_rows(asked[0], groups, answer)}."


def _number(column: Column, row: Mapping[str, Cell], count: int) -> str:
    """The number, named where there are several, with what became of it where it is compared."""
    name = column["name"]
    text = shown(row[name], column["unit"])
    if count > 1:
        text = f"{column['label']} {text}"
    previous, ratio = row.get(f"{name}__previous"), row.get(f"{name}__change_ratio")
    if isinstance(previous, Decimal | int) and isinstance(ratio, Decimal | int):
        direction = "up" if ratio > 0 else "down" if ratio < 0 else "unchanged"
        by = f" {abs(Decimal(ratio)) * 100:.1f} %" if ratio else ""
        text += f", {direction}{by} from {shown(previous, column['unit'])}"
    return text


def _rows(column: Column, groups: list[Column], answer: Answer) -> str:
    rows = [row for row in answer.rows if isinstance(row[column["name"]], Decimal | int)]
    if not rows:
        return "no data"
    highest = max(rows, key=lambda row: row[column["name"]] or 0)
    text = f"highest {shown(highest[column['name']], column['unit'])} ({_place(highest, groups)})"
    is_series = len(groups) == 1 and is_time(groups[0])
    if is_series and rows[-1] is not highest:
        text += f", last {shown(rows[-1][column['name']], column['unit'])} ({_place(rows[-1], groups)})"
    return f"{text}; {len(answer.rows):,} rows" if len(answer.rows) > 1 else text


def _place(row: Mapping[str, Cell], groups: list[Column]) -> str:
    return ", ".join("none" if row[group["name"]] is None else str(row[group["name"]]) for group in groups)
