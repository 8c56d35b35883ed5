"""One request over HTTP as it is observed: recorded before its answer leaves, logged when it has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import structlog
from fastapi.routing import APIRoute
from starlette.datastructures import Headers, QueryParams
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from api.errors import InternalFault, Unavailable
from api.logs import write_line
from api.observation import CLIENT_GONE, Observation, Transport
from api.observer import Observer
from api.rest import problems

_log = structlog.get_logger(__name__)

_REQUEST_ID = b"x-request-id"
_AUDITED = "/v1"
# Where POST is GraphQL: the contract's place, that of dbt's clients, and that of those which know a host alone.
GRAPHQL_PATHS = frozenset({"/graphql", "/api/graphql", "/"})
# Asked every few seconds by whoever watches the service.
_PROBES = ("/healthz", "/readyz", "/metrics")
# A method is the caller's text; an unknown one must not become a series of its own.
_METHODS = frozenset({"GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH"})


class Recording:
    """A block in which one request is served and its `observation` is made; answers go through `send`."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._observer: Observer = scope["app"].state.observer
        self._is_replaced = False
        self._is_out = False
        path = scope["path"]
        is_graphql = scope["method"] == "POST" and path in GRAPHQL_PATHS
        self.observation = Observation(
            request_id=scope["state"]["request_id"],
            transport=Transport.GRAPHQL if is_graphql else Transport.REST,
            is_audited=is_graphql or path == _AUDITED or path.startswith(f"{_AUDITED}/"),
            method=scope["method"] if scope["method"] in _METHODS else "OTHER",
            path=path,
        )

    def __enter__(self) -> Self:
        """Begin."""
        self._observer.begin(self.observation, Headers(scope=self._scope))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End; whatever happened is recorded."""
        self._note_end(error)
        self._observer.end(self.observation)
        self._log_end()

    async def send(self, message: Message) -> None:
        """Pass a part of the answer on, once the record of the request is written; else a problem in its place."""
        if self._is_replaced:
            return
        if message["type"] == "http.response.start":
            self.observation.status = self.observation.problem_status or message["status"]
            self._note_route()
            try:
                self._observer.record(self.observation)
            except Unavailable as error:
                self._is_replaced = self._is_out = True
                self.observation.status, self.observation.code = error.status, error.code
                refusal = problems.response(Request(self._scope), error)
                await refusal(self._scope, self._receive, self._send)
                return
            others = (header for header in message["headers"] if header[0] != _REQUEST_ID)
            message["headers"] = [*others, (_REQUEST_ID, self.observation.request_id.encode())]
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._is_out = True

    def _note_end(self, error: BaseException | None) -> None:
        seen = self.observation
        if seen.status is None:
            self._note_route()
        if isinstance(error, asyncio.CancelledError) or (error is None and not self._is_out):
            seen.is_cancelled = True
            seen.status = seen.status or CLIENT_GONE
        elif error is not None:  # rendered outside of this block
            seen.status, seen.code = InternalFault.status, InternalFault.code
        seen.ended_ns = seen.began_ns + seen.duration_ns

    def _note_route(self) -> None:
        route = self._scope.get("route")
        if isinstance(route, APIRoute) and self._scope["method"] in (route.methods or ()):
            seen = self.observation
            seen.route = route.path_format
            if seen.transport is Transport.REST:  # over GraphQL, the document says it
                seen.action, seen.parameters = route.name, _parameters(route, self._scope)
        else:
            self.observation.parameters = {"method": self._scope["method"], "path": self._scope["path"]}

    def _log_end(self) -> None:
        seen = self.observation
        if (known := seen.known_again) is not None and (line := known.log_line(seen)) is not None:
            write_line(line)
            return
        log = _log.debug if seen.path in _PROBES else _log.info
        log("request", **seen.summary)


def _parameters(route: APIRoute, scope: Scope) -> Mapping[str, object]:
    """What the path and the query string say, as far as the route knows it; what else a caller writes is not kept."""
    parameters: dict[str, object] = dict(scope["path_params"])
    if scope["query_string"]:
        known = {field.alias for field in route.dependant.query_params}
        given = QueryParams(scope["query_string"])
        parameters |= {name: value for name, value in given.items() if name in known}
    return parameters
