"""What a consumer measures, and the small server that shows it: /metrics for Prometheus, /healthz for whoever restarts.

Health: 200 while messages are read, or held back for a reason that passes (the warehouse is being built); 503 before
the first poll, and when nothing has moved for a minute without a reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from socketserver import ThreadingMixIn
from threading import Thread
from time import monotonic
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app

LONGEST_SILENCE_S: Final = 60.0

_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class ConsumerMeters:
    """The series of one consumer, and its state in a word."""

    def __init__(self) -> None:
        """Make the series in a registry of their own."""
        self.registry = CollectorRegistry()
        registry = self.registry
        self._loaded = Counter("insight_stream_loaded", "Messages loaded", ["topic"], registry=registry)
        self._rejected = Counter(
            "insight_stream_rejected", "Messages that became dead letters", ["topic", "error_class"], registry=registry
        )
        self._lag = Gauge(
            "insight_stream_lag_messages", "Messages not read yet", ["topic", "partition"], registry=registry
        )
        self._write = Histogram("insight_stream_write_seconds", "One transaction", buckets=_SECONDS, registry=registry)
        self._holding = Gauge("insight_stream_holding", "1 while messages are held back", registry=registry)
        self._rebalances = Counter("insight_stream_rebalances", "Assignments of partitions", registry=registry)
        self.state = State()

    def wrote(self, topic: str, *, loaded: int, seconds: float) -> None:
        """Count a partition's share of a transaction."""
        self._loaded.labels(topic).inc(loaded)
        self._write.observe(seconds)
        self.state.moves()

    def rejected(self, topic: str, kind: str) -> None:
        """Count a dead letter."""
        self._rejected.labels(topic, kind).inc()

    def lags(self, topic: str, partition: int, messages: int) -> None:
        """Note how many messages of a partition are not read yet."""
        self._lag.labels(topic, str(partition)).set(messages)

    def assigned(self) -> None:
        """Count a change of partitions; those of before are somebody else's to tell of."""
        self._lag.clear()
        self._rebalances.inc()

    def holds(self, reason: str | None) -> None:
        """Note why messages are held back, or that they no longer are."""
        self._holding.set(0 if reason is None else 1)
        self.state.reason = reason


@dataclass(slots=True)
class State:
    """What a consumer does now."""

    reason: str | None = "starting"
    moved_at: float = field(default_factory=monotonic)

    def moves(self) -> None:
        """Note that it is alive: something was written, or there was nothing to write."""
        self.moved_at = monotonic()

    def report(self) -> tuple[bool, dict[str, Any]]:
        """Whether it is well, and in which words."""
        silent_s = monotonic() - self.moved_at
        well = self.reason != "starting" and (self.reason is not None or silent_s < LONGEST_SILENCE_S)
        return well, {"status": "ok" if well else "unhealthy", "holding": self.reason, "silent_s": round(silent_s, 1)}


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the standard library's
        """Nothing: probes are no news."""


@contextmanager
def serving(meters: ConsumerMeters, *, host: str, port: int) -> Iterator[None]:
    """Show the meters for the time of the block, in a thread; with port 0, nowhere."""
    if not port:
        yield
        return
    server = make_server(host, port, _application(meters), server_class=_Server, handler_class=_Quiet)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def _application(meters: ConsumerMeters) -> Callable[..., Iterable[bytes]]:
    show_metrics = make_wsgi_app(meters.registry)

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/metrics":
            shown: Iterable[bytes] = show_metrics(environ, start_response)
            return shown
        if environ["PATH_INFO"] != "/healthz":
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"See /healthz and /metrics\n"]
        well, report = meters.state.report()
        status = "200 OK" if well else "503 Service Unavailable"
        start_response(status, [("Content-Type", "application/json")])
        return [json.dumps(report).encode()]

    return answer
