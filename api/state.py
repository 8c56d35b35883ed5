"""The service's own state: one database for keys, secrets, audit and long queries, on SQLite or PostgreSQL.

Its schema is declared once, by the tables that register on `metadata`; the scripts in `api/migrations` bring an older
database up to it. Whoever opens the state brings it up to date, so there is no command to forget.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from api.errors import Unavailable, WrongSetting

metadata = sa.MetaData()

# Any number will do; it keeps two replicas that start at once from migrating at once.
_MIGRATION_LOCK = 7_301_955


def open_state(url: str) -> sa.Engine:
    """An engine on the state database, with its schema up to date. The folder of an SQLite file is made. Blocks.

    Raises
    ------
    WrongSetting
        The URL cannot be read, or the database is of a later version of this program.
    Unavailable
        The database does not answer.
    """
    try:
        parsed = sa.make_url(url)
        engine = sa.create_engine(parsed, pool_pre_ping=True, hide_parameters=True)  # a logged error must not show them
    except (sa.exc.ArgumentError, ModuleNotFoundError) as error:  # the URL may hold a password: it is not repeated
        raise WrongSetting(
            "INSIGHT_STATE_URL cannot be used", hint="Set it as sqlite:///PATH or postgresql+psycopg://HOST/DATABASE"
        ) from error
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine, parsed.database)
    try:
        _upgrade(engine)
    except sa.exc.SQLAlchemyError as error:
        engine.dispose()
        raise Unavailable(
            "The state database does not answer", hint="Look at INSIGHT_STATE_URL.", code="state_unavailable"
        ) from error
    return engine


def now_revision(engine: sa.Engine) -> str | None:
    """The revision of the schema in the database; None for an empty one."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def _prepare_sqlite(engine: sa.Engine, file: str | None) -> None:
    if file:
        Path(file).parent.mkdir(parents=True, exist_ok=True)

    @sa.event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        # Readers do not wait for the writer, and a writer waits for another one.
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA busy_timeout=10000")


def _upgrade(engine: sa.Engine) -> None:
    scripts = _scripts()
    head = ScriptDirectory.from_config(scripts).get_current_head()
    if (current := now_revision(engine)) == head:
        return
    _refuse_later(scripts, current)
    is_sqlite = engine.dialect.name == "sqlite"
    # The driver of SQLite would end the transaction at each CREATE TABLE, so it is begun and ended by hand.
    options = {"isolation_level": "AUTOCOMMIT"} if is_sqlite else {}
    with engine.connect().execution_options(**options) as connection:
        begin = "BEGIN IMMEDIATE" if is_sqlite else f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"
        connection.exec_driver_sql(begin)
        scripts.attributes["connection"] = connection
        try:
            command.upgrade(scripts, "head")
        except BaseException:
            connection.exec_driver_sql("ROLLBACK")
            raise
        connection.exec_driver_sql("COMMIT") if is_sqlite else connection.commit()


def _refuse_later(scripts: Config, current: str | None) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(scripts).walk_revisions()}
    if current is not None and current not in known:
        raise WrongSetting(
            f"The state database has the schema {current}, which this version does not know",
            hint="Run the version that made it, or a later one.",
        )


def _scripts() -> Config:
    scripts = Config()
    scripts.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    return scripts
