"""One request and its answer, over a connection that may be slow, stuck or gone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import RequestTimeout, RequestTooLarge, UnsupportedMediaType

# Most answers are out by then, and pay for no watch. Who goes away is noticed well within the second that counts.
_WATCH_AFTER_S = 0.05

# A larger body goes out in pieces, so that a client that stops reading is noticed while there is more to send.
_PIECE_BYTES = 256 * 1024

# Their requests usually have no body, and need not be waited for.
_BODILESS = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})

# An answer is its caller's own: a proxy on the way must not keep it, a browser must not guess what it is.
_DEFAULT_HEADERS = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))

_CLIENT_CLOSED = 499  # nginx's word for it, in the log alone: there is nobody to answer


Header = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How large a body may be and how long it may take to arrive; how long a piece of the answer may go unread."""

    max_body_bytes: int
    body_timeout: timedelta
    send_timeout: timedelta


class Ending(Enum):
    """Why an exchange ended before its answer was out."""

    GONE = "the client went away"
    STALLED = "the client stopped reading"
    STOPPING = "the service stops"
    LATE = "the body did not arrive in time"


class Exchange:
    """Takes the body as a whole, then runs the application for as long as there is a client for its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, patience: Patience) -> None:
        self.scope = scope
        self.fields: Mapping[bytes, bytes] = scope["state"]["fields"]
        self.answer_headers: dict[str, str] = {}  # that every answer gets, whoever makes it
        self.ending: Ending | None = None
        self.status: int | None = None
        self._receive = receive
        self._send = send
        self._patience = patience
        self.body = b""
        self._is_taken = False
        self._is_in_pieces = self._is_going_out = self._is_out = False
        self._task: asyncio.Task[object] | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def is_answered(self) -> bool:
        """Whether an answer has begun to go out."""
        return self.status is not None

    @property
    def outcome(self) -> int:
        """The status for the log."""
        return _CLIENT_CLOSED if self.ending in (Ending.GONE, Ending.STALLED) else self.status or 500

    async def take_body(self) -> None:
        """Return when the body is here, or the client gone.

        Raises
        ------
        RequestTooLarge
            It is larger than allowed, or says that it will be.
        RequestTimeout
            It does not arrive in time.
        UnsupportedMediaType
            It is packed.
        """
        announced = self.fields.get(b"content-length", b"")
        is_chunked = b"transfer-encoding" in self.fields
        if not is_chunked and announced in (b"", b"0") and self.scope["method"] in _BODILESS:
            return
        self.answer_headers["Connection"] = "close"  # for an answer that does not wait for all of the body
        if announced.isdigit() and int(announced) > self._patience.max_body_bytes:
            raise self._too_large()
        if self.fields.get(b"content-encoding", b"identity").lower() != b"identity":
            # A packed MB may hold a thousand, and a query is small.
            raise UnsupportedMediaType("The body is packed", hint="Send it as it is, without Content-Encoding.")
        self._task = asyncio.current_task()
        seconds = self._patience.body_timeout.total_seconds()
        timer = asyncio.get_running_loop().call_later(seconds, self.abandon, Ending.LATE)
        try:
            self.body = await self._whole_body()
        except asyncio.CancelledError:
            if not self._is_our_doing():
                raise
            self.ending = None  # as there is somebody to tell
            raise RequestTimeout(
                f"The body did not arrive within {seconds:g} s", hint="Send it at once.", code="body_timeout"
            ) from None
        finally:
            timer.cancel()
        del self.answer_headers["Connection"]

    async def run(self, app: ASGIApp) -> None:
        """Run the application until it has answered, or there is nobody left to answer; `ending` says which."""
        self._task = asyncio.current_task()
        timer = asyncio.get_running_loop().call_later(_WATCH_AFTER_S, self._begin_watch)
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            if not self._is_our_doing():
                raise
        finally:
            timer.cancel()
            if self._watch is not None:
                self._watch.cancel()
            self._task = self._watch = None  # a cancelled task knows where it was, which is here

    def _is_our_doing(self) -> bool:
        """Whether we have cancelled the task, and nobody else has as well."""
        return self.ending is not None and not (self._task and self._task.uncancel())

    def abandon(self, why: Ending) -> None:
        """Cancel what goes on, unless the answer is out."""
        if self._task is None or self.ending is not None or self._is_out:
            return
        self.ending = why
        self._task.cancel()

    async def receive(self) -> Message:
        """The body, which is here; after that, the end of the connection."""
        if not self._is_taken:
            self._is_taken = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        self._begin_watch()
        if self._watch is not None:
            await asyncio.wait((self._watch,))
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Pass one message of the answer on; returns when the client has room for more."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            await self._send({**message, "headers": self._completed(message["headers"])})
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        while len(body) > _PIECE_BYTES:
            await self._put({"type": "http.response.body", "body": bytes(body[:_PIECE_BYTES]), "more_body": True})
            body = memoryview(body)[_PIECE_BYTES:]
        self._is_going_out = not more
        last: Message = {"type": "http.response.body", "body": bytes(body), "more_body": more}
        # The server takes an answer of one piece at once, and keeps it for as long as its client reads.
        await (self._put(last) if more or self._is_in_pieces else self._send(last))
        self._is_out = not more

    def _completed(self, headers: Iterable[Header]) -> list[Header]:
        completed = list(headers)
        if self.answer_headers:
            own = {name.lower().encode(): value.encode() for name, value in self.answer_headers.items()}
            completed = [*(header for header in completed if header[0] not in own), *own.items()]
        named = {name for name, _ in completed}
        return completed + [header for header in _DEFAULT_HEADERS if header[0] not in named]

    async def _put(self, message: Message) -> None:
        self._is_in_pieces = True
        seconds = self._patience.send_timeout.total_seconds()
        timer = asyncio.get_running_loop().call_later(seconds, self.abandon, Ending.STALLED)
        try:
            await self._send(message)
        finally:
            timer.cancel()

    async def _whole_body(self) -> bytes:
        parts: list[bytes] = []
        taken = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.ending = Ending.GONE
                return b""
            parts.append(message.get("body", b""))
            taken += len(parts[-1])
            if taken > self._patience.max_body_bytes:
                raise self._too_large()
            if not message.get("more_body", False):
                return b"".join(parts)

    def _begin_watch(self) -> None:
        if self._watch is None:
            self._watch = asyncio.create_task(self._until_gone())

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        # A client may well leave as soon as it has all of its answer, before we know that it has.
        if not self._is_going_out:
            self.abandon(Ending.GONE)

    def _too_large(self) -> RequestTooLarge:
        return RequestTooLarge(
            f"The body is larger than {self._patience.max_body_bytes} bytes", hint="Split the query."
        )
