"""The very same request once more: answered from what was made of it before, without reading it anew.

A dashboard asks the same all day. What an answer depends on beside its request is the caller's grant and the
publication; while both are what they were, only the answer's id and times are new. Who asks, how often and how much is
decided and recorded as ever.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Self

from starlette.types import Scope

from api.answer import Given
from api.known import KnownLines
from api.observation import Observation, observed
from api.recent import Recent
from api.rest import access
from api.rest.exchange import Exchange, Header
from api.rest.queries import AnswerResponse, server_timing
from api.template import Template

_PATH = "/v1/query"
_BUDGET_BYTES = 8 * 2**20
_LARGEST_BYTES = 64 * 1024  # of one answer; to make a larger one takes longer than all around it
_ENTRY_BYTES = 2_048  # around each answer

# They differ from one request to the next, and no answer depends on them.
_OWN = frozenset({b"x-request-id", b"traceparent", b"tracestate"})
# They differ from one answer to the next.
_NEW = frozenset({b"content-length", b"server-timing"})

_ID_MARK, _MS_MARK = "f0e1d2c3b4a5968778695a4b3c2d1e0f", 918273645.546372

_Key = tuple[object, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """An answer, and all that is said of it; the places of what is new each time left open."""

    given: Given
    route: object
    headers: tuple[Header, ...]
    body: Template
    has_meta: bool
    lines: KnownLines

    @classmethod
    def of(cls, response: AnswerResponse, seen: Observation, scope: Scope) -> Self | None:
        """What to keep of a request that was answered; None where its values are in the way."""
        if seen.query is None or seen.answer is None:
            return None
        given = Given(answer=response.answer, query=seen.query, told=seen.answer)
        example = response.encoded.document(given.answer.again(query_id=_ID_MARK, total_ms=_MS_MARK))
        has_meta = response.encoded.has_meta
        try:
            return cls(
                given=given,
                route=scope["route"],
                headers=tuple(header for header in response.raw_headers if header[0] not in _NEW),
                body=Template(example, (_ID_MARK.encode(), repr(_MS_MARK).encode()) if has_meta else ()),
                has_meta=has_meta,
                lines=KnownLines(seen, told=given.told_again(_ID_MARK)),
            )
        except ValueError:
            return None

    @property
    def size_bytes(self) -> int:
        """Roughly, in memory."""
        return len(self.body) + len(self.lines) + _ENTRY_BYTES

    def document(self, query_id: str, total_ms: float) -> bytes:
        """The body of a repeat."""
        return self.body.filled(*((query_id.encode(), repr(total_ms).encode()) if self.has_meta else ()))


class Repeats:
    """Keeps small answers by the request's bytes, credential included."""

    def __init__(self) -> None:
        self._kept: Recent[_Key, _Kept] = Recent(_BUDGET_BYTES)

    async def answer(self, exchange: Exchange) -> bool:
        """Answer a request that is a repeat; whether it was one.

        Raises
        ------
        SemanticLayerError
            As `api.gate.Gate.admit` and `api.service.SemanticLayer.repeat` say.
        """
        scope = exchange.scope
        if not _is_plain(scope) or (kept := self._kept.get(_key(exchange))) is None:
            return False
        scope["route"], scope["path_params"] = kept.route, {}
        began = time.perf_counter()
        query_id = await access.layer_of(scope).repeat(await access.admitted(scope), kept.given)
        if query_id is None:
            return False
        observed().known = kept.lines
        total_ms = round((time.perf_counter() - began) * 1e3, 3)
        body = kept.document(query_id, total_ms)
        own = ((b"content-length", b"%d" % len(body)), (b"server-timing", server_timing(0.0, 0.0, total_ms).encode()))
        await exchange.send({"type": "http.response.start", "status": 200, "headers": (*own, *kept.headers)})
        await exchange.send({"type": "http.response.body", "body": body})
        return True

    def keep(self, exchange: Exchange) -> None:
        """Keep what was answered, if it may be asked again."""
        response = exchange.scope["state"].get("answer")
        if response is None or not _is_plain(exchange.scope):
            return
        kept = _Kept.of(response, observed(), exchange.scope)
        if kept is not None and kept.size_bytes <= _LARGEST_BYTES:
            key = _key(exchange)
            self._kept.put(key, kept, size_bytes=kept.size_bytes + len(exchange.body))


def _key(exchange: Exchange) -> _Key:
    return (exchange.body, *(header for header in exchange.scope["headers"] if header[0] not in _OWN))


def _is_plain(scope: Scope) -> bool:
    """Whether the request asks for an answer as it is kept."""
    is_bare = scope["path"] == _PATH and scope["method"] == "POST" and not scope["query_string"]
    return is_bare and not any(name == b"cache-control" for name, _ in scope["headers"])
