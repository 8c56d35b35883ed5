"""The build database as a DuckDB file; each version has a copy of its marts in a file of its own."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import duckdb

from workers.build_database import MARTS, facts


class DuckDbBuild:
    """One file. Whoever builds is alone already: by the lock of the publications' folder, and by the file's own."""

    dbt_target = "duckdb"

    def __init__(self, file: Path) -> None:
        self._file = file
        self.folder = file.parent / "dbt-target"

    def claimed(self) -> AbstractContextManager[None]:
        """Nothing: there is one machine."""
        return nullcontext()

    def dbt_environment(self) -> Mapping[str, str]:
        """Where the file is."""
        return {"INSIGHT_DUCKDB_PATH": str(self._file.resolve())}

    def release(self) -> None:
        """Let go of the file: dbt-duckdb keeps its connection open for the life of the process."""
        from dbt.adapters.duckdb.connections import DuckDBConnectionManager

        DuckDBConnectionManager.close_all_connections()  # type: ignore[no-untyped-call] # dbt-duckdb's, untyped

    def first_rows(self, relation: str, *, count: int) -> Iterator[Mapping[str, Any]]:
        """The first rows of a relation."""
        with duckdb.connect(str(self._file), read_only=True) as connection:
            cursor = connection.execute(f"SELECT * FROM {relation} LIMIT {count:d}")  # noqa: S608 - dbt's own name
            names = [column[0] for column in cursor.description or ()]
            for row in cursor.fetchall():
                yield dict(zip(names, map(str, row), strict=True))

    def copy_marts(self, version: str, folder: Path) -> Mapping[str, Any]:  # noqa: ARG002 - the folder is the version's
        """Copy every mart into a fresh file in the folder."""
        with duckdb.connect(str(folder / "data.duckdb")) as connection:
            connection.execute(f"ATTACH '{_literal(self._file)}' AS build (READ_ONLY)")
            connection.execute(f"CREATE SCHEMA {MARTS}")
            names = connection.execute(
                "SELECT table_name FROM duckdb_tables() WHERE database_name = 'build' AND schema_name = $schema "
                "ORDER BY 1",
                {"schema": MARTS},
            ).fetchall()
            tables = {name: _copy_table(connection, name) for (name,) in names}
            return facts(lambda sql: connection.execute(sql).fetchall(), marts=MARTS, raw="build.raw", tables=tables)

    def relation(self, schema: str, name: str, *, version: str) -> str:  # noqa: ARG002 - the database is the version
        """Named by schema alone: the database is the publication that is opened."""
        return f'"{schema}"."{name}"'

    def keep_only(self, versions: Collection[str]) -> None:
        """Nothing: the copy goes with the version's folder."""


def _copy_table(connection: duckdb.DuckDBPyConnection, name: str) -> int:
    quoted = '"' + name.replace('"', '""') + '"'
    (rows,) = connection.execute(f"CREATE TABLE {MARTS}.{quoted} AS FROM build.{MARTS}.{quoted}").fetchone() or (0,)
    return int(rows)


def _literal(path: Path) -> str:
    # ATTACH takes no parameter.
    return str(path.resolve()).replace("'", "''")
