"""A Python client of the service: metrics by name, answers as rows or bytes, refusals as exceptions."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from types import TracebackType
from typing import Any, BinaryIO, Self

import httpx

_TIMEOUT_S = 60.0  # twice the service's own query time-out
_EXPORT_TIMEOUT_S = 600.0  # until the first rows, which may have to wait for a place and to be sorted
_READY_PAUSE_S = 0.2


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
        """The answer in another format: `text/csv`, or the NDJSON, Arrow or Parquet type."""
        return self._send("POST", "/v1/query", json=request, headers={"Accept": media_type}).content

    def export(
        self,
        request: Mapping[str, Any],
        target: BinaryIO,
        *,
        media_type: str,
        progress: Callable[[int], object] = lambda _: None,
    ) -> None:
        """Write all the rows of the answer to the target, as they arrive; any number of them, in little memory.

        `progress` is called with the number of bytes after each part.

        Raises
        ------
        ApiError
            The service refused, or the export broke off: then what was written is not whole.
        """
        asked = self._http.stream(
            "POST", "/v1/export", json=request, headers={"Accept": media_type}, timeout=_EXPORT_TIMEOUT_S
        )
        try:
            with asked as response:
                if response.is_error:
                    response.read()
                    raise _refusal(response)
                for part in response.iter_bytes():
                    target.write(part)
                    progress(response.num_bytes_downloaded)
        except httpx.RemoteProtocolError as error:
            raise ApiError(
                "The export broke off, and what has arrived is not whole",
                hint="Ask for less at once, such as a month, or see the service's log.",
                code="export_broke_off",
            ) from error
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _get(self, path: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        given = {name: value for name, value in parameters.items() if value is not None}
        answer: dict[str, Any] = self._send("GET", path, params=given).json()
        return answer

    # Any: handed on to httpx as it is.
    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:  # noqa: ANN401
        try:
            response = self._http.request(method, path, **request)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        if response.is_error:
            raise _refusal(response)
        return response

    def _unreachable(self, error: httpx.HTTPError) -> ApiError:
        return ApiError(
            f"The service at {self._http.base_url} cannot be reached: {error}",
            hint="Start it with `insight serve`, or set INSIGHT_API_URL.",
            code="unreachable",
        )


def _refusal(response: httpx.Response) -> ApiError:
    try:
        problem = response.json()
        return ApiError(
            problem["detail"], hint=problem["hint"], code=problem["code"], nearest=problem.get("nearest") or ()
        )
    except (ValueError, LookupError, TypeError):  # something else answers at that address
        return ApiError(f"HTTP {response.status_code}", hint="Check INSIGHT_API_URL.", code="not_the_service")
