"""Around every request: its id, its limits, its headers, its record. Plain ASGI, as it runs for each request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import SemanticLayerError, Unavailable
from api.observation import observing, unique_id
from api.redaction import redacted
from api.rest import problems
from api.rest.exchange import Ending, Exchange, Patience
from api.rest.recording import Recording
from api.rest.repeats import Repeats
from api.rest.traffic import Traffic

# A caller's id ends up in the log and in a header, so it has to be harmless.
_SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

_VITAL = frozenset({"/healthz", "/readyz", "/metrics"})


class Envelope:
    """Gives a request its id, refuses what is too large, slow or much, serves HEAD, has the outcome recorded."""

    def __init__(self, app: ASGIApp, *, traffic: Traffic, patience: Patience) -> None:
        self._app = app
        self._repeats = Repeats()
        self._traffic = traffic
        self._patience = patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        fields = state["fields"] = dict(reversed(scope["headers"]))  # of two of one name the first, as everywhere
        state["request_id"] = _request_id(fields)
        recording = Recording(scope, receive, send)
        with observing(recording.observation), recording:
            answer: Send = recording.send
            if scope["method"] == "HEAD":  # as GET, without the body (RFC 9110, 9.3.2)
                scope["method"], answer = "GET", _without_body(answer)
            exchange = Exchange(scope, receive, answer, patience=self._patience)
            state["exchange"] = exchange
            try:
                await self._serve(exchange)
            finally:
                # They know each other, and cycles are looked for rarely; until the server's part of the request is
                # freed, a connection whose body was not read may stay open.
                del state["exchange"]

    async def _serve(self, exchange: Exchange) -> None:
        try:
            await exchange.take_body()
            if self._traffic.is_stopping:
                exchange.answer_headers["Connection"] = "close"
            if exchange.ending is None and not await self._repeats.answer(exchange):
                with self._traffic.passing(exchange, is_vital=exchange.scope["path"] in _VITAL):
                    await exchange.run(self._app)
                self._repeats.keep(exchange)
        except SemanticLayerError as error:
            await _refuse(exchange, error)
        if exchange.ending is Ending.STOPPING and not exchange.is_answered:
            await _refuse(exchange, _stopping())


async def _refuse(exchange: Exchange, error: SemanticLayerError) -> None:
    answer = problems.response(Request(exchange.scope), error)
    await answer(exchange.scope, exchange.receive, exchange.send)


def _stopping() -> Unavailable:
    return Unavailable("The service is stopping", hint="Ask again.", code="stopping", retry_after=timedelta(seconds=1))


def _without_body(send: Send) -> Send:
    async def send_head(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return send_head


def _request_id(fields: Mapping[bytes, bytes]) -> str:
    given = fields.get(b"x-request-id", b"").decode("latin-1")
    return given if given and _SAFE_ID.fullmatch(given) and redacted(given) == given else unique_id()
