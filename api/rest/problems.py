"""Every error as RFC 9457 problem+json, FastAPI's own included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from api.errors import (
    InternalFault,
    InvalidQuery,
    SemanticLayerError,
    ServiceError,
    TooManyRequests,
    UnreadableRequest,
    UnsupportedMediaType,
)

_log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"

_SHOWN_FAULTS = 20  # a body of one MB can hold half a million
_SHOWN_FIELD = 200  # characters of a fault's place


class Problem(BaseModel):
    """What went wrong, and what to do next (RFC 9457)."""

    type: str = Field(
        description="A stable URN of the kind of problem.", examples=["urn:insight:problem:unknown_metric"]
    )
    title: str = Field(description="The kind of problem in words; the same for every instance.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What happened this time.")
    instance: str = Field(description="The path that was asked.")
    code: str = Field(description="A stable code for programs.", examples=["unknown_metric"])
    hint: str = Field(description="What to do next.")
    request_id: str = Field(description="Also in X-Request-Id and in the log.")
    nearest: list[str] | None = Field(None, description="For an unknown name: existing ones that resemble it.")
    errors: list[dict[str, Any]] | None = Field(None, description="For a malformed body: each fault with its place.")


def describe(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries for answers with a problem."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": _DESCRIPTIONS[status], "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in statuses
    }


_DESCRIPTIONS = {
    400: "The request cannot be read.",
    401: "No key, or not a valid one.",
    403: "Known, but the policy does not allow it.",
    404: "An unknown name; the problem carries the nearest ones.",
    406: "None of the accepted formats is offered.",
    413: "The body is too large.",
    415: "The Content-Type is not application/json.",
    422: "The request is malformed, or cannot be answered.",
    429: "More at once than one caller's share; see Retry-After.",
    503: "Nothing is published yet, the warehouse is away, or too much is asked at once; see Retry-After.",
    504: "The query ran longer than allowed.",
}


def install(app: FastAPI) -> None:
    """Render every exception of the application as a problem."""
    app.add_exception_handler(SemanticLayerError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


def response(
    request: Request, error: SemanticLayerError, *, errors: Sequence[Mapping[str, Any]] | None = None
) -> JSONResponse:
    """The error as a response."""
    request_id = getattr(request.state, "request_id", "")
    problem: dict[str, Any] = {
        "type": f"urn:insight:problem:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "instance": request.url.path,
        "code": error.code,
        "hint": error.hint,
        "request_id": request_id,
    }
    if error.nearest:
        problem["nearest"] = list(error.nearest)
    if errors is not None:
        problem["errors"] = list(errors)
    # The envelope adds the id to every answer, but a crash is rendered outside of it.
    headers = {"X-Request-Id": request_id, **_headers(error)}
    return JSONResponse(problem, status_code=error.status, headers=headers, media_type=MEDIA_TYPE)


def _headers(error: SemanticLayerError) -> dict[str, str]:
    if error.status == 401:  # noqa: PLR2004
        return {"WWW-Authenticate": 'Bearer realm="insight"'}
    if isinstance(error, ServiceError | TooManyRequests) and error.retry_after is not None:
        return {"Retry-After": str(max(1, round(error.retry_after.total_seconds())))}
    return {}


async def _known(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, SemanticLayerError)  # noqa: S101 - Starlette's signature is wider than its promise
    if isinstance(error, ServiceError):
        _log.warning("request_failed", code=error.code, detail=error.detail, cause=repr(error.__cause__))
    return response(request, error)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - likewise
    if isinstance(error.body, bytes):  # FastAPI leaves a body unread that does not say it is JSON
        unsupported = UnsupportedMediaType(
            "The body is not marked as JSON", hint="Send Content-Type: application/json."
        )
        return response(request, unsupported)
    items = error.errors()
    faults = [_fault(item) for item in items[:_SHOWN_FAULTS]]
    first = faults[0]
    if any(item["type"] == "json_invalid" for item in items[:1]):
        unreadable = UnreadableRequest(f"The body is not JSON: {first['message']}", hint=_HTTP_HINTS[400])
        return response(request, unreadable)
    detail = f"{first['field']}: {first['message']}" + (f" (and {len(items) - 1} more)" if len(items) > 1 else "")
    malformed = InvalidQuery(detail, hint="See /docs for the shape of the request.", code="malformed_request")
    return response(request, malformed, errors=faults)


def _fault(item: Mapping[str, Any]) -> dict[str, str]:
    field = ".".join(str(part) for part in item["loc"])
    return {"field": field if len(field) <= _SHOWN_FIELD else field[:_SHOWN_FIELD] + "…", "message": item["msg"]}


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - likewise
    if isinstance(error.__cause__, SemanticLayerError):  # FastAPI makes a 400 of whatever is raised while it reads
        return response(request, error.__cause__)
    hint = _HTTP_HINTS.get(error.status_code, "See /docs for what is served.")
    problem = _Http(str(error.detail), hint=hint, code=_HTTP_CODES.get(error.status_code))
    problem.status, problem.title = error.status_code, str(error.detail)  # type: ignore[misc] # the router's own words
    answer = response(request, problem)
    answer.headers.update(error.headers or {})
    return answer


class _Http(SemanticLayerError):
    """What the router itself refuses: no such path, wrong method."""

    status, title, code = 400, "The request cannot be served", "bad_request"


_HTTP_CODES = {400: "unreadable_request", 404: "unknown_path", 405: "method_not_allowed"}
_HTTP_HINTS = {400: "Send one JSON object, in UTF-8."}


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    request_id = getattr(request.state, "request_id", "")  # this runs outside the envelope, which binds it else
    _log.error("request_crashed", path=request.url.path, request_id=request_id, exc_info=error)
    return response(request, InternalFault("Something went wrong on our side", hint="Report the request id."))
