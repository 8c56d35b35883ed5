"""A checked question becomes SQL and parameters; alone imports MetricFlow.

MetricFlow takes filters as SQL text with Jinja, which it passes on verbatim. So nothing of a caller's reaches that
text: names were matched against the catalog, operators come from a closed list, and each value is a placeholder that
the warehouse binds. Because values are parameters, a *shape* (the question without its values) is compiled once.

MetricFlow answers the metrics; filters on them, the order and the page are a thin SELECT around its SQL. A comparison
has that SQL in it twice, the second time with the earlier range's placeholders.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import cast

import structlog
from metricflow.engine.metricflow_engine import MetricFlowEngine, MetricFlowQueryRequest, OutputColumnOrderMode
from metricflow.protocols.sql_client import SqlClient, SqlEngine
from metricflow.sql.render.duckdb_renderer import DuckDbSqlPlanRenderer
from metricflow.sql.render.snowflake import SnowflakeSqlPlanRenderer
from metricflow.sql.render.sql_plan_renderer import SqlPlanRenderer
from metricflow_semantic_interfaces.references import MetricReference
from metricflow_semantic_interfaces.type_enums.date_part import DatePart
from metricflow_semantics.errors.error_classes import InformativeUserError, MetricFlowException
from metricflow_semantics.model.dbt_manifest_parser import parse_manifest_from_dbt_generated_manifest
from metricflow_semantics.model.linkable_element_property import GroupByItemProperty
from metricflow_semantics.model.semantic_manifest_lookup import SemanticManifestLookup
from metricflow_semantics.model.semantics.element_filter import GroupByItemSetFilter
from metricflow_semantics.specs.query_param_implementations import DimensionOrEntityParameter, TimeDimensionParameter

from api.catalog import METRIC_TIME, DimensionKind, GroupBy, Joins, Metric, ValueType
from api.comparison import CHANGE, CHANGE_RATIO, PREVIOUS, beside, compared, moves
from api.errors import InternalFault, InvalidQuery
from api.filters import Comparison, Filter, Value, render
from api.periods import Unit
from api.query import CheckedQuery
from api.sqlguard import SqlGuard

_log = structlog.get_logger(__name__)

_CACHED_SHAPES = 2_000  # some 5 KB each

# Date parts and metrics as group-bys are not dimensions of ours.
_JOINABLE = GroupByItemSetFilter.create(
    any_properties_denylist=(GroupByItemProperty.DATE_PART, GroupByItemProperty.METRIC)
)


class Dialect(Enum):
    """The SQL that a warehouse speaks; the value is sqlglot's name of it."""

    DUCKDB = "duckdb"
    SNOWFLAKE = "snowflake"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of an answer. The type of a metric is known once the warehouse has answered."""

    name: str
    label: str
    kind: str
    type: ValueType | None
    unit: str | None = None
    grain: str | None = None
    date_part: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledQuery:
    """One SELECT with named placeholders, the values to bind to them, and the columns it answers.

    `cost` is known once somebody has asked the warehouse for it.
    """

    question: CheckedQuery
    sql: str
    parameters: Mapping[str, Value]
    columns: tuple[Column, ...]
    is_from_cache: bool
    cost: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    """A question without its values: what the SQL depends on."""

    metrics: tuple[str, ...]
    group_by: tuple[str, ...]
    where: str | None
    having: str | None
    order_by: str
    shift_unit: Unit | None


class Compiler:
    """Compiles questions against one semantic manifest. Safe to use from several threads and tasks.

    Raises
    ------
    ValueError, LookupError, TypeError
        The manifest cannot be read, or what it defines does not fit together.
    """

    def __init__(self, manifest: str, *, dialect: Dialect) -> None:
        try:
            parsed = parse_manifest_from_dbt_generated_manifest(manifest)
            self._lookup = SemanticManifestLookup(parsed)
        except MetricFlowException as error:
            raise ValueError(str(error).partition("\n")[0]) from error
        self._engine = MetricFlowEngine(
            semantic_manifest_lookup=self._lookup,
            sql_client=cast("SqlClient", _CompileOnly(dialect)),  # compiling needs no more of the protocol
        )
        self._guard = SqlGuard(
            tables=[model.node_relation.relation_name for model in parsed.semantic_models]
            + [spine.node_relation.relation_name for spine in parsed.project_configuration.time_spines],
            dialect=dialect.value,
        )
        self._dialect = dialect
        # Random, so that no name or literal in the manifest can be taken for a placeholder of ours.
        self._mark = f"$p_{secrets.token_hex(6)}_"
        self._plans = _RecentPlans()
        self._joins: dict[tuple[str, str | None], Joins] = {}
        self._lock = threading.Lock()

    async def compile(self, query: CheckedQuery) -> CompiledQuery:
        """SQL and parameters of the question; a new shape is compiled in a thread, for it takes 5 to 50 ms.

        Raises
        ------
        InvalidQuery
            MetricFlow cannot answer this combination.
        """
        shape, values = self._shape(query)
        plan = self._plans.get(shape)
        is_from_cache = plan is not None
        if plan is None:
            plan = await asyncio.to_thread(self._plan, shape, query)
        return CompiledQuery(
            question=query,
            sql=plan,
            parameters=values | _time_values(query) | {"limit": query.limit + 1, "offset": query.offset},
            columns=tuple(_columns(query)),
            is_from_cache=is_from_cache,
        )

    def joins(self, metric: str) -> Joins:
        """The dimensions that join to the metric, each with the grains at which it does (none where it is no time)."""
        counted = self._lookup.metric_lookup.get_metric(MetricReference(metric)).type_params.metric_aggregation_params
        if counted is None:  # made of other metrics
            return self._joins_of(metric)
        rows = (counted.semantic_model, counted.agg_time_dimension)
        if rows not in self._joins:  # the same for all metrics of these rows; to find out takes 2 ms each
            self._joins[rows] = self._joins_of(metric)
        return self._joins[rows]

    def _joins_of(self, metric: str) -> Joins:
        items = self._lookup.metric_lookup.get_common_group_by_items((MetricReference(metric),), _JOINABLE)
        joins: dict[str, set[str]] = {}
        for spec in items.annotated_specs:
            name = "__".join((*spec.entity_link_names, spec.element_name))
            grains = joins.setdefault(name, set())
            if spec.time_grain is not None:
                grains.add(spec.time_grain.name)
        return joins

    def _shape(self, query: CheckedQuery) -> tuple[_Shape, dict[str, Value]]:
        values: dict[str, Value] = {}

        def bind(value: Value) -> str:
            name = f"p{len(values)}"
            values[name] = value
            return self._mark + name

        fields = {item.column: item for item in query.fields}

        def text(tree: Filter | None, reference: Callable[[Comparison], str]) -> str | None:
            return render(tree, reference=reference, bind=bind) if tree else None

        where = text(query.where, lambda leaf: _metric(leaf) if leaf.per else _template(fields[leaf.field]))
        shape = _Shape(
            metrics=tuple(metric.name for metric in query.metrics),
            group_by=tuple(item.column for item in query.group_by),
            where=" AND ".join(part for part in (where, self._within(query)) if part) or None,
            having=text(query.having, lambda leaf: leaf.field),
            order_by=_order(query),
            shift_unit=query.earlier.shift.unit if query.earlier else None,
        )
        return shape, values

    def _plan(self, shape: _Shape, query: CheckedQuery) -> str:
        with self._lock:  # MetricFlow numbers its nodes in a global, so one compilation at a time
            if (plan := self._plans.get(shape)) is not None:
                return plan
            marked = self._page(self._metricflow(shape, query), shape, query)
            # `:name` is a placeholder to the parser in every dialect; what drivers take is not always SQL.
            self._guard.check(marked.replace(self._mark, ":"))
            plan = self._for_driver(marked)
            self._plans.keep(shape, plan)
            return plan

    def _metricflow(self, shape: _Shape, query: CheckedQuery) -> str:
        request = MetricFlowQueryRequest.create(
            metric_names=shape.metrics,
            group_by=tuple(map(_parameter, query.group_by)),
            where_constraints=[shape.where] if shape.where else None,
            output_column_order_mode=OutputColumnOrderMode.INPUT_ORDER,
        )
        try:
            return self._engine.explain(request).sql_statement.sql
        except InformativeUserError as error:
            _log.info("metricflow_refused", metrics=shape.metrics, group_by=shape.group_by, reason=str(error))
            raise InvalidQuery(
                "This combination of metrics, group-bys and filters cannot be answered",
                hint="Ask for fewer metrics or group-bys at once; GET /v1/dimensions?metrics=… lists what joins.",
                code="unanswerable",
            ) from error
        except MetricFlowException as error:
            raise InternalFault("The query could not be compiled", hint="Report the request id.") from error

    def _within(self, query: CheckedQuery) -> str | None:
        if query.time_range is None:
            return None
        day = f"{{{{ TimeDimension('{METRIC_TIME}', 'day') }}}}"
        return f"({day} BETWEEN {self._mark}asked_start AND {self._mark}asked_end)"

    def _page(self, sql: str, shape: _Shape, query: CheckedQuery) -> str:
        if query.earlier is not None:
            earlier = sql.replace(f"{self._mark}asked_", f"{self._mark}earlier_")
            back = f"{self._mark}back"
            sql = beside(
                sql, earlier, metrics=shape.metrics, group_by=query.group_by, shift=query.earlier.shift, back=back
            )
        columns = ", ".join(column.name for column in _columns(query))
        having = f"\nWHERE {shape.having}" if shape.having else ""
        text = f"SELECT {columns}\nFROM (\n{sql}\n) AS answer{having}\nORDER BY {shape.order_by}"
        return text + f"\nLIMIT {self._mark}limit OFFSET {self._mark}offset"

    def _for_driver(self, marked: str) -> str:
        match self._dialect:
            case Dialect.DUCKDB:
                return marked.replace(self._mark, "$")
            case Dialect.SNOWFLAKE:  # pyformat
                return re.sub(re.escape(self._mark) + r"(\w+)", r"%(\1)s", marked.replace("%", "%%"))


class _RecentPlans:
    """The plans used last, by shape. Its lock is held for an instant, unlike the compiler's."""

    def __init__(self) -> None:
        self._plans: OrderedDict[_Shape, str] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, shape: _Shape) -> str | None:
        with self._lock:
            if shape in self._plans:
                self._plans.move_to_end(shape)
            return self._plans.get(shape)

    def keep(self, shape: _Shape, plan: str) -> None:
        with self._lock:
            self._plans[shape] = plan
            if len(self._plans) > _CACHED_SHAPES:
                self._plans.popitem(last=False)


class _CompileOnly:
    """What MetricFlow asks of a SQL client in order to compile: which engine, and how to write its SQL."""

    def __init__(self, dialect: Dialect) -> None:
        self.sql_engine_type: SqlEngine
        self.sql_plan_renderer: SqlPlanRenderer
        self.sql_engine_type, self.sql_plan_renderer = _ENGINES[dialect]


_ENGINES = {
    Dialect.DUCKDB: (SqlEngine.DUCKDB, DuckDbSqlPlanRenderer()),
    Dialect.SNOWFLAKE: (SqlEngine.SNOWFLAKE, SnowflakeSqlPlanRenderer()),
}


def _parameter(item: GroupBy) -> TimeDimensionParameter | DimensionOrEntityParameter:
    """MetricFlow's own word for a group-by."""
    name = item.dimension.name
    if item.dimension.kind is DimensionKind.TIME:
        part = DatePart(item.date_part) if item.date_part else None
        return TimeDimensionParameter(name=name, grain=item.grain, date_part=part)
    return DimensionOrEntityParameter(name=name)


def _template(item: GroupBy) -> str:
    """MetricFlow's call for a field of a filter. The name comes out of the catalog, so it holds no quote."""
    match item.dimension.kind:
        case DimensionKind.TIME if item.date_part:
            return f"{{{{ TimeDimension('{item.dimension.name}', date_part_name='{item.date_part}') }}}}"
        case DimensionKind.TIME:
            return f"{{{{ TimeDimension('{item.dimension.name}', '{item.grain}') }}}}"
        case DimensionKind.ENTITY:
            return f"{{{{ Entity('{item.dimension.name}') }}}}"
        case DimensionKind.CATEGORICAL:
            return f"{{{{ Dimension('{item.dimension.name}') }}}}"


def _metric(leaf: Comparison) -> str:
    """MetricFlow's call for a metric of a filter. Both names come out of the catalog."""
    (entity,) = leaf.per
    return f"{{{{ Metric('{leaf.field}', ['{entity}']) }}}}"


def _order(query: CheckedQuery) -> str:
    """The asked order, then every other group-by: pages by offset need a total order."""
    asked = {order.field: order.is_descending for order in query.order_by}
    order = asked | {item.column: False for item in query.group_by if item.column not in asked}
    return ", ".join(f"{name} {'DESC' if down else 'ASC'} NULLS LAST" for name, down in order.items()) or "1"


def _time_values(query: CheckedQuery) -> dict[str, Value]:
    """The values of the placeholders that stand for times."""
    values: dict[str, Value] = {}
    if query.time_range:
        values |= {"asked_start": query.time_range.start, "asked_end": query.time_range.end}
    if query.earlier:
        values |= {"earlier_start": query.earlier.days.start, "earlier_end": query.earlier.days.end}
        if any(map(moves, query.group_by)):
            values["back"] = query.earlier.shift.count
    return values


def _columns(query: CheckedQuery) -> Iterator[Column]:
    for item in query.group_by:
        yield Column(
            name=item.column,
            label=item.dimension.label,
            kind=item.dimension.kind.value,
            type=item.type,
            grain=item.grain,
            date_part=item.date_part,
        )
    for metric in query.metrics:
        yield Column(name=metric.name, label=metric.label, kind="metric", type=None, unit=metric.unit)
        if query.earlier:
            yield from _compared_columns(metric)


def _compared_columns(metric: Metric) -> Iterator[Column]:
    for what, words, unit in (
        (PREVIOUS, "before", metric.unit),
        (CHANGE, "change", metric.unit),
        (CHANGE_RATIO, "relative change", "ratio"),
    ):
        name, label = compared(metric.name, what), f"{metric.label}, {words}"
        yield Column(name=name, label=label, kind=what, type=None, unit=unit)
