"""Operations as steps: what to send, how long to pause, what to make of the reply.

An operation is a generator that yields a `Call` (and is sent its response, or thrown what httpx raises) or a `Pause`,
and returns its result. Whoever drives it does the waiting: the blocking client
and the asynchronous one are two small drivers over the same operations.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeAlias, TypeVar

import httpx

from clients.sdk.errors import refusal

T = TypeVar("T")

_COME_BACK = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request to send."""

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    json: object = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pause:
    """Seconds to wait."""

    seconds: float


# What is sent into them: the response to a call, None after a pause.
Steps: TypeAlias = Generator[Call | Pause, Any, T]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often to come back where the service says "later" (429, 503) or cannot be connected to.

    `longest_s` bounds one wait: where the service asks for a longer one, such as until midnight, its refusal is
    raised at once.
    """

    count: int = 3
    longest_s: float = 15.0
    first_s: float = 0.25  # where the service does not say; doubled each time

    def pauses(self) -> Iterator[float]:
        """The waits that are allowed, in turn, where the service does not say how long."""
        return (min(self.first_s * 2**turn, self.longest_s) for turn in range(self.count))


NO_RETRIES = Retries(count=0)


def sent(call: Call, retries: Retries) -> Steps[httpx.Response]:
    """The response, which is no refusal; comes back later if the service asks for it.

    Only what certainly did not run is sent again: what was refused, and what could not be connected.
    """
    pauses = retries.pauses()
    while True:
        pause_s = next(pauses, None)
        try:
            response: httpx.Response = yield call
        except (httpx.ConnectError, httpx.ConnectTimeout):
            if pause_s is None:
                raise
            yield Pause(pause_s)
            continue
        if not response.is_error:
            return response
        if response.status_code in _COME_BACK and pause_s is not None:
            asked_s = _retry_after_s(response, otherwise=pause_s)
            if asked_s <= retries.longest_s:
                yield Pause(asked_s)
                continue
        raise refusal(response)


def _retry_after_s(response: httpx.Response, *, otherwise: float) -> float:
    try:
        return max(0.0, float(response.headers["Retry-After"]))
    except (KeyError, ValueError):
        return otherwise
