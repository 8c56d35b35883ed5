"""What a client writes: the inputs of the schema, and the question that they make."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import strawberry

from api.catalog import Catalog, DimensionKind
from api.dbt_filter import parse_dbt_filter
from api.errors import InvalidQuery
from api.filters import Filter, all_of
from api.graphql.vocabulary import DatePart, TimeGranularity
from api.query import MetricQuery, OrderBy
from api.saved import saved_question

_ALIAS = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")


@strawberry.input
class MetricInput:
    """A metric; with `alias`, its column has that name."""

    name: str
    alias: str | None = None


@strawberry.input
class GroupByInput:
    """A dimension or an entity; a time at a grain (`timeGranularity` or `grain`), or a part of its date."""

    name: str
    grain: TimeGranularity | None = None
    time_granularity: str | None = None
    date_part: DatePart | None = None


@strawberry.input
class WhereInput:
    """A filter as dbt writes it: `{{ Dimension('customer__location') }} = 'Chicago'`."""

    sql: str


@strawberry.input
class OrderByInput:
    """A metric or a group-by of the query; one of the two."""

    metric: MetricInput | None = None
    group_by: GroupByInput | None = None
    descending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What `createQuery` and its like are given; absent and null are the same."""

    saved_query: str | None = None
    metrics: Sequence[MetricInput] | None = None
    group_by: Sequence[GroupByInput] | None = None
    limit: int | None = None
    where: Sequence[WhereInput] | None = None
    order_by: Sequence[OrderByInput] | None = None
    read_cache: bool | None = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The question, and the names that its client wants for the columns of metrics."""

    query: MetricQuery
    aliases: Mapping[str, str] = field(default_factory=dict)


def question(asked: Asked, catalog: Catalog) -> Question:
    """The question that the inputs make; names are as they were written, unless the catalog knows better.

    Raises
    ------
    UnknownName
        There is no such saved query.
    InvalidQuery
        A saved query stands beside metrics or group-bys, an order names two things or none, a filter cannot be read,
        or a column's name is no name, or that of another column.
    """
    if asked.saved_query is not None and (asked.metrics or asked.group_by):
        raise InvalidQuery(
            "A saved query has its own metrics and group-bys", hint="Give savedQuery, or metrics and groupBy."
        )
    saved = catalog.saved_query(asked.saved_query) if asked.saved_query is not None else None
    metrics = saved.metrics if saved else tuple(item.name for item in asked.metrics or ())
    group_by = saved.group_by if saved else tuple(group_by_name(item, catalog) for item in asked.group_by or ())
    aliases = _aliases(asked.metrics or (), taken=(*metrics, *group_by))
    where, having = _filters(asked.where or ())
    order_by = tuple(_order(item, catalog, group_by=group_by, aliases=aliases) for item in asked.order_by or ())
    if saved is not None:
        query = saved_question(saved, where=where, having=having, order_by=order_by, limit=asked.limit)
    else:
        query = MetricQuery(
            metrics=metrics, group_by=group_by, where=where, having=having, order_by=order_by, limit=asked.limit
        )
    return Question(query=query, aliases=aliases)


def group_by_name(item: GroupByInput, catalog: Catalog) -> str:
    """The full name of what is grouped by: `metric_time__month`, `metric_time__extract_dow`, `customer__location`.

    Clients send a grain with whatever they group by, so it is passed over where it means nothing.
    """
    known = catalog.dimensions.get(item.name)
    if known is None or known.kind is not DimensionKind.TIME:
        return item.name
    if item.date_part is not None:
        return f"{item.name}__extract_{item.date_part.value}"
    grain = (item.time_granularity or (item.grain.value if item.grain else "")).lower()
    return f"{item.name}__{grain}" if grain not in ("", "none") else item.name  # a client of dbt's prints None


def _aliases(metrics: Iterable[MetricInput], *, taken: Sequence[str]) -> dict[str, str]:
    aliases = {item.name: item.alias for item in metrics if item.alias is not None and item.alias != item.name}
    for name, alias in aliases.items():
        if not _ALIAS.fullmatch(alias):
            raise InvalidQuery(
                f"The alias of {name[:200]} is no name: {alias[:60]!a}",
                hint="Use up to 100 letters, digits and underscores, a letter first.",
                code="invalid_alias",
            )
        if alias in taken or [*aliases.values()].count(alias) > 1:
            raise InvalidQuery(
                f"The alias {alias} is the name of another column", hint="Choose another one.", code="duplicate_name"
            )
    return aliases


def _filters(items: Iterable[WhereInput]) -> tuple[Filter | None, Filter | None]:
    """All of the filters, those on dimensions and those on metrics."""
    parsed = [parse_dbt_filter(item.sql) for item in items]
    return all_of(*(item.where for item in parsed)), all_of(*(item.having for item in parsed))


def _order(item: OrderByInput, catalog: Catalog, *, group_by: Sequence[str], aliases: Mapping[str, str]) -> OrderBy:
    match item.metric, item.group_by:
        case MetricInput(name=name), None:
            names = {alias: metric for metric, alias in aliases.items()}
            return OrderBy(field=names.get(name, name), is_descending=item.descending)
        case None, GroupByInput() as asked:
            field_ = group_by_name(asked, catalog)
            # Without a grain, a time that is asked for at several is the first of them.
            at_grains = [name for name in group_by if name.startswith(f"{field_}__")]
            if field_ in catalog.dimensions and field_ not in group_by and len(at_grains) > 1:
                field_ = at_grains[0]
            return OrderBy(field=field_, is_descending=item.descending)
        case _:
            raise InvalidQuery(
                "An order is by a metric or by a group-by", hint="Give one of metric and groupBy.", code="invalid_order"
            )


def names(metrics: Iterable[MetricInput] | None) -> tuple[str, ...]:
    """The names of the metrics."""
    return tuple(item.name for item in metrics or ())
