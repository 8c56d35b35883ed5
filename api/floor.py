"""Answers about enough customers: the questions behind one, and what of it is shown.

For a role with a floor the answer is asked for as a whole, without its page. Beside it go one question for each set of
rows that its metrics are computed from, which says who stands in which group (`api.anonymity` decides by that what is
withheld), and one for each condition of its filter (`api.differences`). The page is cut from what is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from api.anonymity import Axis, Flags, Labels, Presence, withheld
from api.catalog import PERSON, Catalog, Dimension, DimensionKind, GroupBy, Metric
from api.compiler import CompiledQuery, Compiler
from api.differences import Difference, differences
from api.errors import Forbidden
from api.filters import Value, comparisons
from api.query import CheckedQuery

_MOST_GROUP_BYS = 4
_MOST_CONDITIONS = 8  # each costs two questions or three
_MOST_GROUPS = 50_000
_MOST_PAIRS = 1_000_000  # of a group and a customer in it; some 100 MB
_WITHHELD, _SHOWN = b"withheld_groups", b"shown_groups"

Ask: TypeAlias = Callable[[str, Mapping[str, Value]], Awaitable[pa.Table]]
OverRows: TypeAlias = Callable[[CheckedQuery], CheckedQuery]


class People:
    """What a catalog knows of the people whom a floor protects."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        known = catalog.entities.get(PERSON)
        self._models = frozenset(known.models if known else ())

    def are_in(self, metric: Metric) -> bool:
        """Whether the metric is computed from rows that belong to people."""
        return not self._models.isdisjoint(metric.models)

    def have(self, dimension: Dimension) -> bool:
        """Whether the dimension says something of people, or of what they did."""
        return dimension.model in self._models

    def can_be_counted(self, metric: Metric) -> bool:
        """Whether the people behind each number of the metric are known; a running total is made of several groups."""
        return bool(metric.populations) or not self.are_in(metric)

    def are_concerned(self, checked: CheckedQuery) -> bool:
        """Whether an answer to the question tells of people."""
        if checked.metrics:
            return any(self.are_in(metric) for metric in checked.metrics)
        return any(self.have(item.dimension) for item in (*checked.group_by, *checked.fields))

    def populations(self, metrics: Iterable[Metric]) -> tuple[Metric, ...]:
        """A metric for each set of people's rows that the metrics are computed from."""
        names = dict.fromkeys(name for metric in metrics for name in metric.populations)
        return tuple(metric for metric in map(self._catalog.metric, names) if self.are_in(metric))

    @property
    def key(self) -> GroupBy:
        """The person as a group-by."""
        return GroupBy(dimension=self._catalog.dimensions[PERSON], grain=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Withheld:
    """How many groups were withheld from an answer, and whether nothing is left of it."""

    floor: int
    groups: int
    is_everything: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FlooredQuery:
    """An answer about at least `floor` customers: its own question, and those that say what may be shown of it.

    `withholds` are the metrics that are withheld from a group of too few customers. A group of which nothing else is
    left is not shown at all, nor is any such group if `withholds` decide which groups are shown, or in which order.
    """

    floor: int
    answer: CompiledQuery
    presences: tuple[CompiledQuery, ...]
    differences: tuple[tuple[Difference, CompiledQuery], ...]
    withholds: frozenset[str]

    @property
    def statements(self) -> tuple[CompiledQuery, ...]:
        """Everything that runs."""
        return (*(compiled for _, compiled in self.differences), *self.presences, self.answer)

    def page(self, shown: pa.Table, question: CheckedQuery) -> pa.Table:
        """The asked rows of what `run` gave, and one more if more follow."""
        return shown.slice(question.offset, question.limit + 1)

    def withheld(self, shown: pa.Table) -> Withheld:
        """What was withheld from what `run` gave."""
        counts = {name: int(shown.schema.metadata[name]) for name in (_SHOWN, _WITHHELD)}
        is_personal = len(self.withholds) == len(self.answer.question.metrics)
        return Withheld(floor=self.floor, groups=counts[_WITHHELD], is_everything=is_personal and counts[_SHOWN] == 0)

    async def run(self, ask: Ask) -> pa.Table:
        """All groups that may be shown, in the asked order; `withheld` reads from it how many may not.

        Raises
        ------
        Forbidden
            A condition of the filter decides over too few customers, or there are too many groups to judge.
        """
        for difference, compiled in self.differences:
            self._check(difference, await ask(compiled.sql, compiled.parameters))
        presences = [await ask(compiled.sql, compiled.parameters) for compiled in self.presences]
        rows = await ask(self.answer.sql, self.answer.parameters)
        if rows.num_rows > _MOST_GROUPS or any(table.num_rows > _MOST_PAIRS for table in presences):
            raise below_floor(self.floor)
        return await asyncio.to_thread(self._kept, rows, presences)

    @property
    def _tells_by_row(self) -> bool:
        """Whether the place of a row, or that it is there, tells of a metric that may be withheld from it."""
        question = self.answer.question
        used = {order.field for order in question.order_by} | {leaf.field for leaf in comparisons(question.having)}
        return not used.isdisjoint(self.withholds)

    def _check(self, difference: Difference, people: pa.Table) -> None:
        groups = people.group_by([difference.field] if difference.by_value else []).aggregate([(PERSON, "count")])
        counts = groups.column(f"{PERSON}_count").to_numpy()
        if ((counts > 0) & (counts < self.floor)).any():
            raise Forbidden(
                f"The condition on {difference.field} decides over fewer than {self.floor} customers",
                hint="Leave the condition out, or let it cover more.",
                code="anonymity_floor",
            )

    def _kept(self, rows: pa.Table, presences: Sequence[pa.Table]) -> pa.Table:
        items = self.answer.question.group_by
        groups = _Groups(items, [rows, *presences])
        hidden = np.zeros(groups.count, dtype=np.bool_)
        is_known = np.zeros(groups.count, dtype=np.bool_)
        for number, table in enumerate(presences, start=1):
            present, is_withheld = groups.judged(number, table.column(PERSON), self.floor)
            hidden[present[is_withheld]] = True
            is_known[present] = True
        if not self.answer.question.metrics or not items:  # who is in a value that nobody has, and who in nothing?
            hidden |= ~is_known
        metrics = {metric.name for metric in self.answer.question.metrics}
        shown = frozenset() if self._tells_by_row else metrics - self.withholds
        kept = _without(rows, hidden[groups.of(0)], withholds=self.withholds, shown=shown)
        counts = {_WITHHELD: str(int(hidden.sum())).encode(), _SHOWN: str(int((~hidden).sum())).encode()}
        return kept.replace_schema_metadata(counts)


async def floored(
    checked: CheckedQuery, *, floor: int, over_rows: OverRows, people: People, compiler: Compiler
) -> FlooredQuery | None:
    """The question under a floor; None where its answer does not tell of people.

    Parameters
    ----------
    checked
        The question as its caller put it.
    over_rows
        Adds the row filter of its role.

    Raises
    ------
    Forbidden
        It groups or filters by single people or by what one of them did, or is too complex to judge.
    """
    if not people.are_concerned(checked):
        return None
    _refuse_keys(checked, people)
    whole = replace(checked, limit=_MOST_GROUPS, offset=0)
    counting = replace(checked, having=None, order_by=(), limit=_MOST_PAIRS, offset=0)
    none: list[tuple[Metric, ...]] = [()]
    populations = [(metric,) for metric in people.populations(checked.metrics)] or none
    presences = [
        replace(counting, metrics=population, group_by=(*checked.group_by, people.key)) for population in populations
    ]
    asked = _differences(counting, populations, people, floor) if checked.metrics else []
    return FlooredQuery(
        floor=floor,
        answer=await compiler.compile(over_rows(whole)),
        presences=tuple([await compiler.compile(over_rows(question)) for question in presences]),
        differences=tuple(
            [(difference, await compiler.compile(over_rows(question))) for difference, question in asked]
        ),
        withholds=frozenset(metric.name for metric in checked.metrics if people.are_in(metric)),
    )


def below_floor(floor: int) -> Forbidden:
    """The refusal where nothing can be shown; the same whether few customers are concerned or none."""
    return Forbidden(
        f"No group of the answer can be shown without telling of fewer than {floor} customers",
        hint="Ask for fewer group-bys, a coarser time or a wider filter.",
        code="anonymity_floor",
    )


def _refuse_keys(checked: CheckedQuery, people: People) -> None:
    for item in (*checked.group_by, *checked.fields):
        if item.dimension.kind is DimensionKind.ENTITY and people.have(item.dimension):
            raise Forbidden(
                f"{item.dimension.name} tells single customers or purchases apart, which your role may not",
                hint="Group and filter by what customers have in common, such as customer__location.",
                code="anonymity_floor",
            )
    conditions = sum(1 for _ in comparisons(checked.where))
    for count, most, noun in (
        (len(checked.group_by), _MOST_GROUP_BYS, "group-bys"),
        (conditions, _MOST_CONDITIONS, "conditions"),
    ):
        if count > most:
            raise Forbidden(
                f"Your role may use {most} {noun} in one query, not {count}",
                hint="Split the query.",
                code="anonymity_floor",
            )


def _differences(
    counting: CheckedQuery, populations: Iterable[tuple[Metric, ...]], people: People, floor: int
) -> list[tuple[Difference, CheckedQuery]]:
    if counting.where is None:
        return []
    fields = {item.column: item for item in counting.fields}
    return [
        (
            difference,
            replace(
                counting,
                metrics=population,
                where=difference.where,
                limit=_MOST_PAIRS if difference.by_value else floor,
                group_by=(fields[difference.field], people.key) if difference.by_value else (people.key,),
            ),
        )
        for difference in differences(counting.where)
        for population in populations
    ]


class _Groups:
    """The groups that stand in several tables, each with a position among them all."""

    def __init__(self, items: Iterable[GroupBy], tables: Sequence[pa.Table]) -> None:
        # By name, so that which group is withheld does not hang on the order in which the group-bys are asked for.
        self._items = sorted(items, key=lambda item: item.column)
        self._ends = np.cumsum([0, *(table.num_rows for table in tables)])
        coded = [_coded([table.column(item.column) for table in tables]) for item in self._items]
        rows = np.stack([codes for codes, _ in coded], axis=1) if coded else np.zeros((self._ends[-1], 0), np.int64)
        groups, positions = np.unique(rows, axis=0, return_inverse=True)
        self._positions = positions.reshape(-1)
        self.count = len(groups) if coded else 1
        self._axes = [
            _axis(item, groups[:, at], values)
            for at, (item, (_, values)) in enumerate(zip(self._items, coded, strict=True))
        ]

    def of(self, number: int) -> Labels:
        """The position of the group of each row of a table."""
        return self._positions[self._ends[number] : self._ends[number + 1]]

    def judged(self, number: int, people: pa.ChunkedArray, floor: int) -> tuple[Labels, Flags]:
        """The groups in which the table sees people, and whether each is withheld."""
        is_somebody = people.is_valid().to_numpy()
        present, groups = np.unique(self.of(number)[is_somebody], return_inverse=True)
        if not len(present):
            return present, np.zeros(0, dtype=np.bool_)
        people = pc.drop_null(people).combine_chunks().dictionary_encode().indices.to_numpy()
        axes = [Axis(views=tuple(view[present] for view in axis.views), coarser=axis.coarser) for axis in self._axes]
        return present, withheld(axes, Presence(groups=groups, customers=people.astype(np.int64)), floor)


def _coded(columns: Sequence[pa.ChunkedArray]) -> tuple[Labels, list[object]]:
    """The position of each value among all values in their order, null last; and these values."""
    chunks = [chunk for column in columns for chunk in column.chunks]
    encoded = pa.chunked_array(chunks, type=columns[0].type).combine_chunks().dictionary_encode("encode")
    values = encoded.dictionary.to_pylist()
    order = sorted(range(len(values)), key=lambda at: (values[at] is None, values[at] is not None and values[at]))
    ranks = np.empty(len(values), dtype=np.int64)
    ranks[order] = np.arange(len(values))
    return ranks[encoded.indices.to_numpy()], [values[at] for at in order]


# The grains that are made of whole periods of the grain; a week belongs to no month.
_COARSER = {
    "hour": ("day", "week", "month", "quarter", "year"),
    "day": ("week", "month", "quarter", "year"),
    "month": ("quarter", "year"),
    "quarter": ("year",),
}


def _axis(item: GroupBy, codes: Labels, values: Sequence[object]) -> Axis:
    """The group-by with every coarser time that its asker could ask for in its place."""
    grains = _COARSER.get(item.grain or "", ())
    views = [codes]
    for grain in grains:
        known = np.array([value for value in values if value is not None], dtype="datetime64[us]")
        periods = _periods(known, grain)
        labels = np.append(np.unique(periods, return_inverse=True)[1], len(periods))  # a null is a period of its own
        views.append(labels[codes])
    names = (item.grain, *grains)
    above = tuple(
        tuple(at for at, coarse in enumerate(names) if coarse in _COARSER.get(name or "", ())) for name in names
    )
    return Axis(views=tuple(views), coarser=above)


def _periods(times: NDArray[np.datetime64], grain: str) -> Labels:
    """The number of the period in which each time lies."""
    match grain:
        case "day":
            return times.astype("datetime64[D]").astype(np.int64)
        case "week":  # from Monday on; day 0 was a Thursday
            return (times.astype("datetime64[D]").astype(np.int64) + 3) // 7
        case "month":
            return times.astype("datetime64[M]").astype(np.int64)
        case "quarter":
            return times.astype("datetime64[M]").astype(np.int64) // 3
        case _:
            return times.astype("datetime64[Y]").astype(np.int64)


def _without(rows: pa.Table, hidden: Flags, *, withholds: Iterable[str], shown: Iterable[str]) -> pa.Table:
    """The rows with what is withheld taken out, and without those of which nothing that is shown is left."""
    is_empty = hidden.copy()
    for name in shown:
        is_empty &= rows.column(name).is_null().to_numpy()
    for name in withholds:
        at, column = rows.column_names.index(name), rows.column(name)
        rows = rows.set_column(at, name, pc.if_else(pa.array(hidden), pa.scalar(None, column.type), column))
    return rows.filter(pa.array(~is_empty))
