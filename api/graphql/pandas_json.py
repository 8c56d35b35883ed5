"""Rows as `DataFrame.to_json` lays them out, without pandas: exact decimals, and days as ISO 8601 in every layout.

References
----------
pandas 2.2, `DataFrame.to_json`, argument `orient`; `TABLE` is the Table Schema of frictionlessdata.io, as pandas writes
it, with the version of the specification that pandas follows (1.4.0).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_never

import orjson
import pyarrow as pa

from api.graphql.vocabulary import PandasJsonOrient
from api.rest.rows import JSON_OPTIONS, rows

_TABLE_SCHEMA_VERSION = "1.4.0"


def pandas_json(table: pa.Table, orient: PandasJsonOrient) -> bytes:
    """The table as JSON in the layout; its index counts from 0."""
    return orjson.dumps(_laid_out(table, orient), option=JSON_OPTIONS | orjson.OPT_NON_STR_KEYS)


def _laid_out(table: pa.Table, orient: PandasJsonOrient) -> Any:  # noqa: ANN401 - some JSON
    records, columns = rows(table), table.column_names
    match orient:
        case PandasJsonOrient.RECORDS:
            return records
        case PandasJsonOrient.INDEX:
            return dict(enumerate(records))
        case PandasJsonOrient.VALUES:
            return [[*record.values()] for record in records]
        case PandasJsonOrient.COLUMNS:
            return {name: {index: record[name] for index, record in enumerate(records)} for name in columns}
        case PandasJsonOrient.SPLIT:
            values = [[*record.values()] for record in records]
            return {"columns": columns, "index": [*range(len(records))], "data": values}
        case PandasJsonOrient.TABLE:
            data = [{"index": index, **record} for index, record in enumerate(records)]
            return {"schema": _table_schema(table.schema), "data": data}
        case _:
            assert_never(orient)


def _table_schema(schema: pa.Schema) -> Mapping[str, object]:
    fields = [{"name": "index", "type": "integer"}]
    fields += [{"name": item.name, "type": _type(item.type)} for item in schema]
    return {"fields": fields, "primaryKey": ["index"], "pandas_version": _TABLE_SCHEMA_VERSION}


def _type(type_: pa.DataType) -> str:
    if pa.types.is_integer(type_):
        return "integer"
    if pa.types.is_decimal(type_) or pa.types.is_floating(type_):
        return "number"
    if pa.types.is_boolean(type_):
        return "boolean"
    return "datetime" if pa.types.is_temporal(type_) else "string"
