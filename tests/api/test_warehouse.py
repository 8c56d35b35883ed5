"""The serving connection: what SQL can reach through it, and what stops a statement that goes too far."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from api.duckdb_engine import open_file
from api.errors import InternalFault, InvalidQuery, QueryTimeout, SemanticLayerError, Unavailable
from api.warehouse import EngineLimits, Flight, Warehouse
from tests.conftest import Published

LIMITS = EngineLimits(memory_mb=256, threads=2, connections=2, query_timeout=timedelta(seconds=30))

# Half an hour of work in a constant amount of memory.
RUNAWAY = "SELECT count(*) FROM range(1000000000000) AS t(n) WHERE hash(n) % 7 = 1"


@pytest.fixture
def data_file(synthetic: Published, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the published data: DuckDB opens a file with one configuration in a process."""
    published = synthetic.settings.publication_dir / synthetic.version / "data.duckdb"
    return Path(shutil.copy(published, tmp_path_factory.mktemp("warehouse")))


@pytest.fixture
def warehouse(data_file: Path) -> Iterator[Warehouse]:
    opened = open_file(data_file, limits=LIMITS)
    yield opened
    opened.close()


@pytest.fixture
def impatient(data_file: Path) -> Iterator[Warehouse]:
    limits = EngineLimits(memory_mb=256, threads=2, connections=2, query_timeout=timedelta(seconds=1))
    opened = open_file(data_file, limits=limits)
    yield opened
    opened.close()


async def is_healthy(warehouse: Warehouse) -> bool:
    rows = await warehouse.query("SELECT count(*) AS n FROM marts.fct_sales WHERE quantity >= $least", {"least": 1})
    return bool(rows.column("n")[0].as_py() > 1_000)


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


FORBIDDEN = (
    "CREATE TABLE marts.x AS SELECT 1",
    "CREATE SCHEMA x",
    "CREATE VIEW marts.x AS SELECT 1",
    "INSERT INTO marts.fct_sales SELECT * FROM marts.fct_sales",
    "UPDATE marts.fct_sales SET quantity = 0",
    "DELETE FROM marts.fct_sales",
    "DROP TABLE marts.fct_sales",
    "ALTER TABLE marts.fct_sales DROP COLUMN quantity",
    "TRUNCATE marts.fct_sales",
    "COPY marts.fct_sales TO '{folder}/out.csv'",
    "COPY (SELECT 1) TO '{folder}/out.parquet' (FORMAT parquet)",
    "COPY marts.fct_sales FROM '{folder}/in.csv'",
    # DuckDB itself has to read and write these, and by default lets SQL do so, too.
    "COPY (SELECT 1) TO '{data}.wal'",
    "COPY (SELECT 1) TO '{data}.tmp/out.csv'",
    "SELECT * FROM read_blob('{data}')",
    "ATTACH '{data}' AS other",
    "SET disabled_filesystems = ''",
    "SET temp_directory = '{folder}'",
    "EXPORT DATABASE '{folder}/out'",
    "IMPORT DATABASE '{folder}/out'",
    "ATTACH '{folder}/other.duckdb' AS other",
    "ATTACH ':memory:' AS scratch",
    "SELECT * FROM read_csv('{folder}/in.csv')",
    "SELECT * FROM '{folder}/in.csv'",
    "SELECT * FROM read_text('{folder}/in.csv')",
    "SELECT * FROM read_blob('/etc/passwd')",
    "SELECT * FROM read_json('{folder}/in.csv')",
    "SELECT * FROM read_parquet('{folder}/in.csv')",
    "SELECT * FROM glob('{folder}/*')",
    "SELECT * FROM read_csv('http://127.0.0.1:9/x.csv')",
    "SELECT * FROM 'https://127.0.0.1:9/x.parquet'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "INSTALL spatial FROM community",
    "SET enable_external_access = true",
    "SET memory_limit = '100GB'",
    "SET threads = 64",
    "SET lock_configuration = false",
    "RESET memory_limit",
    "PRAGMA memory_limit = '100GB'",
    "SET GLOBAL allow_community_extensions = true",
    "CREATE SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b')",
    "SELECT * FROM a_variable_of_this_process",
    "SELECT getenv('HOME')",
)


@pytest.mark.parametrize("statement", FORBIDDEN)
async def test_the_serving_connection_refuses(
    warehouse: Warehouse, data_file: Path, tmp_path: Path, statement: str
) -> None:
    a_variable_of_this_process = __import__("pyarrow").table({"x": [1]})
    (tmp_path / "in.csv").write_text("a,b\n1,2\n")

    with pytest.raises(SemanticLayerError):
        await warehouse.query(statement.format(folder=tmp_path, data=data_file), {})

    assert names_in(data_file.parent) == [data_file.name]
    assert a_variable_of_this_process.num_rows == 1
    assert names_in(tmp_path) == ["in.csv"]
    assert await is_healthy(warehouse)


async def test_a_refused_statement_has_changed_no_setting(warehouse: Warehouse, data_file: Path) -> None:
    for statement in FORBIDDEN:
        with pytest.raises(SemanticLayerError):
            await warehouse.query(statement.format(folder="/nonexistent", data=data_file), {})

    settings = await warehouse.query(
        "SELECT name, value FROM duckdb_settings() WHERE name IN "
        "('enable_external_access', 'lock_configuration', 'autoload_known_extensions', 'autoinstall_known_extensions', "
        "'allow_community_extensions', 'threads', 'memory_limit', 'temp_directory') ORDER BY name",
        {},
    )
    assert dict(zip(*(column.to_pylist() for column in settings.itercolumns()), strict=True)) == {
        "allow_community_extensions": "false",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "enable_external_access": "false",
        "lock_configuration": "true",
        "memory_limit": "244.1 MiB",
        "temp_directory": "",
        "threads": "2",
    }


async def test_the_served_file_holds_the_marts_and_nothing_else(warehouse: Warehouse) -> None:
    schemas = await warehouse.query("SELECT DISTINCT schema_name AS name FROM duckdb_tables()", {})

    assert schemas.column("name").to_pylist() == ["marts"]


async def test_a_runaway_query_is_stopped_at_the_time_out(impatient: Warehouse) -> None:
    started = time.perf_counter()
    with pytest.raises(QueryTimeout) as caught:
        await impatient.query(RUNAWAY, {})

    assert 0.9 < time.perf_counter() - started < 1.5
    assert "1 s" in caught.value.detail
    assert await is_healthy(impatient)


async def test_queries_that_wait_for_a_runaway_one_time_out_as_well_and_later_ones_answer(impatient: Warehouse) -> None:
    started = time.perf_counter()
    outcomes = await asyncio.gather(*(impatient.query(RUNAWAY, {}) for _ in range(6)), return_exceptions=True)

    assert all(isinstance(outcome, QueryTimeout) for outcome in outcomes)
    assert time.perf_counter() - started < 2
    assert await is_healthy(impatient)


async def test_a_caller_that_goes_away_stops_its_query(warehouse: Warehouse) -> None:
    running = [asyncio.create_task(warehouse.query(RUNAWAY, {})) for _ in range(LIMITS.connections)]
    await asyncio.sleep(0.3)
    started = time.perf_counter()
    for task in running:
        task.cancel()
    done, _ = await asyncio.wait(running, timeout=5)

    assert time.perf_counter() - started < 1
    assert all(task.cancelled() for task in done)
    assert len(done) == len(running)
    assert await asyncio.wait_for(is_healthy(warehouse), 1)


async def test_a_caller_that_goes_away_before_its_turn_starts_nothing(warehouse: Warehouse) -> None:
    running = [asyncio.create_task(warehouse.query(RUNAWAY, {})) for _ in range(10)]
    await asyncio.sleep(0.2)
    for task in reversed(running):
        task.cancel()
    await asyncio.wait(running, timeout=5)

    assert all(task.cancelled() for task in running)
    assert await asyncio.wait_for(is_healthy(warehouse), 1)


async def test_a_query_that_needs_too_much_memory_is_refused_and_the_next_answers(warehouse: Warehouse) -> None:
    bomb = "SELECT list(n) FROM (SELECT n, n % 3 AS g FROM range(60000000) AS t(n)) GROUP BY g"
    with pytest.raises(InvalidQuery) as caught:
        await warehouse.query(bomb, {})
    assert caught.value.code == "query_too_large"
    assert "256 MB" in caught.value.detail
    assert await is_healthy(warehouse)


async def test_other_requests_are_answered_while_every_connection_is_busy(impatient: Warehouse) -> None:
    running = [asyncio.create_task(impatient.query(RUNAWAY, {})) for _ in range(8)]
    await asyncio.sleep(0.1)

    assert await asyncio.wait_for(asyncio.to_thread(lambda: True), 0.5)

    await asyncio.wait(running)
    assert all(isinstance(task.exception(), QueryTimeout) for task in running)


async def test_a_stop_that_the_engine_forgets_is_repeated(
    impatient: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, said = Flight.stop, list[Flight]()

    def forgotten_once(flight: Flight) -> None:  # as it is in the instant before a statement begins
        said.append(flight)
        if len(said) > 1:
            stop(flight)

    monkeypatch.setattr(Flight, "stop", forgotten_once)

    with pytest.raises(QueryTimeout):
        await asyncio.wait_for(impatient.query(RUNAWAY, {}), 30)


async def test_a_query_that_needs_too_much_memory_takes_no_disk_instead(warehouse: Warehouse, data_file: Path) -> None:
    sort = "SELECT count(*) FROM (SELECT n, md5(n::varchar) AS h FROM range(20000000) AS t(n) ORDER BY h)"
    with pytest.raises(InvalidQuery) as caught:
        await warehouse.query(sort, {})

    assert caught.value.code == "query_too_large"
    assert names_in(data_file.parent) == [data_file.name]


async def test_a_value_beyond_its_field_is_the_callers_fault(warehouse: Warehouse) -> None:
    with pytest.raises(InvalidQuery):
        await warehouse.query("SELECT $number::tinyint", {"number": 1_000})


async def test_one_statement_runs_at_once_with_many_values(warehouse: Warehouse) -> None:
    # All runs share what was parsed of it, in threads of their own.
    sql = "SELECT count(*) AS n FROM range(1000) AS t(n) WHERE n < $most"

    tables = await asyncio.gather(*(warehouse.query(sql, {"most": most}) for most in range(300)))

    assert [table.column("n")[0].as_py() for table in tables] == list(range(300))


TYPES_OF_THE_MARTS = """
SELECT
    n,
    n % 3 = 0 AS is_third,
    sum(n) OVER (ORDER BY n) AS so_far,
    ((n * 1000 - 49000) * 0.0000000001)::DECIMAL(38, 10) AS share,
    (n / 3)::DOUBLE AS ratio,
    CASE WHEN n % 5 = 0 THEN NULL ELSE 'ä "' || n END AS label,
    DATE '1969-12-20' + n::INTEGER AS day,
    TIMESTAMP '1969-12-31 23:59:59.999999' + INTERVAL (n) SECOND AS moment,
    NULLIF(DATE '2019-01-01' + n::INTEGER, '2019-01-02') AS some_day,
    NULL::DECIMAL(10, 2) AS nothing
FROM range($count) AS t(n)
ORDER BY n
"""


async def test_rows_are_the_same_however_many_they_are(warehouse: Warehouse) -> None:
    # A statement whose last rows were few is read in another way.
    with duckdb.connect() as engine:
        for count in (200, 3, 2, 49, 50, 49, 51, 0, 0, 1, 5_000, 7, 7):
            expected = engine.execute(TYPES_OF_THE_MARTS, {"count": count}).to_arrow_table()

            answered = await warehouse.query(TYPES_OF_THE_MARTS, {"count": count})
            assert pa.types.is_decimal(answered.schema.field("share").type)
            assert answered.equals(expected, check_metadata=True)


@pytest.mark.parametrize(
    "value",
    [
        "INTERVAL '1 month 2 days'",
        "TIMESTAMP_NS '2019-01-01 00:00:00.123456789'",
        "'101'::BIT",
        "'0c5a7bfc-9d1e-4a54-a0a5-8a5a7c1b2d3e'::UUID",
        "'a'::ENUM ('b', 'a')",
        "[1, 2]",
        "TIMESTAMPTZ '2019-01-01 00:00:00+02'",
    ],
)
async def test_what_python_has_no_word_for_is_the_same_each_time(warehouse: Warehouse, value: str) -> None:
    first, again = [await warehouse.query(f"SELECT {value} AS value", {}) for _ in range(2)]

    assert again.equals(first, check_metadata=True)


async def test_a_day_that_python_does_not_have_is_no_crash(warehouse: Warehouse) -> None:
    later = "SELECT DATE '2019-01-01' + $days::INTEGER AS day"
    await warehouse.query(later, {"days": 1})

    with pytest.raises(InternalFault):
        await warehouse.query(later, {"days": 3_650_000})


async def test_a_column_that_takes_the_type_of_its_value_takes_it_each_time(warehouse: Warehouse) -> None:
    for value in (7, 8, "seven", Decimal("7.70"), Decimal("8.80"), date(2019, 7, 7), True, 7):
        assert (await warehouse.query("SELECT $value AS value", {"value": value})).to_pylist() == [{"value": value}]


async def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="missing"):
        open_file(tmp_path / "nowhere.duckdb", limits=LIMITS)
