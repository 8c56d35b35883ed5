"""A typed filter as the text that dbt's clients would write for it; what `api.dbt_filter` reads back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import assert_never

from api.filters import SYMBOLS, AllOf, AnyOf, Comparison, Filter, Not, Operator, Value

_PATTERNS = {Operator.CONTAINS: "%{}%", Operator.STARTS_WITH: "{}%", Operator.ENDS_WITH: "%{}"}


def filter_text(tree: Filter, *, is_on_metrics: bool = False) -> str:
    """The filter as text.

    Parameters
    ----------
    is_on_metrics
        Whether its fields are metrics of the answer, as those of `having` are.
    """
    match tree:
        case AllOf(parts):
            return _joined(parts, " AND ", "1 = 1", is_on_metrics=is_on_metrics)
        case AnyOf(parts):
            return _joined(parts, " OR ", "1 = 0", is_on_metrics=is_on_metrics)
        case Not(part):
            return f"NOT ({filter_text(part, is_on_metrics=is_on_metrics)})"
        case Comparison():
            return _comparison(tree, is_on_metrics=is_on_metrics)
        case _:
            assert_never(tree)


def _joined(parts: Sequence[Filter], word: str, of_none: str, *, is_on_metrics: bool) -> str:
    return word.join(f"({filter_text(part, is_on_metrics=is_on_metrics)})" for part in parts) or of_none


def _comparison(leaf: Comparison, *, is_on_metrics: bool) -> str:
    field = _field(leaf, is_on_metrics=is_on_metrics)
    values = [_literal(value) for value in leaf.values]
    match leaf.operator:
        case Operator.IN | Operator.NOT_IN:
            return f"{field} {'NOT ' if leaf.operator is Operator.NOT_IN else ''}IN ({', '.join(values)})"
        case Operator.BETWEEN:
            return f"{field} BETWEEN {values[0]} AND {values[1]}"
        case Operator.IS_NULL:
            return f"{field} IS NULL"
        case Operator.IS_NOT_NULL:
            return f"{field} IS NOT NULL"
        case Operator.CONTAINS | Operator.STARTS_WITH | Operator.ENDS_WITH:
            return f"{field} LIKE {_pattern(str(leaf.values[0]), _PATTERNS[leaf.operator])}"
        case _:
            return f"{field} {SYMBOLS[leaf.operator]} {values[0]}"


def _field(leaf: Comparison, *, is_on_metrics: bool) -> str:
    if leaf.per:
        per = ", ".join(f"'{name}'" for name in leaf.per)
        return f"{{{{ Metric('{leaf.field}', [{per}]) }}}}"
    return f"{{{{ {'Metric' if is_on_metrics else 'Dimension'}('{leaf.field}') }}}}"


def _literal(value: Value) -> str:
    match value:
        case bool():
            return "TRUE" if value else "FALSE"
        case str() | date() | datetime():
            return "'" + str(value).replace("'", "''") + "'"
        case _:
            return str(value)


def _pattern(text: str, shape: str) -> str:
    escaped = "".join(f"!{letter}" if letter in "!%_" else letter for letter in text)
    quoted = shape.format(escaped).replace("'", "''")
    return f"'{quoted}' ESCAPE '!'" if escaped != text else f"'{quoted}'"
