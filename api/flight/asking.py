"""A call of the semantic layer, turned into what it asks for, its names matched against the caller's catalog."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from api.catalog import Catalog
from api.dbt_filter import parse_dbt_filter
from api.definitions import Definitions
from api.filters import all_of
from api.flight import listings
from api.flight.calls import Argument, Call, Named, not_understood
from api.flight.question import Asked, Compilation, Listing, Question, ValuesOf
from api.query import MetricQuery, OrderBy
from api.saved import saved_question
from api.service import CacheUse


def asked(call: Call, catalog: Catalog, definitions: Definitions) -> Asked:
    """What the call asks for.

    Raises
    ------
    InvalidQuery
        There is no such call, it takes no such argument, or it takes it in another form.
    UnknownName
        It names a metric, dimension or saved query that the catalog does not have.
    """
    known = FUNCTIONS.get(call.function)
    if known is None:
        raise not_understood(
            f"There is no call {call.function[:60]!r}", hint=f"Known are {', '.join(sorted(FUNCTIONS))}."
        )
    if unknown := [name for name in call.arguments if name not in known.arguments]:
        raise not_understood(
            f"{call.function} takes no argument {unknown[0][:60]!r}",
            hint=f"It takes {', '.join(known.arguments) or 'none'}.",
        )
    return known.ask(_Given(call.arguments, catalog, definitions))


class _Given:
    """The arguments, read in the form that each has."""

    def __init__(self, arguments: Mapping[str, Argument], catalog: Catalog, definitions: Definitions) -> None:
        self._arguments = arguments
        self.catalog = catalog
        self.definitions = definitions

    def text(self, name: str) -> str | None:
        match self._arguments.get(name):
            case None | str() as text:
                return text
            case _:
                raise not_understood(f"{name} is no text", hint=f'Write {name}="...".')

    def number(self, name: str) -> int | None:
        match self._arguments.get(name):
            case bool():
                pass
            case None | int() as number:
                return number
        raise not_understood(f"{name} is no whole number", hint=f"Write {name}=100.")

    def truth(self, name: str, *, default: bool) -> bool:
        match self._arguments.get(name):
            case None:
                return default
            case bool() as truth:
                return truth
            case _:
                raise not_understood(f"{name} is neither True nor False", hint=f"Write {name}=True.")

    def items(self, name: str) -> tuple[str | Named, ...]:
        """A list of names; one name is a list of one."""
        given = self._arguments.get(name)
        items = () if given is None else given if isinstance(given, tuple) else (given,)
        named = tuple(item for item in items if isinstance(item, str | Named))
        if len(named) < len(items):
            raise not_understood(f"{name} holds something else than names", hint=f'Write {name}=["..."].')
        return named

    def metrics(self) -> tuple[Named, ...]:
        return tuple(
            item if isinstance(item, Named) else Named(name=item.lower(), is_metric=True)
            for item in self.items("metrics")
        )

    def group_bys(self) -> tuple[str, ...]:
        return tuple(self._group_by(item) for item in self.items("group_by"))

    def order_by(self) -> Iterator[OrderBy]:
        for item in self.items("order_by"):
            if isinstance(item, str):
                yield OrderBy(field=item.removeprefix("-").lower(), is_descending=item.startswith("-"))
            else:
                field = item.name if item.is_metric else self._group_by(item)
                yield OrderBy(field=field, is_descending=item.is_descending)

    def _group_by(self, item: str | Named) -> str:
        if isinstance(item, str):
            return item.lower()
        dimension = self.catalog.dimensions.get(item.name)
        # dbt's clients may send a grain with whatever they group by; where there is none it says nothing.
        is_grainless = dimension is not None and not dimension.grains and item.date_part is None
        return item.name if is_grainless else item.text


def _query(given: _Given) -> Asked:
    return _asked_query(given, group_by=given.group_bys())


def _query_with_all(given: _Given) -> Asked:
    metrics = [item.name for item in given.metrics()]
    return _asked_query(given, group_by=tuple(each.name for each in given.catalog.common_dimensions(metrics)))


def _asked_query(given: _Given, *, group_by: tuple[str, ...]) -> Asked:
    metrics = given.metrics()
    names = tuple(item.name for item in metrics)
    filters = [parse_dbt_filter(_filter_text(item)) for item in given.items("where")]
    where, having = all_of(*(half.where for half in filters)), all_of(*(half.having for half in filters))
    order_by, limit = tuple(given.order_by()), given.number("limit")
    if (saved_name := given.text("saved_query")) is not None:
        if names or group_by:
            raise not_understood(
                "saved_query goes without metrics and group_by", hint="Leave them out, or the saved query."
            )
        saved = given.catalog.saved_query(saved_name)
        query = saved_question(saved, where=where, having=having, order_by=order_by, limit=limit)
    else:
        query = MetricQuery(
            metrics=names, group_by=group_by, where=where, having=having, order_by=order_by, limit=limit
        )
    if given.truth("compile", default=False) or given.truth("explain", default=False):
        return Compilation(query=query)
    use = CacheUse.READ if given.truth("read_cache", default=True) else CacheUse.RENEW
    return Question(query=query, aliases=_aliases(metrics), use=use)


def _filter_text(item: str | Named) -> str:
    if isinstance(item, Named):
        raise not_understood(
            "where holds something else than texts", hint="""Write where=["{{ Dimension('...') }} = '...'"]."""
        )
    return item


def _aliases(metrics: tuple[Named, ...]) -> Mapping[str, str]:
    aliases = {item.name: item.alias for item in metrics if item.alias}
    names = [aliases.get(item.name, item.name).lower() for item in metrics]
    if aliases and len(set(names)) < len(names):
        raise not_understood("Two columns have one name", hint="Choose another alias.")
    return aliases


def _values(given: _Given) -> Asked:
    dimensions = given.group_bys()
    if len(dimensions) != 1:
        raise not_understood("dimension_values takes one dimension", hint='Write group_by="customer__location".')
    metrics = tuple(item.name for item in given.metrics())
    return ValuesOf(dimension=dimensions[0], metrics=metrics, search=given.text("search"))


def _metrics(given: _Given) -> Asked:
    rows = listings.metrics(given.catalog, search=given.text("search"))
    return Listing(rows=_paged(given, rows))


def _metrics_for(given: _Given) -> Asked:
    return Listing(rows=listings.metrics_for(given.catalog, given.group_bys()))


def _dimensions(given: _Given) -> Asked:
    names = [item.name for item in given.metrics()]
    return Listing(rows=_paged(given, listings.dimensions(given.catalog, names, search=given.text("search"))))


def _entities(given: _Given) -> Asked:
    names = [item.name for item in given.metrics()]
    return Listing(rows=_paged(given, listings.entities(given.catalog, names, search=given.text("search"))))


def _measures(given: _Given) -> Asked:
    names = [item.name for item in given.metrics()]
    return Listing(rows=_paged(given, listings.measures(given.catalog, given.definitions, names)))


def _granularities(given: _Given) -> Asked:
    return Listing(rows=listings.granularities(given.catalog, [item.name for item in given.metrics()]))


def _saved_queries(given: _Given) -> Asked:
    return Listing(rows=_paged(given, listings.saved_queries(given.catalog, given.definitions)))


def _paged(given: _Given, rows: listings.Rows) -> listings.Rows:
    size, number = given.number("page_size"), given.number("page_number") or 1
    if size is None:
        return rows
    if size < 1 or number < 1:
        raise not_understood("A page has a size and a number of at least 1", hint="Write page_size=50, page_number=1.")
    return rows.slice((number - 1) * size, size)


@dataclass(frozen=True, slots=True)
class _Function:
    ask: Callable[[_Given], Asked]
    arguments: tuple[str, ...]


_PAGES = ("page_size", "page_number")
_FILTERS = ("where", "order_by", "limit", "read_cache", "compile", "explain")
FUNCTIONS: Mapping[str, _Function] = {
    "query": _Function(_query, ("metrics", "group_by", "saved_query", *_FILTERS)),
    "query_with_all_group_bys": _Function(_query_with_all, ("metrics", *_FILTERS)),
    "dimension_values": _Function(_values, ("group_by", "metrics", "search")),
    "metrics": _Function(_metrics, ("search", *_PAGES)),
    "metrics_for_dimensions": _Function(_metrics_for, ("group_by",)),
    "dimensions": _Function(_dimensions, ("metrics", "search", *_PAGES)),
    "entities": _Function(_entities, ("metrics", "search", *_PAGES)),
    "measures": _Function(_measures, ("metrics", *_PAGES)),
    "queryable_granularities": _Function(_granularities, ("metrics",)),
    "saved_queries": _Function(_saved_queries, _PAGES),
}
