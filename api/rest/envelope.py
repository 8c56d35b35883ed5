"""Around every request: its id, its size limit, its record. Plain ASGI, as it runs for each request."""

from __future__ import annotations

import re
import uuid

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import RequestTooLarge
from api.redaction import redacted
from api.rest import problems
from api.rest.recording import Recording

# A caller's id ends up in the log and in a header, so it has to be harmless.
_SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Envelope:
    """Gives a request its id, refuses a body that is too large, and has the outcome recorded."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})["request_id"] = _request_id(Headers(scope=scope))
        with Recording(scope, receive, send) as recording:
            await self._limited(scope, receive, recording.send)

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdigit() and int(announced) > self._max_body_bytes:
            await problems.response(Request(scope), self._too_large())(scope, receive, send)
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

    def _too_large(self) -> RequestTooLarge:
        return RequestTooLarge(f"The body is larger than {self._max_body_bytes} bytes", hint="Split the query.")


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if _SAFE_ID.fullmatch(given) and redacted(given) == given else uuid.uuid4().hex
