"""Who may run in the warehouse now, who waits for it, and who is sent away at once.

A machine that takes on more than it can do answers nobody in time. So runs have places; who finds none waits in a
queue that is bounded in length and in time; who would only wait in vain is refused before it waits.

A long queue serves a burst, and harms when it never empties: then everybody waits, and no more is answered for it. So
once it was full, or one principal's share of it, no more wait than there are places, and of each principal its part of
that, until nobody has been refused for a while: who waits then waits for little longer than a run. Room in a full queue
goes to who has the fewest queries that run or wait: whoever asks for little is answered while others ask for too much.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic

from api.errors import TooManyRequests, Unavailable

_CALM_RUNS, _SHORTEST_CALM_S = 2, 1.0  # without a refusal, after which the queue may be long again
_WEIGHT = 0.1  # of the last run in the typical time of a run: ten runs ago counts for a third
_SHORTEST_RETRY_S, _LONGEST_RETRY_S = 1.0, 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """How many may wait in all, how many of them for one principal, and for how long."""

    total: int
    per_principal: int
    timeout: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionCounters:
    """Runs that have a place and that wait for one now; since the start, those let in, refused, and timed out waiting.

    `shed` are those refused at once, as the service was overloaded or the principal had its share waiting already.
    """

    running: int
    waiting: int
    admitted: int
    shed: int
    timed_out: int


class Admission:
    """Places for runs, given in turn to the principals that wait, and to each in the order of its asking.

    Everything belongs to the event loop's thread.
    """

    def __init__(self, *, places: int, queue: QueueLimits) -> None:
        self._places = places
        self._limits = queue
        self._free = places
        self._running: Counter[str] = Counter()  # by principal
        self._queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()  # whose turn is next, first
        self._overloaded_until = 0.0  # on the clock
        self._typical_s = 0.0
        self._admitted = self._shed = self._timed_out = 0

    @asynccontextmanager
    async def place(self, principal_id: str) -> AsyncIterator[None]:
        """A place for the length of the block; waits for it.

        Raises
        ------
        TooManyRequests
            The principal has as many waiting as it may.
        Unavailable
            Too many wait, or the wait was too long or would be.
        """
        if self._free:  # so nobody waits
            self._free -= 1
        else:
            self._refuse_what_is_too_much(principal_id)
            await self._turn(principal_id)
        self._admitted += 1
        self._running[principal_id] += 1
        started = monotonic()
        try:
            yield
        finally:
            self._learn(monotonic() - started)
            self._end_run(principal_id)

    def counters(self) -> AdmissionCounters:
        """The counters as they are now."""
        return AdmissionCounters(
            running=self._places - self._free,
            waiting=self._waiting(),
            admitted=self._admitted,
            shed=self._shed,
            timed_out=self._timed_out,
        )

    def _refuse_what_is_too_much(self, principal_id: str) -> None:
        own, waiting = len(self._queues.get(principal_id, ())), self._waiting()
        total, share = self._limits.total, self._limits.per_principal
        if monotonic() < self._overloaded_until:
            contenders = len({principal_id, *self._running, *self._queues})
            total, share = min(self._places, total), min(max(self._places // contenders, 1), share)
        wait_s = self._expected_wait_s(principal_id)
        retry_after = timedelta(seconds=min(max(wait_s, _SHORTEST_RETRY_S), _LONGEST_RETRY_S))
        if own >= share:
            self._note_refusal()
            raise TooManyRequests(
                f"{own} of your queries wait already",
                hint="Send fewer at once, or wait as long as Retry-After says.",
                code="too_many_queries",
                retry_after=retry_after,
            )
        is_in_vain = wait_s > self._limits.timeout.total_seconds()
        if is_in_vain or (waiting >= total and not self._displaces_another(principal_id)):
            self._note_refusal()
            raise _overloaded(retry_after)

    def _note_refusal(self) -> None:
        self._shed += 1
        self._stay_short()

    def _stay_short(self) -> None:
        """Keep the queue short for a while from now on."""
        self._overloaded_until = monotonic() + max(self._typical_s * _CALM_RUNS, _SHORTEST_CALM_S)

    def _displaces_another(self, principal_id: str) -> bool:
        """Whether the newest that waits of whoever asks for the most gave way, as that one has more even without it."""
        greediest = max(self._queues, key=self._under_way, default=principal_id)
        if self._under_way(greediest) <= self._under_way(principal_id) + 1:
            return False
        self._stay_short()
        self._queues[greediest].pop().set_exception(_overloaded(timedelta(seconds=_SHORTEST_RETRY_S)))
        self._forget_if_none_waits(greediest)
        return True

    def _under_way(self, principal_id: str) -> int:
        """How many of the principal's queries run or wait."""
        return self._running[principal_id] + len(self._queues.get(principal_id, ()))

    async def _turn(self, principal_id: str) -> None:
        """Return with a place."""
        handed = asyncio.get_running_loop().create_future()
        self._queues.setdefault(principal_id, deque()).append(handed)
        is_in = False
        try:
            async with asyncio.timeout(self._limits.timeout.total_seconds()):
                await handed
            is_in = True
        except Unavailable:  # it gave way; had its caller left before it heard of that, nobody was refused
            self._shed += 1
            raise
        except TimeoutError as error:
            self._timed_out += 1
            raise Unavailable(
                f"The query waited {self._limits.timeout.total_seconds():g} s for its turn",
                hint="Wait as long as Retry-After says, then ask again.",
                code="queue_timeout",
                retry_after=timedelta(seconds=_SHORTEST_RETRY_S),
            ) from error
        finally:
            if not is_in:
                self._withdraw(principal_id, handed)

    def _withdraw(self, principal_id: str, handed: asyncio.Future[None]) -> None:
        if handed.done() and not handed.cancelled():
            if handed.exception() is None:  # its turn came in the instant in which it gave up
                self._pass_on()
        elif handed in (queue := self._queues.get(principal_id, deque())):
            queue.remove(handed)
            self._forget_if_none_waits(principal_id)

    def _forget_if_none_waits(self, principal_id: str) -> None:
        if not self._queues[principal_id]:
            del self._queues[principal_id]

    def _end_run(self, principal_id: str) -> None:
        self._running[principal_id] -= 1
        if not self._running[principal_id]:
            del self._running[principal_id]
        self._pass_on()

    def _pass_on(self) -> None:
        """Give the place to whose turn it is, or keep it free."""
        while self._queues:
            principal_id, queue = next(iter(self._queues.items()))
            handed = queue.popleft()
            self._queues.move_to_end(principal_id)
            self._forget_if_none_waits(principal_id)
            if not handed.done():  # else it was cancelled, and has not been withdrawn yet
                handed.set_result(None)
                return
        self._free += 1

    def _waiting(self) -> int:
        return sum(map(len, self._queues.values()))

    def _expected_wait_s(self, principal_id: str) -> float:
        """How long one more query of the principal would wait: as the others' turns come between its own."""
        turns = len(self._queues.get(principal_id, ())) + 1
        before = sum(min(len(queue), turns) for name, queue in self._queues.items() if name != principal_id)
        return (before + turns) * self._typical_s / self._places

    def _learn(self, run_s: float) -> None:
        self._typical_s += (run_s - self._typical_s) * (_WEIGHT if self._typical_s else 1)


def _overloaded(retry_after: timedelta) -> Unavailable:
    return Unavailable(
        "More is asked than can be answered now",
        hint="Wait as long as Retry-After says, then ask again.",
        code="overloaded",
        retry_after=retry_after,
    )
