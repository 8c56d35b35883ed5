"""Filters as people type them."""

from __future__ import annotations

import doctest
from typing import Any

import pytest
import typer

from clients import filter_text
from clients.filter_text import parse_filter


def test_the_examples_in_the_documentation_hold() -> None:
    assert doctest.testmod(filter_text).failed == 0


@pytest.mark.parametrize(
    ("text", "op", "values"),
    [
        ("f = F", "eq", ["F"]),
        ("f=F", "eq", ["F"]),
        ("f != New York", "ne", ["New York"]),
        ("f <= 12", "lte", [12]),
        ("f<12.5", "lt", [12.5]),
        ("f > -3", "gt", [-3]),
        ("f in A, B", "in", ["A", "B"]),
        ("f in (A, 'B, C')", "in", ["A", "B, C"]),
        ("f not in A", "not_in", ["A"]),
        ("f between 1 and 5", "between", [1, 5]),
        ("f between 2019-01-01 and 2019-03-31", "between", ["2019-01-01", "2019-03-31"]),
        ("f contains 50%", "contains", ["50%"]),
        ("f starts with GGOE", "starts_with", ["GGOE"]),
        ("f ends with 99", "ends_with", [99]),
        ("f ends with '99'", "ends_with", ["99"]),
        ("f is null", "is_null", []),
        ("f IS NOT NULL", "is_not_null", []),
        ("f = true", "eq", [True]),
        ("f = in stock", "eq", ["in stock"]),
        ("f = ''", "eq", [""]),
    ],
)
def test_a_filter_is_read(text: str, op: str, values: list[Any]) -> None:
    assert parse_filter(text) == {"field": "f", "op": op, "values": values}


@pytest.mark.parametrize("text", ["", "f", "f ~ 3", "= 3", "between 1 and 2"])
def test_what_is_no_filter_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is no filter"):
        parse_filter(text)
