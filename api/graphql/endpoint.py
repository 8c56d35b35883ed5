"""GraphQL over HTTP: the same answers as over REST, with errors as clients of GraphQL read them.

The answer is always a 200, whatever went wrong, since some clients read no other one. What the envelope refuses (a body
that is too large, too many requests at once) stays a problem with its own status.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, ValidationError
from strawberry import Schema
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError

from api.errors import Forbidden, InvalidQuery, SemanticLayerError, UnreadableRequest, UnsupportedMediaType
from api.graphql.asking import Asking
from api.graphql.console import show_console
from api.graphql.documents import CheckedDocument, Documents
from api.graphql.faults import all_rendered, note, rendered
from api.graphql.schema import core, create_schema
from api.observation import observed
from api.rest.access import caller, deferred_queries, semantic_layer
from api.rest.recording import GRAPHQL_PATHS
from api.rest.rows import JSON_OPTIONS, plain

_JSON = "application/json"

# Questions are named in the audit as the same ones over REST are; what they ask says the rest.
_ACTIONS = {
    "createSynchronousQuery": "run_query",
    "createQuery": "submit_query",
    "createDimensionValuesQuery": "submit_query",
    "compileSql": "compile_query",
    "compileDimensionValuesSql": "compile_query",
}


class Body(BaseModel):
    """What a client sends; `extensions` are read by nobody, and sent by some."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    query: str
    variables: dict[str, Any] | None = None
    operationName: str | None = None  # noqa: N815 - the wire's own
    extensions: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution(Asking):
    """A request and its document."""

    document: CheckedDocument


class Endpoint:
    """Answers documents."""

    def __init__(self, *, environment_id: int) -> None:
        self._environment_id = environment_id
        self._schema: Schema = create_schema()
        self._documents = Documents(core(self._schema))

    async def answer(self, request: Request) -> Response:
        """The answer to the request; never raises what a caller may be told."""
        try:
            asker = await caller(request)
            body = await _body(request)
            document = self._documents.read(body.query)
            execution = Execution(
                layer=await semantic_layer(request),
                deferred=await deferred_queries(request),
                principal=asker,
                environment_id=self._environment_id,
                document=document,
            )
            _note_fields(document, body.variables or {})
            _refuse_introspection(execution)
            return _response(await self._executed(execution, body))
        except SemanticLayerError as error:
            note(error)
            retry = {"Retry-After": str(max(1, round(error.retry_after.total_seconds())))} if error.retry_after else {}
            return _response({"data": None, "errors": [rendered(error)]}, retry)

    async def _executed(self, execution: Execution, body: Body) -> dict[str, Any]:
        try:
            result = await self._schema.execute(
                body.query,
                variable_values=body.variables,
                context_value=execution,
                operation_name=body.operationName,
            )
        except (CannotGetOperationTypeError, InvalidOperationTypeError) as error:
            raise InvalidQuery(
                "operationName names none of the document's operations",
                hint="Send one operation, or the name of one.",
                code="invalid_document",
            ) from error
        faults = all_rendered(result.errors) if result.errors else []
        return {"data": result.data} | ({"errors": faults} if faults else {})


def create_router(*, environment_id: int) -> APIRouter:
    """The routes of GraphQL, which OpenAPI does not describe."""
    endpoint = Endpoint(environment_id=environment_id)
    router = APIRouter(include_in_schema=False)
    for path in sorted(GRAPHQL_PATHS):
        router.add_api_route(path, endpoint.answer, methods=["POST"], name="graphql")
    router.add_api_route("/graphql", show_console, methods=["GET"], name="graphql_console")
    return router


async def _body(request: Request) -> Body:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _JSON:
        raise UnsupportedMediaType("The body is not marked as JSON", hint=f"Send Content-Type: {_JSON}.")
    content = await request.body()
    if content.lstrip()[:1] == b"[":
        raise UnreadableRequest(
            "A batch of documents is not taken", hint="Send one document in a request.", code="batch_refused"
        )
    try:
        return Body.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"])[:200]
        raise UnreadableRequest(
            f"The body is no request of GraphQL: {place or 'it'}: {first['msg'][:200]}",
            hint='Send {"query": "…", "variables": {…}}.',
        ) from error


def _refuse_introspection(execution: Execution) -> None:
    if execution.document.introspects and not execution.layer.role(execution.principal).introspection:
        raise Forbidden(
            "Your role may not ask for the schema",
            hint="Whoever keeps the policy file can allow it: introspection: true.",
            code="introspection_forbidden",
        )


def _note_fields(document: CheckedDocument, variables: Mapping[str, Any]) -> None:
    """What the audit says of the request: which fields it asks for, and the query that it polls for."""
    seen, fields = observed(), document.root_fields
    only = fields[0] if len(set(fields)) == 1 else "several"
    seen.action = _ACTIONS.get(only, only)
    seen.parameters = {} if only in _ACTIONS else {"fields": fields}
    if isinstance(polled := variables.get("queryId"), str):
        seen.parameters = {**seen.parameters, "query_id": polled.partition(".")[0]}


def _response(content: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    body = orjson.dumps(content, default=_encodable, option=JSON_OPTIONS)
    return Response(body, media_type=_JSON, headers=dict(headers or {}))


def _encodable(value: object) -> object:
    if isinstance(value, Decimal):
        return orjson.Fragment(plain(value))
    raise TypeError
