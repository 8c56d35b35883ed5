"""Traces by OpenTelemetry: a span for each request and for each of its stages, continuing the caller's trace.

Loaded only where `OTEL_EXPORTER_OTLP_ENDPOINT` is set, the variable that every OpenTelemetry exporter reads; the other
`OTEL_…` variables (headers, sampler, service name) mean what OpenTelemetry says. Spans carry names that our code or
the catalog gave, never a value, a path or SQL.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping, Sequence

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import Span, SpanKind, StatusCode, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from api.observation import Decision, Observation

_log = structlog.get_logger(__name__)

_FLUSH_S = 5.0  # a collector that is away must not hold up the end of the process


class _Exporter(OTLPSpanExporter):
    """Says once that the collector is lost, and once that it is back; the library would say it at every try."""

    def __init__(self) -> None:
        super().__init__()
        self._is_lost = False
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send the spans; those that cannot be sent are lost."""
        result = super().export(spans)
        is_lost = result is not SpanExportResult.SUCCESS
        if is_lost != self._is_lost:
            self._is_lost = is_lost
            _log.warning("tracing_collector_lost") if is_lost else _log.info("tracing_collector_back")
        return result


class Tracing:
    """Begins and ends the spans of requests; a thread of its own exports them."""

    def __init__(self) -> None:
        # A provider of our own: the global one would trace libraries too, with attributes that we do not know.
        named = Resource.create({SERVICE_NAME: "marketing-insight"}).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=named, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_Exporter()))
        self._tracer = self._provider.get_tracer("api")
        self._propagator = TraceContextTextMapPropagator()
        self._open: dict[str, Span] = {}

    def begin(self, observation: Observation, headers: Mapping[str, str]) -> str:
        """The trace's id; the span of the request is a child of the caller's, if the headers name one (W3C)."""
        span = self._tracer.start_span(
            observation.method,
            context=self._propagator.extract(headers),
            kind=SpanKind.SERVER,
            start_time=observation.began_at_ns,
        )
        self._open[observation.record_id] = span
        return format_trace_id(span.get_span_context().trace_id)

    def end(self, observation: Observation) -> None:
        """End the request's span, with the stages as its children."""
        span = self._open.pop(observation.record_id, None)
        if span is None:
            return
        if span.is_recording():
            self._describe(span, observation)
            self._add_stages(span, observation)
        span.end(observation.began_at_ns + observation.duration_ns)

    async def close(self) -> None:
        """Export what is left, for some seconds at most."""
        flushing = threading.Thread(target=self._provider.shutdown, name="trace-flush", daemon=True)
        flushing.start()
        await asyncio.to_thread(flushing.join, _FLUSH_S)

    def _describe(self, span: Span, observation: Observation) -> None:
        span.update_name(f"{observation.method} {observation.route}")
        facts: dict[str, str | int | tuple[str, ...] | None] = {
            "http.request.method": observation.method,
            "http.route": observation.route,
            "http.response.status_code": observation.status,
            "error.type": observation.code,
            "insight.request_id": observation.request_id,
            "insight.action": observation.action,
            "insight.decision": observation.decision,
        }
        if (answer := observation.answer) is not None:  # its metrics are names of the catalog, unlike those asked for
            facts |= {
                "insight.query_id": answer.query_id,
                "insight.metrics": answer.metrics,
                "insight.rows": answer.rows,
                "insight.publication": answer.publication,
                "insight.cache": answer.origin,
            }
        span.set_attributes({name: value for name, value in facts.items() if value is not None})
        if observation.decision is Decision.FAILED:
            span.set_status(StatusCode.ERROR)

    def _add_stages(self, span: Span, observation: Observation) -> None:
        inside = set_span_in_context(span)
        wall_ns = observation.began_at_ns - observation.began_ns
        for time in observation.stages:
            stage = self._tracer.start_span(time.stage, context=inside, start_time=wall_ns + time.began_ns)
            stage.end(wall_ns + time.ended_ns)
