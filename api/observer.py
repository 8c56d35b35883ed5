"""Hands what is known of a request to those who keep it: audit, metrics, traces. Every transport reports here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
import structlog

from api.audit import AuditTrail
from api.audit_store import AuditStore
from api.errors import Unavailable
from api.observation import Observation
from api.settings import Settings
from api.telemetry import Telemetry, audit_series

if TYPE_CHECKING:
    from api.tracing import Tracing

_log = structlog.get_logger(__name__)

_AUDIT_DIR = Path(".insight/audit")
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class Observer:
    """Told of a request three times: when it begins, before its answer leaves, and when it has ended."""

    def __init__(self, *, trail: AuditTrail, telemetry: Telemetry, tracing: Tracing | None) -> None:
        self._trail = trail
        self._telemetry = telemetry
        self._tracing = tracing

    def begin(self, observation: Observation, headers: Mapping[str, str]) -> None:
        """Begin its trace, if there are traces."""
        if self._tracing:
            observation.trace_id = self._tracing.begin(observation, headers)

    def record(self, observation: Observation) -> None:
        """Write its record; to be called before the first byte of its answer leaves.

        Raises
        ------
        Unavailable
            The record cannot be written, so there must be no answer.
        """
        if observation.is_audited:
            self._trail.write(observation)
            observation.recorded_as = observation.outcome

    def end(self, observation: Observation) -> None:
        """Count it and end its trace; write its record anew, if it ended otherwise than was written."""
        if observation.recorded_as != observation.outcome:
            with suppress(Unavailable):  # it is counted and logged, and the answer has left
                self.record(observation)
        self._telemetry.observe(observation)
        if self._tracing:
            self._tracing.end(observation)


def open_observer(settings: Settings, state: sa.Engine, telemetry: Telemetry, closing: AsyncExitStack) -> Observer:
    """The observer that the settings ask for; `closing` flushes what it has not handed on.

    Raises
    ------
    WrongSetting
        The audit has to be written, and cannot.
    """
    trail = AuditTrail(
        folder=settings.audit_dir or _folder_beside(state.url),
        store=AuditStore(state),
        mode=settings.audit,
        keep_for=timedelta(days=settings.audit_keep_days),
    )
    trail.start()
    closing.push_async_callback(trail.close)
    telemetry.watch(lambda: audit_series(trail.counters()))
    tracing = _open_tracing()
    if tracing is not None:
        closing.push_async_callback(tracing.close)
    return Observer(trail=trail, telemetry=telemetry, tracing=tracing)


def _folder_beside(state: sa.URL) -> Path:
    """Named after the file of the state database, as SQLite names its own journals."""
    is_file = state.get_backend_name() == "sqlite" and state.database
    return Path(f"{state.database}-audit") if is_file else _AUDIT_DIR


def _open_tracing() -> Tracing | None:
    """The traces, if the environment names where they go."""
    if not any(name in os.environ for name in _ENDPOINTS):
        return None
    try:
        from api.tracing import Tracing
    except ImportError as error:
        _log.warning("tracing_not_installed", missing=error.name, hint="Install the extra `tracing`: make setup")
        return None
    return Tracing()
