"""Every error as RFC 9457 problem+json, FastAPI's own included."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from api.allowance import Allowance
from api.catalog import nearest
from api.errors import (
    Failure,
    InternalFault,
    InvalidQuery,
    SemanticLayerError,
    ServiceError,
    TooManyRequests,
    UnreadableRequest,
    UnsupportedMediaType,
)
from api.json_faults import fault_text
from api.observation import observed
from api.redaction import redacted
from api.rest.requests import KEYS

_log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"

_SHOWN_FAULTS = 20  # a body of one MB can hold half a million
_SHOWN_FIELD = 200  # characters of a fault's place


class _ProblemResponse(JSONResponse):
    """A problem repeats what was asked for; should a caller have put a credential there, it is not repeated."""

    media_type = MEDIA_TYPE

    def render(self, content: object) -> bytes:
        return redacted(super().render(content).decode()).encode()


class Fault(BaseModel):
    """One fault of a malformed request."""

    model_config = ConfigDict(extra="forbid")

    field: str = Field(description="Its place.", examples=["body.limit"])
    message: str = Field(description="What is wrong with it.")


class Problem(BaseModel):
    """What went wrong, and what to do next (RFC 9457)."""

    model_config = ConfigDict(extra="forbid")

    type: str = Field(description="The code as a URN.", examples=["urn:insight:problem:unknown_metric"])
    title: str = Field(description="The kind of problem in words; the same for every instance.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What happened this time.")
    instance: str = Field(description="The path that was asked.")
    code: str = Field(description="A stable code for programs.", examples=["unknown_metric"])
    hint: str = Field(description="What to do next.")
    request_id: str = Field(description="Also in X-Request-Id and in the log.")
    nearest: list[str] = Field([], description="For an unknown name: existing ones that resemble it, best first.")
    errors: list[Fault] = Field([], description="For a malformed request: the first faults, each with its place.")


# What each status may carry; a test finds them in the code.
CODES: Mapping[int, tuple[str, ...]] = {
    400: ("http_version", "invalid_cursor", "unreadable_request"),
    401: ("missing_key", "invalid_key", "invalid_token", "expired_token"),
    403: (
        "ambiguous_role",
        "anonymity_floor",
        "broken_policy",
        "hashed_dimension",
        "metric_filter_forbidden",
        "missing_claim",
        "missing_role",
        "partial_customer",
        "partial_data",
        "policy_changed",
        "sql_forbidden",
        "unknown_role",
    ),
    404: (
        "no_forecast",
        "no_outlook",
        "no_segments",
        "query_expired",
        "unknown_customer",
        "unknown_dimension",
        "unknown_metric",
        "unknown_page",
        "unknown_path",
        "unknown_query",
        "unknown_saved_query",
        "unknown_segment",
        "unknown_time_zone",
        "unproven",
    ),
    406: ("not_acceptable",),
    408: ("body_timeout",),
    409: ("query_cancelled", "query_failed", "query_not_finished"),
    413: ("request_too_large",),
    415: ("unsupported_media_type",),
    422: (
        "cursor_expired",
        "cursor_mismatch",
        "cursor_with_offset",
        "dimension_not_joinable",
        "duplicate_name",
        "export_too_large",
        "incomparable",
        "invalid_date_part",
        "invalid_grain",
        "invalid_having",
        "invalid_limit",
        "invalid_metric_filter",
        "invalid_operator",
        "invalid_order",
        "invalid_query",
        "invalid_time_range",
        "invalid_value",
        "invalid_value_count",
        "malformed_request",
        "metric_required",
        "metric_time_required",
        "partial_period",
        "query_too_complex",
        "query_too_expensive",
        "query_too_large",
        "time_range_required",
        "unanswerable",
        "unknown_parameter",
        "unsupported_filter",
    ),
    429: (
        "rate_limited",
        "row_quota_used",
        "too_many_failures",
        "too_many_queries",
        "too_many_waiting",
        "too_much_kept",
    ),
    503: (
        "audit_unavailable",
        "issuer_unavailable",
        "overloaded",
        "queue_full",
        "queue_timeout",
        "state_unavailable",
        "stopping",
        "unavailable",
    ),
    504: ("export_timeout", "query_timeout"),
}

DESCRIPTIONS: Mapping[int, str] = {
    400: "The request cannot be read.",
    401: "No key, or not a valid one.",
    403: "Known, but the policy does not allow it.",
    404: "An unknown name; the problem carries the nearest ones.",
    406: "None of the accepted formats is offered.",
    408: "The body did not arrive in time.",
    409: "It is not in the state that this takes; see Retry-After.",
    413: "The body is too large.",
    415: "The Content-Type is not application/json, or the body is packed.",
    422: "The request is malformed, or cannot be answered.",
    429: "More than the caller may ask now; see Retry-After.",
    503: "Nothing is published yet, the warehouse is away, or too much is asked at once; see Retry-After.",
    504: "The query ran longer than allowed.",
}


def describe(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries for answers with a problem; `api.rest.contract` fills them in."""
    return {status: {"description": DESCRIPTIONS[status], "content": {MEDIA_TYPE: {}}} for status in statuses}


def install(app: FastAPI) -> None:
    """Render every exception of the application as a problem."""
    app.add_exception_handler(SemanticLayerError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


def response(
    request: Request, error: SemanticLayerError, *, errors: Sequence[Mapping[str, Any]] | None = None
) -> JSONResponse:
    """The error as a response; its code is noted for whoever observes the request."""
    observed().code = error.code
    request_id = getattr(request.state, "request_id", "")
    problem = document(error, instance=request.url.path, request_id=request_id)
    if errors is not None:
        problem["errors"] = list(errors)
    # The envelope adds the id to every answer, but a crash is rendered outside of it.
    headers = {"X-Request-Id": request_id, **_headers(error)}
    return _ProblemResponse(problem, status_code=error.status, headers=headers)


def refusal(request: Request, error: SemanticLayerError) -> JSONResponse:
    """The error that a route raised, as a response; one that is our own fault is logged."""
    if isinstance(error, ServiceError):
        _log.warning("request_failed", code=error.code, detail=error.detail, cause=repr(error.__cause__))
    return response(request, error)


def document(error: SemanticLayerError | Failure, *, instance: str, request_id: str) -> dict[str, Any]:
    """The error as RFC 9457 has it."""
    problem: dict[str, Any] = {
        "type": f"urn:insight:problem:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "instance": instance,
        "code": error.code,
        "hint": error.hint,
        "request_id": request_id,
    }
    return problem | ({"nearest": list(error.nearest)} if error.nearest else {})


def _headers(error: SemanticLayerError) -> dict[str, str]:
    if error.status == HTTPStatus.UNAUTHORIZED:
        return {"WWW-Authenticate": 'Bearer realm="insight"'}
    if error.retry_after is None:
        return {}
    headers = {"Retry-After": str(max(1, round(error.retry_after.total_seconds())))}
    if isinstance(error, TooManyRequests) and error.limit is not None:
        headers |= allowance_headers(Allowance(limit=error.limit, remaining=0, resets_in=error.retry_after))
    return headers


def allowance_headers(allowance: Allowance) -> dict[str, str]:
    """What the caller has left in this minute.

    References
    ----------
    draft-ietf-httpapi-ratelimit-headers-06, section 3: the last draft with one field for each number.
    """
    return {
        "RateLimit-Limit": str(allowance.limit),
        "RateLimit-Remaining": str(allowance.remaining),
        "RateLimit-Reset": str(round(allowance.resets_in.total_seconds())),
    }


async def _known(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, SemanticLayerError)  # noqa: S101 - Starlette's signature is wider than its promise
    return refusal(request, error)


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
        place = f"{items[0]['ctx']['error']}, at character {items[0]['loc'][-1]}"
        unreadable = UnreadableRequest(f"The body is not JSON: {place}", hint=_HTTP_HINTS[400])
        return response(request, unreadable)
    detail = f"{first['field']}: {first['message']}" + (f" (and {len(items) - 1} more)" if len(items) > 1 else "")
    malformed = InvalidQuery(detail, hint="See /docs for the shape of the request.", code="malformed_request")
    return response(request, malformed, errors=faults)


def _fault(item: Mapping[str, Any]) -> dict[str, str]:
    field = ".".join(str(part) for part in item["loc"])
    message = fault_text(item)
    if item["type"] == "extra_forbidden" and (similar := nearest(str(item["loc"][-1]), KEYS - {item["loc"][-1]})):
        message += f"; did you mean {similar[0]}?"
    return {"field": field if len(field) <= _SHOWN_FIELD else field[:_SHOWN_FIELD] + "…", "message": message}


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - likewise
    if isinstance(error.__cause__, SemanticLayerError):  # FastAPI makes a 400 of whatever is raised while it reads
        return response(request, error.__cause__)
    hint = _HTTP_HINTS.get(error.status_code) or _way_out(request.url.path)
    problem = _Http(str(error.detail), hint=hint, code=_HTTP_CODES.get(error.status_code))
    problem.status, problem.title = error.status_code, str(error.detail)  # type: ignore[misc] # the router's own words
    answer = response(request, problem)
    answer.headers.update(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        answer.headers["Allow"] = ", ".join(_allowed(request))
    return answer


def _way_out(path: str) -> str:
    if path == "/":
        return "Begin with GET /v1/metrics, or POST a document of GraphQL here; see /docs for all that is served."
    if path.endswith("/"):
        return "Leave out the slash at the end; see /docs for what is served."
    return "See /docs for what is served."


def _allowed(request: Request) -> Iterator[str]:
    """The methods of the path; the router itself names those of the first route alone."""
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        scope = {**request.scope, "method": method}
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes):
            yield from ("GET", "HEAD") if method == "GET" else (method,)


class _Http(SemanticLayerError):
    """What the router itself refuses: no such path, wrong method."""

    status, title, code = 400, "The request cannot be served", "bad_request"


_HTTP_CODES = {400: "unreadable_request", 404: "unknown_path", 405: "method_not_allowed"}
_HTTP_HINTS = {400: "Send one JSON object, in UTF-8."}


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    request_id = getattr(request.state, "request_id", "")  # this runs outside the envelope, which binds it else
    _log.error("request_crashed", path=request.url.path, request_id=request_id, exc_info=error)
    return response(request, InternalFault("Something went wrong on our side", hint="Report the request id."))
