"""The two kinds of warehouse, each as somebody sees it who does not go through our code: what one suite for both asks.

A test that takes `site` runs on a DuckDB file and, under `make test-slow`, on a database of the emulated account. What
only one of them has is in `tests/workers/test_duckdb_only.py` and `tests/workers/test_snowflake_only.py`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final, Protocol
from uuid import uuid4

import duckdb
import pytest

from tests.conftest import Published
from tests.snowflake import SnowflakeEmulator
from tests.snowflake_published import take_over
from workers.ingest import ingest
from workers.sinks import open_warehouse

Rows = list[tuple[Any, ...]]  # Any: of a SELECT, whose columns differ

KINDS: Final = ("duckdb", "snowflake")
"""Both, as the parameters of a fixture."""


class Site(Protocol):
    """A warehouse of the test's own. SQL is what both read alike; `{marts}` in it is the schema of marts."""

    types: Mapping[str, str]
    """What it calls a type of the contract, where that is another name."""

    own_tables: frozenset[str]
    """The raw tables that it needs beside those of the contract."""

    @property
    def url(self) -> str:
        """INSIGHT_WAREHOUSE_URL."""

    def marts(self, of: Path | None = None) -> str:
        """The schema of marts of the build, or of the version whose folder is given."""

    def rows(self, sql: str, *, of: Path | None = None) -> Rows:
        """What a SELECT answers in the build database, or in the version whose folder is given."""

    def execute(self, sql: str) -> None:
        """Change the build database behind everybody's back."""

    def raw_columns(self) -> Mapping[str, str]:
        """The columns of each raw table with their types, in order: `name TYPE, …`."""

    def taken(self) -> AbstractContextManager[None]:
        """Another process is writing, for the length of the block."""

    def let_time_pass(self) -> None:
        """Let go of what killed processes hold, if time alone does; the tests have none to wait for it."""

    def copies(self, publications: Path) -> set[str]:
        """The versions that there is data of, as `copy_name` has them, published or not."""


def copy_name(version: str) -> str:
    """A version as a name of its data."""
    return version.replace("-", "_").lower()


class DuckDbSite:
    """A file."""

    types: Mapping[str, str] = {}
    own_tables: frozenset[str] = frozenset()

    def __init__(self, file: Path) -> None:
        self.file = file

    @property
    def url(self) -> str:
        """Of the file."""
        return f"duckdb:///{self.file}"

    def marts(self, of: Path | None = None) -> str:  # noqa: ARG002 - in whatever file
        """The same in every file."""
        return "marts"

    def rows(self, sql: str, *, of: Path | None = None) -> Rows:
        """Out of the file, or of the version's own."""
        with duckdb.connect(of / "data.duckdb" if of else self.file, read_only=True) as connection:
            return connection.execute(sql.format(marts=self.marts(of))).fetchall()

    def execute(self, sql: str) -> None:
        """In the file."""
        with duckdb.connect(self.file) as connection:
            connection.execute(sql.format(marts=self.marts()))

    def raw_columns(self) -> Mapping[str, str]:
        """By DuckDB's own list."""
        return dict(
            self.rows(
                "SELECT table_name, string_agg(column_name || ' ' || data_type, ', ' ORDER BY column_index)"
                " FROM duckdb_columns() WHERE schema_name = 'raw' GROUP BY 1"
            )
        )

    def taken(self) -> AbstractContextManager[None]:
        """The file is open elsewhere."""
        return another_process_holding(self.file, seconds=60)

    def let_time_pass(self) -> None:
        """Nothing: the system has freed a file's locks with the process."""

    def copies(self, publications: Path) -> set[str]:
        """The folders, hidden ones too, that hold a file."""
        found = (path.parent.name.removeprefix(".building-") for path in publications.glob("*/data.duckdb"))
        return {copy_name(version) for version in found}


class SnowflakeSite:
    """A database of the emulated account."""

    types: Mapping[str, str] = {
        "BIGINT": "NUMBER(38,0)",
        "INTEGER": "NUMBER(38,0)",
        "DECIMAL(18,2)": "NUMBER(18,2)",
        "DECIMAL(5,2)": "NUMBER(5,2)",
        "DECIMAL(5,4)": "NUMBER(5,4)",
        "DOUBLE": "FLOAT",
        "VARCHAR": "TEXT",
        "TIMESTAMP": "TIMESTAMP_NTZ",
    }
    own_tables: frozenset[str] = frozenset({"turns"})

    def __init__(self, emulator: SnowflakeEmulator, *, database: str | None = None) -> None:
        self.emulator = emulator
        self.database = database or f"SITE_{uuid4().hex[:8]}".upper()

    @property
    def url(self) -> str:
        """Of the database."""
        return self.emulator.url(self.database)

    def marts(self, of: Path | None = None) -> str:
        """As the record of the version has it."""
        return str(json.loads((of / "publication.json").read_text())["snowflake_schema"]) if of else "marts"

    def rows(self, sql: str, *, of: Path | None = None) -> Rows:
        """Out of the database."""
        with self.emulator.connect(self.database) as session:
            return list(session.cursor().execute(sql.format(marts=self.marts(of))).fetchall())

    def execute(self, sql: str) -> None:
        """In a session of its own."""
        self.rows(sql)

    def sent(self, beginning: str) -> list[str]:
        """The statements that begin so."""
        found = (each["sql"] for each in self.emulator.statements(database=self.database))
        return [sql for sql in found if sql.startswith(beginning)]

    def raw_columns(self) -> Mapping[str, str]:
        """By the information schema."""
        found: dict[str, list[str]] = {}
        for table, column, kind, precision, scale in self.rows(
            "select lower(table_name), lower(column_name), data_type, numeric_precision, numeric_scale"
            " from information_schema.columns where table_schema = 'RAW' order by table_name, ordinal_position"
        ):
            size = f"({precision},{scale})" if kind == "NUMBER" else ""
            found.setdefault(table, []).append(f"{column} {kind}{size}")
        return {table: ", ".join(columns) for table, columns in found.items()}

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Another session has the turn."""
        with self.emulator.connect(self.database) as other:
            other.cursor().execute("begin")
            other.cursor().execute("update raw.turns set taken_at = current_timestamp()")
            yield
            other.cursor().execute("rollback")

    def let_time_pass(self) -> None:
        """What five minutes do to an open transaction that somebody waits for, and two to a claim."""
        self.emulator.end_transactions(self.database)
        claims = "select 1 from information_schema.tables where table_name = 'PIPELINE_CLAIMS'"
        if self.rows(claims):
            self.execute("update raw.pipeline_claims set claimed_until = dateadd(second, -1, sysdate())")

    def copies(self, publications: Path) -> set[str]:  # noqa: ARG002 - the account has them
        """The clones."""
        found = self.rows("select lower(schema_name) from information_schema.schemata")
        return {name.removeprefix("marts__") for (name,) in found if name.startswith("marts__")}


@contextmanager
def another_process_holding(file: Path, *, seconds: float) -> Iterator[None]:
    """A process has the DuckDB file open, for so long at most."""
    script = f"import duckdb, time; c = duckdb.connect({str(file)!r}); print('held', flush=True); time.sleep({seconds})"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield
        process.kill()


@pytest.fixture(params=KINDS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    """An empty warehouse of either kind."""
    if request.param == "duckdb":
        return DuckDbSite(tmp_path / "new folder" / "w.duckdb")
    return SnowflakeSite(request.getfixturevalue("snowflake"))


@pytest.fixture(scope="module", params=KINDS)
def built_site(request: pytest.FixtureRequest, synthetic: Published, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The synthetic data, loaded and built, in a warehouse of either kind; who changes it puts it back."""
    folder = tmp_path_factory.mktemp(f"built-{request.param}")
    if request.param == "duckdb":
        return DuckDbSite(Path(shutil.copy(synthetic.warehouse, folder)))
    emulator = request.getfixturevalue("snowflake")
    made = SnowflakeSite(emulator)
    take_over(emulator, synthetic, database=made.database, folder=folder)
    with open_warehouse(made.url) as warehouse:
        assert ingest(synthetic.data / "Online_Sales.csv", warehouse=warehouse).ok
    return made
