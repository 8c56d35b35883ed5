"""How much a caller may ask: requests a minute and rows a day, as its role says."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta

from api.errors import TooManyRequests
from api.policy import Principal, Role
from api.tallies import Clock, RedisCounts, SharedTally

_MINUTE = timedelta(minutes=1)
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """The requests that a caller may make in this minute, those that are left, and how long it lasts yet."""

    limit: int
    remaining: int
    resets_in: timedelta


class Allowances:
    """What callers have used, over all replicas where there is a Redis.

    A limit is per principal, not per role: two keys of one role have the allowance each.

    Parameters
    ----------
    redis
        Where replicas meet; None counts in this process alone.
    clock
        Seconds since 1970.
    """

    def __init__(self, *, redis: RedisCounts | None = None, clock: Clock = time.time) -> None:
        self._redis = redis
        self._requests = SharedTally("requests", _MINUTE, redis=redis, clock=clock)
        self._rows = SharedTally("rows", _DAY, redis=redis, clock=clock)

    async def take_request(self, principal: Principal, role: Role) -> Allowance | None:
        """What is left after this request; None where the role has no limit.

        Raises
        ------
        TooManyRequests
            Nothing was left.
        """
        limit = role.requests_per_minute
        if limit is None:
            return None
        used, resets_in = await self._requests.add(principal.principal_id), self._requests.ends_in
        if used > limit:
            raise TooManyRequests(
                f"{limit} requests a minute are allowed",
                hint="Wait as long as Retry-After says, or ask for more in one query.",
                code="rate_limited",
                retry_after=resets_in,
                limit=limit,
            )
        return Allowance(limit=limit, remaining=limit - used, resets_in=resets_in)

    async def require_rows(self, principal: Principal, role: Role) -> None:
        """Refuse a query whose caller has had its rows of the day; raises `TooManyRequests`.

        The answer that passes the quota is still whole, and so are those that were under way.
        """
        if role.rows_per_day is None:
            return
        if await self._rows.count(principal.principal_id) >= role.rows_per_day:
            raise TooManyRequests(
                f"{role.rows_per_day} rows a day are allowed, and were answered",
                hint="Ask again after midnight UTC, or ask whoever keeps the policy file for more.",
                code="row_quota_used",
                retry_after=self._rows.ends_in,
            )

    async def count_rows(self, principal: Principal, role: Role, rows: int) -> None:
        """Take the rows of an answer from the caller's quota."""
        if role.rows_per_day is not None and rows > 0:
            await self._rows.add(principal.principal_id, rows)

    async def close(self) -> None:
        """Let Redis go. Idempotent; afterwards this process counts for itself."""
        if self._redis is not None:
            await self._redis.close()
