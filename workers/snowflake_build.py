"""The build database on Snowflake; each version has a zero-copy clone of the schema of marts."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.schema import CreateSchema, CreateTable

from api.snowflake_account import SnowflakeAccount
from workers.build_database import MARTS, Rows, facts
from workers.errors import PipelineBusyError, PublicationError, WarehouseError

_LONGEST: Final = timedelta(minutes=10)
_CLAIM: Final = timedelta(minutes=2)
_RENEW: Final = timedelta(seconds=20)

_CLAIMS: Final = sa.Table(
    "pipeline_claims",
    sa.MetaData(schema="raw"),
    sa.Column("holder", sa.String, nullable=False),
    sa.Column("claimed_until", sa.DateTime, nullable=False),
)
_FREE: Final = sa.text("timestamp '1970-01-01 00:00:00'")


class SnowflakeBuild:
    """The schemas `raw` and `marts` of one database, and `marts__<version>` for each version that is kept.

    To clone is a matter of metadata, of seconds whatever the size; a version that is read keeps its rows, whatever is
    built meanwhile. Who builds is one run at a time in the whole account: it holds a claim, a row that it renews.
    """

    dbt_target = "snowflake"

    def __init__(self, account: SnowflakeAccount, *, folder: Path) -> None:
        self._account = account
        self._engine = account.engine(longest=_LONGEST, autocommit=True, session={}, pool_size=2, max_overflow=1)
        self._claimed_by: str | None = None
        self.folder = folder

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the claim for the length of the block, in which a thread renews it; a killed run's lapses by itself."""
        holder, is_over = secrets.token_hex(8), threading.Event()
        with self._errors():
            self._take_claim(holder)
        renewing = threading.Thread(target=self._renew, args=(holder, is_over), name="claim", daemon=True)
        renewing.start()
        self._claimed_by = holder
        try:
            yield
        finally:
            self._claimed_by = None
            is_over.set()
            renewing.join()
            with self._errors():
                self._set_claim(_FREE, sa.literal(holder))
            self._engine.dispose()

    def dbt_environment(self) -> Mapping[str, str]:
        """How to sign in."""
        return self._account.dbt_environment()

    def release(self) -> None:
        """Sign out: dbt keeps its sessions for the life of the process."""
        from dbt.adapters.factory import cleanup_connections

        cleanup_connections()  # type: ignore[no-untyped-call] # dbt's, untyped

    def first_rows(self, relation: str, *, count: int) -> Iterator[Mapping[str, Any]]:
        """The first rows of a relation."""
        with self._errors(), self._engine.connect() as connection:
            found = connection.exec_driver_sql(f"SELECT * FROM {relation} LIMIT {count:d}")  # noqa: S608 - dbt's own name
            for row in found.mappings():
                yield {name: str(value) for name, value in row.items()}

    def copy_marts(self, version: str, folder: Path) -> Mapping[str, Any]:  # noqa: ARG002 - the account has the data
        """Clone the schema of marts under the version's name."""
        clone = _schema(version)
        with self._errors():
            self._require_claim()
            self._ask(f"CREATE SCHEMA {clone} CLONE {MARTS}")
            named = sa.text("SELECT table_name FROM information_schema.tables WHERE table_schema = :schema ORDER BY 1")
            with self._engine.connect() as connection:
                names = connection.execute(named, {"schema": clone.upper()}).scalars().all()
            counts = " UNION ALL ".join(f"SELECT '{name.lower()}', count(*) FROM {clone}.{name}" for name in names)  # noqa: S608
            tables = {str(name): int(rows) for name, rows in self._ask(counts)}
            return {**facts(self._ask, marts=clone, raw="raw", tables=tables), "snowflake_schema": clone}

    def rows(self, mart: str, columns: Sequence[str], *, version: str, folder: Path) -> Rows:  # noqa: ARG002 - the account has the data
        """Out of the version's clone."""
        with self._errors():
            return self._ask(f"SELECT {', '.join(columns)} FROM {_schema(version)}.{mart}")  # noqa: S608 - ours

    def relation(self, schema: str, name: str, *, version: str) -> str:
        """Named by the version's schema, unquoted, so in Snowflake's upper case."""
        return f"{_schema(version) if schema.lower() == MARTS else schema}.{name}"

    def keep_only(self, versions: Collection[str]) -> None:
        """Drop the clones of all other versions: retired ones, and what a killed run left."""
        kept = {_schema(version).upper() for version in versions}
        with self._errors():
            for (name,) in self._ask("SELECT schema_name FROM information_schema.schemata"):
                if re.fullmatch(rf"{MARTS}__\w+", name, re.IGNORECASE) and name.upper() not in kept:
                    self._ask(f"DROP SCHEMA IF EXISTS {name} CASCADE")

    def _ask(self, sql: str) -> Rows:
        with self._engine.connect() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(sql).all()]

    def _take_claim(self, holder: str) -> None:
        with self._engine.connect() as connection:
            schemata = "SELECT count(*) FROM information_schema.schemata WHERE upper(schema_name) = 'RAW'"
            if not connection.exec_driver_sql(schemata).scalar_one():  # whoever may build may not make a schema
                connection.execute(CreateSchema("raw", if_not_exists=True))
            connection.execute(CreateTable(_CLAIMS, if_not_exists=True))
            nobody = sa.select(sa.literal(""), _FREE).where(~sa.select(_CLAIMS).exists())
            connection.execute(sa.insert(_CLAIMS).from_select(["holder", "claimed_until"], nobody))
            # One statement, which locks the row: of two that claim at once, the second finds it taken.
            free = _CLAIMS.c.claimed_until < sa.func.sysdate()
            taken = connection.execute(sa.update(_CLAIMS).where(free).values(holder=holder, claimed_until=_later()))
        if taken.rowcount != 1:
            raise _busy()

    def _renew(self, holder: str, is_over: threading.Event) -> None:
        while not is_over.wait(_RENEW.total_seconds()):
            try:
                self._set_claim(_later(), sa.literal(holder))
            except SQLAlchemyError:  # tried again in time, and looked at before anything is published
                continue

    def _set_claim(self, until: sa.ColumnElement[Any] | sa.TextClause, holder: sa.ColumnElement[Any]) -> None:
        with self._engine.connect() as connection:
            connection.execute(sa.update(_CLAIMS).where(_CLAIMS.c.holder == holder).values(claimed_until=until))

    def _require_claim(self) -> None:
        mine = _CLAIMS.c.holder == self._claimed_by
        with self._engine.connect() as connection:
            held = connection.execute(sa.select(_CLAIMS).where(mine, _CLAIMS.c.claimed_until > sa.func.sysdate())).all()
        if not held:
            raise PublicationError(
                "Another run may have built meanwhile: the claim was lost",
                hint="Run it again: insight pipeline publish",
            )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            raise WarehouseError(
                f"Snowflake refused, in {self._account.database}: {' '.join(str(cause).split())[:500]}",
                hint="Check user, role and warehouse of INSIGHT_WAREHOUSE_URL, then run this again",
            ) from error


def _schema(version: str) -> str:
    return f"{MARTS}__{version.replace('-', '_')}".lower()


def _later() -> sa.ColumnElement[Any]:
    return sa.func.dateadd(sa.text("second"), int(_CLAIM.total_seconds()), sa.func.sysdate())


def _busy() -> PipelineBusyError:
    return PipelineBusyError(
        "Another pipeline run is under way in this database",
        hint=f"Wait for it to end; the claim of one that was killed lapses after {_CLAIM}",
    )
