"""A Python client of the service: metrics by name, answers as rows or bytes, refusals as exceptions."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from types import TracebackType
from typing import Any, Self

import httpx

_TIMEOUT_S = 60.0  # twice the service's own query time-out
_READY_PAUSE_S = 0.2
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.1, 2.0  # between looks at a submitted query


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
    """

    def __init__(self, message: str, *, hint: str, code: str, nearest: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code
        self.nearest = tuple(nearest)


class Client:
    """Speaks to one service with one key. Blocks; close it, or use it in a `with` block."""

    def __init__(self, url: str, *, key: str | None = None) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def wait_until_ready(self, seconds: float) -> None:
        """Return as soon as the service can answer queries.

        Raises
        ------
        ApiError
            It cannot yet after that many seconds.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                self._send("GET", "/readyz")
            except ApiError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_READY_PAUSE_S)
            else:
                return

    def metrics(self, search: str | None = None) -> list[dict[str, Any]]:
        """Every metric, or those that speak of `search`, in name order."""
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            page = self._get("/v1/metrics", {"search": search, "cursor": cursor})
            found += page["data"]
            cursor = page["meta"]["next_cursor"]
            if cursor is None:
                return found

    def query(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer (`data`, `columns`, `meta`) to a request of the contract; fractions are exact `Decimal`s."""
        content = self._send("POST", "/v1/query", json=request).content
        answer: dict[str, Any] = json.loads(content, parse_float=Decimal)
        return answer

    def query_bytes(self, request: Mapping[str, Any], *, media_type: str) -> bytes:
        """The answer in another format: `text/csv`, or the Arrow or Parquet type."""
        return self._send("POST", "/v1/query", json=request, headers={"Accept": media_type}).content

    def submit(self, request: Mapping[str, Any]) -> str:
        """The id of the request, which now waits to be run in the background; for those that take long."""
        return str(self._send("POST", "/v1/queries", json=request).json()["query_id"])

    def submitted(self, query_id: str) -> dict[str, Any]:
        """How far a submitted query is: its `state`, and in the end `row_count` or `error`."""
        return self._get(f"/v1/queries/{query_id}", {})

    def wait(self, query_id: str, *, seconds: float = math.inf) -> dict[str, Any]:
        """The submitted query, once it has succeeded.

        Raises
        ------
        ApiError
            It failed or was cancelled, or has not finished after that many seconds (`not_finished`); then it goes on.
        """
        deadline, pause_s = time.monotonic() + seconds, _FIRST_PAUSE_S
        while (query := self.submitted(query_id))["state"] in ("queued", "running"):
            if time.monotonic() >= deadline:
                raise ApiError(f"The query is still {query['state']}", hint="Wait again.", code="not_finished")
            time.sleep(min(pause_s, max(0.0, deadline - time.monotonic())))
            pause_s = min(2 * pause_s, _LAST_PAUSE_S)
        if query["state"] == "succeeded":
            return query
        problem = query["error"] or {
            "detail": "The query was cancelled",
            "hint": "Submit it again.",
            "code": "cancelled",
        }
        raise ApiError(problem["detail"], hint=problem["hint"], code=problem["code"])

    def result_pages(self, query_id: str, *, rows: int | None = None) -> Iterator[dict[str, Any]]:
        """The answer (as `query` has it) of a submitted query that has succeeded, page by page."""
        page, count = 1, 1
        while page <= count:
            given = {"page": page} | ({"page_size": rows} if rows else {})
            content = self._send("GET", f"/v1/queries/{query_id}/results", params=given).content
            answer: dict[str, Any] = json.loads(content, parse_float=Decimal)
            count = answer["meta"]["page_count"]
            page += 1
            yield answer

    def cancel(self, query_id: str) -> None:
        """End a submitted query: stop it, or let its rows go."""
        self._send("DELETE", f"/v1/queries/{query_id}")

    def _get(self, path: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        given = {name: value for name, value in parameters.items() if value is not None}
        answer: dict[str, Any] = self._send("GET", path, params=given).json()
        return answer

    # Any: handed on to httpx as it is.
    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:  # noqa: ANN401
        try:
            response = self._http.request(method, path, **request)
        except httpx.HTTPError as error:
            raise ApiError(
                f"The service at {self._http.base_url} cannot be reached: {error}",
                hint="Start it with `insight serve`, or set INSIGHT_API_URL.",
                code="unreachable",
            ) from error
        if response.is_error:
            raise _refusal(response)
        return response


def _refusal(response: httpx.Response) -> ApiError:
    try:
        problem = response.json()
        return ApiError(
            problem["detail"], hint=problem["hint"], code=problem["code"], nearest=problem.get("nearest") or ()
        )
    except (ValueError, LookupError, TypeError):  # something else answers at that address
        return ApiError(f"HTTP {response.status_code}", hint="Check INSIGHT_API_URL.", code="not_the_service")
