"""Which groups of an answer to withhold, so that no number is shown about fewer than some customers.

A group of too few customers is withheld. That alone protects nobody: the total minus what is shown is what was
withheld. So further groups are withheld with it. Every coarser answer to the same question is taken for known (the
total, the answer with fewer group-bys, the answer by month where this one is by day), because its asker can ask for it
too, and three things hold in the end:

1. a group that a coarser answer withholds stays withheld wherever it is broken down;
2. a coarser group minus its shown parts is a sum over two withheld groups or more, of enough customers together;
3. no linear combination of shown numbers and of coarser ones gives a withheld group of too few customers, unless the
   coarser ones alone do (two attributes that nearly coincide, say; no single answer can undo that).

Coarser answers come first and are protected in the same way, so what is known is what they would show. Which group is
withheld depends on the customers in each group and the order of its values alone, so it is the same in each answer.

References
----------
Fellegi, On the question of statistical confidentiality, JASA 1972 (linear combinations of published cells).
Hundepool et al., Statistical Disclosure Control, Wiley 2012, chapter 4 (primary and secondary suppression, singletons).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

Labels: TypeAlias = NDArray[np.int64]
Flags: TypeAlias = NDArray[np.bool_]

# Beyond these, point 3 takes seconds to see to; then nothing of the answer is shown.
_MOST_WORK = 5_000_000_000  # cubes of the sizes of the systems of equations
_MOST_TERMS = 8_000_000  # 64 MB

_NONE = -1

_SURE = 1e-6  # of a share that is 1 where a group can be computed, and else at most 1 - 1 / (withheld groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One group-by.

    `views` label each group: by its value first, then by coarser readings of it (its month); `coarser` has, for each
    view, the positions of the views that are coarser. Labels are in the order of the values.
    """

    views: tuple[Labels, ...]
    coarser: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """Who stands in which group: pairs of a group's position and a customer's number, each pair once."""

    groups: Labels
    customers: Labels

    def distinct(self, labels: Labels, count: int, *, within: Flags | None = None) -> Labels:
        """The customers under each of `count` labels, which the groups bear; of the groups `within` alone."""
        groups, customers = self.groups, self.customers
        if within is not None:
            counts = within[groups]
            groups, customers = groups[counts], customers[counts]
        width = int(customers.max(initial=0)) + 1
        under = np.unique(labels[groups] * width + customers) // width
        return np.bincount(under, minlength=count)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Level:
    """The groups at one coarseness: the label of each finest group, the customers under each label, what is hidden."""

    labels: Labels
    customers: Labels
    hidden: Flags

    def parents(self, coarser: _Level) -> Labels:
        """The coarser label of each label."""
        parents = np.empty(len(self.customers), dtype=np.int64)
        parents[self.labels] = coarser.labels
        return parents


def withheld(axes: Sequence[Axis], presence: Presence, floor: int) -> Flags:
    """Whether to withhold each group.

    Parameters
    ----------
    axes
        The group-bys; the groups are their distinct combinations, and every group has a customer.
    floor
        The fewest customers that a shown number is about.
    """
    count = int(presence.groups.max(initial=-1)) + 1
    levels: dict[tuple[int, ...], _Level] = {}
    for view in _views(axes):  # coarse ones first
        coarser = [levels[other] for other in levels if _is_coarser(other, view, axes)]
        level = _start(axes, view, presence, count=count)
        level.hidden[level.customers < floor] = True
        for above in coarser:
            level.hidden[above.hidden[level.parents(above)]] = True
        _hide_differences(level, coarser, presence, floor)
        _hide_solutions(level, coarser, presence, floor)
        levels[view] = level
    *_, finest = levels.values()
    return finest.hidden[finest.labels]


def _views(axes: Sequence[Axis]) -> list[tuple[int, ...]]:
    """One view of each axis, in every combination; the view after an axis's last one is "all"."""
    combined = product(*(range(len(axis.views) + 1) for axis in axes))

    def height(view: tuple[int, ...]) -> int:
        return sum(_height(axis, at) for axis, at in zip(axes, view, strict=True))

    return sorted(combined, key=height, reverse=True)


def _height(axis: Axis, at: int) -> int:
    """How many views an axis has that are finer than this one."""
    return sum(_is_above(axis, at, other) for other in range(len(axis.views) + 1))


def _is_above(axis: Axis, coarse: int, fine: int) -> bool:
    if fine == len(axis.views):
        return False
    return coarse == len(axis.views) or coarse in axis.coarser[fine]


def _is_coarser(coarse: tuple[int, ...], fine: tuple[int, ...], axes: Sequence[Axis]) -> bool:
    steps = list(zip(axes, coarse, fine, strict=True))
    return coarse != fine and all(upper == lower or _is_above(axis, upper, lower) for axis, upper, lower in steps)


def _start(axes: Sequence[Axis], view: tuple[int, ...], presence: Presence, *, count: int) -> _Level:
    chosen = [axis.views[at] for axis, at in zip(axes, view, strict=True) if at < len(axis.views)]
    if chosen:
        _, labels = np.unique(np.stack(chosen, axis=1), axis=0, return_inverse=True)
        labels = labels.reshape(-1).astype(np.int64)
    else:
        labels = np.zeros(count, dtype=np.int64)
    size = int(labels.max(initial=-1)) + 1
    return _Level(labels=labels, customers=presence.distinct(labels, size), hidden=np.zeros(size, dtype=np.bool_))


def _hide_differences(level: _Level, coarser: Sequence[_Level], presence: Presence, floor: int) -> None:
    """Hide more of the level until point 2 holds."""
    is_settled = False
    while not is_settled:
        is_settled = True
        for above in coarser:
            lacking = _lacking(level, above, presence, floor)
            if lacking.any():
                parents = level.parents(above)
                _hide_smallest(level, among=lacking[parents], apart=parents)
                is_settled = False


def _lacking(level: _Level, above: _Level, presence: Presence, floor: int) -> Flags:
    """The coarser groups whose withheld parts are too few, or of too few customers, and could be more."""
    parents, size = level.parents(above), len(above.customers)
    parts = np.bincount(parents, minlength=size)
    hidden = np.bincount(parents[level.hidden], minlength=size)
    is_open = ~above.hidden & (hidden > 0) & (hidden < parts)
    if not is_open.any():
        return is_open
    together = presence.distinct(above.labels, size, within=level.hidden[level.labels] & is_open[above.labels])
    return is_open & ((hidden < 2) | (together < floor))  # noqa: PLR2004 - one alone is what the difference is


def _hide_smallest(level: _Level, *, among: Flags, apart: Labels) -> None:
    """Hide the shown group of the fewest customers in each of the sets that `apart` labels."""
    candidates = np.flatnonzero(among & ~level.hidden)
    ranked = candidates[np.lexsort((candidates, level.customers[candidates]))]
    _, first = np.unique(apart[ranked], return_index=True)
    level.hidden[ranked[first]] = True


def _hide_solutions(level: _Level, coarser: Sequence[_Level], presence: Presence, floor: int) -> None:
    """Hide more until point 3 holds; everything, where that cannot be had or costs too much."""
    if level.hidden.all() or not level.hidden.any():
        return
    known = _Known(level, coarser, floor)
    while (solved := known.computable(level.hidden)) is not None:
        if solved.any():
            solved &= ~known.computable_beforehand
        if not solved.any():
            return
        if not _hide_beside(level, coarser, np.flatnonzero(solved.any(axis=0))):
            break
        _hide_differences(level, coarser, presence, floor)
        if level.hidden.all():
            return
    level.hidden[:] = True


class _Known:
    """The sums over groups of a level that coarser answers show, and the small groups, here or coarser, to keep."""

    def __init__(self, level: _Level, coarser: Sequence[_Level], floor: int) -> None:
        sums = [_sums(level, other, coarser[at + 1 :]) for at, other in enumerate(coarser)]
        self._sums = np.stack(sums, axis=1)
        self._small = [
            np.where(other.customers < floor, np.arange(len(other.customers)), -1)[level.parents(other)]
            for other in (level, *coarser)
        ]
        self._work_left = _MOST_WORK

    @cached_property
    def computable_beforehand(self) -> NDArray[np.bool_]:
        """As `computable`, by the coarser answers alone; nothing where that costs too much to know."""
        everything = np.ones(self._sums.shape[0], dtype=np.bool_)
        found = self.computable(everything)
        return np.zeros((len(self._small), len(everything)), dtype=np.bool_) if found is None else found

    def computable(self, unknown: Flags) -> NDArray[np.bool_] | None:
        """Whether each group belongs to a small group, at each level, that the sums over `unknown` groups determine.

        The others are known. Has a row for each level and a column for each group; None if it costs too much.
        """
        patterns, kinds = np.unique(self._sums[unknown], axis=0, return_inverse=True)
        rows = [column == label for column in patterns.T for label in np.unique(column) if label != _NONE]
        work = min(len(rows), len(patterns)) ** 3
        if work > self._work_left or len(rows) * len(patterns) > _MOST_TERMS:
            return None
        self._work_left -= work
        span = _Span(np.array(rows, dtype=np.float64).reshape(len(rows), len(patterns)), kinds.reshape(-1))
        found = np.zeros((len(self._small), len(unknown)), dtype=np.bool_)
        for at, small in enumerate(self._small):
            found[at, unknown] = span.holds(small[unknown])
        return found


def _sums(level: _Level, other: _Level, finer: Sequence[_Level]) -> Labels:
    """For each group, the coarser group that is shown with it; none where that is the sum of finer ones that are."""
    parents = level.parents(other)
    is_needed = ~other.hidden
    for between in finer:
        above = np.zeros(len(between.customers), dtype=np.int64)
        above[between.labels] = other.labels
        if (above[between.labels] == other.labels).all():
            is_broken = np.zeros(len(other.customers), dtype=np.bool_)
            np.logical_or.at(is_broken, above, between.hidden)
            is_needed &= is_broken
    return np.where(is_needed[parents], parents, _NONE)


@cache
def _threads() -> ThreadpoolController:
    # On a busy machine, OpenBLAS's threads wait for each other in a loop: 8 s instead of 0.3 s, measured on 2 cores.
    return ThreadpoolController()


class _Span:
    """All linear combinations of sums over groups.

    Groups of one kind stand in the same sums, so they stand in every combination with the same factor.
    """

    def __init__(self, sums: NDArray[np.float64], kinds: Labels) -> None:
        self._kinds = kinds
        self._sizes = np.bincount(kinds)
        is_wide = sums.shape[0] <= sums.shape[1]
        with _threads().limit(limits=1, user_api="blas"):
            values, vectors = np.linalg.eigh(sums @ sums.T if is_wide else sums.T @ sums)
            kept = values > _SURE * values.max(initial=1.0)
            base = vectors[:, kept]
            # One row for each kind; the columns are an orthonormal base of the combinations.
            self._base = (sums.T @ base) / np.sqrt(values[kept]) if is_wide else base

    def holds(self, targets: Labels) -> Flags:
        """Whether the sum over the groups of a target is a combination; for each group, that of its target."""
        held = np.zeros(len(targets), dtype=np.bool_)
        members = np.flatnonzero(targets != _NONE)
        labels, numbers = np.unique(targets[members], return_inverse=True)
        pairs, counts = np.unique(numbers * len(self._sizes) + self._kinds[members], return_counts=True)
        number, kind = np.divmod(pairs, len(self._sizes))
        is_whole = np.ones(len(labels), dtype=np.bool_)
        np.logical_and.at(is_whole, number, counts == self._sizes[kind])
        number, kind = number[is_whole[number]], kind[is_whole[number]]
        projected = np.zeros((len(labels), self._base.shape[1]))
        np.add.at(projected, number, self._base[kind])
        sizes = np.bincount(number, minlength=len(labels))
        held[members] = (is_whole & (np.square(projected).sum(axis=1) > (1 - _SURE) * sizes))[numbers]
        return held


def _hide_beside(level: _Level, coarser: Sequence[_Level], solved: Labels) -> bool:
    """Hide, for each solved group, the smallest of those that are in most known sums with it; whether there was one."""
    is_any = False
    above = [(level.parents(other), other.hidden) for other in coarser]
    for at in solved:
        shared = np.zeros(len(level.customers), dtype=np.int64)
        for parents, hidden in above:
            shared += (parents == parents[at]) & ~hidden[parents[at]]
        shared[level.hidden] = 0
        if shared.any():
            best = np.flatnonzero(shared == shared.max())
            level.hidden[best[np.argmin(level.customers[best])]] = True
            is_any = True
    return is_any
