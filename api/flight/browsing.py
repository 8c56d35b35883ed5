"""What a tool asks before it asks anything: which catalogs, schemas, tables and columns there are, and what SQL."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.metadata import version

import pyarrow as pa

from api.catalog import METRIC_TIME, Catalog, GroupBy, ValueType
from api.errors import SemanticLayerError
from api.flight.ipc import schema_bytes
from api.flight.tables import CATALOG, SCHEMA, VirtualTable, virtual_tables
from api.flight.wire import flight_sql_pb2 as sql
from api.policy import Principal
from api.query import MAX_METRICS, MetricQuery
from api.service import SemanticLayer

TABLE_TYPE = "TABLE"

CATALOGS = pa.schema([pa.field("catalog_name", pa.string(), nullable=False)])
SCHEMAS = pa.schema([pa.field("catalog_name", pa.string()), pa.field("db_schema_name", pa.string(), nullable=False)])
TABLE_TYPES = pa.schema([pa.field("table_type", pa.string(), nullable=False)])
_TABLES = (
    pa.field("catalog_name", pa.string()),
    pa.field("db_schema_name", pa.string()),
    pa.field("table_name", pa.string(), nullable=False),
    pa.field("table_type", pa.string(), nullable=False),
)
TABLES = pa.schema(_TABLES)
TABLES_WITH_SCHEMA = pa.schema([*_TABLES, pa.field("table_schema", pa.binary(), nullable=False)])
PRIMARY_KEYS = pa.schema(
    [
        pa.field("catalog_name", pa.string()),
        pa.field("db_schema_name", pa.string()),
        pa.field("table_name", pa.string(), nullable=False),
        pa.field("column_name", pa.string(), nullable=False),
        pa.field("key_name", pa.string()),
        pa.field("key_sequence", pa.int32(), nullable=False),
    ]
)
FOREIGN_KEYS = pa.schema(
    [
        pa.field("pk_catalog_name", pa.string()),
        pa.field("pk_db_schema_name", pa.string()),
        pa.field("pk_table_name", pa.string(), nullable=False),
        pa.field("pk_column_name", pa.string(), nullable=False),
        pa.field("fk_catalog_name", pa.string()),
        pa.field("fk_db_schema_name", pa.string()),
        pa.field("fk_table_name", pa.string(), nullable=False),
        pa.field("fk_column_name", pa.string(), nullable=False),
        pa.field("key_sequence", pa.int32(), nullable=False),
        pa.field("fk_key_name", pa.string()),
        pa.field("pk_key_name", pa.string()),
        pa.field("update_rule", pa.uint8(), nullable=False),
        pa.field("delete_rule", pa.uint8(), nullable=False),
    ]
)

_ARROW = {
    ValueType.STRING: pa.string(),
    ValueType.INTEGER: pa.int64(),
    ValueType.DECIMAL: pa.decimal128(38, 10),
    ValueType.FLOAT: pa.float64(),
    ValueType.BOOLEAN: pa.bool_(),
    ValueType.DATE: pa.date32(),
    ValueType.TIMESTAMP: pa.timestamp("us"),
}


def catalogs() -> pa.Table:
    """The one catalog."""
    return pa.table([[CATALOG]], schema=CATALOGS)


def schemas(asked: sql.CommandGetDbSchemas) -> pa.Table:
    """The one schema, if it is asked for."""
    is_asked = _is_catalog(asked) and _is_like(SCHEMA, _pattern(asked, "db_schema_filter_pattern"))
    return pa.table([[CATALOG], [SCHEMA]], schema=SCHEMAS).slice(0, int(is_asked))


def table_types() -> pa.Table:
    """What kinds of tables there are."""
    return pa.table([[TABLE_TYPE]], schema=TABLE_TYPES)


class Columns:
    """The tables with the types of their columns, as a question for them would answer."""

    def __init__(self, layer: SemanticLayer) -> None:
        self._layer = layer

    async def tables(self, principal: Principal, asked: sql.CommandGetTables) -> pa.Table:
        """The tables that are asked for and that the caller may see."""
        catalog = self._layer.catalog(principal)
        found = _found(catalog, asked)
        names: list[Sequence[object]] = [
            [CATALOG] * len(found),
            [SCHEMA] * len(found),
            [table.name for table in found],
            [TABLE_TYPE] * len(found),
        ]
        if not asked.include_schema:
            return pa.table(names, schema=TABLES)
        wanted = {metric for table in found for metric in table.metrics}
        types = await self._metric_types(principal, catalog, wanted)
        encoded = [schema_bytes(_schema(table, catalog, types)) for table in found]
        return pa.table([*names, encoded], schema=TABLES_WITH_SCHEMA)

    async def _metric_types(
        self, principal: Principal, catalog: Catalog, metrics: Collection[str]
    ) -> dict[str, pa.DataType]:
        types: dict[str, pa.DataType] = {}
        for group_by, names in _askable(catalog, metrics):
            for start in range(0, len(names), MAX_METRICS):
                part = names[start : start + MAX_METRICS]
                types |= await self._types(principal, part, group_by)
        return types

    async def _types(
        self, principal: Principal, metrics: tuple[str, ...], group_by: tuple[str, ...]
    ) -> dict[str, pa.DataType]:
        try:
            schema = await self._layer.schema(principal, MetricQuery(metrics=metrics, group_by=group_by))
        except SemanticLayerError:
            if len(metrics) == 1:  # its role may not ask for it in this way; the browser shows it all the same
                return {metrics[0]: pa.float64()}
            singly = [await self._types(principal, (metric,), group_by) for metric in metrics]
            return {name: type_ for types in singly for name, type_ in types.items()}
        return {name: schema.field(name).type for name in metrics}


def _askable(catalog: Catalog, metrics: Iterable[str]) -> Iterable[tuple[tuple[str, ...], tuple[str, ...]]]:
    """The metrics, those that run over time apart, each with what it has to be grouped by."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in sorted(metrics):
        metric = catalog.metrics[name]
        grains = metric.grains.get(METRIC_TIME, ()) if metric.requires_metric_time else ()
        groups.setdefault((f"{METRIC_TIME}__{grains[-1]}",) if grains else (), []).append(name)
    return [(group_by, tuple(names)) for group_by, names in groups.items()]


def _found(catalog: Catalog, asked: sql.CommandGetTables) -> list[VirtualTable]:
    if not _is_catalog(asked) or not _is_like(SCHEMA, _pattern(asked, "db_schema_filter_pattern")):
        return []
    if asked.table_types and TABLE_TYPE not in {kind.upper() for kind in asked.table_types}:
        return []
    pattern = _pattern(asked, "table_name_filter_pattern")
    return [table for table in virtual_tables(catalog) if _is_like(table.name, pattern)]


def _schema(table: VirtualTable, catalog: Catalog, types: dict[str, pa.DataType]) -> pa.Schema:
    fields = [_group_by_field(catalog.group_by(column)) for column in table.group_bys]
    for name in table.metrics:
        metric = catalog.metrics[name]
        fields.append(_field(name, types[name], metric.label, metric.description))
    return pa.schema(fields)


def _group_by_field(asked: GroupBy) -> pa.Field:
    return _field(asked.column, _ARROW[asked.type], asked.dimension.label, asked.dimension.description)


def _field(name: str, type_: pa.DataType, label: str, description: str) -> pa.Field:
    remarks = description or label
    return pa.field(name, type_, metadata={"ARROW:FLIGHT:SQL:REMARKS": remarks, "label": label})


def _is_catalog(asked: sql.CommandGetDbSchemas | sql.CommandGetTables) -> bool:
    return not asked.HasField("catalog") or asked.catalog in ("", CATALOG)


def _pattern(asked: sql.CommandGetDbSchemas | sql.CommandGetTables, name: str) -> str | None:
    return getattr(asked, name) if asked.HasField(name) else None


def _is_like(text: str, pattern: str | None) -> bool:
    """Whether SQL's LIKE would find the text, upper and lower case alike."""
    if not pattern:
        return True
    # A run of % is one: matching each by itself takes a time that grows exponentially with them.
    expression = "".join(
        ".*" if part.startswith("%") else "." if part == "_" else re.escape(part)
        for part in re.findall(r"%+|.", pattern[:200], re.DOTALL)
    )
    return re.fullmatch(expression, text, re.IGNORECASE | re.DOTALL) is not None


# By the numbers of Flight SQL's `SqlInfo`, in its order.
_INFO: Mapping[int, object] = {
    0: "Marketing Insight",
    1: version("marketing-insight"),
    2: pa.__version__,
    3: True,  # it is read-only,
    4: True,  # takes SQL,
    5: False,  # takes no Substrait,
    8: 0,  # knows no transactions,
    9: False,  # and cancels when the stream is cancelled, not by an action
    500: False,  # no DDL on catalogs, schemas, tables
    501: False,
    502: False,
    503: 1,  # names are found in upper and lower case alike,
    504: '"',
    505: 1,  # quoted or not
    506: True,  # every table that is listed may be asked
    507: 3,  # nulls come last
    508: (),
    509: (),
    510: (),
    511: (),
    512: (),
    514: "",
    515: True,  # columns take an alias
}


def sql_info(asked: Collection[int]) -> pa.Table:
    """The facts that are asked for, of those that are known; all of them where none is named."""
    found = {number: value for number, value in _INFO.items() if not asked or number in asked}
    return pa.table([pa.array(list(found), pa.uint32()), _union(list(found.values()))], schema=SQL_INFO)


_UNION = (
    pa.field("string_value", pa.string()),
    pa.field("bool_value", pa.bool_()),
    pa.field("bigint_value", pa.int64()),
    pa.field("int32_bitmask", pa.int32()),
    pa.field("string_list", pa.list_(pa.string())),
    pa.field("int32_to_int32_list_map", pa.map_(pa.int32(), pa.list_(pa.int32()))),
)
SQL_INFO = pa.schema(
    [
        pa.field("info_name", pa.uint32(), nullable=False),
        pa.field("value", pa.dense_union(_UNION), nullable=False),
    ]
)


def _union(values: Sequence[object]) -> pa.Array:
    """Each value in the child of its type, with where it stands there."""
    children: list[list[object]] = [[] for _ in _UNION]
    kinds, offsets = [], []
    for value in values:
        kind = _KINDS[type(value)]
        kinds.append(kind)
        offsets.append(len(children[kind]))
        children[kind].append(value)
    arrays = [pa.array(child, field.type) for child, field in zip(children, _UNION, strict=True)]
    return pa.UnionArray.from_dense(
        pa.array(kinds, pa.int8()), pa.array(offsets, pa.int32()), arrays, [field.name for field in _UNION]
    )


_KINDS: Mapping[type, int] = {str: 0, bool: 1, int: 3, tuple: 4}
