"""Published marts, taken over to the emulated account and published there: in seconds, as nothing is built anew."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import pytest

from tests.conftest import Published
from tests.snowflake import SnowflakeEmulator
from workers.pipeline import build_database
from workers.publish import PublicationStore
from workers.settings import WorkerSettings
from workers.sinks import open_warehouse


def snowflake_settings(emulator: SnowflakeEmulator, home: Path, *, database: str, **settings: object) -> WorkerSettings:
    """Settings of workers on the emulated account, with the folder of publications under `home`."""
    given = {"warehouse_url": emulator.url(database), "publication_dir": home / "publications", "segments": False}
    return WorkerSettings(_env_file=None, **(given | settings))


def publish_marts(settings: WorkerSettings, source: Published, *, keep: int = 5) -> str:
    """A version whose marts are in the account already, by the code that the pipeline ends with."""
    store = PublicationStore(settings.publication_dir, keep=keep)
    database = build_database(settings)
    with database.claimed():
        return store.publish(database, source.built, fingerprint="f", rehearse=lambda _: None)


def take_over(emulator: SnowflakeEmulator, source: Published, *, database: str, folder: Path) -> None:
    """Load the marts of a publication, by way of the folder, and make empty raw tables."""
    with open_warehouse(emulator.url(database)) as warehouse:
        warehouse.ensure_raw_tables()
    # A copy, as a process opens a DuckDB file with one configuration.
    file = shutil.copy(source.settings.publication_dir / source.version / "data.duckdb", folder)
    with duckdb.connect(file, read_only=True) as marts, emulator.connect(database) as account:
        cursor = account.cursor()
        for sql in ("create schema marts", "create stage marts.moving"):
            cursor.execute(sql)
        for (name,) in marts.execute("select table_name from duckdb_tables()").fetchall():
            columns = marts.execute(f"describe marts.{name}").fetchall()
            typed = ", ".join(f"{column[0]} {column[1]}" for column in columns)
            marts.execute(f"copy marts.{name} to '{folder / name}.parquet'")
            cursor.execute(f"create table marts.{name} ({typed})")
            cursor.execute(f"put 'file://{folder / name}.parquet' @marts.moving/{name} auto_compress = false")
            cursor.execute(
                f"copy into marts.{name} from @marts.moving/{name} match_by_column_name = case_insensitive"
                " file_format = (type = parquet use_logical_type = true)"
            )


def published_on_snowflake(
    emulator: SnowflakeEmulator, source: Published, factory: pytest.TempPathFactory, *, database: str
) -> Published:
    """The publication, on the emulated account."""
    settings = snowflake_settings(emulator, factory.mktemp(database.lower()), database=database)
    take_over(emulator, source, database=database, folder=settings.publication_dir.parent)
    return Published(data=source.data, settings=settings, version=publish_marts(settings, source))
