"""Every refusal and failure that a caller can meet, in one tree.

    SemanticLayerError
    ├── RequestError              the caller can mend it
    │   ├── UnreadableRequest     400  the body or a parameter cannot be read
    │   ├── Unauthenticated       401  no key or token, or not a valid one
    │   ├── Forbidden             403  known, but not allowed
    │   ├── UnknownName           404  no such metric, dimension, saved query, …
    │   ├── NotAcceptable         406  no format of the Accept header is offered
    │   ├── RequestTimeout        408  the body did not arrive in time
    │   ├── Conflict              409  what is asked about is not in the state that it takes
    │   ├── RequestTooLarge       413  the body is larger than allowed
    │   ├── UnsupportedMediaType  415  the body is no JSON by its Content-Type
    │   ├── InvalidQuery          422  readable, but wrong or unanswerable
    │   └── TooManyRequests       429  more than the caller may ask now
    └── ServiceError              we must mend it
        ├── WrongSetting          500  a setting stops the start
        ├── InternalFault         500  a defect; the log has it under the request id
        ├── Unavailable           503  nothing is published, the warehouse is away, or too much is asked at once
        └── QueryTimeout          504  the warehouse took longer than allowed

The transports render these; nobody else invents an error format.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar


class SemanticLayerError(Exception):
    """What went wrong (`detail`) and what to do next (`hint`).

    Parameters
    ----------
    detail
        What happened, in one sentence that names the offending part.
    hint
        The next step for the reader.
    code
        A narrower code than the class's own; part of the contract, so it never changes its meaning.
    nearest
        Existing names that resemble an unknown one, best first.
    retry_after
        When another try makes sense; None where it does not.
    """

    status: ClassVar[int]
    title: ClassVar[str]
    code: str

    def __init__(
        self,
        detail: str,
        *,
        hint: str,
        code: str | None = None,
        nearest: tuple[str, ...] = (),
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint
        self.code = code or type(self).code
        self.nearest = nearest
        self.retry_after = retry_after


class RequestError(SemanticLayerError):
    """The caller can mend it."""


class UnreadableRequest(RequestError):
    """The body or a parameter cannot be read."""

    status, title, code = 400, "The request cannot be read", "unreadable_request"


class Unauthenticated(RequestError):
    """No credential came with the request, or not a valid one."""

    status, title, code = 401, "Authentication is needed", "unauthenticated"


class Forbidden(RequestError):
    """The caller is known, but may not do this."""

    status, title, code = 403, "Not allowed", "forbidden"


class UnknownName(RequestError):
    """A name that the catalog does not have."""

    status, title, code = 404, "Unknown name", "unknown_name"


class NotAcceptable(RequestError):
    """None of the formats in the Accept header is offered."""

    status, title, code = 406, "No acceptable format", "not_acceptable"


class RequestTimeout(RequestError):
    """The body did not arrive in time."""

    status, title, code = 408, "The request took too long to arrive", "request_timeout"


class Conflict(RequestError):
    """What is asked about is not in the state that it takes."""

    status, title, code = 409, "Not in this state", "conflict"


class RequestTooLarge(RequestError):
    """The body is larger than allowed."""

    status, title, code = 413, "The request is too large", "request_too_large"


class UnsupportedMediaType(RequestError):
    """The Content-Type says that the body is something else than JSON, or says nothing."""

    status, title, code = 415, "The media type is not supported", "unsupported_media_type"


class InvalidQuery(RequestError):
    """Readable, but wrong or unanswerable."""

    status, title, code = 422, "The query cannot be answered", "invalid_query"


class TooManyRequests(RequestError):
    """More than the caller may ask now.

    Parameters
    ----------
    limit
        How many requests the caller may make in the time that is over after `retry_after`, where that is what it met.
    """

    status, title, code = 429, "Too many requests", "too_many_requests"

    def __init__(
        self,
        detail: str,
        *,
        hint: str,
        code: str | None = None,
        retry_after: timedelta | None = None,
        limit: int | None = None,
    ) -> None:
        super().__init__(detail, hint=hint, code=code, retry_after=retry_after)
        self.limit = limit


class ServiceError(SemanticLayerError):
    """We must mend it."""


class WrongSetting(ServiceError):
    """A setting is wrong, or what it names cannot be had; the service does not start."""

    status, title, code = 500, "A setting is wrong", "wrong_setting"


class InternalFault(ServiceError):
    """A defect of ours."""

    status, title, code = 500, "Internal error", "internal_error"


class Unavailable(ServiceError):
    """Nothing is published yet, the warehouse is away, or more is asked at once than can be answered."""

    status, title, code = 503, "Not available right now", "unavailable"


class QueryTimeout(ServiceError):
    """The warehouse took longer than allowed."""

    status, title, code = 504, "The query took too long", "query_timeout"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An error as a value: what is kept of one that nobody was there to be told."""

    status: int
    title: str
    code: str
    detail: str
    hint: str
    nearest: tuple[str, ...] = ()

    @classmethod
    def of(cls, error: SemanticLayerError) -> Failure:
        """What the error says."""
        return cls(
            status=error.status,
            title=error.title,
            code=error.code,
            detail=error.detail,
            hint=error.hint,
            nearest=error.nearest,
        )
