"""Counts by name in windows of time: in this process, and in Redis where replicas count together.

Windows lie end to end since 1970, so a minute begins at :00 and a day at midnight, UTC, for every name and replica.

    insight:<purpose>:<digest of the name>:<number of the window>    a count
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from hashlib import blake2b

from limits.aio.storage import RedisStorage

from api.redis_link import PATIENCE, RedisLink

Clock = Callable[[], float]

_NAMES = 100_000  # some 20 MB; a caller has one name in each tally


class Tally:
    """Counts in this process. A new window begins at nought.

    The memory storage of `limits` looks at every name on every count: 1 ms a request with 10,000 callers.

    Parameters
    ----------
    window
        How long a window lasts.
    most_names
        How many names are remembered; the one whose window began first makes room.
    clock
        Seconds since 1970.
    """

    def __init__(self, window: timedelta, *, most_names: int = _NAMES, clock: Clock = time.time) -> None:
        self.window = window
        self._most_names = most_names
        self._clock = clock
        self._counts: dict[str, tuple[int, int]] = {}

    @property
    def window_number(self) -> int:
        """Which window it is now."""
        return int(self._clock() // self.window.total_seconds())

    @property
    def ends_in(self) -> timedelta:
        """How long the window lasts yet: a whole number of seconds, one at least."""
        length_s = self.window.total_seconds()
        return timedelta(seconds=math.ceil(length_s - self._clock() % length_s))

    def count(self, name: str) -> int:
        """What was counted under the name in this window."""
        number, count = self._counts.get(name, (0, 0))
        return count if number == self.window_number else 0

    def add(self, name: str, amount: int = 1) -> int:
        """The count with the amount; a negative amount takes back, never below nought."""
        before = self.count(name)
        if before == 0:
            self._make_room(name)
        count = max(0, before + amount)
        self._counts[name] = (self.window_number, count)
        return count

    def _make_room(self, name: str) -> None:
        """Put the name last in the order in which names make room."""
        self._counts.pop(name, None)
        while len(self._counts) >= self._most_names:
            del self._counts[next(iter(self._counts))]


class RedisCounts:
    """Counts in one Redis, for all tallies of this process; None where it does not answer."""

    def __init__(self, url: str, *, patience: timedelta = PATIENCE) -> None:
        self._link = RedisLink(url, purpose="allowance", probe=self._probe, patience=patience)
        self._storage = RedisStorage(
            "async+redis://",  # unused: the pool knows the address
            implementation="redispy",
            key_prefix="insight",
            connection_pool=self._link.client.connection_pool,  # type: ignore[arg-type] # as its docstring allows
        )

    async def count(self, key: str) -> int | None:
        """What is counted under the key."""
        return await self._number(lambda: self._storage.get(key))

    async def add(self, key: str, amount: int, *, keep_for: timedelta) -> int | None:
        """The count with the amount, forgotten `keep_for` after its first."""
        keep_s = int(keep_for.total_seconds())
        return await self._number(lambda: self._storage.incr(key, keep_s, amount))

    async def close(self) -> None:
        """Close the connections. Idempotent; afterwards there is no answer."""
        await self._link.close()

    async def _number(self, command: Callable[[], Awaitable[int]]) -> int | None:
        reply = await self._link.ask(command)
        return reply if isinstance(reply, int) else None

    async def _probe(self) -> object:
        return await self._storage.incr("probe", 1, 1)


class SharedTally:
    """Counts that replicas share through Redis. Where it is away each goes on from what it counted itself.

    So callers may then have more, as they may after Redis was emptied.

    Parameters
    ----------
    purpose
        What is counted, in one word.
    redis
        Where replicas meet; None counts in this process alone.
    """

    def __init__(
        self, purpose: str, window: timedelta, *, redis: RedisCounts | None = None, clock: Clock = time.time
    ) -> None:
        self._purpose = purpose
        self._own = Tally(window, clock=clock)
        self._redis = redis

    @property
    def ends_in(self) -> timedelta:
        """As `Tally.ends_in`."""
        return self._own.ends_in

    async def count(self, name: str) -> int:
        """What was counted under the name in this window."""
        shared = await self._redis.count(self._key(name)) if self._redis else None
        return self._own.count(name) if shared is None else shared

    async def add(self, name: str, amount: int = 1) -> int:
        """The count with the amount."""
        own = self._own.add(name, amount)
        if self._redis is None:
            return own
        # Twice the window, as clocks of replicas differ.
        shared = await self._redis.add(self._key(name), amount, keep_for=2 * self._own.window)
        return own if shared is None else shared

    def _key(self, name: str) -> str:
        # A digest, because Redis shows names in its logs, and a name may be somebody's e-mail address.
        digest = blake2b(name.encode(), digest_size=16).hexdigest()
        return f"{self._purpose}:{digest}:{self._own.window_number}"
