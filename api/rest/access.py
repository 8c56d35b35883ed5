"""What every route needs: the semantic layer, and a caller that the gate has let in."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from starlette.types import Scope

from api.deferred import DeferredQueries
from api.gate import Gate
from api.policy import Principal
from api.rest.exchange import Exchange
from api.rest.problems import allowance_headers
from api.service import SemanticLayer

_bearer = HTTPBearer(auto_error=False, description="An API key (`mi_…`) or a JWT.")
_header = APIKeyHeader(
    name="X-API-Key", auto_error=False, description="The same, for tools that send no bearer tokens."
)


# Both are coroutines: FastAPI would run a plain function in a thread, at half a millisecond each.
async def semantic_layer(request: Request) -> SemanticLayer:
    """The one door, as `create_app` wired it."""
    return layer_of(request.scope)


async def principal(
    request: Request,
    _: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    __: Annotated[str | None, Depends(_header)],
) -> Principal:
    """Who asks; raises what `api.gate.Gate.admit` does. FastAPI's own reading is there for the contract."""
    return await admitted(request.scope)


def layer_of(scope: Scope) -> SemanticLayer:
    """The same as `semantic_layer`, for who is not called by FastAPI."""
    return cast("SemanticLayer", scope["app"].state.semantic_layer)


def exchange_of(scope: Scope) -> Exchange:
    """The exchange that the request is part of, as the envelope began it."""
    return cast("Exchange", scope["state"]["exchange"])


async def admitted(scope: Scope) -> Principal:
    """The same as `principal`, for who is not called by FastAPI."""
    scheme, credential = _authorization(scope)
    return await _admitted(scope, credential if scheme == "bearer" else field(scope, b"x-api-key"))


def _authorization(scope: Scope) -> tuple[str, str]:
    """The scheme in lower case, and the credential; without one, neither."""
    scheme, _, credential = (field(scope, b"authorization") or "").partition(" ")
    credential = credential.strip()
    return (scheme.lower(), credential) if credential else ("", "")


def field(scope: Scope, name: bytes) -> str | None:
    """As `request.headers.get`, at a tenth of the price: every request comes by."""
    value: bytes | None = scope["state"]["fields"].get(name)
    return None if value is None else value.decode("latin-1")


async def _admitted(scope: Scope, credential: str | None) -> Principal:
    state = scope["state"]
    if (principal := state.get("principal")) is not None:  # let in by who looked for a repeat
        return cast("Principal", principal)
    gate, client = cast("Gate", scope["app"].state.gate), scope["client"]
    admitted = await gate.admit(credential, address=client[0] if client else None)
    if admitted.allowance is not None:
        exchange_of(scope).answer_headers.update(allowance_headers(admitted.allowance))  # of every answer, refusals too
    state["principal"] = admitted.principal
    return admitted.principal


async def caller(request: Request) -> Principal:
    """Who asks, for a transport that renders refusals itself; raises what `principal` does."""
    scheme, credential = _authorization(request.scope)
    if scheme == "token":  # some of dbt's clients call it so
        return await _admitted(request.scope, credential)
    return await admitted(request.scope)


async def deferred_queries(request: Request) -> DeferredQueries:
    """What is submitted and read later, as `create_app` wired it."""
    return cast("DeferredQueries", request.app.state.deferred_queries)


Layer = Annotated[SemanticLayer, Depends(semantic_layer)]
Deferred = Annotated[DeferredQueries, Depends(deferred_queries)]
Caller = Annotated[Principal, Depends(principal)]
