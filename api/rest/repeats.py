"""The very same request once more: answered from what was made of it before, without reading it anew.

A dashboard asks the same all day. What an answer depends on beside its request is the caller's grant and the
publication; while both are what they were, only the answer's id and times are new. Who asks, how often and how much is
decided and recorded as ever.
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.answer import Given
from api.observation import observed
from api.recent import Recent
from api.rest import access
from api.rest.queries import AnswerResponse

_PATH = "/v1/query"
_BUDGET_BYTES = 8 * 2**20
_LARGEST_BYTES = 64 * 1024  # of one answer; to make a larger one takes longer than all around it
_ENTRY_BYTES = 2_048  # around each answer

# They differ from one request to the next, and no answer depends on them.
_OWN = frozenset({b"x-request-id", b"traceparent", b"tracestate"})

_Key = tuple[object, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    given: Given
    response: AnswerResponse
    route: object


class Repeats:
    """Keeps small answers by the request's bytes, credential included; ASGI, as it spares all that is beneath."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._kept: Recent[_Key, _Kept] = Recent(_BUDGET_BYTES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a repeated request, pass any other on."""
        if scope["type"] != "http" or scope["path"] != _PATH or not _is_plain(scope):
            await self._app(scope, receive, send)
            return
        message = await receive()
        key = (message.get("body"), *(header for header in scope["headers"] if header[0] not in _OWN))
        if (kept := self._kept.get(key)) is not None and (response := await _again(kept, Request(scope))) is not None:
            await response(scope, receive, send)
            return
        await self._app(scope, _beginning_with(message, receive), send)
        self._keep(key, scope)

    def _keep(self, key: _Key, scope: Scope) -> None:
        response, seen = scope["state"].get("answer"), observed()
        if response is None or seen.query is None or seen.answer is None:
            return
        size_bytes = len(response.body) + len(key[0] or b"") + _ENTRY_BYTES  # type: ignore[arg-type]
        if size_bytes > _LARGEST_BYTES:
            return
        given = Given(answer=response.answer, query=seen.query, told=seen.answer)
        self._kept.put(key, _Kept(given=given, response=response, route=scope["route"]), size_bytes=size_bytes)


async def _again(kept: _Kept, request: Request) -> AnswerResponse | None:
    principal = await access.admitted(request)
    answer = await (await access.semantic_layer(request)).repeat(principal, kept.given)
    if answer is None:
        return None
    request.scope["route"], request.scope["path_params"] = kept.route, {}
    return kept.response.again(answer)


def _is_plain(scope: Scope) -> bool:
    """Whether the request asks for an answer as it is kept."""
    is_bare = scope["method"] == "POST" and not scope["query_string"]
    return is_bare and not any(name == b"cache-control" for name, _ in scope["headers"])


def _beginning_with(message: Message, receive: Receive) -> Receive:
    """Receives the message first: it was taken to be looked at."""
    waiting = [message]

    async def next_message() -> Message:
        return waiting.pop() if waiting else await receive()

    return next_message
