"""One Redis that may be away, slow, full or not a Redis at all: whatever is asked of it is answered, or absent soon."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

_log = structlog.get_logger(__name__)

# A healthy Redis answers in under 1 ms. At 50 queries/s, a few wait this long before a silent Redis is left alone: once
# one has waited for longer than is likely, others do not begin to. A machine without a free core misses it now and
# then, and does without Redis for a second.
PATIENCE = timedelta(milliseconds=150)
_LIKELY = 1 / 3  # of that
_FAILURES = 3  # in a row; one alone may be a dropped connection
_PROBE_EVERY_S = 1.0

_REASONS = 10  # that are logged at most; a server that is no Redis may find a new one each time

_CONNECTIONS = 16  # each is busy for well under 1 ms


class RedisLink:
    """Commands to one Redis. Nothing here raises: what fails is counted and answered as an absence.

    After some failures in a row Redis is left alone, and a task asks every second whether it is back; so an outage
    delays a handful of requests and no more, and is logged once at either end.

    Parameters
    ----------
    url
        `redis://`, `rediss://` or `unix://`, as redis-py reads it.
    purpose
        What the log's events are called by: `<purpose>_redis_lost`.
    probe
        The command that its user needs most of, so that none fails at once when Redis is said to be back.
    patience
        How long one command may take, a new connection included.
    """

    def __init__(
        self, url: str, *, purpose: str, probe: Callable[[], Awaitable[object]], patience: timedelta = PATIENCE
    ) -> None:
        self._patience_s = patience.total_seconds()
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=self._patience_s,
            socket_timeout=self._patience_s,
            socket_connect_timeout=self._patience_s,
            retry=Retry(NoBackoff(), 0),  # redis-py's own three retries would treble an outage's delay
            protocol=2,
            driver_info=None,  # with protocol 2 this leaves a new connection without a round trip of its own
        )
        self.client = Redis.from_pool(pool)
        self._purpose = purpose
        self._probe = probe
        self._failures = 0
        self._refusals: set[str] = set()
        self._outage: asyncio.Task[None] | None = None
        self._asked_at: dict[object, float] = {}  # of the commands in flight, the oldest first
        self._is_closed = False
        self.errors = 0

    @property
    def is_away(self) -> bool:
        """Whether nothing is asked of Redis now."""
        return self._is_closed or self._outage is not None or self._is_silent()

    async def ask(self, command: Callable[[], Awaitable[object]]) -> object:
        """The reply, never None; or None if there is none."""
        return None if self.is_away else await self._reply(command)

    async def close(self) -> None:
        """Close the connections. Idempotent; afterwards everything is absent."""
        self._is_closed = True
        if self._outage is not None:
            self._outage.cancel()
            await asyncio.wait((self._outage,))
        await self.client.aclose()

    def _is_silent(self) -> bool:
        oldest = next(iter(self._asked_at.values()), None)
        return oldest is not None and time.monotonic() - oldest > self._patience_s * _LIKELY

    async def _reply(self, command: Callable[[], Awaitable[object]]) -> object:
        asked = object()
        self._asked_at[asked] = time.monotonic()
        try:
            async with asyncio.timeout(self._patience_s):
                reply = await command()
        # RuntimeError: uvloop, on a transport closed under a command. ValueError: redis-py, where no Redis talks.
        except (RedisError, OSError, RuntimeError, ValueError) as error:
            self.errors += 1
            self._failures += 1
            self._report_refusal(error)
            if self._failures >= _FAILURES and self._outage is None:
                _log.warning(f"{self._purpose}_redis_lost", reason=f"{error!r:.200}")
                self._outage = asyncio.create_task(self._wait_until_back())
            return None
        finally:
            del self._asked_at[asked]
        self._failures = 0
        return reply

    def _report_refusal(self, error: Exception) -> None:
        """Log what a Redis that is there refuses, once for each reason: a full one goes on answering what it has."""
        is_new = str(error) not in self._refusals and len(self._refusals) < _REASONS
        if isinstance(error, ResponseError) and is_new:
            self._refusals.add(str(error))
            _log.warning(f"{self._purpose}_redis_refused", reason=f"{error!r:.200}")

    async def _wait_until_back(self) -> None:
        """Return when Redis answers the probe again."""
        lost_at = time.monotonic()
        while True:
            await asyncio.sleep(_PROBE_EVERY_S)
            if await self._reply(self._probe) is not None:
                break
        self._outage = None
        _log.info(f"{self._purpose}_redis_back", after_s=round(time.monotonic() - lost_at, 1))
