"""The virtual tables: `ALL` with every metric and dimension as a column, and one table for each saved query.

A BI tool browses them and sends plain SQL, which is translated into a question for metrics; no part of it ever reaches
the warehouse as SQL. The function around a metric says nothing: how a metric is aggregated is its own business.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import pyarrow as pa
from sqlglot import exp

from api.catalog import Catalog, SavedQuery, nearest
from api.dbt_filter import ParsedDbtFilter, parse_dbt_filter
from api.errors import UnknownName
from api.filters import AnyOf, all_of, comparisons
from api.flight.around import parsed_select
from api.flight.calls import not_understood
from api.flight.question import Listing, Question, Shown
from api.query import MetricQuery, OrderBy
from api.saved import saved_question

CATALOG = "insight"
SCHEMA = "METRICS"
EVERYTHING = "ALL"

_CLAUSES = frozenset(
    ("kind", "expressions", "from_", "where", "group", "having", "order", "limit", "offset", "distinct")
)
_AGGREGATES = (exp.Sum, exp.Avg, exp.Min, exp.Max, exp.Count, exp.Median, exp.AnyValue)
_PARTS: Mapping[type[exp.Expr], str] = {
    exp.Year: "year",
    exp.Quarter: "quarter",
    exp.Month: "month",
    exp.Day: "day",
    exp.DayOfYear: "doy",
}
_FIELDS: tuple[type[exp.Expr], ...] = (
    exp.Column,
    exp.TimestampTrunc,
    exp.DateTrunc,
    exp.Extract,
    *_AGGREGATES,
    *_PARTS,
)
_NEVER = AnyOf(())


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualTable:
    """A table that is asked by SQL: its metrics, and its group-bys under the names of their columns."""

    name: str
    description: str
    metrics: tuple[str, ...]
    group_bys: tuple[str, ...]
    saved: SavedQuery | None = None


def virtual_tables(catalog: Catalog) -> tuple[VirtualTable, ...]:
    """Every table that a caller with this catalog may ask, in name order."""
    everything = VirtualTable(
        name=EVERYTHING,
        description="Every metric and dimension; a question takes those that go together.",
        metrics=tuple(sorted(catalog.metrics)),
        group_bys=tuple(_every_group_by(catalog)),
    )
    saved = (
        VirtualTable(
            name=query.name,
            description=query.description or query.label,
            metrics=query.metrics,
            group_bys=tuple(catalog.group_by(text).column for text in query.group_by),
            saved=query,
        )
        for query in catalog.saved_queries.values()
    )
    return (everything, *sorted(saved, key=lambda table: table.name))


def _every_group_by(catalog: Catalog) -> Iterator[str]:
    for dimension in sorted(catalog.dimensions.values(), key=lambda dimension: dimension.name):
        yield from (f"{dimension.name}__{grain}" for grain in dimension.grains)
        if not dimension.grains:
            yield dimension.name


def translated(sql: str, catalog: Catalog) -> Question | Listing:
    """The question that the SQL asks; of constants alone, with which tools probe a connection, one row of them.

    Raises
    ------
    InvalidQuery
        It is more than a SELECT of columns of one table, filtered, grouped, sorted and cut.
    UnknownName
        The table or a column of it is not known.
    """
    tree = parsed_select(sql)
    if {name for name, part in tree.args.items() if part} == {"expressions"}:
        return Listing(rows=_constants(tree))
    extra = [name for name, part in tree.args.items() if part and name not in _CLAUSES]
    if extra or tree.find(exp.Subquery, exp.SetOperation) or len(list(tree.find_all(exp.Select))) > 1:
        raise not_understood(
            f"The statement has more than a SELECT of one table ({', '.join(extra) or 'a query within it'})",
            hint="Leave out joins, WITH, subqueries, QUALIFY and the like.",
        )
    return _Translation(tree, catalog).question()


def _asks_for_any_row(part: exp.Expr) -> bool:
    """Whether it is COUNT(1) > 0, which Tableau adds where there are no dimensions; a group that is there has rows."""
    if not isinstance(part, exp.GT) or not isinstance(part.this, exp.Count):
        return False
    counted, least = part.this.this, part.expression
    return isinstance(counted, exp.Star | exp.Literal) and isinstance(least, exp.Literal) and least.this == "0"


def _constants(tree: exp.Select) -> pa.Table:
    columns = {}
    for part in tree.expressions:
        constant = part.this if isinstance(part, exp.Alias) else part
        if not isinstance(constant, exp.Literal) or not (constant.is_string or constant.is_int):
            raise not_understood(
                "The statement names no table to select from", hint="Select from METRICS.ALL or a saved query."
            )
        columns[part.alias_or_name or constant.sql()] = [constant.to_py()]
    return pa.table(columns)


def _within(saved: SavedQuery, asked: MetricQuery, *, is_whole: bool) -> MetricQuery:
    """The question among the rows of the saved query; `is_whole` where it is grouped by all that the latter is."""
    own = saved_question(saved)
    is_cut_anew = asked.where or asked.having or asked.order_by or asked.offset
    if (own.limit is not None and (is_cut_anew or not is_whole)) or (own.having is not None and not is_whole):
        raise not_understood(
            f"{saved.name} leaves rows out by a limit or a condition of its own, so its rows are taken as they are",
            hint=f'Put {{{{ semantic_layer.query(saved_query="{saved.name}") }}}} in place of the table.',
        )
    kept = [item for item in own.order_by if item.field in (*saved.metrics, *asked.group_by)]
    order_by = asked.order_by or tuple(kept)
    needed = [item.field for item in order_by] + [leaf.field for leaf in comparisons(own.having)]
    return replace(
        asked,
        # What its own order and condition are about is asked for, too, and not shown.
        metrics=tuple(dict.fromkeys((*asked.metrics, *(name for name in needed if name in saved.metrics)))),
        where=all_of(own.where, asked.where),
        having=all_of(own.having, asked.having),
        order_by=order_by,
        limit=min((limit for limit in (own.limit, asked.limit) if limit is not None), default=None),
    )


_Item: TypeAlias = "_Measure | _Group"


@dataclass(frozen=True, slots=True)
class _Measure:
    column: str


@dataclass(frozen=True, slots=True)
class _Group:
    column: str


class _Translation:
    """One SELECT on its way to a question."""

    def __init__(self, tree: exp.Select, catalog: Catalog) -> None:
        self._tree = tree
        self._catalog = catalog
        self._table, self._names = self._from()
        # BI tools cannot write two underscores everywhere, and the business does not.
        self._spellings: dict[str, str] = {}
        for name in (*self._table.metrics, *self._table.group_bys, *catalog.dimensions):
            self._spellings.setdefault(name.replace("__", "_"), name)
        self._selected = tuple(self._select())
        self._metrics: list[str] = []

    def question(self) -> Question:
        items = [item for _, item in self._selected]
        grouped = self._grouped(items)
        for item in items:
            self._use(item)
        filters = tuple(self._filters())
        order_by = tuple(self._order())
        shown = tuple(Shown(name=name, column=item.column) for name, item in self._selected)
        if self._tree.args.get("distinct") and not set(grouped) <= {item.column for item in shown}:
            raise not_understood(
                "DISTINCT leaves out columns that are grouped by", hint="Select every column of GROUP BY."
            )
        limit, offset = self._number("limit"), self._number("offset") or 0
        is_probe = limit == 0  # of a tool that wants to know the columns
        query = MetricQuery(
            metrics=tuple(self._metrics),
            group_by=grouped,
            where=all_of(*(half.where for half in filters)),
            having=all_of(*(half.having for half in filters)),
            order_by=order_by,
            limit=None if is_probe else limit,
            offset=offset,
        )
        if self._table.saved is not None:
            query = _within(self._table.saved, query, is_whole=set(grouped) == set(self._table.group_bys))
        if is_probe:
            query = replace(query, where=all_of(query.where, _NEVER), limit=None)
        return Question(query=query, shown=shown)

    def _from(self) -> tuple[VirtualTable, frozenset[str]]:
        source = self._tree.args.get("from_")
        table = source.this if isinstance(source, exp.From) else None
        if not isinstance(table, exp.Table) or not isinstance(table.this, exp.Identifier):
            raise not_understood(
                "The statement names no table to select from", hint="Select from METRICS.ALL or a saved query."
            )
        known = {each.name.upper(): each for each in virtual_tables(self._catalog)}
        is_ours = table.db.upper() in ("", SCHEMA) and table.catalog.upper() in ("", CATALOG.upper())
        if {name for name, part in table.args.items() if part} - {"this", "db", "catalog", "alias"}:
            raise not_understood(
                "The table is read in a way that is not known", hint="Write its name, and an alias at most."
            )
        found = known.get(table.name.upper()) if is_ours else None
        if found is None:
            similar = tuple(known[name].name for name in nearest(table.name.upper(), known))
            every = (each.name for each in known.values())
            raise UnknownName(
                f"There is no table {table.sql()[:100]!r}",
                hint=f"The tables are {', '.join(dict.fromkeys((*similar, *every)))[:500]}.",
                code="unknown_table",
                nearest=similar,
            )
        return found, frozenset((table.alias_or_name.upper(), table.name.upper()))

    def _select(self) -> Iterator[tuple[str, _Item]]:
        for part in self._tree.expressions:
            if isinstance(part, exp.Star) or (isinstance(part, exp.Column) and isinstance(part.this, exp.Star)):
                yield from self._star(part)
                continue
            inner = part.this if isinstance(part, exp.Alias) else part
            name = part.alias_or_name or inner.sql(dialect="duckdb").lower()
            yield name, self._item(inner)

    def _star(self, part: exp.Expr) -> Iterator[tuple[str, _Item]]:
        if self._table.name == EVERYTHING:
            raise not_understood(
                f"SELECT * of {EVERYTHING} asks for every metric by every dimension at once",
                hint="Name the columns that you want; GetTables lists them.",
            )
        if any(part.args.get(name) for name in ("except_", "replace", "rename")):
            raise not_understood("SELECT * with exceptions is not known", hint="Name the columns that you want.")
        yield from ((name, _Group(name)) for name in self._table.group_bys)
        yield from ((name, _Measure(name)) for name in self._table.metrics)

    def _item(self, part: exp.Expr) -> _Item:
        match part:
            case exp.Paren(this=inner):
                return self._item(inner)
            case exp.Column():
                return self._column(part)
            case _ if isinstance(part, _AGGREGATES):
                return self._aggregated(part)
            case exp.TimestampTrunc() | exp.DateTrunc():
                return self._time(part.this, part.text("unit").lower())
            case exp.Extract(this=unit, expression=time):
                return self._time(time, f"extract_{unit.name.lower()}")
            case exp.Cast(this=exp.Column() as time) if part.to.is_type("date"):
                return self._time(time, "day")
            case _ if type(part) in _PARTS:
                return self._time(part.this, f"extract_{_PARTS[type(part)]}")
            case _:
                raise not_understood(
                    f"{part.sql(dialect='duckdb')[:80]!r} is not known",
                    hint="Select metrics, SUM(metric), dimensions, DATE_TRUNC('month', metric_time), EXTRACT(...).",
                )

    def _column(self, part: exp.Column) -> _Item:
        name = self._spelled(part.name)
        if part.table and part.table.upper() not in self._names:
            raise not_understood(f"{part.sql()[:80]!r} is of another table", hint="Name columns of the one table.")
        if name in self._table.metrics:
            return _Measure(name)
        return _Group(self._group_by(name))

    def _group_by(self, name: str) -> str:
        """The column of a group-by that the table has."""
        if self._table.name == EVERYTHING:
            if {name, name.rpartition("__")[0]} & self._catalog.dimensions.keys():
                return self._at_shared_grain(name)
        else:
            # A time of a saved query mostly has one grain, and then its name is enough.
            fitting = [column for column in self._table.group_bys if name in (column, self._dimension(column))]
            if name in fitting or len(fitting) == 1:
                return name if name in fitting else fitting[0]
        raise self._unknown(name)

    def _at_shared_grain(self, name: str) -> str:
        """The column of the group-by; a time without a grain gets the finest one that all the metrics share."""
        named = (self._spelled(column.name) for column in self._tree.find_all(exp.Column))
        metrics = [each for each in named if each in self._table.metrics]
        for dimension in self._catalog.common_dimensions(metrics):
            if dimension.name == name and dimension.grains:
                return f"{name}__{dimension.grains[0]}"
        return self._catalog.group_by(name).column

    def _spelled(self, name: str) -> str:
        return self._spellings.get(name.lower(), name.lower())

    def _dimension(self, column: str) -> str:
        return self._catalog.group_by(column).dimension.name

    def _unknown(self, name: str) -> UnknownName:
        similar = nearest(name, (*self._table.metrics, *self._table.group_bys))
        return UnknownName(
            f"{self._table.name} has no column {name[:100]!r}",
            hint=f"Did you mean {' or '.join(similar)}?" if similar else "GetTables with its schema lists them.",
            code="unknown_column",
            nearest=similar,
        )

    def _time(self, part: exp.Expr, suffix: str) -> _Item:
        if not isinstance(part, exp.Column):
            raise not_understood("A grain is taken of a column", hint="Write DATE_TRUNC('month', metric_time).")
        name = self._spelled(part.name)
        base = name.rpartition("__")[0]
        dimension = base if base in self._catalog.dimensions and name not in self._catalog.dimensions else name
        return self._column(exp.column(f"{dimension}__{suffix}", table=part.table or None))

    def _aggregated(self, part: exp.Expr) -> _Item:
        inner = part.this
        if isinstance(inner, exp.Distinct) and len(inner.expressions) == 1:
            inner = inner.expressions[0]
        item = self._item(inner) if isinstance(inner, exp.Column | exp.Paren) else None
        if not isinstance(item, _Measure):
            raise not_understood(
                f"{part.sql(dialect='duckdb')[:80]!r} aggregates something that is no metric",
                hint="Put the function around a metric; for the values of a dimension, select and group by it.",
            )
        return item

    def _grouped(self, items: list[_Item]) -> tuple[str, ...]:
        asked = [item.column for item in items if isinstance(item, _Group)]
        group = self._tree.args.get("group")
        if group is None or group.args.get("all"):
            return tuple(dict.fromkeys(asked))
        if {name for name, part in group.args.items() if part} - {"expressions"}:
            raise not_understood("GROUP BY takes columns, and no ROLLUP or CUBE", hint="Ask for each level by itself.")
        parts = [self._referred(part) for part in group.expressions]
        columns = tuple(dict.fromkeys(item.column for item in parts if isinstance(item, _Group)))
        if outside := [column for column in asked if column not in columns]:
            raise not_understood(f"{outside[0]} is selected and not grouped by", hint="Add it to GROUP BY.")
        return columns

    def _referred(self, part: exp.Expr) -> _Item:
        """A column in GROUP BY or ORDER BY: by its place, the name it is shown under, or itself."""
        if isinstance(part, exp.Literal) and not part.is_string:
            place = int(part.this) if str(part.this).isdigit() else 0
            if not 1 <= place <= len(self._selected):
                raise not_understood(
                    f"There is no column {str(part.this)[:20]}", hint="Count the selected columns from 1."
                )
            return self._selected[place - 1][1]
        if isinstance(part, exp.Column) and not part.table:
            for name, item in self._selected:
                if name.lower() == part.name.lower():
                    return item
        return self._item(part)

    def _use(self, item: _Item) -> None:
        """Ask for the metric, if it is one, once."""
        if isinstance(item, _Measure) and item.column not in self._metrics:
            self._metrics.append(item.column)

    def _filters(self) -> Iterator[ParsedDbtFilter]:
        for clause in ("where", "having"):
            if (part := self._tree.args.get(clause)) is not None:
                yield parse_dbt_filter(self._filter_text(part.this))

    def _filter_text(self, condition: exp.Expr) -> str:
        """The condition in the closed language of filters; it reads the values, so that they are typed and bound."""
        holder = exp.Paren(this=condition.copy())
        self._name_fields(holder)
        return str(holder.this.sql(dialect="duckdb"))

    def _name_fields(self, part: exp.Expr) -> None:
        """Replace every column, with the functions around it, by the field that it means."""
        for child in list(part.iter_expressions()):
            if _asks_for_any_row(child):
                child.replace(exp.EQ(this=exp.Literal.number(1), expression=exp.Literal.number(1)))
            elif isinstance(child, _FIELDS) or (isinstance(child, exp.Cast) and isinstance(child.this, exp.Column)):
                item = self._item(child)
                self._use(item)
                text = f"{{{{ Metric('{item.column}') }}}}" if isinstance(item, _Measure) else item.column
                child.replace(exp.Var(this=text))
            else:
                self._name_fields(child)

    def _order(self) -> Iterator[OrderBy]:
        order = self._tree.args.get("order")
        for part in order.expressions if order is not None else ():
            if part.args.get("nulls_first") or part.args.get("with_fill"):
                raise not_understood("Nulls come last, either way", hint="Leave NULLS FIRST out.")
            item = self._referred(part.this)
            self._use(item)
            yield OrderBy(field=item.column, is_descending=bool(part.args.get("desc")))

    def _number(self, clause: str) -> int | None:
        part = self._tree.args.get(clause)
        if part is None:
            return None
        number = part.args.get("expression") or part.args.get("count")
        options = part.args.get("limit_options")
        is_cut = options is not None and (options.args.get("percent") or options.args.get("with_ties"))
        if not isinstance(number, exp.Literal) or not str(number.this).isdigit() or is_cut:
            raise not_understood(f"{clause.upper()} takes a whole number", hint=f"Write {clause.upper()} 100.")
        return int(number.this)
