"""What Prometheus reads from `/metrics`: how requests go, and how the parts are.

Labels are few and known beforehand: a route's template, a status class, an error's code, a stage, a source. Never a
principal, a metric's name or a value: each would make series without end, and tell who asks what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.admission import AdmissionCounters
from api.audit import AuditCounters
from api.cache import CacheCounters, Origin
from api.observation import Decision, Observation, Stage
from api.publication import PublicationInfo

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# From an answer out of memory to the time-out of a query.
_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

Series = Iterable[Metric]


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What is being served, None before the first publication, and whether the one that should be is refused."""

    publication: PublicationInfo | None
    is_refusing: bool


class Telemetry:
    """Counts requests, and asks the parts for their state whenever it is read."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Histogram(
            "insight_request_seconds",
            "Time to answer a request, by route and class of status.",
            ("route", "method", "status"),
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self._stages = Histogram(
            "insight_stage_seconds",
            "Time of a stage of a query; cache holds wait and run.",
            ("stage",),
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self._refusals = Counter(
            "insight_refusals",
            "Requests refused or failed, by the code of their problem.",
            ("code",),
            registry=self._registry,
        )
        self._rows = Counter("insight_rows_answered", "Rows in answers.", registry=self._registry)
        self._cancelled = Counter(
            "insight_cancelled", "Requests whose caller left before the answer.", registry=self._registry
        )
        # At hand, as looking one up by its labels costs as much as counting. Those of the stages are there from the
        # start, so that a rate over them has no gap.
        self._by_stage = {stage: self._stages.labels(stage) for stage in Stage}
        self._by_route: dict[tuple[str, str, int], Histogram] = {}

    def watch(self, series: Callable[[], Series]) -> None:
        """Read the series along with the others from now on, in the thread of whoever reads."""
        self._registry.register(_Watched(series))

    def observe(self, observation: Observation) -> None:
        """Count a request that has ended."""
        self._requests_like(observation).observe(observation.duration_ns / 1e9)
        for time in observation.stages:
            self._by_stage[time.stage].observe((time.ended_ns - time.began_ns) / 1e9)
        if observation.decision is Decision.CANCELLED:
            self._cancelled.inc()
        elif observation.decision is not Decision.ANSWERED:
            self._refusals.labels(observation.code or "unknown").inc()
        elif observation.answer is not None:
            self._rows.inc(observation.answer.rows or 0)

    def _requests_like(self, observation: Observation) -> Histogram:
        key = (observation.route, observation.method, (observation.status or 500) // 100)
        if key not in self._by_route:
            route, method, status_class = key
            self._by_route[key] = self._requests.labels(route, method, f"{status_class}xx")
        return self._by_route[key]

    def exposition(self) -> bytes:
        """Every series, in the text format of `CONTENT_TYPE`."""
        return generate_latest(self._registry)


class _Watched(Collector):
    """Series that a part makes on demand."""

    def __init__(self, series: Callable[[], Series]) -> None:
        self._series = series

    def collect(self) -> Series:
        return self._series()

    def describe(self) -> Series:
        return ()  # else the registry would ask the part before it is ready


def queue_series(counters: AdmissionCounters) -> Iterator[Metric]:
    """How full the queue of queries is."""
    yield _gauge("insight_queue_running", "Queries in the warehouse now.", counters.running)
    yield _gauge("insight_queue_waiting", "Queries that wait for their turn now.", counters.waiting)
    yield _counter("insight_queue_shed", "Queries turned away, for too many waited.", counters.shed)
    yield _counter("insight_queue_timed_out", "Queries whose turn did not come in time.", counters.timed_out)


def cache_series(counters: CacheCounters) -> Iterator[Metric]:
    """Where answers come from, and how much is kept."""
    answers = CounterMetricFamily("insight_answers", "Results by origin.", labels=["origin"])
    answers.add_metric([Origin.HIT], counters.hits)
    answers.add_metric([Origin.MISS], counters.misses)
    answers.add_metric([Origin.SHARED], counters.shared)
    answers.add_metric([Origin.BYPASS], counters.bypasses)
    yield answers
    yield _counter("insight_redis_errors", "Operations on Redis that failed.", counters.redis_errors)
    yield _gauge("insight_cache_entries", "Results kept in this process.", counters.entries)
    yield _gauge("insight_cache_bytes", "Bytes of the results kept in this process.", counters.entries_bytes)


def audit_series(counters: AuditCounters) -> Iterator[Metric]:
    """How far the audit is."""
    yield _gauge("insight_audit_backlog", "Records in the journal, not yet in the state database.", counters.backlog)
    yield _counter("insight_audit_moved", "Records moved into the state database.", counters.moved)
    yield _counter("insight_audit_refused", "Records that the state database does not take.", counters.refused)
    yield _counter("insight_audit_unwritten", "Records that could not be written at all.", counters.unwritten)


def publication_series(serving: Serving) -> Iterator[Metric]:
    """What is served and how fresh it is; times are seconds since 1970, so that ages are `time() - …`."""
    info = serving.publication
    yield _gauge("insight_ready", "Whether a publication can answer.", info is not None)
    yield _gauge(
        "insight_publication_refused", "Whether the current publication cannot be served.", serving.is_refusing
    )
    if info is None:
        return
    named = GaugeMetricFamily("insight_publication_info", "The publication that is served.", labels=["version"])
    named.add_metric([info.version], 1)
    yield named
    yield _gauge("insight_publication_created_timestamp_seconds", "When it was published.", info.created_at.timestamp())
    yield _gauge(
        "insight_data_through_timestamp_seconds", "The last day that its data speaks of.", _seconds(info.data_through)
    )
    yield from _source_series(info)


def _source_series(info: PublicationInfo) -> Iterator[Metric]:
    loaded = GaugeMetricFamily("insight_source_loaded_timestamp_seconds", "When it was last loaded.", labels=["source"])
    through = GaugeMetricFamily(
        "insight_source_data_through_timestamp_seconds", "The last day that it speaks of.", labels=["source"]
    )
    for source in info.sources:
        if source.loaded_at is not None:
            loaded.add_metric([source.name], source.loaded_at.timestamp())
        if source.data_through is not None:
            through.add_metric([source.name], _seconds(source.data_through))
    yield loaded
    yield through


def _seconds(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=float(value))
