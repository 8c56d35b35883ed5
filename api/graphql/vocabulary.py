"""The scalars and enums of the schema, named as the dbt Semantic Layer names them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NewType

import strawberry
from strawberry.types.scalar import ScalarDefinition

JsonValue = NewType("JsonValue", object)
BigInteger = NewType("BigInteger", int)

_DIGITS = 19  # of the largest integer of 64 bits


def _whole_number(value: object) -> int:
    """The number, from a JSON number or a string of digits; clients send either."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not text.isascii() or not text.isdigit() or len(text) > _DIGITS:
        msg = "BigInt is a whole number, or a string of its digits"
        raise ValueError(msg)
    return int(text)


def _any_value(value: object) -> object:
    return value


BIG_INT = strawberry.scalar(
    name="BigInt",
    description="A whole number; a string of digits will do.",
    serialize=int,
    parse_value=_whole_number,
)
JSON = strawberry.scalar(
    name="JSON",
    description="Any JSON value; a decimal is a number with all its digits.",
    serialize=_any_value,
    parse_value=_any_value,
)
SCALARS: Mapping[object, ScalarDefinition] = {BigInteger: BIG_INT, JsonValue: JSON}


@strawberry.enum
class TimeGranularity(Enum):
    """The length that a time is grouped by."""

    NANOSECOND = "nanosecond"
    MICROSECOND = "microsecond"
    MILLISECOND = "millisecond"
    SECOND = "second"
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"


@strawberry.enum
class DatePart(Enum):
    """A part of a time's date, without the rest."""

    DOY = "doy"
    DOW = "dow"
    DAY = "day"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"


@strawberry.enum
class MetricType(Enum):
    """How a metric is computed."""

    SIMPLE = "simple"
    RATIO = "ratio"
    CUMULATIVE = "cumulative"
    DERIVED = "derived"
    CONVERSION = "conversion"


@strawberry.enum
class DimensionType(Enum):
    """Whether a dimension has grains."""

    CATEGORICAL = "categorical"
    TIME = "time"


@strawberry.enum
class EntityType(Enum):
    """What an entity is in its semantic model."""

    FOREIGN = "foreign"
    NATURAL = "natural"
    PRIMARY = "primary"
    UNIQUE = "unique"


@strawberry.enum
class AggregationType(Enum):
    """How a measure aggregates."""

    SUM = "sum"
    MIN = "min"
    MAX = "max"
    COUNT = "count"
    COUNT_DISTINCT = "count_distinct"
    SUM_BOOLEAN = "sum_boolean"
    AVERAGE = "average"
    PERCENTILE = "percentile"
    MEDIAN = "median"


@strawberry.enum
class ExportDestinationType(Enum):
    """What dbt would make of a saved query."""

    TABLE = "table"
    VIEW = "view"


@strawberry.enum
class QueryStatus(Enum):
    """Where a query stands; the client polls until it is SUCCESSFUL or FAILED."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPILED = "COMPILED"
    SUCCESSFUL = "SUCCESSFUL"
    FAILED = "FAILED"
    LOG_ONLY = "LOG_ONLY"


@strawberry.enum
class PandasJsonOrient(Enum):
    """How `jsonResult` lays rows out; as the argument `orient` of `DataFrame.to_json`."""

    COLUMNS = "columns"
    INDEX = "index"
    RECORDS = "records"
    SPLIT = "split"
    TABLE = "table"
    VALUES = "values"


@strawberry.enum
class QueryType(Enum):
    """What a query asks for."""

    DIMENSION_VALUES = "dimension_values"
    METRIC = "metric"


@strawberry.enum
class SqlEngine(Enum):
    """What the warehouse is."""

    BIGQUERY = "BIGQUERY"
    DATABRICKS = "DATABRICKS"
    DUCKDB = "DUCKDB"
    POSTGRES = "POSTGRES"
    REDSHIFT = "REDSHIFT"
    SNOWFLAKE = "SNOWFLAKE"
    TRINO = "TRINO"


@strawberry.enum
class SqlDialect(Enum):
    """The dialect of the SQL that is shown; DUCKDB is ours."""

    SNOWFLAKE = "SNOWFLAKE"
    BIGQUERY = "BIGQUERY"
    POSTGRES = "POSTGRES"
    REDSHIFT = "REDSHIFT"
    DATABRICKS = "DATABRICKS"
    APACHE_SPARK = "APACHE_SPARK"
    DATABRICKS_SPARK = "DATABRICKS_SPARK"
    TRINO = "TRINO"
    ATHENA = "ATHENA"
    FABRIC = "FABRIC"
    SYNAPSE = "SYNAPSE"
    TERADATA = "TERADATA"
    DUCKDB = "DUCKDB"
