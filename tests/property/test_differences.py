"""The rows by which two questions differ are those that the differences of their filter hold; on drawn filters."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.differences import Difference, differences, not_true
from api.filters import AllOf, AnyOf, Comparison, Filter, Not, Operator

Row: TypeAlias = tuple[int | None, int | None]

ROWS: tuple[Row, ...] = tuple((a, b) for a in (None, 0, 1, 2) for b in (None, 0, 1, 2))
EQUAL: dict[Operator, Callable[[int, int], bool]] = {Operator.EQ: operator.eq, Operator.LT: operator.lt}


def truth(tree: Filter, row: Row) -> bool | None:
    """SQL's three values: true, false and unknown."""
    match tree:
        case Comparison():
            return leaf_truth(tree, row["ab".index(tree.field)])
        case AllOf(parts):
            found = [truth(part, row) for part in parts]
            return False if False in found else None if None in found else True
        case AnyOf(parts):
            found = [truth(part, row) for part in parts]
            return True if True in found else None if None in found else False
        case Not(part):
            inner = truth(part, row)
            return None if inner is None else not inner


def leaf_truth(leaf: Comparison, value: int | None) -> bool | None:
    match leaf.operator:
        case Operator.IS_NULL:
            return value is None
        case Operator.IS_NOT_NULL:
            return value is not None
        case _ if value is None:
            return None
        case Operator.IN:
            return value in leaf.values
        case Operator.NOT_IN:
            return value not in leaf.values
        case _:
            other = leaf.values[0]
            assert isinstance(other, int)
            return EQUAL[leaf.operator](value, other)


def rows_of(tree: Filter) -> frozenset[Row]:
    return frozenset(row for row in ROWS if truth(tree, row))


values = st.integers(0, 2)
leaves = st.one_of(
    st.builds(
        lambda field, op, value: Comparison(field=field, operator=op, values=(value,)),
        st.sampled_from("ab"),
        st.sampled_from([Operator.EQ, Operator.LT]),
        values,
    ),
    st.builds(
        lambda field, op, several: Comparison(field=field, operator=op, values=tuple(several)),
        st.sampled_from("ab"),
        st.sampled_from([Operator.IN, Operator.NOT_IN]),
        st.lists(values, min_size=1, max_size=3, unique=True),
    ),
    st.builds(
        lambda field, op: Comparison(field=field, operator=op),
        st.sampled_from("ab"),
        st.sampled_from([Operator.IS_NULL, Operator.IS_NOT_NULL]),
    ),
)
filters = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: AllOf(tuple(parts))),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: AnyOf(tuple(parts))),
        inner.map(Not),
    ),
    max_leaves=5,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A filter that an attacker would ask next: one condition is left out, or turned into one that nothing meets."""

    leaf: Comparison
    tree: Filter


def changes(tree: Filter) -> Iterator[Change]:
    match tree:
        case Comparison():
            yield Change(leaf=tree, tree=AllOf(()))
            yield Change(leaf=tree, tree=AnyOf(()))
        case AllOf(parts) | AnyOf(parts):
            for at, part in enumerate(parts):
                for change in changes(part):
                    changed = (*parts[:at], change.tree, *parts[at + 1 :])
                    yield Change(leaf=change.leaf, tree=type(tree)(changed))
        case Not(part):
            for change in changes(part):
                yield Change(leaf=change.leaf, tree=Not(change.tree))


def held(found: tuple[Difference, ...]) -> set[frozenset[Row]]:
    return {rows_of(difference.where) for difference in found}


@settings(deadline=None, max_examples=200)
@given(tree=filters)
def test_taking_one_condition_away_changes_the_answer_by_rows_that_are_counted(tree: Filter) -> None:
    counted, before = held(differences(tree)), rows_of(tree)

    for change in changes(tree):
        after = rows_of(change.tree)
        for rows in (after - before, before - after):
            # Nothing, everything and the answer itself are judged elsewhere.
            assert rows in counted | {frozenset(), frozenset(ROWS), before}


@settings(deadline=None, max_examples=200)
@given(tree=filters)
def test_what_the_filter_keeps_out_is_counted(tree: Filter) -> None:
    out = frozenset(ROWS) - rows_of(tree)

    assert rows_of(not_true(tree)) == out
    assert out in held(differences(tree)) | {frozenset(), frozenset(ROWS)}


@settings(deadline=None, max_examples=200)
@given(
    several=st.lists(values, min_size=2, max_size=3, unique=True), other=leaves, op=st.sampled_from(["in", "not_in"])
)
def test_each_value_of_a_list_is_counted_by_itself(several: list[int], other: Comparison, op: str) -> None:
    def listing(listed: list[int]) -> Filter:
        return AllOf((Comparison(field="a", operator=Operator(op), values=tuple(listed)), other))

    by_value = [difference for difference in differences(listing(several)) if difference.by_value]

    for value in several:
        fewer = [one for one in several if one != value]
        changed = rows_of(listing(fewer)) ^ rows_of(listing(several))
        assert any(
            difference.field == "a" and {row for row in rows_of(difference.where) if row[0] == value} == changed
            for difference in by_value
        )


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        # One condition: what it keeps out.
        (Comparison(field="a", operator=Operator.IS_NULL), 1),
        # Two at once: each alone, and both.
        (
            AllOf(
                (
                    Comparison(field="a", operator=Operator.EQ, values=(1,)),
                    Comparison(field="b", operator=Operator.IS_NULL),
                )
            ),
            3,
        ),
    ],
)
def test_few_questions_are_asked_for_it(where: Filter, expected: int) -> None:
    assert len(differences(where)) == expected
