"""Deferred queries in the state database: who waits, who runs, what came out. Safe with any number of processes.

    deferred_queries   one row for each, with its question, its state and, in the end, its outcome
    deferred_rows      the rows of those that succeeded, as pieces of compressed Arrow

A query moves along `queued → running → succeeded | failed`, or to `cancelled` from the first two, and never back, but
from running to queued when whoever ran it lets it go. Each step is one UPDATE that names the state it expects, so of
several processes one wins. Who runs a query holds a *claim*, which lapses unless it is renewed; afterwards anybody may
claim it, and what the earlier holder still does has no effect. A result and its state are one transaction.

Times are naive UTC, as SQLite keeps no zone. The clocks of the processes must agree to within a part of the lease.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from api.answer import Answer
from api.deferred_query import UNFINISHED, Claim, DeferredQuery, State, answer_told, now, told
from api.documents import read, written
from api.errors import Failure, InternalFault, TooManyRequests, Unavailable
from api.pieces import Piece, part, pieces
from api.policy import Principal
from api.query import MetricQuery
from api.state import metadata

_MOST_ATTEMPTS = 3  # whatever ends the process thrice would end it for ever
_CANDIDATES = 5  # looked at in one claim; others may take the first ones meanwhile
_REMEMBERED = timedelta(days=7)  # that a query expired, so that its owner is told so

_RETRY = timedelta(seconds=2)
_WAITING_RETRY = timedelta(seconds=5)
_KEPT_RETRY = timedelta(minutes=1)

_queries = sa.Table(
    "deferred_queries",
    metadata,
    sa.Column("query_id", sa.String(32), primary_key=True),  # in the order of their creation
    sa.Column("principal_id", sa.String(500), nullable=False),
    sa.Column("principal", sa.Text, nullable=False),
    sa.Column("question", sa.Text, nullable=False),
    sa.Column("state", sa.String(9), nullable=False),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("claimable_at", sa.DateTime, nullable=False),
    sa.Column("claim", sa.String(16)),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("started_at", sa.DateTime),
    sa.Column("finished_at", sa.DateTime),
    sa.Column("expires_at", sa.DateTime, index=True),
    sa.Column("row_count", sa.BigInteger),
    sa.Column("stored_bytes", sa.BigInteger),
    sa.Column("answer", sa.Text),
    sa.Column("failure", sa.Text),
    sa.Index("ix_deferred_queries_state", "state", "claimable_at"),
    sa.Index("ix_deferred_queries_principal", "principal_id", "query_id"),
)
_rows = sa.Table(
    "deferred_rows",
    metadata,
    sa.Column("query_id", sa.String(32), primary_key=True),
    sa.Column("first_row", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("row_count", sa.Integer, nullable=False),
    sa.Column("content", sa.LargeBinary, nullable=False),
)


_ABANDONED = Failure.of(
    InternalFault(
        f"The service ended {_MOST_ATTEMPTS} times while the query ran",
        hint="Ask for less at once; if that does not help, report the query id.",
        code="query_abandoned",
    )
)
_UNREADABLE = Failure.of(
    InternalFault(
        "The question was written down by another release of the service",
        hint="Submit it again: POST /v1/queries.",
        code="query_unreadable",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLimits:
    """How much waits and is kept, and for how long.

    Queries that wait in total and of one principal, bytes of rows that are kept of one principal, how long an outcome
    is kept, and how long a claim lasts unless it is renewed.
    """

    waiting: int
    waiting_each: int
    kept_bytes_each: int
    keep_for: timedelta
    lease: timedelta


class DeferredStore:
    """The two tables. Every method blocks, and raises `Unavailable` where the database does not answer."""

    def __init__(self, state: sa.Engine, limits: StoreLimits) -> None:
        self._state = state
        self.limits = limits

    def add(self, principal: Principal, question: MetricQuery) -> DeferredQuery:
        """The question, queued.

        Raises
        ------
        TooManyRequests
            The principal has too many queries waiting, or too much kept.
        Unavailable
            Too many are waiting in total.
        """
        at = now()
        query_id = f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"
        row = {
            "query_id": query_id,
            "principal_id": principal.principal_id,
            "principal": written(principal),
            "question": written(question),
            "state": State.QUEUED,
            "created_at": at,
            "claimable_at": at,
        }
        with self._transaction() as connection:
            connection.execute(_queries.insert().values(row))
            # Counted behind the insert: under SQLite's lock, nobody else can slip in between.
            _check_room(connection, principal.principal_id, self.limits)
        added = self.find(principal.principal_id, query_id)
        assert added is not None  # noqa: S101 - it was committed just now
        return added

    def find(self, principal_id: str, query_id: str) -> DeferredQuery | None:
        """The principal's query of that id, an expired one among them."""
        wanted = _known().where(_queries.c.query_id == query_id, _queries.c.principal_id == principal_id)
        with self._transaction() as connection:
            row = connection.execute(wanted).one_or_none()
        return _read(row) if row is not None else None

    def recent(self, principal_id: str, *, before: str | None, limit: int) -> tuple[tuple[DeferredQuery, ...], int]:
        """The principal's queries that have not expired, newest first, those older than `before`; and their number."""
        own = _queries.c.principal_id == principal_id, _is_kept()
        page = _known().where(*own).order_by(_queries.c.query_id.desc()).limit(limit)
        if before is not None:
            page = page.where(_queries.c.query_id < before)
        with self._transaction() as connection:
            total = connection.execute(sa.select(sa.func.count()).where(*own)).scalar_one()
            return tuple(map(_read, connection.execute(page))), total

    def claim(self) -> Claim | None:
        """A query to run, None if there is none.

        It is the oldest one of the principal that has fewest running and, among equals, whose last one began longest
        ago: so nobody waits behind all that another one submitted.
        """
        running = sa.func.count().filter(_queries.c.state == State.RUNNING)
        turns = (
            sa.select(
                _queries.c.principal_id, running.label("running"), sa.func.max(_queries.c.started_at).label("last")
            )
            .group_by(_queries.c.principal_id)
            .subquery()
        )
        free = (
            sa.select(_queries)
            .join(turns, turns.c.principal_id == _queries.c.principal_id)
            .where(*_is_free())
            .order_by(turns.c.running, turns.c.last.nulls_first(), _queries.c.query_id)
            .limit(_CANDIDATES)
        )
        with self._transaction() as connection:
            rows = connection.execute(free).all()
            return next((claim for row in rows if (claim := self._claimed(connection, row)) is not None), None)

    def held(self, tokens: Iterable[str]) -> frozenset[str]:
        """Which of the claims still hold: nobody cancelled the query or took it over."""
        wanted = sa.select(_queries.c.claim).where(_queries.c.claim.in_(tokens), _queries.c.state == State.RUNNING)
        with self._transaction() as connection:
            return frozenset(connection.execute(wanted).scalars())

    def renew(self, tokens: Iterable[str]) -> None:
        """Make the claims that still hold last for the length of the lease from now on."""
        held = _queries.c.claim.in_(tokens), _queries.c.state == State.RUNNING
        with self._transaction() as connection:
            connection.execute(_queries.update().where(*held).values(claimable_at=now() + self.limits.lease))

    def release(self, claim: Claim, *, pause: timedelta = timedelta(0)) -> None:
        """Put the query back in its place, to be claimed after the pause; the attempt does not count."""
        with self._transaction() as connection:
            later = {"claimable_at": now() + pause, "attempts": _queries.c.attempts - 1}
            _moved(connection, claim, state=State.QUEUED, started_at=None, **later)

    def fail(self, claim: Claim, failure: Failure) -> bool:
        """End the query with an error; whether the claim still held."""
        with self._transaction() as connection:
            return _moved(connection, claim, state=State.FAILED, failure=written(failure), **self._ending())

    def succeed(self, claim: Claim, answer: Answer) -> bool:
        """End the query with its answer; whether the claim still held. All of it is kept, or nothing."""
        found = pieces(answer.table)
        rows = [
            {
                "query_id": claim.query_id,
                "first_row": piece.first_row,
                "row_count": piece.row_count,
                "content": piece.content,
            }
            for piece in found
        ]
        sizes = {
            "row_count": sum(piece.row_count for piece in found),
            "stored_bytes": sum(len(piece.content) for piece in found),
        }
        values = {"state": State.SUCCEEDED, "answer": told(answer), **sizes}
        with self._transaction() as connection:
            if not _moved(connection, claim, **values, **self._ending()):
                return False
            connection.execute(_rows.insert(), rows)
        return True

    def rows(self, query_id: str, *, first: int, count: int) -> pa.Table | None:
        """`count` rows at most from row number `first` on (0 is the first); None if they are gone."""
        overlapping = (
            sa.select(_rows.c.first_row, _rows.c.row_count, _rows.c.content)
            .where(_rows.c.query_id == query_id, _rows.c.first_row < first + count)
            # An empty result has one piece, without rows.
            .where(sa.or_(_rows.c.first_row + _rows.c.row_count > first, _rows.c.row_count == 0))
            .order_by(_rows.c.first_row)
        )
        with self._transaction() as connection:
            found = [Piece(**row) for row in connection.execute(overlapping).mappings()]
        return part(found, first=first, count=count) if found else None

    def end(self, principal_id: str, query_id: str) -> bool:
        """Cancel the principal's query, or let its rows go if it has succeeded; whether there is one. Idempotent."""
        own = _queries.c.query_id == query_id, _queries.c.principal_id == principal_id
        cancel = _queries.update().where(*own, _queries.c.state.in_(UNFINISHED))
        let_go = _queries.update().where(*own, _queries.c.state == State.SUCCEEDED, _is_kept())
        with self._transaction() as connection:
            connection.execute(cancel.values(state=State.CANCELLED, claim=None, **self._ending()))
            if connection.execute(let_go.values(expires_at=now(), stored_bytes=0)).rowcount:
                connection.execute(_rows.delete().where(_rows.c.query_id == query_id))
            return bool(connection.execute(sa.select(sa.func.count()).where(*own)).scalar_one())

    def cancel(self, principal_id: str, query_id: str) -> bool:
        """Cancel the principal's query, unless it has ended already; whether there is one. Idempotent."""
        own = _queries.c.query_id == query_id, _queries.c.principal_id == principal_id
        cancel = _queries.update().where(*own, _queries.c.state.in_(UNFINISHED))
        with self._transaction() as connection:
            connection.execute(cancel.values(state=State.CANCELLED, claim=None, **self._ending()))
            return bool(connection.execute(sa.select(sa.func.count()).where(*own)).scalar_one())

    def sweep(self) -> None:
        """Remove the rows of what expired, and after a week that it ever was. Idempotent."""
        expired = sa.select(_queries.c.query_id).where(_queries.c.expires_at <= now(), _queries.c.stored_bytes > 0)
        with self._transaction() as connection:
            query_ids = connection.execute(expired).scalars().all()
        for query_id in query_ids:  # one by one, as others wait for SQLite's lock meanwhile
            with self._transaction() as connection:
                connection.execute(_rows.delete().where(_rows.c.query_id == query_id))
                connection.execute(_queries.update().where(_queries.c.query_id == query_id).values(stored_bytes=0))
        with self._transaction() as connection:
            connection.execute(_queries.delete().where(_queries.c.expires_at <= now() - _REMEMBERED))

    def _claimed(self, connection: sa.Connection, row: sa.Row[Any]) -> Claim | None:
        """The claim on the row's query; None if somebody was faster, or if it cannot be run, which ends it."""
        free = _queries.update().where(_queries.c.query_id == row.query_id, *_is_free())
        try:
            claim = Claim(
                query_id=row.query_id,
                token=secrets.token_hex(8),
                attempt=row.attempts + 1,
                principal=read(row.principal, Principal),
                question=read(row.question, MetricQuery),
                created_at=row.created_at,
            )
        except ValueError:
            claim = None
        if claim is None or row.attempts >= _MOST_ATTEMPTS:
            failure = written(_ABANDONED if claim else _UNREADABLE)
            connection.execute(free.values(state=State.FAILED, failure=failure, claim=None, **self._ending()))
            return None
        at = now()
        begun = {"started_at": at, "claimable_at": at + self.limits.lease, "attempts": claim.attempt}
        is_ours = connection.execute(free.values(state=State.RUNNING, claim=claim.token, **begun)).rowcount == 1
        return claim if is_ours else None

    def _ending(self) -> dict[str, object]:
        at = now()
        return {"finished_at": at, "expires_at": at + self.limits.keep_for}

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        try:
            with self._state.begin() as connection:
                yield connection
        except sa.exc.SQLAlchemyError as error:
            raise Unavailable(
                "The state database does not answer",
                hint="Try again shortly.",
                code="state_unavailable",
                retry_after=_RETRY,
            ) from error


def _moved(connection: sa.Connection, claim: Claim, **values: object) -> bool:
    """Whether the claim still held, so that its query took the values; the claim is over."""
    held = _queries.c.query_id == claim.query_id, _queries.c.claim == claim.token, _queries.c.state == State.RUNNING
    return connection.execute(_queries.update().where(*held).values(claim=None, **values)).rowcount == 1


def _is_free() -> tuple[sa.ColumnElement[bool], ...]:
    """It waits, or whoever ran it is gone."""
    return _queries.c.state.in_(UNFINISHED), _queries.c.claimable_at <= now()


def _check_room(connection: sa.Connection, principal_id: str, limits: StoreLimits) -> None:
    waiting = sa.select(sa.func.count()).where(_queries.c.state == State.QUEUED)
    own = _queries.c.principal_id == principal_id
    if connection.execute(waiting.where(own)).scalar_one() > limits.waiting_each:
        raise TooManyRequests(
            f"{limits.waiting_each} of your queries are waiting already",
            hint="Wait for one to finish, or cancel it: DELETE /v1/queries/{id}.",
            code="too_many_waiting",
            retry_after=_WAITING_RETRY,
        )
    if connection.execute(waiting).scalar_one() > limits.waiting:
        raise Unavailable(
            f"{limits.waiting} queries are waiting already",
            hint="Submit it again later.",
            code="queue_full",
            retry_after=_WAITING_RETRY,
        )
    stored = sa.select(sa.func.sum(_queries.c.stored_bytes)).where(own, _is_kept())
    if (connection.execute(stored).scalar_one() or 0) >= limits.kept_bytes_each:
        raise TooManyRequests(
            f"The rows of your queries take {limits.kept_bytes_each / 1e6:g} MB already",
            hint="Let some go: DELETE /v1/queries/{id}; GET /v1/queries lists them.",
            code="too_much_kept",
            retry_after=_KEPT_RETRY,
        )


def _is_kept() -> sa.ColumnElement[bool]:
    return sa.or_(_queries.c.expires_at.is_(None), _queries.c.expires_at > now())


def _known() -> sa.Select[Any]:
    """What is known of a query, in the words of `DeferredQuery`."""
    return sa.select(*(_queries.c[item.name] for item in fields(DeferredQuery)))


def _read(row: sa.Row[Any]) -> DeferredQuery:
    try:
        question = read(row.question, MetricQuery)
    except ValueError:
        question = None
    answer = answer_told(row.answer) if row.answer else None
    parts = {
        "state": State(row.state),
        "question": question,
        "answer": answer and replace(answer, query_id=row.query_id),
        "failure": read(row.failure, Failure) if row.failure else None,
    }
    return DeferredQuery(**(dict(row._mapping) | parts))  # noqa: SLF001 - the documented way to a row's columns by name
