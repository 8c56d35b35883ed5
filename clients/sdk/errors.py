"""What goes wrong between a client and the service: one exception, told apart by its code."""

from __future__ import annotations

from collections.abc import Sequence

import httpx


class ApiError(Exception):
    """The service refused or could not be reached.

    Attributes
    ----------
    code
        Stable, for programs; `unreachable` if there was no answer.
    hint
        What to do next.
    nearest
        Existing names that resemble an unknown one.
    status
        Of HTTP; none if there was no answer, or if a submitted query failed later.
    request_id
        Names the request in the service's log and audit.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str,
        code: str,
        nearest: Sequence[str] = (),
        status: int | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code
        self.nearest = tuple(nearest)
        self.status = status
        self.request_id = request_id


def refusal(response: httpx.Response) -> ApiError:
    """What the service says in a problem, or that something else answers at that address."""
    try:
        problem = response.json()
        return ApiError(
            problem["detail"],
            hint=problem["hint"],
            code=problem["code"],
            nearest=problem.get("nearest") or (),
            status=response.status_code,
            request_id=problem.get("request_id"),
        )
    except (ValueError, LookupError, TypeError):
        return ApiError(
            f"HTTP {response.status_code}",
            hint="Check INSIGHT_API_URL.",
            code="not_the_service",
            status=response.status_code,
        )


def unreachable(url: object, error: httpx.HTTPError) -> ApiError:
    """There was no answer."""
    return ApiError(
        f"The service at {url} cannot be reached: {error}",
        hint="Start it with `insight serve`, or set INSIGHT_API_URL.",
        code="unreachable",
    )


def broken_off() -> ApiError:
    """A stream ended before it was whole."""
    return ApiError(
        "The export broke off, and what has arrived is not whole",
        hint="Ask for less at once, such as a month, or see the service's log.",
        code="export_broke_off",
    )
