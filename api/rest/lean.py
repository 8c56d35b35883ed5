"""What is asked most, answered without FastAPI: its layers cost 0.4 ms a request, as much as an answer that is kept."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import SemanticLayerError
from api.rest import access, formats, problems


class Shortcut:
    """Answers the plain requests of one route, and leaves all others to the application.

    Parameters
    ----------
    router
        Where the route is declared, like any other.
    endpoint
        That of the route; takes the semantic layer, its caller, a JSON body and texts of headers, and refuses by
        `SemanticLayerError` alone. Whatever is not plain and right in a request is left to FastAPI and the
        application's own dependencies, so that refusals are the same as everywhere.
    """

    def __init__(self, app: ASGIApp, *, router: APIRouter, endpoint: Callable[..., Awaitable[Response]]) -> None:
        self._app = app
        self._endpoint = endpoint
        (self._route,) = (
            route for route in router.routes if isinstance(route, APIRoute) and route.endpoint is endpoint
        )
        self._asked = [(method, self._route.path) for method in self._route.methods or ()]
        self._headers = [(field.name, field.alias.encode()) for field in self._route.dependant.header_params]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or (scope["method"], scope["path"]) not in self._asked:
            await self._app(scope, receive, send)
            return
        if (body := self._plain_body(scope)) is None:
            await self._app(scope, receive, send)
            return
        scope["route"], scope["path_params"] = self._route, {}
        try:
            answer = await self._endpoint(
                layer=access.layer_of(scope),
                caller=await access.admitted(scope),
                body=body,
                **{name: access.field(scope, alias) for name, alias in self._headers},
            )
        except SemanticLayerError as error:
            answer = problems.refusal(Request(scope), error)
        await answer(scope, receive, send)

    def _plain_body(self, scope: Scope) -> object | None:
        """The valid body of a request that has nothing else to check; None where there is more to it."""
        if (
            self._route.body_field is None
            or scope["query_string"]
            or access.field(scope, b"content-type") != formats.JSON
        ):
            return None
        try:
            read = _decode(access.exchange_of(scope).body.decode())
        except (ValueError, RecursionError):
            return None
        body, faults = self._route.body_field.validate(read, {}, loc=("body",))
        return None if faults else body


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError  # which of two equal keys counts is not for us to choose
    return made


_decode = json.JSONDecoder(object_pairs_hook=_unique).decode
