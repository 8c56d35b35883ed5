"""Logs that a program and an operator can read: one JSON object a line, or colours on a terminal."""

from __future__ import annotations

import logging
import sys

import structlog


def configure_logging() -> None:
    """Send the service's log to stderr, and quiet the libraries that narrate."""
    is_terminal = sys.stderr.isatty()
    # A plain traceback: the rich one shows local variables, a caller's key among them.
    console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    renderer = console if is_terminal else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if is_terminal else [structlog.processors.format_exc_info]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    for library in ("metricflow", "metricflow_semantics", "_granian", "granian.access"):
        logging.getLogger(library).setLevel(logging.WARNING)
