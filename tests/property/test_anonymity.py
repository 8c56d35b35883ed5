"""What an attacker can compute from an answer under a floor and from every coarser one: never a small group.

The attacker is written here anew, in plain Python and exact fractions: it asks each coarser question as anybody could,
takes shown parts from shown wholes, and then solves all that it has been shown as one system of equations.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.anonymity import Axis, Presence, withheld

# A plain column can be read in one way; a time by its value, and by two coarser periods that cut each other.
READINGS = {"plain": (lambda value: value,), "time": (lambda day: day, lambda day: day // 3, lambda day: day // 4)}
COARSER = {"plain": ((),), "time": ((1, 2), (), ())}

KINDS = (("plain",), ("time",), ("plain", "plain"), ("plain", "time"), ("plain", "plain", "plain"))

Row: TypeAlias = tuple[int, tuple[int, ...]]  # a customer, and the values of what it did
Group: TypeAlias = tuple[int, ...]
Question: TypeAlias = tuple[int | None, ...]  # how each column is read; None where it is not grouped by
Numbers: TypeAlias = Mapping[int, Fraction]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    kinds: tuple[str, ...]
    rows: frozenset[Row]
    floor: int

    @property
    def questions(self) -> list[Question]:
        """Every one, the finest first."""
        ways = [(*range(len(READINGS[kind])), None) for kind in self.kinds]
        return list(product(*ways))

    def group(self, question: Question, values: tuple[int, ...]) -> Group:
        return tuple(
            READINGS[kind][way](value)
            for kind, way, value in zip(self.kinds, question, values, strict=True)
            if way is not None
        )

    def customers(self, question: Question) -> dict[Group, set[int]]:
        found: dict[Group, set[int]] = defaultdict(set)
        for customer, values in self.rows:
            found[self.group(question, values)].add(customer)
        return found


def hidden_groups(shop: Shop, question: Question) -> dict[Group, bool]:
    """The answer to the question: its groups, and whether each is withheld."""
    customers = shop.customers(question)
    groups = sorted(customers)
    asked = [(kind, way) for kind, way in zip(shop.kinds, question, strict=True) if way is not None]
    axes = [axis(kind, way, [group[at] for group in groups]) for at, (kind, way) in enumerate(asked)]
    pairs = [(at, customer) for at, group in enumerate(groups) for customer in sorted(customers[group])]
    presence = Presence(
        groups=np.array([at for at, _ in pairs], dtype=np.int64),
        customers=np.array([customer for _, customer in pairs], dtype=np.int64),
    )
    return dict(zip(groups, map(bool, withheld(axes, presence, shop.floor)), strict=True))


def axis(kind: str, way: int, values: list[int]) -> Axis:
    ways = (way, *COARSER[kind][way])
    coarse = [[READINGS[kind][at](value) for value in values] for at in ways[1:]]
    views = tuple(np.array(view, dtype=np.int64) for view in (values, *coarse))
    return Axis(views=views, coarser=tuple(tuple(ways.index(at) for at in COARSER[kind][each]) for each in ways))


def is_coarser(shop: Shop, coarse: Question, fine: Question) -> bool:
    steps = zip(shop.kinds, coarse, fine, strict=True)
    return coarse != fine and all(
        upper in (lower, None) or (lower is not None and upper in COARSER[kind][lower]) for kind, upper, lower in steps
    )


class Equations:
    """Sums over the finest groups that are known, as a base in echelon form."""

    def __init__(self) -> None:
        self._base: dict[int, Numbers] = {}

    def learn(self, numbers: Numbers) -> None:
        rest = self._rest(numbers)
        if rest:
            pivot = min(rest)
            self._base[pivot] = {at: factor / rest[pivot] for at, factor in rest.items()}

    def know(self, numbers: Numbers) -> bool:
        return not self._rest(numbers)

    def _rest(self, numbers: Numbers) -> dict[int, Fraction]:
        rest = dict(numbers)
        for at in sorted(self._base):
            if factor := rest.get(at):
                for other, known in self._base[at].items():
                    rest[other] = rest.get(other, Fraction(0)) - factor * known
        return {at: factor for at, factor in rest.items() if factor}


@st.composite
def shops(draw: st.DrawFn) -> Shop:
    kinds = draw(st.sampled_from(KINDS))
    sizes = [draw(st.integers(2, 12)) if kind == "time" else draw(st.integers(1, 5)) for kind in kinds]
    values = st.tuples(*(st.integers(0, size - 1) | st.just(0) for size in sizes))  # the first value is frequent
    # An attribute of the customer, or of each thing that it did.
    is_own = [draw(st.booleans()) for _ in kinds]
    rows: set[Row] = set()
    for customer in range(draw(st.integers(1, 30))):
        own = draw(values)
        for done in draw(st.lists(values, min_size=1, max_size=3)):
            rows.add(
                (customer, tuple(one if mine else other for one, other, mine in zip(own, done, is_own, strict=True)))
            )
    return Shop(kinds=kinds, rows=frozenset(rows), floor=draw(st.integers(2, 6)))


def attack(shop: Shop) -> None:
    """Assert all that must hold, of the finest answer and of each coarser one."""
    customers = {question: shop.customers(question) for question in shop.questions}
    hidden = {question: hidden_groups(shop, question) for question in shop.questions}
    for question in shop.questions:
        for group, is_hidden in hidden[question].items():
            assert is_hidden or len(customers[question][group]) >= shop.floor
        for coarse in (other for other in shop.questions if is_coarser(shop, other, question)):
            _assert_parts_are_safe(shop, coarse, question, customers, hidden)
        _assert_nothing_is_solved(shop, question, customers, hidden)


def _assert_parts_are_safe(shop: Shop, coarse: Question, fine: Question, customers: Any, hidden: Any) -> None:
    parts: dict[Group, set[Group]] = defaultdict(set)
    for _, values in shop.rows:
        parts[shop.group(coarse, values)].add(shop.group(fine, values))
    for whole, its_parts in parts.items():
        withheld_parts = [part for part in its_parts if hidden[fine][part]]
        if hidden[coarse][whole]:
            assert len(withheld_parts) == len(its_parts), "a withheld group is shown part by part"
        elif withheld_parts and len(withheld_parts) < len(its_parts):
            together = set().union(*(customers[fine][part] for part in withheld_parts))
            assert len(withheld_parts) >= 2, "the whole minus its shown parts is one withheld part"
            assert len(together) >= shop.floor, "the whole minus its shown parts is of too few customers"


def _assert_nothing_is_solved(shop: Shop, question: Question, customers: Any, hidden: Any) -> None:
    positions = {group: at for at, group in enumerate(sorted(customers[question]))}

    def numbers(other: Question, group: Group) -> Numbers:
        members = {
            positions[shop.group(question, values)] for _, values in shop.rows if shop.group(other, values) == group
        }
        return dict.fromkeys(members, Fraction(1))

    coarser = [other for other in shop.questions if is_coarser(shop, other, question)]
    before, after = Equations(), Equations()
    for other in coarser:
        for group in (group for group, is_hidden in hidden[other].items() if not is_hidden):
            before.learn(numbers(other, group))
            after.learn(numbers(other, group))
    for group in (group for group, is_hidden in hidden[question].items() if not is_hidden):
        after.learn(numbers(question, group))
    for other in (question, *coarser):
        for group in customers[other]:
            if len(customers[other][group]) < shop.floor and not before.know(numbers(other, group)):
                assert not after.know(numbers(other, group)), "a small group can be computed"


drawn = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@settings(drawn, max_examples=80)
@given(shop=shops())
def test_no_small_group_can_be_computed(shop: Shop) -> None:
    attack(shop)


@pytest.mark.full
@pytest.mark.timeout(900)
@settings(drawn, max_examples=2_000)
@given(shop=shops())
def test_no_small_group_can_be_computed_in_thousands_of_shops(shop: Shop) -> None:
    attack(shop)


@settings(drawn, max_examples=60)
@given(shop=shops())
def test_which_groups_are_withheld_does_not_hang_on_the_order_of_rows(shop: Shop) -> None:
    finest = shop.questions[0]
    shuffled = Shop(
        kinds=shop.kinds, rows=frozenset((1_000 - customer, values) for customer, values in shop.rows), floor=shop.floor
    )

    assert hidden_groups(shop, finest) == hidden_groups(shuffled, finest)


def one_by_one(sizes: Iterable[int]) -> Iterator[Row]:
    """Groups of different customers."""
    number = 0
    for value, size in enumerate(sizes):
        for _ in range(size):
            yield number, (value,)
            number += 1


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((9, 8, 7), "..."),
        ((9, 8, 2), ".xx"),  # the smallest of the others goes with it
        ((2, 9, 9), "xx."),  # and the first of equals
        ((9, 2, 2, 8), ".xxx"),  # two, but of four customers together
        ((9, 3, 2, 8), ".xx."),  # two, of five together
        ((2, 2, 2), "xxx"),  # all: their sum is the total, of six
        ((2, 2), "xx"),
        ((4,), "x"),
        ((5,), "."),
    ],
)
def test_of_one_group_by(sizes: tuple[int, ...], expected: str) -> None:
    shop = Shop(kinds=("plain",), rows=frozenset(one_by_one(sizes)), floor=5)

    assert "".join("x" if hidden else "." for hidden in hidden_groups(shop, (0,)).values()) == expected


def test_one_customer_in_many_groups_is_one_customer() -> None:
    # Four groups of the same customer would be enough if they were added up.
    alone = {(0, (value,)) for value in range(4)}
    crowd = {(customer, (value,)) for customer in range(1, 8) for value in (4, 5)}
    shop = Shop(kinds=("plain",), rows=frozenset(alone | crowd), floor=4)

    assert list(hidden_groups(shop, (0,)).values()) == [True] * 5 + [False]
