"""Errors in the form of GraphQL: a message that says all, and `extensions` for programs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import structlog
from graphql import GraphQLError

from api.errors import InternalFault, InvalidQuery, SemanticLayerError, ServiceError, Unauthenticated
from api.graphql.result_nodes import told
from api.observation import Transport, observed
from api.redaction import redacted
from api.wording import worded

_log = structlog.get_logger(__name__)

NOT_AUTHORIZED = "User is not authorized"  # by these words, and no others, dbt's client raises AuthError


def rendered(error: SemanticLayerError, *, path: list[str | int] | None = None) -> dict[str, Any]:
    """The error as an entry of `errors`."""
    message = NOT_AUTHORIZED if isinstance(error, Unauthenticated) else redacted(told(error))
    extensions: dict[str, Any] = {
        "code": error.code,
        "status": error.status,
        "title": error.title,
        "detail": redacted(error.detail),
        "hint": redacted(worded(error.hint, Transport.GRAPHQL)),
        "request_id": observed().request_id,
    }
    if error.nearest:
        extensions["nearest"] = list(error.nearest)
    if error.retry_after is not None:
        extensions["retry_after"] = max(1, round(error.retry_after.total_seconds()))
    return {"message": message, "extensions": extensions} | ({"path": path} if path else {})


def all_rendered(errors: Iterable[GraphQLError]) -> list[dict[str, Any]]:
    """What went wrong in an execution, noted for the audit and, where it is our fault, for the log."""
    found = [(_ours(error), error.path) for error in errors]
    for error, _ in found:
        note(error)
    return [rendered(error, path=path) for error, path in found]


def note(error: SemanticLayerError) -> None:
    """Let whoever observes the request know that it was refused, though its answer is a 200. The first one counts."""
    seen = observed()
    if seen.problem_status is None:
        seen.problem_status, seen.code = error.status, error.code
    if isinstance(error, ServiceError):
        _log.warning("request_failed", code=error.code, detail=error.detail, cause=repr(error.__cause__))


def _ours(error: GraphQLError) -> SemanticLayerError:
    original = error.original_error
    while isinstance(original, GraphQLError):
        original = original.original_error
    match original:
        case SemanticLayerError():
            return original
        case None | ValueError():  # the values of variables and arguments, which GraphQL itself checks
            return InvalidQuery(
                error.message[:500], hint="Compare the variables with the schema.", code="invalid_document"
            )
        case _:
            _log.error("request_crashed", exc_info=original)
            return InternalFault("Something went wrong on our side", hint="Report the request id.")
