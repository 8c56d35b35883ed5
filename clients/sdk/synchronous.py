"""The client that blocks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar

import httpx
import pyarrow as pa

from clients.sdk.answers import Answer, Cell, Dimension, Metric, SavedQuery, Segment, SegmentCustomer, read_arrow
from clients.sdk.errors import broken_off, refusal, unreachable
from clients.sdk.exchange import Pause, Retries, Steps
from clients.sdk.operations import ARROW, EXPORT_TIMEOUT_S, JSON, TIMEOUT_S, Operations

T = TypeVar("T")


class Client:
    """Speaks to one service with one key. Blocks; close it, or use it in a `with` block.

    Every method raises `ApiError` where the service refuses or cannot be reached.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        retries: Retries = Retries(),  # noqa: B008 - immutable
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_s, transport=transport)
        self._operations = Operations(retries)

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
        """Return as soon as the service can answer queries; raises if it cannot after that many seconds."""
        self._run(self._operations.ready(seconds))

    def metrics(self, search: str | None = None) -> list[Metric]:
        """Every metric, or those that speak of `search`, in name order."""
        return self._run(self._operations.metrics(search))

    def metric(self, name: str) -> Metric:
        """The metric of that name."""
        return self._run(self._operations.metric(name))

    def dimensions(self, metrics: Sequence[str] = ()) -> list[Dimension]:
        """The dimensions, in name order; with `metrics`, those that all of them have in common."""
        return self._run(self._operations.dimensions(metrics))

    def values(
        self, dimension: str, *, metrics: Sequence[str] = (), search: str | None = None, limit: int = 1_000
    ) -> list[Cell]:
        """The values of a dimension, in order and at most `limit` (1,000 is the most)."""
        values: list[Cell] = self._run(self._operations.values(dimension, metrics, search, limit))["data"]
        return values

    def saved_queries(self) -> list[SavedQuery]:
        """The named questions."""
        return self._run(self._operations.saved_queries())

    def saved_query(self, name: str) -> Answer:
        """The answer of a named question."""
        return self._run(self._operations.saved_query(name))

    def freshness(self) -> dict[str, Any]:
        """How fresh the current publication is, source by source, and its as-of date."""
        return self._run(self._operations.freshness())

    def publications(self) -> list[dict[str, Any]]:
        """The versions of data and definitions."""
        return self._run(self._operations.publications())

    def lineage(self, metric: str) -> dict[str, Any]:
        """Where a metric comes from, down to the sources; needs a role that sees SQL."""
        return self._run(self._operations.lineage(metric))

    def segments(self) -> list[Segment]:
        """The segments of the customers, by id."""
        return self._run(self._operations.segments())

    def segment(self, segment_id: int) -> Segment:
        """The segment of that id."""
        return self._run(self._operations.segment(segment_id))

    def segment_customers(self, segment_id: int) -> list[SegmentCustomer]:
        """The customers of a segment, by id."""
        return self._run(self._operations.segment_customers(segment_id))

    def customer_segment(self, customer_id: int) -> dict[str, Any]:
        """A customer's `segment` and `next_segment` with the distances to both, and its `features`."""
        return self._run(self._operations.customer_segment(customer_id))

    def score(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Of each row a `result`, the segment that it would be in, or the `errors` that keep it from being scored.

        A row has `features` or `transactions`, and may have an `id`, which comes back.
        """
        return self._run(self._operations.score(rows))

    def customer_outlook(self, customer_id: int, *, unproven: bool = False) -> dict[str, Any]:
        """Whether a customer will buy in the next 90 days, and for how much; `unproven` as for `forecast`."""
        return self._run(self._operations.customer_outlook(customer_id, unproven=unproven))

    def forecast(self, metric: str, *, unproven: bool = False) -> dict[str, Any]:
        """The coming days of a metric with intervals; refused if no better than a naive baseline, unless `unproven`."""
        return self._run(self._operations.forecast(metric, unproven=unproven))

    def anomalies(self, metrics: Sequence[str] = (), *, unproven: bool = False) -> list[dict[str, Any]]:
        """The days on which metrics were not as expected; of all that are watched, if none is named."""
        return self._run(self._operations.anomalies(metrics, unproven=unproven))

    def backtests(self) -> list[dict[str, Any]]:
        """How well customers and metrics are foreseen, by held-out months, beside naive baselines."""
        return self._run(self._operations.backtests())

    def query(self, request: Mapping[str, Any]) -> Answer:
        """The answer (`data`, `columns`, `meta`) to a request of the contract; fractions are exact `Decimal`s."""
        return self._run(self._operations.query(request))

    def compile(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The SQL of a request and the values bound to it, without running it; needs a role that sees SQL."""
        return self._run(self._operations.compiled(request))

    def query_bytes(self, request: Mapping[str, Any], *, media_type: str) -> bytes:
        """The answer in another format: `text/csv`, or the NDJSON, Arrow or Parquet type."""
        content, _ = self._run(self._operations.page(request, media_type))
        return content

    def table(self, request: Mapping[str, Any]) -> pa.Table:
        """The whole answer as one Arrow table, all from one publication; `limit` is the rows fetched at a time."""
        return read_arrow(self.pages_bytes(request, media_type=ARROW))

    def pages(self, request: Mapping[str, Any]) -> Iterator[Answer]:
        """The whole answer, `limit` rows at a time, all from one publication.

        Raises
        ------
        ApiError
            As for `query`; with the code `cursor_expired` if the data were published anew on the way: begin again.
        """
        return map(Answer.read, self.pages_bytes(request, media_type=JSON))

    def pages_bytes(self, request: Mapping[str, Any], *, media_type: str) -> Iterator[bytes]:
        """As `pages`, each in another format."""
        rest: Mapping[str, Any] | None = request
        while rest is not None:
            content, rest = self._run(self._operations.page(rest, media_type))
            yield content

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
            "POST", "/v1/export", json=request, headers={"Accept": media_type}, timeout=EXPORT_TIMEOUT_S
        )
        try:
            with asked as response:
                if response.is_error:
                    response.read()
                    raise refusal(response)
                for part in response.iter_bytes():
                    target.write(part)
                    progress(response.num_bytes_downloaded)
        except httpx.RemoteProtocolError as error:
            raise broken_off() from error
        except httpx.HTTPError as error:
            raise unreachable(self._http.base_url, error) from error

    def submit(self, request: Mapping[str, Any]) -> str:
        """The id of the request, which now waits to be run in the background; for those that take long."""
        return self._run(self._operations.submit(request))

    def submitted(self, query_id: str) -> dict[str, Any]:
        """How far a submitted query is: its `state`, and in the end `row_count` or `error`."""
        return self._run(self._operations.submitted(query_id))

    def wait(self, query_id: str, *, seconds: float = math.inf) -> dict[str, Any]:
        """The submitted query, once it has succeeded.

        Raises
        ------
        ApiError
            It failed or was cancelled, or has not finished after that many seconds (`not_finished`); then it goes on.
        """
        return self._run(self._operations.finished(query_id, seconds))

    def result_pages(self, query_id: str, *, rows: int | None = None) -> Iterator[Answer]:
        """The answer (as `query` has it) of a submitted query that has succeeded, page by page."""
        page, count = 1, 1
        while page <= count:
            answer = self._run(self._operations.result_page(query_id, page, rows))
            page, count = page + 1, answer.meta["page_count"]
            yield answer

    def cancel(self, query_id: str) -> None:
        """End a submitted query: stop it, or let its rows go."""
        self._run(self._operations.cancel(query_id))

    def _run(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                    step = steps.send(None)
                    continue
                try:
                    response = self._http.request(
                        step.method, step.path, params=step.params, json=step.json, headers=step.headers
                    )
                except httpx.HTTPError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(response)
        except StopIteration as done:
            result: T = done.value
            return result
        except httpx.HTTPError as error:
            raise unreachable(self._http.base_url, error) from error
