"""The log: readable by a program or on a terminal, and never a place where a secret ends up."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator

import pytest
import structlog

from api.logs import configure_logging


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def crash() -> None:
    key = "mi_00000000_" + "canary"
    try:
        len(key) / 0
    except ZeroDivisionError:
        structlog.get_logger().exception("crashed")


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()], ids=["terminal", "file"])
def test_a_traceback_shows_no_value_of_a_variable(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging()

    crash()

    assert "ZeroDivisionError" in stream.getvalue()
    assert "00000000_canary" not in stream.getvalue()


def test_a_line_in_a_file_is_one_json_object(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging()

    structlog.get_logger().info("query_answered", rows=3, text="two\nlines")

    (line,) = stream.getvalue().splitlines()
    assert {"event": "query_answered", "rows": 3, "level": "info", "text": "two\nlines"}.items() <= json.loads(
        line
    ).items()
