"""What two questions that differ by one condition of a filter would tell, if one answer is taken from the other.

Somebody who may not ask about one customer asks about everybody, and about everybody else. The rows in which the two
answers differ are described here as filters of their own, so that the customers in them can be counted beforehand.

References
----------
Denning, Denning and Schwartz, The tracker: a threat to statistical database security, ACM TODS 1979. Restricting the
size of query sets and of their complements is not enough; a condition that can be added or left out is the simplest
tracker. Those of several conditions at once are not looked for here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias, assert_never

from api.filters import AllOf, AnyOf, Comparison, Filter, Not, Operator

Fill: TypeAlias = Callable[[Filter], Filter]

_TRUE, _FALSE = AllOf(()), AnyOf(())


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Rows by which questions differ: with and without a condition on a field, or (`by_value`) one of its values."""

    field: str
    where: Filter
    by_value: bool = False


def differences(where: Filter) -> tuple[Difference, ...]:
    """The rows that each condition of the filter lets in or keeps out, and those that the filter as a whole keeps out.

    Rows that none of them can hold are left out; so are those of the filter itself.
    """
    found: dict[Filter, Difference] = {}
    for hole in _holes(where, is_positive=True):
        sets = [AllOf((hole.widest, not_true(where))), AllOf((where, not_true(hole.narrowest))), not_true(where)]
        for rows in map(_folded, sets):
            if rows not in (_TRUE, _FALSE, where):
                found.setdefault(rows, Difference(field=hole.leaf.field, where=rows))
        if len(hole.leaf.values) > 1 and hole.leaf.operator in (Operator.IN, Operator.NOT_IN):
            rows = AllOf((where if hole.selects else hole.widest, hole.members))
            found[rows] = Difference(field=hole.leaf.field, where=rows, by_value=True)
    return tuple(found.values())


def not_true(tree: Filter) -> Filter:
    """True where the tree is false or unknown; SQL's NOT leaves the unknown out."""
    match tree:
        case Comparison():
            return _or_null(Not(tree), tree)
        case AllOf(parts):
            return AnyOf(tuple(map(not_true, parts)))
        case AnyOf(parts):
            return AllOf(tuple(map(not_true, parts)))
        case Not(part):
            return _not_false(part)
        case _:
            assert_never(tree)


def _not_false(tree: Filter) -> Filter:
    match tree:
        case Comparison():
            return _or_null(tree, tree)
        case AllOf(parts):
            return AllOf(tuple(map(_not_false, parts)))
        case AnyOf(parts):
            return AnyOf(tuple(map(_not_false, parts)))
        case Not(part):
            return not_true(part)
        case _:
            assert_never(tree)


def _or_null(tree: Filter, leaf: Comparison) -> Filter:
    if leaf.operator in (Operator.IS_NULL, Operator.IS_NOT_NULL):  # these are never unknown
        return tree
    return AnyOf((tree, Comparison(field=leaf.field, operator=Operator.IS_NULL)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hole:
    """A comparison of a filter, and the whole filter with something else in its place."""

    leaf: Comparison
    fill: Fill
    is_positive: bool

    @property
    def widest(self) -> Filter:
        """The filter as if the comparison did not restrict it."""
        return self.fill(_TRUE if self.is_positive else _FALSE)

    @property
    def narrowest(self) -> Filter:
        """The filter as if the comparison let nothing in."""
        return self.fill(_FALSE if self.is_positive else _TRUE)

    @property
    def selects(self) -> bool:
        """Whether the values of the comparison are let in, not kept out."""
        return self.is_positive == (self.leaf.operator is Operator.IN)

    @property
    def members(self) -> Comparison:
        """Rows of one of the values."""
        return Comparison(field=self.leaf.field, operator=Operator.IN, values=self.leaf.values)


def _holes(tree: Filter, *, is_positive: bool) -> Iterator[_Hole]:
    match tree:
        case Comparison():
            yield _Hole(leaf=tree, fill=lambda other: other, is_positive=is_positive)
        case AllOf(parts) | AnyOf(parts):
            for at, part in enumerate(parts):
                for hole in _holes(part, is_positive=is_positive):
                    yield _Hole(leaf=hole.leaf, fill=_within(tree, at, hole.fill), is_positive=hole.is_positive)
        case Not(part):
            for hole in _holes(part, is_positive=not is_positive):
                yield _Hole(leaf=hole.leaf, fill=_negated(hole.fill), is_positive=hole.is_positive)
        case _:
            assert_never(tree)


def _within(group: AllOf | AnyOf, at: int, fill: Fill) -> Fill:
    return lambda other: type(group)((*group.parts[:at], fill(other), *group.parts[at + 1 :]))


def _negated(fill: Fill) -> Fill:
    return lambda other: Not(fill(other))


def _folded(tree: Filter) -> Filter:
    """The same filter without parts that are always true or never."""
    match tree:
        case Comparison():
            return tree
        case AllOf(parts):
            return _folded_group(AllOf, parts, neutral=_TRUE, decisive=_FALSE)
        case AnyOf(parts):
            return _folded_group(AnyOf, parts, neutral=_FALSE, decisive=_TRUE)
        case Not(part):
            folded = _folded(part)
            return _FALSE if folded == _TRUE else _TRUE if folded == _FALSE else Not(folded)
        case _:
            assert_never(tree)


def _folded_group(kind: type[AllOf | AnyOf], parts: tuple[Filter, ...], *, neutral: Filter, decisive: Filter) -> Filter:
    folded = tuple(dict.fromkeys(part for part in map(_folded, parts) if part != neutral))
    if decisive in folded:
        return decisive
    return folded[0] if len(folded) == 1 else kind(folded)
