"""What every route needs: the semantic layer, and who asks."""

from __future__ import annotations

from typing import Annotated, cast

import structlog
from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from api.keys import ApiKeys, missing_key
from api.policy import ANYBODY, Principal
from api.service import SemanticLayer

_bearer = HTTPBearer(auto_error=False, description="An API key (`mi_…`) or a JWT.")
_header = APIKeyHeader(
    name="X-API-Key", auto_error=False, description="The same, for tools that send no bearer tokens."
)


# Both are coroutines: FastAPI would run a plain function in a thread, at half a millisecond each.
async def semantic_layer(request: Request) -> SemanticLayer:
    """The one door, as `create_app` wired it."""
    return cast("SemanticLayer", request.app.state.semantic_layer)


async def principal(
    request: Request,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    header: Annotated[str | None, Depends(_header)],
) -> Principal:
    """Who asks.

    Raises
    ------
    Unauthenticated
        No key came, or not a valid one.
    """
    keys = cast("ApiKeys | None", request.app.state.keys)
    if keys is None:
        return ANYBODY
    key = bearer.credentials if bearer else header
    if not key:
        raise missing_key()
    caller = await keys.authenticate(key)
    structlog.contextvars.bind_contextvars(principal=caller.principal_id)
    return caller


Layer = Annotated[SemanticLayer, Depends(semantic_layer)]
Caller = Annotated[Principal, Depends(principal)]
