"""Logs that a program and an operator can read: one JSON object a line, or colours on a terminal.

Libraries log through the standard library; what they say comes out in the same form. The last step takes out whatever
looks like a credential.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

import orjson
import structlog
from structlog.typing import EventDict, Processor

from api.observation import named
from api.redaction import redacted
from api.settings import LogLevel

# They narrate: SQL, rows, every retry. SQLAlchemy's rows would show the state database's secrets.
_QUIET = ("metricflow", "metricflow_semantics", "_granian", "granian.access", "sqlalchemy", "alembic", "asyncio")


def configure_logging(level: LogLevel = LogLevel.INFO) -> None:
    """Send the service's log, and that of its libraries, to stderr."""
    is_terminal = sys.stderr.isatty()
    # A plain traceback: the rich one shows local variables, a caller's key among them.
    console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    rendering: list[Processor] = [console] if is_terminal else [_line]
    shared: list[Processor] = [named, structlog.processors.add_log_level, _stamped]
    least = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, *rendering, _without_credentials],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    _take_over_libraries(shared, rendering, least)


def _take_over_libraries(shared: list[Processor], rendering: list[Processor], least: int) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering, _without_credentials],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(least)
    for library in _QUIET:
        logging.getLogger(library).setLevel(logging.WARNING)


def rendered(event: str, **facts: object) -> str | None:
    """The line that the log would have at `info` now; None where it would have none, or is no lines of JSON."""
    steps = structlog.get_config()["processors"]
    if _line not in steps or not structlog.get_logger().is_enabled_for(logging.INFO):
        return None
    told: Any = {"event": event, **facts}
    for step in steps:
        told = step(None, "info", told)
    return str(told)


def write_line(line: bytes) -> None:
    """Log a line that is rendered."""
    sys.stderr.write(f"{line.decode()}\n")


def stamp() -> str:
    """Now, as every line begins."""
    # As structlog's own would say it, in a fifth of the time: there is a line for each request.
    return f"{datetime.now(UTC).isoformat(timespec='microseconds')[:-6]}Z"


def _stamped(_: Any, __: str, event: EventDict) -> EventDict:  # noqa: ANN401 - structlog's signature
    event.setdefault("timestamp", stamp())
    return event


# First in a line.
_MOST_TELLING = dict.fromkeys(("timestamp", "level", "event"))


def _line(logger: Any, name: str, event: EventDict) -> str:  # noqa: ANN401 - structlog's signature
    if "exc_info" in event:
        event = structlog.processors.format_exc_info(logger, name, event)
    told = {**_MOST_TELLING, **event}
    try:
        return orjson.dumps(told, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()
    except orjson.JSONEncodeError:  # half a character, say, or a number of more than 64 bits
        return json.dumps(told, default=repr)


def _without_credentials(_: Any, __: str, line: Any) -> str:  # noqa: ANN401 - a text, rendered by the step before
    return redacted(line)
