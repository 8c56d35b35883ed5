"""Typed filters: a tree of comparisons whose values never become SQL text.

A filter names fields and operators from closed lists and carries values as values. `render` turns the tree into
SQL text in which every value is a placeholder; the text is made of our own words and of names found in the catalog.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, tzinfo
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import TypeAlias, assert_never

from api.catalog import ValueType
from api.errors import InvalidQuery
from api.periods import day
from api.zones import instant

Value: TypeAlias = str | bool | int | float | Decimal | date | datetime

_ESCAPE = "!"  # not the backslash: Snowflake reads that one inside string literals


class Operator(StrEnum):
    """What a comparison does. Text operators are case-sensitive; a null satisfies none but `is_null`."""

    EQ = "eq"
    NE = "ne"
    LT = "lt"
    LTE = "lte"
    GT = "gt"
    GTE = "gte"
    IN = "in"
    NOT_IN = "not_in"
    BETWEEN = "between"
    CONTAINS = "contains"
    STARTS_WITH = "starts_with"
    ENDS_WITH = "ends_with"
    IS_NULL = "is_null"
    IS_NOT_NULL = "is_not_null"

    @property
    def is_textual(self) -> bool:
        """Whether it looks inside a text, so that it suits text fields alone."""
        return self in (Operator.CONTAINS, Operator.STARTS_WITH, Operator.ENDS_WITH)

    @property
    def is_ordering(self) -> bool:
        """Whether it needs an order, which booleans do not have."""
        return self in (Operator.LT, Operator.LTE, Operator.GT, Operator.GTE, Operator.BETWEEN)

    def accepts(self, count: int) -> bool:
        """Whether the operator takes that many values."""
        match self:
            case Operator.IS_NULL | Operator.IS_NOT_NULL:
                return count == 0
            case Operator.BETWEEN:
                return count == 2  # noqa: PLR2004 - the two ends of the range
            case Operator.IN | Operator.NOT_IN:
                return count >= 1
            case _:
                return count == 1

    @property
    def arity(self) -> str:
        """How many values it takes, in words."""
        match self:
            case Operator.IS_NULL | Operator.IS_NOT_NULL:
                return "no value"
            case Operator.BETWEEN:
                return "two values, the lower and the upper end"
            case Operator.IN | Operator.NOT_IN:
                return "one value or more"
            case _:
                return "one value"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A field against values; the leaf of a filter.

    With `per`, the field is a metric, whose value for each of these entities decides which of their rows count.
    """

    field: str
    operator: Operator
    values: tuple[Value, ...] = ()
    per: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AllOf:
    """True where every part is; without parts, everywhere."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """True where at least one part is; without parts, nowhere."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """True where the part is false."""

    part: Filter


Filter: TypeAlias = Comparison | AllOf | AnyOf | Not


def all_of(*parts: Filter | None) -> Filter | None:
    """The filter that holds where all of these do; None where there are none."""
    present = tuple(part for part in parts if part is not None)
    return AllOf(present) if len(present) > 1 else next(iter(present), None)


def comparisons(tree: Filter | None) -> Iterator[Comparison]:
    """Every leaf of the tree, from left to right."""
    match tree:
        case None:
            return
        case Comparison():
            yield tree
        case AllOf(parts) | AnyOf(parts):
            for part in parts:
                yield from comparisons(part)
        case Not(part):
            yield from comparisons(part)
        case _:
            assert_never(tree)


def depth(tree: Filter | None) -> int:
    """How many groups stand around the deepest comparison."""
    match tree:
        case None | Comparison():
            return 0
        case AllOf(parts) | AnyOf(parts):
            return 1 + max(map(depth, parts), default=0)
        case Not(part):
            return 1 + depth(part)
        case _:
            assert_never(tree)


def rewrite(tree: Filter, leaf: Callable[[Comparison], Comparison]) -> Filter:
    """The same tree with every comparison replaced by what `leaf` makes of it."""
    match tree:
        case Comparison():
            return leaf(tree)
        case AllOf(parts):
            return AllOf(tuple(rewrite(part, leaf) for part in parts))
        case AnyOf(parts):
            return AnyOf(tuple(rewrite(part, leaf) for part in parts))
        case Not(part):
            return Not(rewrite(part, leaf))
        case _:
            assert_never(tree)


def render(tree: Filter, *, reference: Callable[[Comparison], str], bind: Callable[[Value], str]) -> str:
    """SQL text of the filter.

    Parameters
    ----------
    reference
        Turns a leaf's field, already found in the catalog, into SQL.
    bind
        Takes a value away and returns the placeholder that stands for it.
    """
    match tree:
        case Comparison():
            return _render_comparison(tree, reference(tree), bind)
        case AllOf(()):
            return "TRUE"
        case AnyOf(()):
            return "FALSE"
        case AllOf(parts):
            return "(" + " AND ".join(render(part, reference=reference, bind=bind) for part in parts) + ")"
        case AnyOf(parts):
            return "(" + " OR ".join(render(part, reference=reference, bind=bind) for part in parts) + ")"
        case Not(part):
            return f"(NOT {render(part, reference=reference, bind=bind)})"
        case _:
            assert_never(tree)


SYMBOLS = {
    Operator.EQ: "=",
    Operator.NE: "<>",
    Operator.LT: "<",
    Operator.LTE: "<=",
    Operator.GT: ">",
    Operator.GTE: ">=",
}


def _render_comparison(leaf: Comparison, field: str, bind: Callable[[Value], str]) -> str:
    match leaf.operator:
        case Operator.IS_NULL:
            return f"({field} IS NULL)"
        case Operator.IS_NOT_NULL:
            return f"({field} IS NOT NULL)"
        case Operator.IN | Operator.NOT_IN:
            word = "IN" if leaf.operator is Operator.IN else "NOT IN"
            return f"({field} {word} ({', '.join(bind(value) for value in leaf.values)}))"
        case Operator.BETWEEN:
            low, high = leaf.values
            return f"({field} BETWEEN {bind(low)} AND {bind(high)})"
        case Operator.CONTAINS | Operator.STARTS_WITH | Operator.ENDS_WITH:
            return f"({field} LIKE {bind(_pattern(leaf))} ESCAPE '{_ESCAPE}')"
        case _:
            return f"({field} {SYMBOLS[leaf.operator]} {bind(leaf.values[0])})"


def _pattern(leaf: Comparison) -> str:
    text = str(leaf.values[0])
    for special in (_ESCAPE, "%", "_"):
        text = text.replace(special, _ESCAPE + special)
    head = "" if leaf.operator is Operator.STARTS_WITH else "%"
    tail = "" if leaf.operator is Operator.ENDS_WITH else "%"
    return head + text + tail


def typed(leaf: Comparison, *, field: str, type_: ValueType, zone: tzinfo = UTC) -> Comparison:
    """The comparison on the resolved field, with its values in the field's type.

    `zone` is that of times of day without an offset.

    Raises
    ------
    InvalidQuery
        The operator does not suit the type, has the wrong number of values, or a value is of another type.
    """
    operator = leaf.operator
    if not operator.accepts(len(leaf.values)):
        raise InvalidQuery(
            f"{operator} on {leaf.field} takes {operator.arity}, not {len(leaf.values)}",
            hint="Mend the values of this filter.",
            code="invalid_value_count",
        )
    suits = (
        type_ is ValueType.STRING if operator.is_textual else not operator.is_ordering or type_ is not ValueType.BOOLEAN
    )
    if not suits:
        raise InvalidQuery(
            f"{operator} does not suit {leaf.field}, which is of type {type_}",
            hint="Use eq, ne, in, not_in or is_null.",
            code="invalid_operator",
        )
    return replace(leaf, field=field, values=tuple(_value(leaf.field, item, type_, zone) for item in leaf.values))


def _value(field: str, value: Value, type_: ValueType, zone: tzinfo) -> Value:
    try:
        return _converted(value, type_, zone)
    except (ValueError, OverflowError, InvalidOperation) as error:
        raise InvalidQuery(
            # Not which: it may be somebody's name, or a row filter's, which its caller must not learn.
            f"{field} takes values of type {type_}, which one of those given is not",
            hint=f"Write it as {_EXAMPLES[type_]}.",
            code="invalid_value",
        ) from error


_EXAMPLES = {
    ValueType.STRING: 'a text, such as "Apparel"',
    ValueType.INTEGER: "a whole number, such as 12",
    ValueType.DECIMAL: "a number, such as 99.95",
    ValueType.FLOAT: "a number, such as 0.25",
    ValueType.BOOLEAN: "true or false",
    ValueType.DATE: 'a day, such as "2019-01-31"',
    ValueType.TIMESTAMP: 'a time in UTC, such as "2019-01-31T12:00:00Z"',
}

_LARGEST_INTEGER = 2**63 - 1
_LARGEST_DECIMAL = Decimal(10) ** 27  # the warehouse holds 38 digits, 10 of them behind the point


def _converted(value: Value, type_: ValueType, zone: tzinfo) -> Value:
    """The value in the type, or ValueError. No guessing: a text is never taken for a number, nor 1 for true."""
    match type_, value:
        case ValueType.STRING, str():
            return _clean_text(value)
        case ValueType.BOOLEAN, bool():
            return value
        case (ValueType.BOOLEAN, _) | (_, bool()):
            raise ValueError
        case ValueType.INTEGER, int() if abs(value) <= _LARGEST_INTEGER:
            return value
        case ((ValueType.DECIMAL | ValueType.FLOAT), (int() | float() | Decimal())):
            return _number(value)
        case ValueType.DATE, str():
            return day(value)
        case ValueType.TIMESTAMP, str():
            return instant(datetime.fromisoformat(value), zone)
        case ((ValueType.DATE | ValueType.TIMESTAMP), datetime()):
            return instant(value, zone if type_ is ValueType.TIMESTAMP else UTC)
        case ((ValueType.DATE | ValueType.TIMESTAMP), date()):
            return value
        case _:
            raise ValueError


def _clean_text(text: str) -> str:
    text.encode()  # a lone surrogate is no text: UnicodeEncodeError is a ValueError
    if "\0" in text:
        raise ValueError
    return text


def _number(value: float | Decimal) -> Value:
    number = Decimal(repr(value)) if isinstance(value, float) and math.isfinite(value) else Decimal(value)
    if not number.is_finite() or abs(number) >= _LARGEST_DECIMAL:
        raise ValueError
    return number
