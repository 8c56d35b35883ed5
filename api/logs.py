"""Logs that a program and an operator can read: one JSON object a line, or colours on a terminal.

Libraries log through the standard library; what they say comes out in the same form. The last step takes out whatever
looks like a credential.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO, cast

import orjson
import structlog
from structlog.typing import EventDict, Processor

from api.observation import named
from api.redaction import redacted
from api.settings import LogLevel

# They narrate: SQL, rows, every retry. SQLAlchemy's rows would show the state database's secrets.
_QUIET = ("metricflow", "metricflow_semantics", "_granian", "granian.access", "sqlalchemy", "alembic", "asyncio")

_LATER_S = 0.05  # that a line of a repeat may wait


def configure_logging(level: LogLevel = LogLevel.INFO) -> None:
    """Send the service's log, and that of its libraries, to stderr."""
    _stream.file = sys.stderr
    is_terminal = sys.stderr.isatty()
    # A plain traceback: the rich one shows local variables, a caller's key among them.
    console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    rendering: list[Processor] = [console] if is_terminal else [_line]
    shared: list[Processor] = [named, structlog.processors.add_log_level, _stamped]
    least = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, *rendering, _without_credentials],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", _stream)),
        cache_logger_on_first_use=True,
    )
    _take_over_libraries(shared, rendering, least)


def _take_over_libraries(shared: list[Processor], rendering: list[Processor], least: int) -> None:
    handler = logging.StreamHandler(_stream)
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


class _Stream:
    """The log's file. Lines may wait for a moment until they are written; whatever else is said goes out behind them.

    Each call into the kernel lets other threads have Python's lock, and to get that back can take longer than all the
    rest of an answer that is kept.
    """

    def __init__(self) -> None:
        self.file = sys.stderr
        self._waiting: list[str] = []

    def later(self, line: str) -> None:
        """Write the line soon; belongs to the event loop's thread."""
        if not self._waiting:
            asyncio.get_running_loop().call_later(_LATER_S, self.write, "")
        self._waiting.append(line)

    def write(self, text: str) -> None:
        """Write what waits, and the text; in any thread."""
        waiting, self._waiting = self._waiting, []
        self.file.write("".join(f"{line}\n" for line in waiting) + text)

    def flush(self) -> None:
        """Keep nothing back."""
        self.file.flush()


_stream = _Stream()


def write_line(line: bytes) -> None:
    """Log a line that is rendered, within a twentieth of a second; it is in the audit already."""
    _stream.later(line.decode())


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
