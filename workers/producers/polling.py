"""Asks an API again and again, politely, and sends what is news.

Politely: within its budgets, which hold across restarts, and as late as it asks for. What fails for now is tried again
after a pause that grows and is never the same; what the API refuses is reported, and tried again after a long one.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import parsedate_to_datetime
from itertools import cycle
from typing import Any, Final

import httpx2
import structlog

from outgoing import AddressRefused
from workers.errors import ApiAway, ApiError, ApiRefused, BrokerAway, RejectedMessage
from workers.messages import Message, Outgoing, encode
from workers.producers.ledger import Ledger, utc_now
from workers.producers.sources import Api, Question, Source

_log = structlog.get_logger(__name__)

Send = Callable[[Sequence[Outgoing]], Awaitable[None]]

SHORTEST_PAUSE_S: Final = 2.0
LONGEST_PAUSE_S: Final = 900.0
REFUSED_PAUSE_S: Final = 900.0
LONGEST_RETRY_AFTER_S: Final = 86_400.0

TIMEOUT: Final = httpx2.Timeout(10.0)
MOST_ANSWER_BYTES: Final = 5_000_000

_TOO_MANY: Final = 429
_SERVER_FAULT: Final = 500


@dataclass(slots=True, kw_only=True)
class Tally:
    """What a producer did."""

    asked: int = 0
    failed: int = 0
    sent: int = 0
    repeated: int = 0
    unusable: int = 0


class Poller:
    """One source, asked for ever."""

    def __init__(self, source: Source, api: Api, *, client: httpx2.AsyncClient, ledger: Ledger, send: Send) -> None:
        """Keep the parts; `send` returns when the messages are in the log."""
        self._source = source
        self._api = api
        self._client = client
        self._ledger = ledger
        self._send = send
        self._questions = cycle(source.questions())
        self.tally = Tally()

    async def run(self, stopping: asyncio.Event) -> None:
        """Ask, send, wait, until told to stop."""
        failures = 0
        question = next(self._questions)
        while not stopping.is_set():
            try:
                wait = self._ledger.try_call(self._source.name, self._api.budgets, now=utc_now())
                if not wait:
                    await self.ask(question)
                    failures, question, wait = 0, next(self._questions), self._api.every
            except (ApiError, BrokerAway) as error:
                failures += 1
                self.tally.failed += 1
                wait = self._pause_after(error, failures)
                _log.warning("source_failed", source=self._source.name, reason=error.message, hint=error.hint)
            await _wait(stopping, wait)

    async def ask(self, question: Question) -> None:
        """Ask once, and send what is news.

        Raises
        ------
        ApiError
            There is no answer.
        BrokerAway
            It could not be sent; what of it was news still is.
        """
        self.tally.asked += 1
        answer = await self._get(question)
        fresh: dict[str, tuple[str, Message]] = {}
        for read in self._source.read(answer, question, at=utc_now()):
            if isinstance(read, RejectedMessage):
                self.tally.unusable += 1
                _log.warning("unusable", source=self._source.name, reason=read.message)
                continue
            thing, digest = self._source.news_key(read)
            if self._ledger.is_news(self._source.name, thing, digest):
                fresh[thing] = (digest, read)
            else:
                self.tally.repeated += 1
        if fresh:
            await self._send([encode(message, self._source.topic) for _, message in fresh.values()])
            sent = [(thing, digest) for thing, (digest, _) in fresh.items()]
            self._ledger.note_sent(self._source.name, sent, now=utc_now())
            self.tally.sent += len(sent)

    async def _get(self, question: Question) -> Any:  # noqa: ANN401 - JSON
        name = self._source.name
        headers = {"accept": "application/json"}
        if self._api.key is not None:
            headers[self._source.key_header] = self._api.key.get_secret_value()
        try:
            url = self._api.url.rstrip("/") + question.path
            async with self._client.stream("GET", url, params=dict(question.params), headers=headers) as response:
                body = await _read_within(response, MOST_ANSWER_BYTES)
        except AddressRefused as error:
            raise ApiRefused(f"{name} is not asked: {error}", hint=error.hint) from error
        except httpx2.HTTPError as error:
            raise ApiAway(f"{name} gives no answer: {type(error).__name__}", hint=_AWAY_HINT) from error
        answer = _parsed(body)
        fault = self._source.fault(answer) if answer is not None else None
        if response.is_success and answer is not None and fault is None:
            return answer
        raise _as_fault(name, response, fault)

    def _pause_after(self, error: ApiError | BrokerAway, failures: int) -> timedelta:
        if isinstance(error, ApiRefused):
            return timedelta(seconds=REFUSED_PAUSE_S)
        bound = min(SHORTEST_PAUSE_S * 2 ** min(failures, 10), LONGEST_PAUSE_S)
        pause_s = random.uniform(bound / 2, bound)  # noqa: S311 - so that producers do not come back all at once
        if isinstance(error, ApiAway) and error.retry_after_s is not None:
            pause_s = error.retry_after_s + random.uniform(0, 1)  # noqa: S311 - as above
            self._ledger.pause(self._source.name, until=utc_now() + timedelta(seconds=pause_s))
        return timedelta(seconds=pause_s)


_AWAY_HINT: Final = "It is asked again after a pause; nothing is lost but time"


async def _read_within(response: httpx2.Response, most_bytes: int) -> bytes:
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > most_bytes:
            raise httpx2.ReadError("larger than any answer")
    return bytes(body)


def _parsed(body: bytes) -> Any:  # noqa: ANN401 - JSON
    """The body as JSON; None, if it is none, or cut off."""
    try:
        return json.loads(body, parse_float=Decimal)
    except (ValueError, RecursionError):
        return None


def _as_fault(name: str, response: httpx2.Response, fault: ApiError | None) -> ApiError:
    status = response.status_code
    retry_after_s = _retry_after_s(response.headers.get("retry-after"))
    if status == _TOO_MANY or (isinstance(fault, ApiAway) and retry_after_s is not None):
        return ApiAway(f"{name} has been asked too often", hint=_AWAY_HINT, retry_after_s=retry_after_s)
    if status >= _SERVER_FAULT:
        return ApiAway(f"{name} answers with status {status}", hint=_AWAY_HINT, retry_after_s=retry_after_s)
    if fault is not None:
        return fault
    if response.is_success:
        return ApiAway(f"{name} answers with something that is no JSON", hint=_AWAY_HINT)
    return ApiRefused(f"{name} answers with status {status}", hint=f"Look at the URL and the key of {name}")


def _retry_after_s(header: str | None) -> float | None:
    """Seconds, from a number or a date; None, if there is neither."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds()
        except (TypeError, ValueError):
            return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S) if seconds == seconds else None  # noqa: PLR0124 - not a number


async def _wait(stopping: asyncio.Event, wait: timedelta) -> None:
    try:
        async with asyncio.timeout(wait.total_seconds()):
            await stopping.wait()
    except TimeoutError:
        return
