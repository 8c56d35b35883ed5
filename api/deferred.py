"""Queries that are submitted, run in the background, and read later, page by page.

Whoever asks comes through here; the questions themselves go through `SemanticLayer`, like every other one, so nothing
about what is allowed is decided twice. The state database is the queue (`api/deferred_store.py`), so a query outlives
the process that took it, and any replica runs it and shows its rows.

A query runs with what its principal is allowed *when it runs*, and is shown only while that is still the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from functools import cache, partial
from typing import Any, get_type_hints

import pyarrow as pa
import structlog

from api.deferred_store import Claim, DeferredStore, State, StoredQuery
from api.documents import document, restored
from api.errors import (
    Conflict,
    Failure,
    Forbidden,
    InternalFault,
    InvalidQuery,
    SemanticLayerError,
    TooManyRequests,
    Unavailable,
    UnknownName,
    UnreadableRequest,
)
from api.pieces import pieces
from api.policy import Principal
from api.query import MetricQuery, PageLimits
from api.service import Answer, Apart, Page, SemanticLayer

_log = structlog.get_logger(__name__)

_ID = re.compile(r"[0-9a-f]{32}")  # a database need not take any other text

_LOOK_S = 0.4  # a cancellation must reach the engine within 1 s, whichever process was told of it
_SWEEP_S = 60.0
_CLOSING_S = 5.0

# What an outage of the warehouse may last, counted from the submission; then the query fails with what it met last.
_PATIENCE = timedelta(hours=1)
_PAUSE = timedelta(seconds=1)
_UNFINISHED_RETRY = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeferredQuery:
    """A submitted query as its owner sees it; times are naive UTC.

    `question` is None where another release wrote it down. `answer` is there once it succeeded, without its rows.
    """

    query_id: str
    question: MetricQuery | None
    state: State
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None
    attempts: int
    row_count: int | None
    answer: Answer | None
    failure: Failure | None


class DeferredQueries:
    """Submit, follow, read and end queries of one's own; meanwhile run everybody's.

    Parameters
    ----------
    run
        How far a query may go: the rows kept of it at most, and its time in the engine.
    pages
        Rows on a page that is read: by default, and at most.
    at_once
        Queries that this process runs at a time; with 0 it leaves them to others.
    """

    def __init__(
        self, layer: SemanticLayer, store: DeferredStore, *, run: Apart, pages: PageLimits, at_once: int
    ) -> None:
        self._layer = layer
        self._store = store
        self._run = run
        self._pages = pages
        self._runner = _Runner(layer, store, run=run, at_once=at_once)

    def start(self) -> None:
        """Begin to run what waits, in tasks of this event loop."""
        self._runner.start()

    async def close(self) -> None:
        """Stop running; what ran waits again at once, for another process or the next start."""
        await self._runner.close()

    async def submit(self, principal: Principal, query: MetricQuery) -> DeferredQuery:
        """The query, queued.

        Raises
        ------
        RequestError
            `SemanticLayer.query` would refuse it right now.
        TooManyRequests
            The principal has too many queries waiting, or too many rows kept.
        Unavailable
            Too many queries wait in total, nothing is published, or the state database does not answer.
        """
        await self._layer.check(principal, query, limits=self._run.limits)
        added = await asyncio.to_thread(self._store.add, principal, query)
        self._runner.wake()
        return _shown(added)

    async def find(self, principal: Principal, query_id: str) -> DeferredQuery:
        """The principal's query of that id.

        Raises
        ------
        UnknownName
            There is none, it is somebody else's, or it has expired; the first two cannot be told apart.
        """
        return _shown(await self._found(principal, query_id))

    async def recent(
        self, principal: Principal, *, before: str | None, limit: int
    ) -> tuple[tuple[DeferredQuery, ...], int]:
        """The principal's queries, newest first, those older than the id `before`; and how many there are in all.

        Raises
        ------
        UnreadableRequest
            `before` is no id.
        """
        if before is not None and not _ID.fullmatch(before):
            raise UnreadableRequest(
                "The cursor cannot be read", hint="Pass next_cursor as it came, or none.", code="invalid_cursor"
            )
        found, total = await asyncio.to_thread(self._store.recent, principal.principal_id, before=before, limit=limit)
        return tuple(map(_shown, found)), total

    async def results(self, principal: Principal, query_id: str, *, page: int, rows: int | None = None) -> Answer:
        """One page of the rows, the first being 1; a result without rows has one page, too.

        Raises
        ------
        UnknownName
            As `find` says, or there is no such page.
        Conflict
            The query has not finished yet (then with `retry_after`), or it did not succeed.
        Forbidden
            The principal is not allowed what it was when the query ran.
        InvalidQuery
            More rows than may be on a page.
        """
        rows = rows or self._pages.default_rows
        if rows > self._pages.max_rows:
            raise InvalidQuery(
                f"A page has 1 to {self._pages.max_rows} rows", hint="Read more pages.", code="invalid_limit"
            )
        stored = await self._found(principal, query_id)
        _require_success(stored)
        answer = _answer(stored)
        if answer is None:
            raise _expired(query_id)
        if answer.grant != self._layer.grant_digest(principal):
            raise Forbidden(
                "What you may see has changed since the query ran",
                hint="Submit it again: POST /v1/queries.",
                code="policy_changed",
            )
        shown = _page(answer, stored, page=page, rows=rows)
        table = await asyncio.to_thread(self._store.rows, query_id, first=(page - 1) * rows, count=rows)
        if table is None:
            raise _expired(query_id)
        return replace(shown, table=table)

    async def end(self, principal: Principal, query_id: str) -> None:
        """Cancel the principal's query, or let its rows go if it has succeeded. Idempotent.

        A running one is interrupted in the engine: at once if it runs in this process, else within a second.

        Raises
        ------
        UnknownName
            There is none, or it is somebody else's.
        """
        if not _ID.fullmatch(query_id) or not await asyncio.to_thread(
            self._store.end, principal.principal_id, query_id
        ):
            raise _unknown(query_id)
        self._runner.wake()

    async def _found(self, principal: Principal, query_id: str) -> StoredQuery:
        if not _ID.fullmatch(query_id) or not (
            stored := await asyncio.to_thread(self._store.find, principal.principal_id, query_id)
        ):
            raise _unknown(query_id)
        if stored.is_expired:
            raise _expired(query_id)
        return stored


class _Runner:
    """Claims what waits and runs it, some at once, and gives up what others cancelled or took over."""

    def __init__(self, layer: SemanticLayer, store: DeferredStore, *, run: Apart, at_once: int) -> None:
        self._layer = layer
        self._store = store
        self._run = run
        self._at_once = at_once
        self._runs: dict[str, asyncio.Task[None]] = {}  # by the token of the claim
        self._woken = asyncio.Event()
        self._is_closing = False
        self._work: asyncio.Task[None] | None = None
        self._renewed_at = 0.0
        self._swept_at = 0.0

    def start(self) -> None:
        self._work = asyncio.create_task(self._follow())

    def wake(self) -> None:
        """Look at the database now rather than at the next turn."""
        self._woken.set()

    async def close(self) -> None:
        self._is_closing = True
        self.wake()
        if self._work is not None:
            await asyncio.wait((self._work,), timeout=_CLOSING_S)  # so that no claim is made and then forgotten
            self._work.cancel()
        for run in self._runs.values():
            run.cancel()
        if self._runs:
            await asyncio.wait(tuple(self._runs.values()))

    async def _follow(self) -> None:
        while not self._is_closing:
            self._woken.clear()
            try:
                await self._look()
            except Unavailable as error:
                _log.warning("deferred_queries_unreachable", detail=error.detail, cause=repr(error.__cause__))
            except Exception:  # noqa: BLE001 - the outermost loop: a fault here must not end it
                _log.exception("deferred_queries_failed")
            try:
                await asyncio.wait_for(self._woken.wait(), _LOOK_S)
            except TimeoutError:
                continue

    async def _look(self) -> None:
        await self._give_up_lost()
        while len(self._runs) < self._at_once and not self._is_closing:
            claim = await asyncio.to_thread(self._store.claim)
            if claim is None:
                break
            run = asyncio.create_task(self._settle(claim))
            self._runs[claim.token] = run
            run.add_done_callback(partial(self._landed, claim.token))
        sweep_every_s = min(_SWEEP_S, self._store.limits.keep_for.total_seconds())
        if time.monotonic() - self._swept_at >= sweep_every_s:
            self._swept_at = time.monotonic()
            await asyncio.to_thread(self._store.sweep)

    async def _give_up_lost(self) -> None:
        if not (tokens := tuple(self._runs)):
            return
        if time.monotonic() - self._renewed_at >= self._store.limits.lease.total_seconds() / 3:
            self._renewed_at = time.monotonic()
            await asyncio.to_thread(self._store.renew, tokens)
        held = await asyncio.to_thread(self._store.held, tokens)
        for token in tokens:
            run = self._runs.get(token)
            # Once: it waits until the engine has stopped, and a second time would end that wait.
            if token not in held and run is not None and not run.cancelling():
                run.cancel()

    def _landed(self, token: str, _: asyncio.Task[None]) -> None:
        del self._runs[token]
        self.wake()

    async def _settle(self, claim: Claim) -> None:
        """Run the query and store what came out; whatever happens, its claim is given back or lapses."""
        # The log of a run has the id of its query where that of a request has the request's.
        with structlog.contextvars.bound_contextvars(request_id=claim.query_id, principal=claim.principal.principal_id):
            _log.info("deferred_query_started", query_id=claim.query_id, attempt=claim.attempt)
            try:
                await self._attempt(claim)
            except asyncio.CancelledError:
                await asyncio.to_thread(self._store.release, claim)  # no effect, unless this process is closing
                raise
            except Exception:  # noqa: BLE001 - the outermost of the task; the claim lapses, and the query is tried again
                _log.exception("deferred_query_dropped")

    async def _attempt(self, claim: Claim) -> None:
        try:
            answer = await self._layer.query(claim.principal, claim.question, use=self._run)
        except (Unavailable, TooManyRequests) as error:
            pause = error.retry_after or _PAUSE
            if claim.age + pause < _PATIENCE:
                await asyncio.to_thread(self._store.release, claim, pause=pause)
                _log.warning("deferred_query_put_back", detail=error.detail)
                return
            failure = Failure.of(error)
        except SemanticLayerError as error:
            failure = Failure.of(error)
        except Exception:  # noqa: BLE001 - a defect ends this query, with the log to tell it
            _log.exception("deferred_query_crashed")
            failure = Failure.of(InternalFault("Something went wrong on our side", hint="Report the query id."))
        else:
            found = await asyncio.to_thread(pieces, answer.table)
            is_kept = await asyncio.to_thread(self._store.succeed, claim, _told(answer), found)
            _log.info("deferred_query_succeeded", rows=answer.table.num_rows, is_kept=is_kept)
            return
        is_kept = await asyncio.to_thread(self._store.fail, claim, failure)
        _log.info("deferred_query_failed", code=failure.code, is_kept=is_kept)


def _shown(stored: StoredQuery) -> DeferredQuery:
    return DeferredQuery(
        query_id=stored.query_id,
        question=stored.question,
        state=stored.state,
        created_at=stored.created_at,
        started_at=stored.started_at,
        finished_at=stored.finished_at,
        expires_at=stored.expires_at,
        attempts=stored.attempts,
        row_count=stored.row_count,
        answer=_answer(stored),
        failure=stored.failure,
    )


def _told(answer: Answer) -> str:
    """Everything that the answer says besides its rows."""
    told = {item.name: document(getattr(answer, item.name)) for item in fields(answer) if item.name != "table"}
    return json.dumps(told)


def _answer(stored: StoredQuery) -> Answer | None:
    """The answer without its rows; None if there is none, or if another release wrote it in another way."""
    if stored.answer is None:
        return None
    try:
        told = {name: restored(value, _hints()[name]) for name, value in json.loads(stored.answer).items()}
        answer = Answer(table=pa.table({}), **told)
    except (ValueError, LookupError, TypeError):
        return None
    return replace(answer, query_id=stored.query_id)


@cache
def _hints() -> Mapping[str, Any]:
    return get_type_hints(Answer)


def _page(answer: Answer, stored: StoredQuery, *, page: int, rows: int) -> Answer:
    total = stored.row_count or 0
    count = max(1, math.ceil(total / rows))
    if page > count:
        raise UnknownName(
            f"There is no page {page}", hint=f"The pages of {rows} rows are 1 to {count}.", code="unknown_page"
        )
    tag = hashlib.sha256(f"{stored.query_id}/{answer.tag}/{page}/{rows}".encode()).hexdigest()
    return replace(answer, tag=tag, page=Page(number=page, count=count, rows=rows, total_rows=total))


def _require_success(stored: StoredQuery) -> None:
    match stored.state:
        case State.SUCCEEDED:
            return
        case State.QUEUED | State.RUNNING:
            raise Conflict(
                f"The query is {stored.state}",
                hint=f"Follow it until it has succeeded: GET /v1/queries/{stored.query_id}.",
                code="query_not_finished",
                retry_after=_UNFINISHED_RETRY,
            )
        case State.CANCELLED:
            raise Conflict("The query was cancelled", hint="Submit it again: POST /v1/queries.", code="query_cancelled")
        case State.FAILED:
            detail, hint = (stored.failure.detail, stored.failure.hint) if stored.failure else ("", "")
            raise Conflict(f"The query failed: {detail}", hint=hint, code="query_failed")


def _unknown(query_id: str) -> UnknownName:
    return UnknownName(
        f"There is no query {query_id[:100]!r}", hint="GET /v1/queries lists yours.", code="unknown_query"
    )


def _expired(query_id: str) -> UnknownName:
    return UnknownName(
        f"The query {query_id!r} has expired, and its rows are gone",
        hint="Submit it again: POST /v1/queries.",
        code="query_expired",
    )
