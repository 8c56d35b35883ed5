"""Results of queries by key: each is computed once, and kept.

The key says all that a result depends on: publication, plan, values and row filters. So what is kept under it is
right for ever, and nothing here needs to be told of a new publication.

Three things answer before the query runs: this process's memory, a run of the same key that is under way (here or in
another replica), and Redis where there is one.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

import pyarrow as pa

from api.errors import Unavailable
from api.recent import Recent
from api.redis_tier import RedisTier, Turn

Run = Callable[[], Awaitable[pa.Table]]

# Some thousand answers of usual size (10 to 50 KB); small beside the 512 MB of the engine.
_MEMORY_BYTES = 64 * 2**20

# One answer may take an eighth of the memory; else a single export would push out everything else.
_LARGEST_SHARE = 8

_REMEMBERED_KEYS = 4_096  # that memory let go, so that the next miss can say why; some 0.6 MB

# What a table takes beside its rows (key, schema, Python objects); without it, empty answers would pile up for ever.
_ENTRY_BYTES = 2_048


class Origin(StrEnum):
    """Where a result came from."""

    HIT = "hit"  # kept since an earlier run
    MISS = "miss"  # this caller's own run
    SHARED = "shared"  # a run that was under way for another caller, here or in another replica
    BYPASS = "bypass"  # this caller's own run, whatever was kept


class Reason(StrEnum):
    """Why a result came from its origin; the last three are those of a miss."""

    KEPT = "kept"
    UNDER_WAY = "under_way"
    ASKED_ANEW = "asked_anew"
    FIRST_TIME = "first_time"  # as far as this process remembers: the key names the publication and the caller's rows
    DROPPED = "dropped"  # was kept, until others took its room
    TOO_LARGE = "too_large"  # ran before, and takes more room than one result may


_REASONS = {Origin.HIT: Reason.KEPT, Origin.SHARED: Reason.UNDER_WAY, Origin.BYPASS: Reason.ASKED_ANEW}


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedResult:
    """A table that may be shared with other callers (Arrow tables cannot be changed), and its origin.

    `missed` is why nothing was kept, where nothing was.
    """

    table: pa.Table
    origin: Origin
    missed: Reason = Reason.FIRST_TIME

    @property
    def reason(self) -> Reason:
        """Why it came from there."""
        return _REASONS.get(self.origin, self.missed)


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheCounters:
    """Answers by origin and Redis operations that failed, since the start; and what memory holds now."""

    hits: int
    misses: int
    shared: int
    bypasses: int
    redis_errors: int
    entries: int
    entries_bytes: int


class ResultCache:
    """Answers a key from memory, from a run under way, from Redis, or by running; in that order.

    Everything belongs to the event loop's thread. Redis may be away, slow or flushed: that costs time, never an answer.
    """

    def __init__(self, *, memory_bytes: int = _MEMORY_BYTES, redis: RedisTier | None = None) -> None:
        self._recent = _RecentTables(memory_bytes)
        self._redis = redis
        self._flights: dict[str, _Flight] = {}
        self._airborne: set[asyncio.Task[CachedResult]] = set()  # those that a refresh overtook, too
        self._answers: Counter[Origin] = Counter()

    async def get_or_run(self, key: str, run: Run) -> CachedResult:
        """What is kept under the key, or else the result of `run`, which is kept.

        Callers that ask for the same key meanwhile share one run. It goes on while one of them waits, so it may
        outlive the caller that began it: `run` itself must hold what it needs, a lease for instance. A caller that is
        cancelled as the last one returns when the run has stopped. What `run` raises reaches every caller and is not
        kept.

        Raises
        ------
        Unavailable
            The cache was closed while the query ran.
        """
        if (table := self._recent.get(key)) is not None:
            return self._counted(CachedResult(table=table, origin=Origin.HIT))
        if (flight := self._flights.get(key)) is not None:
            return await self._follow(flight)
        flight = _Flight(key=key, is_refresh=False)
        return await self._lead(flight, self._read_or_run(flight, run))

    def kept(self, key: str) -> CachedResult | None:
        """What memory keeps under the key; None where it keeps nothing."""
        table = self._recent.get(key)
        return None if table is None else self._counted(CachedResult(table=table, origin=Origin.HIT))

    async def refresh(self, key: str, run: Run) -> CachedResult:
        """The result of `run`, or of another refresh under way, whatever is kept; it is kept in its place.

        Otherwise as `get_or_run`. A run that began before the refresh answers its own callers and is not kept.
        """
        if (flight := self._flights.get(key)) is not None and flight.is_refresh:
            return await self._follow(flight)
        flight = _Flight(key=key, is_refresh=True)
        return await self._lead(flight, self._run_anew(flight, run))

    def count_repeat(self) -> None:
        """Count an answer whose rows its caller had kept."""
        self._answers[Origin.HIT] += 1

    def counters(self) -> CacheCounters:
        """The counters as they are now."""
        return CacheCounters(
            hits=self._answers[Origin.HIT],
            misses=self._answers[Origin.MISS],
            shared=self._answers[Origin.SHARED],
            bypasses=self._answers[Origin.BYPASS],
            redis_errors=self._redis.errors if self._redis else 0,
            entries=len(self._recent),
            entries_bytes=self._recent.held_bytes,
        )

    async def close(self) -> None:
        """Stop every run under way and let Redis go. Idempotent; afterwards memory alone serves."""
        for task in tuple(self._airborne):
            task.cancel()
        if self._airborne:
            await asyncio.wait(tuple(self._airborne))
        if self._redis is not None:
            await self._redis.close()

    async def _lead(self, flight: _Flight, trip: Coroutine[None, None, CachedResult]) -> CachedResult:
        flight.task = asyncio.create_task(trip)
        flight.task.add_done_callback(lambda _: self._land(flight))
        self._airborne.add(flight.task)
        self._flights[flight.key] = flight
        return self._counted(await self._landed(flight))

    async def _follow(self, flight: _Flight) -> CachedResult:
        result = await self._landed(flight)
        origin = Origin.HIT if result.origin is Origin.HIT else Origin.SHARED
        return self._counted(CachedResult(table=result.table, origin=origin))

    async def _landed(self, flight: _Flight) -> CachedResult:
        flight.waiting += 1
        try:
            await asyncio.wait((flight.task,))
        except asyncio.CancelledError:
            flight.waiting -= 1
            if flight.waiting == 0:
                self._ground(flight)  # at once, so that nobody joins a run that is being stopped
                flight.task.cancel()
                await asyncio.wait((flight.task,))
            raise
        if flight.task.cancelled():
            raise Unavailable("The service is stopping", hint="Ask again.", retry_after=timedelta(seconds=1))
        return flight.task.result()

    def _land(self, flight: _Flight) -> None:
        self._airborne.discard(flight.task)
        self._ground(flight)
        if not flight.task.cancelled():
            flight.task.exception()  # taken, should nobody be left to ask for it

    def _ground(self, flight: _Flight) -> None:
        if self._is_current(flight):
            del self._flights[flight.key]

    def _is_current(self, flight: _Flight) -> bool:
        return self._flights.get(flight.key) is flight

    async def _read_or_run(self, flight: _Flight, run: Run) -> CachedResult:
        missed = self._recent.why_missing(flight.key)
        if self._redis is None:
            return CachedResult(table=self._kept(flight, await run()), origin=Origin.MISS, missed=missed)
        async with self._redis.turn(flight.key) as turn:
            if turn.found is not None:
                origin = Origin.SHARED if turn.has_waited else Origin.HIT
                return CachedResult(table=self._kept(flight, turn.found), origin=origin)
            table = self._kept(flight, await run())
            if self._is_current(flight):
                await self._redis.store(turn, table)
            return CachedResult(table=table, origin=Origin.MISS, missed=missed)

    async def _run_anew(self, flight: _Flight, run: Run) -> CachedResult:
        table = self._kept(flight, await run())
        if self._redis is not None:
            await self._redis.store(Turn(flight.key), table)
        return CachedResult(table=table, origin=Origin.BYPASS)

    def _kept(self, flight: _Flight, table: pa.Table) -> pa.Table:
        if self._is_current(flight):
            self._recent.put(flight.key, table)
        return table

    def _counted(self, result: CachedResult) -> CachedResult:
        self._answers[result.origin] += 1
        return result


class _Flight:
    """A run under way, and how many callers wait for it."""

    task: asyncio.Task[CachedResult]

    def __init__(self, *, key: str, is_refresh: bool) -> None:
        self.key = key
        self.is_refresh = is_refresh
        self.waiting = 0


class _RecentTables:
    """The tables used last, within a budget of bytes, and why others are not among them."""

    def __init__(self, budget_bytes: int) -> None:
        self._largest_bytes = budget_bytes // _LARGEST_SHARE
        self._tables: Recent[str, pa.Table] = Recent(budget_bytes)
        self._gone: OrderedDict[str, Reason] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tables)

    @property
    def held_bytes(self) -> int:
        """How much the tables take."""
        return self._tables.held_bytes

    def get(self, key: str) -> pa.Table | None:
        """The table, which becomes the one used last."""
        return self._tables.get(key)

    def put(self, key: str, table: pa.Table) -> None:
        """Keep the table in place of an earlier one, and drop those used longest ago until all fit."""
        # Not `nbytes`, which takes thirty times as long to leave out what a slice does not show: these are whole.
        size_bytes = int(table.get_total_buffer_size()) + _ENTRY_BYTES
        if size_bytes > self._largest_bytes:
            self._tables.drop(key)
            self._remember(key, Reason.TOO_LARGE)
            return
        self._gone.pop(key, None)
        for dropped in self._tables.put(key, table, size_bytes=size_bytes):
            self._remember(dropped, Reason.DROPPED)

    def why_missing(self, key: str) -> Reason:
        """Why there is no table under the key."""
        return self._gone.get(key, Reason.FIRST_TIME)

    def _remember(self, key: str, reason: Reason) -> None:
        self._gone[key] = reason
        self._gone.move_to_end(key)
        if len(self._gone) > _REMEMBERED_KEYS:
            self._gone.popitem(last=False)
