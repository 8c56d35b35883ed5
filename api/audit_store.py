"""The audit in the state database: SQLite or PostgreSQL, one row a request."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from api.errors import WrongSetting
from api.observation import Decision
from api.state import metadata

_audit = sa.Table(
    "audit",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("request_id", sa.String(64), nullable=False, index=True),
    sa.Column("at", sa.DateTime, nullable=False, index=True),
    sa.Column("principal_id", sa.String(200)),
    sa.Column("principal_name", sa.String(200)),
    sa.Column("role", sa.String(200)),
    sa.Column("transport", sa.String(20), nullable=False),
    sa.Column("action", sa.String(100), nullable=False),
    sa.Column("what", sa.JSON, nullable=False),
    sa.Column("metrics", sa.Text),  # `what` has them too; here they can be searched, in every dialect alike
    sa.Column("decision", sa.String(20), nullable=False),
    sa.Column("status", sa.Integer),
    sa.Column("code", sa.String(100)),
    sa.Column("rows", sa.BigInteger),
    sa.Column("publication", sa.String(200)),
    sa.Column("cache", sa.String(20)),
    sa.Column("sql_hash", sa.String(64)),
    sa.Column("ms", sa.Float, nullable=False),
)
_CHUNK = 500  # rows in one transaction: some 10 ms, for which nobody else writes to an SQLite file

Record: TypeAlias = Mapping[str, Any]  # by column, its values are what JSON can say, `at` excepted


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditQuestion:
    """Which records to show; what is None is not asked for."""

    since: datetime | None = None
    principal: str | None = None
    decision: Decision | None = None
    metric: str | None = None
    request_id: str | None = None


class AuditStore:
    """The table of records. Everything blocks; every method may be repeated."""

    def __init__(self, state: sa.Engine) -> None:
        self._state = state
        self._insert = _upsert(state.dialect)

    def add(self, records: Iterable[Record]) -> tuple[Record, ...]:
        """Keep the records, each in place of an earlier one of its id; those that the database refuses come back.

        Raises
        ------
        sqlalchemy.exc.SQLAlchemyError
            The database is away; some of the records may be kept already.
        """
        chunk: list[Record] = []
        refused: list[Record] = []
        for record in records:
            chunk.append(record)
            if len(chunk) == _CHUNK:
                refused += self._add_chunk(chunk)
                chunk = []
        return (*refused, *self._add_chunk(chunk))

    def newest(self, question: AuditQuestion, *, limit: int) -> list[dict[str, Any]]:
        """Records that match, newest first; `at` is aware UTC."""
        statement = sa.select(*(column for column in _audit.c if column.name != "metrics"))
        statement = statement.where(*_conditions(question)).order_by(_audit.c.at.desc(), _audit.c.id.desc())
        with self._state.connect() as connection:
            rows = connection.execute(statement.limit(limit)).mappings()
            # Its names are a kind of text that not everything takes for one.
            found = [{str(name): value for name, value in row.items()} for row in rows]
        return [record | {"at": record["at"].replace(tzinfo=UTC)} for record in found]

    def remove_before(self, moment: datetime) -> int:
        """How many records were older than the moment, and are gone."""
        old = sa.select(_audit.c.id).where(_audit.c.at < _naive(moment)).limit(_CHUNK)
        removed = 0
        while True:
            with self._state.begin() as connection:
                gone = connection.execute(_audit.delete().where(_audit.c.id.in_(old))).rowcount
            removed += gone
            if gone < _CHUNK:
                return removed

    def _add_chunk(self, records: Sequence[Record]) -> Collection[Record]:
        """Keep the records; if one of them is refused, all but that one."""
        if not records:
            return ()
        try:
            with self._state.begin() as connection:
                connection.exec_driver_sql(self._insert, [_as_driver_takes(record) for record in records])
        except (sa.exc.DataError, sa.exc.IntegrityError, ValueError):
            if len(records) == 1:
                return records
            return [refused for record in records for refused in self._add_chunk([record])]
        return ()


def _as_driver_takes(record: Record) -> dict[str, Any]:
    at = _naive(record["at"]).isoformat(" ", timespec="microseconds")  # as SQLAlchemy writes it to SQLite
    return {**record, "at": at, "what": orjson.dumps(record["what"]).decode()}


def _upsert(dialect: sa.Dialect) -> str:
    """An insert that replaces what stands under the same id, with named parameters, for the driver itself.

    SQLAlchemy's own care for each parameter costs 30 of the 50 µs that a record takes, half as much as an answer that
    is kept; and it is this process that answers.
    """
    match dialect.name:
        case "sqlite":
            insert: sqlite.Insert | postgresql.Insert = sqlite.insert(_audit)
            dialect = sqlite.dialect(paramstyle="named")
        case "postgresql":
            insert = postgresql.insert(_audit)
        case other:
            raise WrongSetting(
                f"INSIGHT_STATE_URL names a database of the kind {other}", hint="Use SQLite or PostgreSQL."
            )
    columns = {column.name: insert.excluded[column.name] for column in _audit.c if column.name != "id"}
    return str(insert.on_conflict_do_update(index_elements=["id"], set_=columns).compile(dialect=dialect))


def _conditions(question: AuditQuestion) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if question.since is not None:
        conditions.append(_audit.c.at >= _naive(question.since))
    if question.principal is not None:
        conditions.append(
            sa.or_(_audit.c.principal_id == question.principal, _audit.c.principal_name == question.principal)
        )
    if question.decision is not None:
        conditions.append(_audit.c.decision == question.decision)
    if question.metric is not None:
        conditions.append(_audit.c.metrics.contains(f" {question.metric} ", autoescape=True))
    if question.request_id is not None:
        conditions.append(_audit.c.request_id == question.request_id)
    return conditions


def _naive(moment: datetime) -> datetime:
    # SQLite keeps no zone.
    return moment.astimezone(UTC).replace(tzinfo=None)
