"""A route for what is asked most: declared like any other, read without FastAPI's resolving of dependencies.

That costs 0.3 ms a request, as much as all the rest of an answer that is kept.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from api.rest import access, formats


class LeanRoute(APIRoute):
    """A route that takes the semantic layer, its caller, a JSON body and texts of headers, and answers a `Response`.

    Whatever is not plain and right in a request is left to FastAPI and the application's own dependencies, so that
    refusals are the same as everywhere.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, which reads a plain request itself."""
        thorough = super().get_route_handler()
        endpoint: Callable[..., Awaitable[Response]] = self.endpoint
        headers = {field.name: field.alias for field in self.dependant.header_params}

        async def handle(request: Request) -> Response:
            body = await self._plain_body(request)
            if body is None:
                return await thorough(request)
            return await endpoint(
                layer=access.layer_of(request.scope),
                caller=await access.admitted(request.scope),
                body=body,
                **{name: request.headers.get(alias) for name, alias in headers.items()},
            )

        return handle

    async def _plain_body(self, request: Request) -> object | None:
        """The valid body of a request that has nothing else to check; None where there is more to it."""
        if (
            self.body_field is None
            or request.scope["query_string"]
            or request.headers.get("content-type") != formats.JSON
        ):
            return None
        try:
            content = json.loads(await request.body(), object_pairs_hook=_unique)
        except (ValueError, RecursionError):
            return None
        body, faults = self.body_field.validate(content, {}, loc=("body",))
        return None if faults else body


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError  # which of two equal keys counts is not for us to choose
    return made
