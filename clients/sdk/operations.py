"""Everything that can be asked of the service, as steps that either client drives."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Any
from urllib.parse import quote

import httpx

from clients.sdk.answers import Answer, Dimension, Metric, SavedQuery, Segment, SegmentCustomer
from clients.sdk.errors import ApiError
from clients.sdk.exchange import Call, Pause, Retries, Steps, sent

TIMEOUT_S = 60.0  # twice the service's own query time-out
EXPORT_TIMEOUT_S = 600.0  # until the first rows, which may have to wait for a place and to be sorted
ARROW = "application/vnd.apache.arrow.stream"
JSON = "application/json"
_READY_PAUSE_S = 0.2
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.1, 2.0  # between looks at a submitted query
_LARGEST_PAGE, _SCORED_AT_ONCE = 500, 1_000
_NO_RETRIES = Retries(count=0)


class Operations:
    """Each operation of the service by its name."""

    def __init__(self, retries: Retries) -> None:
        self._retries = retries

    def ready(self, seconds: float) -> Steps[None]:
        """Nothing, as soon as the service can answer queries; raises what it said last after that many seconds."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                yield from sent(Call(method="GET", path="/readyz"), _NO_RETRIES)
            except (ApiError, httpx.HTTPError):
                if time.monotonic() > deadline:
                    raise
                yield Pause(_READY_PAUSE_S)
            else:
                return

    def metrics(self, search: str | None) -> Steps[list[Metric]]:
        """Every metric, or those that speak of `search`."""
        return self._whole_list("/v1/metrics", search=search)

    def metric(self, name: str) -> Steps[Metric]:
        """One metric."""
        return self._json("GET", f"/v1/metrics/{_part(name)}")

    def dimensions(self, metrics: Sequence[str]) -> Steps[list[Dimension]]:
        """The dimensions that the metrics have in common."""
        return self._whole_list("/v1/dimensions", metrics=",".join(metrics) or None)

    def values(self, dimension: str, metrics: Sequence[str], search: str | None, limit: int) -> Steps[dict[str, Any]]:
        """The body of a dimension's values, which says whether they are all."""
        path = f"/v1/dimensions/{_part(dimension)}/values"
        names = ",".join(metrics) or None
        return self._json("GET", path, metrics=names, search=search, limit=limit)

    def saved_queries(self) -> Steps[list[SavedQuery]]:
        """The named questions."""
        return self._whole_list("/v1/saved-queries")

    def saved_query(self, name: str) -> Steps[Answer]:
        """The answer of a named question."""
        return self._answer(Call(method="GET", path=f"/v1/saved-queries/{_part(name)}/results"))

    def freshness(self) -> Steps[dict[str, Any]]:
        """How fresh the data are."""
        return self._json("GET", "/v1/freshness")

    def publications(self) -> Steps[list[dict[str, Any]]]:
        """The versions of data and definitions."""
        return self._whole_list("/v1/publications")

    def lineage(self, metric: str) -> Steps[dict[str, Any]]:
        """What a metric is made of."""
        return self._json("GET", f"/v1/lineage/{_part(metric)}")

    def query(self, request: Mapping[str, Any]) -> Steps[Answer]:
        """The answer to a question."""
        return self._answer(Call(method="POST", path="/v1/query", json=dict(request)))

    def compiled(self, request: Mapping[str, Any]) -> Steps[dict[str, Any]]:
        """The SQL of a question."""
        return self._json("POST", "/v1/query/compile", body=dict(request))

    def page(self, request: Mapping[str, Any], media_type: str) -> Steps[tuple[bytes, dict[str, Any] | None]]:
        """One page, and the question for the next one; None after the last."""
        headers = {"Accept": media_type}
        call = Call(method="POST", path="/v1/query", json=dict(request), headers=headers)
        response = yield from sent(call, self._retries)
        if (cursor := response.headers.get("X-Next-Cursor")) is None:
            return response.content, None
        rest = {name: value for name, value in request.items() if name != "offset"}
        return response.content, rest | {"cursor": cursor}

    def segments(self) -> Steps[list[Segment]]:
        """The segments of the customers."""
        return self._whole_list("/v1/segments", read=_exact)

    def segment(self, segment_id: int) -> Steps[Segment]:
        """One segment."""
        return self._json("GET", f"/v1/segments/{int(segment_id)}", read=_exact)

    def segment_customers(self, segment_id: int) -> Steps[list[SegmentCustomer]]:
        """A segment's customers, all of its pages."""
        return self._whole_list(f"/v1/segments/{int(segment_id)}/customers", read=_exact, limit=_LARGEST_PAGE)

    def customer_segment(self, customer_id: int) -> Steps[dict[str, Any]]:
        """Where a customer stands."""
        return self._json("GET", f"/v1/customers/{int(customer_id)}/segment")

    def score(self, rows: Sequence[Mapping[str, Any]]) -> Steps[list[dict[str, Any]]]:
        """What became of each row, however many; the service takes a thousand at a time."""
        found: list[dict[str, Any]] = []
        for start in range(0, len(rows), _SCORED_AT_ONCE):
            some = [dict(row) for row in rows[start : start + _SCORED_AT_ONCE]]
            body = yield from self._json("POST", "/v1/segments/score", body={"rows": some})
            found += [scored | {"row": scored["row"] + start} for scored in body["data"]]
        return found

    def customer_outlook(self, customer_id: int, *, unproven: bool) -> Steps[dict[str, Any]]:
        """What to expect of a customer."""
        return self._json("GET", f"/v1/customers/{int(customer_id)}/outlook", unproven=unproven or None)

    def forecast(self, metric: str, *, unproven: bool) -> Steps[dict[str, Any]]:
        """What to expect of a metric."""
        return self._json("GET", f"/v1/forecasts/{_part(metric)}", unproven=unproven or None)

    def anomalies(self, metrics: Sequence[str], *, unproven: bool) -> Steps[list[dict[str, Any]]]:
        """The odd days of metrics."""
        return self._whole_list("/v1/anomalies", metrics=",".join(metrics) or None, unproven=unproven or None)

    def backtests(self) -> Steps[list[dict[str, Any]]]:
        """How well customers and metrics are foreseen."""
        return self._whole_list("/v1/backtests")

    def submit(self, request: Mapping[str, Any]) -> Steps[str]:
        """The id of the question, which now waits."""
        body = yield from self._json("POST", "/v1/queries", body=dict(request))
        return str(body["query_id"])

    def submitted(self, query_id: str) -> Steps[dict[str, Any]]:
        """How far a submitted question is."""
        return self._json("GET", f"/v1/queries/{_part(query_id)}")

    def finished(self, query_id: str, seconds: float) -> Steps[dict[str, Any]]:
        """The submitted question, once it has succeeded; raises what became of it otherwise."""
        deadline, pause_s = time.monotonic() + seconds, _FIRST_PAUSE_S
        while True:
            query = yield from self.submitted(query_id)
            if query["state"] not in ("queued", "running"):
                return _succeeded(query)
            if time.monotonic() >= deadline:
                raise ApiError(f"The query is still {query['state']}", hint="Wait again.", code="not_finished")
            yield Pause(min(pause_s, max(0.0, deadline - time.monotonic())))
            pause_s = min(2 * pause_s, _LAST_PAUSE_S)

    def result_page(self, query_id: str, page: int, rows: int | None) -> Steps[Answer]:
        """One page of a submitted question's rows."""
        params = {"page": page} | ({"page_size": rows} if rows else {})
        call = Call(method="GET", path=f"/v1/queries/{_part(query_id)}/results", params=params)
        return self._answer(call)

    def cancel(self, query_id: str) -> Steps[None]:
        """Nothing; a submitted question ends."""
        yield from sent(Call(method="DELETE", path=f"/v1/queries/{_part(query_id)}"), self._retries)

    # Any: each caller names the shape of the contract.
    def _json(
        self, method: str, path: str, *, body: object = None, read: Callable[..., Any] = json.loads, **params: object
    ) -> Steps[Any]:
        """The body of the response; a parameter that is None is not sent."""
        given = {name: value for name, value in params.items() if value is not None}
        response = yield from sent(Call(method=method, path=path, params=given, json=body), self._retries)
        return read(response.content)

    def _whole_list(self, path: str, *, read: Callable[..., Any] = json.loads, **params: object) -> Steps[list[Any]]:
        """A list, all of its pages."""
        found: list[Any] = []
        cursor: str | None = None
        while True:
            page = yield from self._json("GET", path, read=read, cursor=cursor, **params)
            found += page["data"]
            cursor = page["meta"]["next_cursor"]
            if cursor is None:
                return found

    def _answer(self, call: Call) -> Steps[Answer]:
        response = yield from sent(call, self._retries)
        return Answer.read(response.content)


# As answers have it: money with all its digits.
_exact: Callable[..., Any] = partial(json.loads, parse_float=Decimal)


def _part(name: str) -> str:
    """The name as one part of a path, whatever is in it."""
    return quote(name, safe="")


def _succeeded(query: dict[str, Any]) -> dict[str, Any]:
    if query["state"] == "succeeded":
        return query
    problem = query["error"] or {
        "detail": "The query was cancelled",
        "hint": "Submit it again.",
        "code": "cancelled",
    }
    raise ApiError(problem["detail"], hint=problem["hint"], code=problem["code"])
