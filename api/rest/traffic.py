"""The requests in flight: how many may be, and how they end when the service stops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from api.errors import Unavailable
from api.rest.exchange import Ending, Exchange


class Traffic:
    """Knows every exchange in flight, and refuses more than can be worked on at once.

    That bound is far above the places and the queue of `api.admission`; it keeps a flood of requests from taking the
    processor and the memory that the accepted ones need.
    """

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._in_flight: set[Exchange] = set()
        self.is_stopping = False
        self.shed = 0

    @property
    def in_flight(self) -> int:
        """How many exchanges are in flight."""
        return len(self._in_flight)

    @contextmanager
    def passing(self, exchange: Exchange, *, is_vital: bool) -> Iterator[None]:
        """Count the exchange among those in flight for the length of the block.

        Parameters
        ----------
        is_vital
            Whether it has to be served whatever else goes on, as a question after the service's health.

        Raises
        ------
        Unavailable
            As many are in flight as may be.
        """
        if len(self._in_flight) >= self._most and not is_vital:
            self.shed += 1
            raise Unavailable(
                "More requests are under way than can be worked on at once",
                hint="Wait as long as Retry-After says, then ask again.",
                code="overloaded",
                retry_after=timedelta(seconds=1),
            )
        self._in_flight.add(exchange)
        try:
            yield
        finally:
            self._in_flight.discard(exchange)

    def stop_taking(self) -> None:
        """Be not ready from now on, and let each connection end with its next answer; go on answering."""
        self.is_stopping = True

    def cut_off(self) -> int:
        """End what is still in flight; how many that were."""
        for exchange in self._in_flight:
            exchange.abandon(Ending.STOPPING)
        return len(self._in_flight)
