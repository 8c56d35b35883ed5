"""Queries that are submitted, run in the background, and read later, page by page.

Whoever asks comes through here; the questions themselves go through `SemanticLayer`, like every other one, so nothing
about what is allowed is decided twice. The state database is the queue (`api/deferred_store.py`), so a query outlives
the process that took it, and any replica runs it and shows its rows.

A query runs with what its principal is allowed *when it runs*, and is shown only while that is still the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from api.answer import Answer, Page
from api.cursor import unreadable_cursor
from api.deferred_query import DeferredQuery, State
from api.deferred_runner import Runner
from api.deferred_store import DeferredStore
from api.errors import Conflict, Forbidden, InvalidQuery, SemanticLayerError, UnknownName
from api.policy import Principal
from api.query import MetricQuery, PageLimits
from api.service import Apart, SemanticLayer

_ID = re.compile(r"[0-9a-f]{32}")  # a database need not take any other text
_UNFINISHED_RETRY = timedelta(seconds=1)


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
        self._runner = Runner(layer, store, run=run, at_once=at_once)

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
        return added

    async def find(self, principal: Principal, query_id: str) -> DeferredQuery:
        """The principal's query of that id.

        Raises
        ------
        UnknownName
            There is none, it is somebody else's, or it has expired; the first two cannot be told apart.
        """
        return await self._found(principal, query_id)

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
            raise unreadable_cursor()
        return await asyncio.to_thread(self._store.recent, principal.principal_id, before=before, limit=limit)

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
        if (answer := stored.answer) is None:
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

    def page_rows(self, wanted: int) -> int:
        """Rows on a page for a transport whose pages have `wanted` rows, or as many as may be."""
        return min(wanted, self._pages.max_rows)

    async def sql(self, principal: Principal, query: DeferredQuery) -> str | None:
        """The SQL of the principal's query; None where the role sees none, or it cannot be asked now."""
        if query.question is None:
            return None
        try:
            return await self._layer.sql(principal, query.question, limits=self._run.limits)
        except SemanticLayerError:  # what it names may be gone since it ran
            return None

    async def end(self, principal: Principal, query_id: str) -> None:
        """Cancel the principal's query, or let its rows go if it has succeeded. Idempotent.

        A running one is interrupted in the engine: at once if it runs in this process, else within a second.

        Raises
        ------
        UnknownName
            There is none, or it is somebody else's.
        """
        await self._stop(self._store.end, principal, query_id)

    async def cancel(self, principal: Principal, query_id: str) -> None:
        """Cancel the principal's query as `end` does; one that has ended keeps its rows. Idempotent.

        Raises
        ------
        UnknownName
            There is none, or it is somebody else's.
        """
        await self._stop(self._store.cancel, principal, query_id)

    async def _stop(self, step: Callable[[str, str], bool], principal: Principal, query_id: str) -> None:
        if not _ID.fullmatch(query_id) or not await asyncio.to_thread(step, principal.principal_id, query_id):
            raise _unknown(query_id)
        self._runner.wake()

    async def _found(self, principal: Principal, query_id: str) -> DeferredQuery:
        if not _ID.fullmatch(query_id) or not (
            stored := await asyncio.to_thread(self._store.find, principal.principal_id, query_id)
        ):
            raise _unknown(query_id)
        if stored.is_expired:
            raise _expired(query_id)
        return stored


def _page(answer: Answer, stored: DeferredQuery, *, page: int, rows: int) -> Answer:
    total = stored.row_count or 0
    count = max(1, math.ceil(total / rows))
    if page > count:
        raise UnknownName(
            f"There is no page {page}", hint=f"The pages of {rows} rows are 1 to {count}.", code="unknown_page"
        )
    tag = hashlib.sha256(f"{stored.query_id}/{answer.tag}/{page}/{rows}".encode()).hexdigest()
    # A stored result is walked by its pages; a cursor would begin beyond all of them.
    return replace(answer, tag=tag, next_cursor=None, page=Page(number=page, count=count, rows=rows, total_rows=total))


def _require_success(stored: DeferredQuery) -> None:
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
