"""Around every request: its id, its size limit, its headers, its line in the log. Plain ASGI, as it runs for each."""

from __future__ import annotations

import re
import time
import uuid

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import RequestTooLarge, SemanticLayerError, UnsupportedMediaType
from api.rest import problems

_log = structlog.get_logger(__name__)

# A caller's id ends up in the log and in a header, so it has to be harmless.
_SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


# An answer is its caller's own: a proxy on the way must not keep it, a browser must not guess what it is.
_DEFAULT_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class Envelope:
    """Gives a request its id, refuses a body that is too large or packed, serves HEAD, and logs the outcome."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(Headers(scope=scope))
        scope.setdefault("state", {})["request_id"] = request_id
        started, status = time.perf_counter(), 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                for name, value in _DEFAULT_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                if scope["method"] == "HEAD":  # as GET, without the body (RFC 9110, 9.3.2)
                    await self._limited({**scope, "method": "GET"}, receive, _without_body(send_with_id))
                else:
                    await self._limited(scope, receive, send_with_id)
            finally:
                _log.info(
                    "request",
                    method=scope["method"],
                    path=scope["path"],
                    status=status,
                    ms=round((time.perf_counter() - started) * 1000, 1),
                )

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (refusal := self._refusal(Headers(scope=scope))) is not None:
            await problems.response(Request(scope), refusal)(scope, receive, send)
            return
        taken = 0

        async def receive_counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._max_body_bytes:
                raise self._too_large()
            return message

        await self._app(scope, receive_counted, send)

    def _refusal(self, headers: Headers) -> SemanticLayerError | None:
        """Why the body is not read at all."""
        announced = headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > self._max_body_bytes:
            return self._too_large()
        if headers.get("content-encoding", "identity").lower() != "identity":
            # A packed MB may hold a thousand, and a query is small.
            return UnsupportedMediaType("The body is packed", hint="Send it as it is, without Content-Encoding.")
        return None

    def _too_large(self) -> RequestTooLarge:
        return RequestTooLarge(f"The body is larger than {self._max_body_bytes} bytes", hint="Split the query.")


def _without_body(send: Send) -> Send:
    async def send_head(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return send_head


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if _SAFE_ID.fullmatch(given) else uuid.uuid4().hex
