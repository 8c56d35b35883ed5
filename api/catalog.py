"""The immutable index of a semantic manifest: what may be asked together, and what a wrong name resembles."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeAlias, TypeVar

from rapidfuzz import process, utils

from api.errors import InvalidQuery, UnknownName

# The dimensions that join to a metric, by name, each with the grains at which it does.
Joins: TypeAlias = Mapping[str, Collection[str]]

METRIC_TIME = "metric_time"
PERSON = "customer"  # the entity whose members a floor protects
GRAINS = ("hour", "day", "week", "month", "quarter", "year")
# Parts of a date, each with the coarsest grain that still tells it; `dow` is 1 on Monday and 7 on Sunday.
DATE_PARTS = {"year": "year", "quarter": "quarter", "month": "month", "day": "day", "dow": "day", "doy": "day"}
_EXTRACT = "extract_"  # before a part, as in `metric_time__extract_month`; as MetricFlow names it
Named = TypeVar("Named")

_REMEMBERED_SETS = 1_000  # sets of metrics whose common dimensions are kept at hand
_NEAREST_COUNT = 4
_NEAREST_SCORE = 55  # below that, rapidfuzz's WRatio proposes names that only share a few letters


class ValueType(StrEnum):
    """What the values of a column are; the names that the API shows."""

    STRING = "string"
    INTEGER = "integer"
    DECIMAL = "decimal"
    FLOAT = "float"
    BOOLEAN = "boolean"
    DATE = "date"
    TIMESTAMP = "timestamp"


class DimensionKind(StrEnum):
    """How a dimension groups: by its values, by time in grains, or by the key of an entity."""

    CATEGORICAL = "categorical"
    TIME = "time"
    ENTITY = "entity"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """Something to group or filter by, under its full name (`customer__location`, `metric_time`, `product`).

    `model` is the semantic model that it is a column of; `metric_time` has none. `value_synonyms` says what people call
    values: ("F", ("women", "female")).
    """

    name: str
    label: str
    description: str
    kind: DimensionKind
    type: ValueType
    entity: str | None
    model: str | None = None
    grains: tuple[str, ...] = ()
    date_parts: tuple[str, ...] = ()
    synonyms: tuple[str, ...] = ()
    value_synonyms: tuple[tuple[str, tuple[str, ...]], ...] = ()


def speaks_of(item: Metric | Dimension, text: str) -> bool:
    """Whether its name, label, description or a synonym has the text in it, upper and lower case alike."""
    texts = (item.name, item.label, item.description, *item.synonyms)
    return any(text.casefold() in each.casefold() for each in texts)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupBy:
    """A dimension as asked for: a time at a grain, or a part of its date."""

    dimension: Dimension
    grain: str | None
    date_part: str | None = None

    @property
    def column(self) -> str:
        """The name of the answer's column."""
        if self.date_part:
            return f"{self.dimension.name}__{_EXTRACT}{self.date_part}"
        return f"{self.dimension.name}__{self.grain}" if self.grain else self.dimension.name

    @property
    def type(self) -> ValueType:
        """What the column holds."""
        if self.date_part:
            return ValueType.INTEGER
        if self.grain is None:
            return self.dimension.type
        return ValueType.TIMESTAMP if self.grain == "hour" else ValueType.DATE


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A number with its meaning.

    `grains` are those at which each time dimension joins, by dimension name; every joinable dimension is a key.
    `accumulates` says that it is a running total; `compares_periods` that it sets a period against an earlier one.
    `own_times` are the time dimensions of the very rows that it counts. `has_date_parts` says that it can be asked by
    parts of dates, which would tear apart what looks back in time.
    `populations` are simple metrics over the very rows that it is computed from, one for each set of rows; there is
    none if it looks beyond the rows of its group, or at some of them in a way that no metric shares.
    """

    name: str
    label: str
    description: str
    kind: str
    unit: str | None
    owner: str | None
    synonyms: tuple[str, ...]
    inputs: tuple[str, ...]
    models: tuple[str, ...]
    own_times: tuple[str, ...]
    requires_metric_time: bool
    accumulates: bool
    compares_periods: bool
    has_date_parts: bool
    grains: Mapping[str, tuple[str, ...]]
    populations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """A thing that measures and dimensions belong to, and the semantic models that know it."""

    name: str
    description: str
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedQuery:
    """A named question; `api.saved` reads it.

    `where` are filters as dbt writes them, `fields` what these are about; `order_by` says of each field whether it is
    descending.
    """

    name: str
    label: str
    description: str
    metrics: tuple[str, ...]
    group_by: tuple[str, ...]
    where: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    order_by: tuple[tuple[str, bool], ...] = ()
    limit: int | None = None


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """Everything that may be asked of one publication, by name."""

    metrics: Mapping[str, Metric]
    dimensions: Mapping[str, Dimension]
    entities: Mapping[str, Entity]
    saved_queries: Mapping[str, SavedQuery]
    _by_metrics: dict[frozenset[str], tuple[Dimension, ...]] = field(default_factory=dict, compare=False, repr=False)

    def metric(self, name: str) -> Metric:
        """The metric of that name.

        Raises
        ------
        UnknownName
            There is none; the error carries the nearest names.
        """
        return _found(self.metrics, name, "metric")

    def dimension(self, name: str) -> Dimension:
        """The dimension of that full name, without a grain; `UnknownName` if there is none."""
        return _found(self.dimensions, name, "dimension")

    def saved_query(self, name: str) -> SavedQuery:
        """The saved query of that name; `UnknownName` if there is none."""
        return _found(self.saved_queries, name, "saved query")

    def group_by(self, text: str) -> GroupBy:
        """A dimension with its grain or part, from a name such as `metric_time__month` or `metric_time__extract_month`.

        A time without a grain gets its finest one, so that the name of the answer's column is always the whole truth.

        Raises
        ------
        UnknownName
            There is no such dimension.
        InvalidQuery
            The dimension has no such grain or part of a date.
        """
        if (dimension := self.dimensions.get(text)) is not None:
            return GroupBy(dimension=dimension, grain=_finest(dimension.grains))
        if text in GRAINS and METRIC_TIME in self.dimensions:
            asked = f"{METRIC_TIME}__{text}"
            raise UnknownName(
                f"There is no dimension {text!r}",
                hint=f"Did you mean {asked}?",
                code="unknown_dimension",
                nearest=(asked,),
            )
        name, _, grain = text.rpartition("__")
        if (dimension := self.dimensions.get(name)) is None or not (grain in GRAINS or grain.startswith(_EXTRACT)):
            return GroupBy(dimension=self.dimension(text), grain=None)
        if grain.startswith(_EXTRACT):
            return _part_of(dimension, grain.removeprefix(_EXTRACT))
        if grain not in dimension.grains:
            raise _wrong_grain(dimension, grain)
        return GroupBy(dimension=dimension, grain=grain)

    def common_dimensions(self, metrics: Collection[str]) -> tuple[Dimension, ...]:
        """The dimensions that join to every one of the metrics, in name order; all of them for no metric.

        A time dimension comes with the grains and date parts that all the metrics share.
        """
        key = frozenset(metrics)
        if key not in self._by_metrics:
            if len(self._by_metrics) >= _REMEMBERED_SETS:
                self._by_metrics.clear()
            joined = [self.metric(name) for name in sorted(key)]
            candidates = sorted(self.dimensions.values(), key=lambda dimension: dimension.name)
            self._by_metrics[key] = tuple(
                _at_shared_grains(dimension, joined)
                for dimension in candidates
                if all(dimension.name in metric.grains for metric in joined)
            )
        return self._by_metrics[key]

    def narrowed(
        self, *, shows_metric: Callable[[str], bool], shows_dimension: Callable[[str], bool], needed: Collection[str]
    ) -> Catalog:
        """What is left for somebody who may see only some of it.

        A metric that one of the `needed` dimensions does not join to is left out too: rows are filtered by them, and a
        number that cannot be filtered must not be seen. A saved query stays if all that it asks for stays.
        """
        dimensions = {name: dimension for name, dimension in self.dimensions.items() if shows_dimension(name)}
        metrics = {
            name: replace(
                metric,
                grains={key: grains for key, grains in metric.grains.items() if key in dimensions},
                inputs=tuple(name for name in metric.inputs if shows_metric(name)),
            )
            for name, metric in self.metrics.items()
            if shows_metric(name) and all(dimension in metric.grains for dimension in needed)
        }
        saved = {
            name: saved
            for name, saved in self.saved_queries.items()
            if metrics.keys() >= set(saved.metrics)
            and all(self.group_by(text).dimension.name in dimensions for text in saved.group_by)
            and all({field, field.rpartition("__")[0]} & (metrics.keys() | dimensions.keys()) for field in saved.fields)
        }
        known = {dimension.entity or dimension.name for dimension in dimensions.values()}
        entities = {name: entity for name, entity in self.entities.items() if name in known}
        return Catalog(metrics=metrics, dimensions=dimensions, entities=entities, saved_queries=saved)


def date_parts(grains: Collection[str]) -> tuple[str, ...]:
    """The parts of a date that a time with these grains tells."""
    return tuple(part for part, coarsest in DATE_PARTS.items() if coarsest in grains)


def _at_shared_grains(dimension: Dimension, metrics: Collection[Metric]) -> Dimension:
    grains = tuple(
        grain for grain in dimension.grains if all(grain in metric.grains[dimension.name] for metric in metrics)
    )
    parts = date_parts(grains) if all(metric.has_date_parts for metric in metrics) else ()
    if (grains, parts) == (dimension.grains, dimension.date_parts):
        return dimension
    return replace(dimension, grains=grains, date_parts=parts)


def _part_of(dimension: Dimension, part: str) -> GroupBy:
    if part not in dimension.date_parts:
        known = ", ".join(dimension.date_parts)
        raise InvalidQuery(
            f"{dimension.name} has no date part {part[:200]!r}",
            hint=f"Its date parts are {known}." if known else "Only a time has date parts.",
            code="invalid_date_part",
        )
    return GroupBy(dimension=dimension, grain=None, date_part=part)


def nearest(name: str, known: Iterable[str]) -> tuple[str, ...]:
    """Known names that resemble the unknown one, best first; computed by edit distance in well under a millisecond."""
    found = process.extract(
        name[:200], tuple(known), limit=_NEAREST_COUNT, score_cutoff=_NEAREST_SCORE, processor=utils.default_process
    )
    return tuple(match for match, _, _ in found)


_LISTS = {"metric": "/v1/metrics", "dimension": "/v1/dimensions", "saved query": "/v1/saved-queries"}


def _found(known: Mapping[str, Named], name: str, noun: str) -> Named:
    if (found := known.get(name)) is not None:
        return found
    similar = nearest(name, known)
    hint = f"Did you mean {' or '.join(similar)}?" if similar else f"List them with GET {_LISTS[noun]}."
    raise UnknownName(
        f"There is no {noun} {name[:200]!r}", hint=hint, code=f"unknown_{noun.replace(' ', '_')}", nearest=similar
    )


def _wrong_grain(dimension: Dimension, grain: str) -> InvalidQuery:
    if not dimension.grains:
        detail, hint = f"{dimension.name} is not a time, so it has no grain", f"Group by {dimension.name} alone."
    else:
        detail, hint = f"{dimension.name} has no grain {grain!r}", f"Its grains are {', '.join(dimension.grains)}."
    return InvalidQuery(detail, hint=hint, code="invalid_grain")


def _finest(grains: tuple[str, ...]) -> str | None:
    return grains[0] if grains else None
