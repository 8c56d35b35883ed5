"""The second wall: what may pass to the warehouse once it is compiled."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator

import pytest

from api.errors import InternalFault, InvalidQuery
from api.filters import Comparison, Operator
from api.opened import OpenPublication, open_publication
from api.policy import REHEARSING
from api.query import MetricQuery, PageLimits
from api.sqlguard import SqlGuard
from tests.api.test_warehouse import LIMITS
from tests.conftest import Published

KNOWN = '"marts"."fct_sales"'
ONE_PAGE = PageLimits(default_rows=10, max_rows=10)


@pytest.fixture
def guard() -> SqlGuard:
    return SqlGuard(tables=[KNOWN, '"marts"."dim_customer"'], dialect="duckdb")


@pytest.fixture(scope="module")
def publication(synthetic: Published, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenPublication]:
    # A copy, as DuckDB opens a file but once a process with the same limits.
    folder = tmp_path_factory.mktemp("guarded") / synthetic.version
    shutil.copytree(synthetic.settings.publication_dir / synthetic.version, folder)
    opened = open_publication(folder, LIMITS)
    yield opened
    opened.close()


@pytest.mark.parametrize(
    "sql",
    [
        # Other tables, wherever they stand.
        "SELECT * FROM raw.customers",
        "SELECT * FROM fct_sales",
        "SELECT * FROM other.marts.fct_sales",
        "SELECT * FROM marts.fct_sales WHERE customer_id IN (SELECT customer_id FROM raw.customers)",
        "SELECT (SELECT count(*) FROM duckdb_tables) FROM marts.fct_sales",
        "SELECT * FROM marts.fct_sales WHERE EXISTS (FROM sqlite_master)",
        "SELECT * FROM marts.fct_sales ORDER BY (SELECT 1 FROM pg_catalog.pg_tables)",
        "SELECT * FROM marts.fct_sales LIMIT (SELECT count(*) FROM duckdb_tables)",
        "SELECT 1 FROM marts.fct_sales UNION ALL SELECT table_name FROM information_schema.tables",
        "SELECT 1 FROM marts.fct_sales EXCEPT SELECT 1 FROM sqlite_master",
        "SELECT * FROM marts.fct_sales, sqlite_master",
        "SELECT * FROM marts.fct_sales POSITIONAL JOIN sqlite_master",
        "SELECT * FROM marts.fct_sales AS sqlite_master, sqlite_master",
        "SELECT * FROM (TABLE sqlite_master)",
        "SELECT * FROM (PIVOT sqlite_master ON name USING count(*))",
        # CTEs that hide another table behind a name.
        "WITH fct_sales AS (SELECT * FROM raw.customers) SELECT * FROM fct_sales",
        "WITH sqlite_master AS (SELECT * FROM sqlite_master) SELECT * FROM sqlite_master",
        "SELECT * FROM sqlite_master, (WITH sqlite_master AS (SELECT 1) SELECT * FROM sqlite_master) AS x",
        'WITH "marts.fct_sales" AS (SELECT 1) SELECT * FROM "marts.fct_sales"',
        "WITH a_cte AS (SELECT * FROM raw.customers) SELECT * FROM a_cte",
        # Files and functions that make tables.
        "SELECT * FROM 'file.csv'",
        'SELECT * FROM "file.parquet"',
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_csv('x.csv')",
        "SELECT * FROM read_csv_auto('x.csv')",
        "SELECT * FROM read_parquet('x.parquet')",
        "SELECT * FROM read_json('x.json')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_blob('/etc/passwd')",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM query('SELECT 1')",
        "SELECT * FROM query_table('marts.fct_sales')",
        "SELECT * FROM duckdb_settings()",
        "SELECT * FROM duckdb_secrets()",
        "SELECT * FROM pragma_database_list()",
        "SELECT * FROM range(1000000000)",
        "SELECT * FROM marts.fct_sales, LATERAL read_csv('x.csv')",
        # Other statements, alone or behind one that is allowed.
        "SELECT 1 FROM marts.fct_sales; SELECT 1 FROM marts.fct_sales",
        "SELECT 1 FROM marts.fct_sales -- harmless\n; DROP TABLE marts.fct_sales",
        "SELECT 1 FROM marts.fct_sales /* ; */ ; DELETE FROM marts.fct_sales",
        "COPY marts.fct_sales TO 'x.csv'",
        "COPY (SELECT * FROM marts.fct_sales) TO 'x.csv'",
        "ATTACH 'x.duckdb' AS x",
        "DETACH data",
        "PRAGMA database_list",
        "SET threads = 1",
        "RESET threads",
        "INSTALL httpfs",
        "LOAD httpfs",
        "CALL pragma_version()",
        "EXPLAIN SELECT 1 FROM marts.fct_sales",
        "DESCRIBE marts.fct_sales",
        "SHOW TABLES",
        "SELECT * FROM (SHOW ALL TABLES)",
        "SELECT * FROM (DESCRIBE marts.fct_sales)",
        "SUMMARIZE marts.fct_sales",
        "SELECT * FROM (SUMMARIZE marts.fct_sales)",
        "SELECT * INTO x FROM marts.fct_sales",
        "CREATE TABLE x AS SELECT * FROM marts.fct_sales",
        "CREATE MACRO f() AS 1",
        "INSERT INTO marts.fct_sales SELECT * FROM marts.fct_sales",
        "UPDATE marts.fct_sales SET quantity = 1",
        "DELETE FROM marts.fct_sales",
        "DELETE FROM marts.fct_sales RETURNING *",
        "DROP TABLE marts.fct_sales",
        "ALTER TABLE marts.fct_sales DROP COLUMN quantity",
        "EXPORT DATABASE 'x'",
        "IMPORT DATABASE 'x'",
        "PREPARE x AS SELECT 1",
        "EXECUTE x",
        "CHECKPOINT",
        "VACUUM",
        "BEGIN",
        "USE raw",
        "VALUES (1)",
        "",
        ";",
        "SELECT 'unfinished FROM marts.fct_sales",
    ],
)
def test_what_is_more_than_reading_known_tables_is_refused(guard: SqlGuard, sql: str) -> None:
    with pytest.raises(InternalFault) as caught:
        guard.check(sql)
    assert caught.value.code == "sql_refused"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 FROM marts.fct_sales",
        f"SELECT count(*) AS n FROM {KNOWN} AS s LEFT JOIN marts.dim_customer AS c ON s.customer_id = c.customer_id",
        "SELECT * FROM (SELECT 1 FROM marts.fct_sales -- a comment, as MetricFlow writes\n) AS answer LIMIT $limit",
        "WITH sma_1_cte AS (SELECT 1 AS x FROM marts.fct_sales) SELECT a.x FROM sma_1_cte a JOIN sma_1_cte b USING (x)",
        "SELECT 1 FROM marts.fct_sales UNION ALL SELECT 2 FROM marts.dim_customer",
        "SELECT * FROM MARTS.Fct_Sales",
    ],
)
def test_a_select_over_known_tables_passes(guard: SqlGuard, sql: str) -> None:
    guard.check(sql)


@pytest.mark.full
async def test_everything_that_the_compiler_makes_passes(publication: OpenPublication) -> None:
    catalog = publication.catalog
    compiled = 0
    for metric in catalog.metrics.values():
        for dimension, grains in metric.grains.items():
            needs_time = metric.requires_metric_time or metric.accumulates
            time = ("metric_time__month",) if needs_time else ()
            group_by = dict.fromkeys((f"{dimension}__{grains[-1]}" if grains else dimension, *time))
            where = Comparison(field=dimension, operator=Operator.IS_NOT_NULL)
            query = MetricQuery(metrics=(metric.name,), group_by=tuple(group_by), where=where)
            await publication.compile(query, REHEARSING, ONE_PAGE)
            compiled += 1
    assert compiled > 300


@pytest.mark.full
async def test_pairs_of_metrics_pass_too(publication: OpenPublication) -> None:
    compiled = 0
    for pair in itertools.islice(itertools.combinations(publication.catalog.metrics, 2), 0, None, 12):
        try:
            await publication.compile(MetricQuery(metrics=pair, group_by=("metric_time__month",)), REHEARSING, ONE_PAGE)
        except InvalidQuery:
            continue  # metrics without a grain in common
        compiled += 1
    assert compiled > 20
