"""The command line's filters: `customer__gender = F`, `product__category in Apparel, Office`, `… between 1 and 5`.

A text that begins with double braces is a filter of the dbt Semantic Layer, which the service reads itself.
"""

from __future__ import annotations

import re
from typing import Any

import typer

_OPERATORS = {
    "=": "eq", "!=": "ne", "<": "lt", "<=": "lte", ">": "gt", ">=": "gte",
    "in": "in", "not in": "not_in", "between": "between",
    "contains": "contains", "starts with": "starts_with", "ends with": "ends_with",
    "is null": "is_null", "is not null": "is_not_null",
}  # fmt: skip

# Longest first, so that `<=` is not read as `<`, nor `is not null` as something else.
_SHAPE = re.compile(
    r"\s*(?P<field>\w+)\s*(?P<operator>"
    + "|".join(re.escape(name).replace(r"\ ", r"\s+") for name in sorted(_OPERATORS, key=len, reverse=True))
    + r")(?P<values>\s.*|[^\w\s=<>!].*|\w.*|)",
    re.IGNORECASE | re.DOTALL,
)


def parse_filter(text: str) -> dict[str, Any] | str:
    """The filter as the API takes it.

    A value is a number, true or false where it reads as one, else text; quotes make it text always.

    Raises
    ------
    typer.BadParameter
        The text is no filter.

    Examples
    --------
    >>> parse_filter("customer__tenure_months >= 12")
    {'field': 'customer__tenure_months', 'op': 'gte', 'values': [12]}
    >>> parse_filter("product__category in Apparel, 'Notebooks & Journals'")
    {'field': 'product__category', 'op': 'in', 'values': ['Apparel', 'Notebooks & Journals']}
    >>> parse_filter("{{ Metric('total_revenue', ['customer']) }} > 1000")
    "{{ Metric('total_revenue', ['customer']) }} > 1000"
    """
    if text.lstrip().startswith("{{"):
        return text
    found = _SHAPE.fullmatch(text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is no filter; write it as: FIELD = VALUE, FIELD in A, B, FIELD is null")
    operator = _OPERATORS[" ".join(found["operator"].lower().split())]
    values = found["values"].strip()
    return {"field": found["field"], "op": operator, "values": [_value(part) for part in _parts(operator, values)]}


def _parts(operator: str, values: str) -> list[str]:
    match operator:
        case "in" | "not_in":
            return _split(values, ",")
        case "between":
            return _split(values, r"\s+and\s+")
        case "is_null" | "is_not_null":
            return []
        case _:
            return [values]


def _split(text: str, separator: str) -> list[str]:
    """The parts of a list; a separator between quotes does not count."""
    quoted = r"""'[^']*'|"[^"]*\""""
    return [part.strip() for part in re.split(rf"(?:{separator})(?=(?:[^'\"]|{quoted})*$)", text.strip("()"))]


def _value(text: str) -> str | int | float | bool:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    if re.fullmatch(r"-?\d+\.\d+", text):
        return float(text)
    return text
