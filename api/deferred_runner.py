"""Runs the long queries that wait in the state database, some at once, in tasks of the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial

import structlog

from api.deferred_query import Claim
from api.deferred_store import DeferredStore
from api.errors import Failure, InternalFault, SemanticLayerError, TooManyRequests, Unavailable
from api.observation import Observation, Transport, observing
from api.service import Apart, SemanticLayer

_log = structlog.get_logger(__name__)

_LOOK_S = 0.4  # a cancellation must reach the engine within 1 s, whichever process was told of it
_SWEEP_S = 60.0
_CLOSING_S = 5.0

# What an outage of the warehouse may last, counted from the submission; then the query fails with what it met last.
_PATIENCE = timedelta(hours=1)
_PAUSE = timedelta(seconds=1)


class Runner:
    """Claims what waits and runs it, some at once, and gives up what others cancelled or took over."""

    def __init__(self, layer: SemanticLayer, store: DeferredStore, *, run: Apart, at_once: int) -> None:
        self._layer = layer
        self._store = store
        self._run = run
        self._at_once = at_once
        self._runs: dict[str, asyncio.Task[None]] = {}  # by the token of the claim
        self._woken = asyncio.Event()
        self._closing = asyncio.Event()
        self._loops: tuple[asyncio.Task[None], ...] = ()
        self._renewed_at = 0.0

    def start(self) -> None:
        """Begin, in tasks of this event loop."""
        sweep_s = min(_SWEEP_S, self._store.limits.keep_for.total_seconds())
        # Apart, so that removing much does not keep the claims from being renewed.
        looking = self._repeat(self._look, every_s=_LOOK_S, sooner=self._woken)
        sweeping = self._repeat(self._sweep, every_s=sweep_s, sooner=self._closing)
        self._loops = asyncio.create_task(looking), asyncio.create_task(sweeping)

    def wake(self) -> None:
        """Look at the database now rather than at the next turn."""
        self._woken.set()

    async def close(self) -> None:
        """Stop, and put back what runs."""
        self._closing.set()
        self.wake()
        if self._loops:
            await asyncio.wait(self._loops, timeout=_CLOSING_S)  # so that no claim is made and then forgotten
        for task in (*self._loops, *self._runs.values()):
            if not task.cancelling():
                task.cancel()
        if self._runs:
            await asyncio.wait(tuple(self._runs.values()))

    async def _repeat(self, step: Callable[[], Awaitable[None]], *, every_s: float, sooner: asyncio.Event) -> None:
        while not self._closing.is_set():
            try:
                await step()
            except Unavailable as error:
                _log.warning("deferred_queries_unreachable", detail=error.detail, cause=repr(error.__cause__))
            except Exception:  # noqa: BLE001 - the outermost loop: a fault here must not end it
                _log.exception("deferred_queries_failed")
            with suppress(TimeoutError):
                await asyncio.wait_for(sooner.wait(), every_s)

    async def _sweep(self) -> None:
        await asyncio.to_thread(self._store.sweep)

    async def _look(self) -> None:
        self._woken.clear()
        await self._give_up_lost()
        while len(self._runs) < self._at_once and not self._closing.is_set():
            claim = await asyncio.to_thread(self._store.claim)
            if claim is None:
                break
            run = asyncio.create_task(self._settle(claim))
            self._runs[claim.token] = run
            run.add_done_callback(partial(self._landed, claim.token))

    async def _give_up_lost(self) -> None:
        if not (tokens := tuple(self._runs)):
            return
        if time.monotonic() - self._renewed_at >= self._store.limits.lease.total_seconds() / 3:
            renewed_at = time.monotonic()
            await asyncio.to_thread(self._store.renew, tokens)
            self._renewed_at = renewed_at
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
        seen = Observation(request_id=claim.query_id, transport=Transport.REST, principal=claim.principal)
        with observing(seen):
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
            is_kept = await asyncio.to_thread(self._store.succeed, claim, answer)
            _log.info("deferred_query_succeeded", rows=answer.table.num_rows, is_kept=is_kept)
            return
        is_kept = await asyncio.to_thread(self._store.fail, claim, failure)
        _log.info("deferred_query_failed", code=failure.code, is_kept=is_kept)
