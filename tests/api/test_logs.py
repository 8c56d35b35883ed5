"""The log: readable by a program or on a terminal, and never a place where a secret ends up."""

from __future__ import annotations

import io
import json
import logging
import sys

import httpx
import pytest
import structlog
from structlog.testing import capture_logs

from api.logs import configure_logging
from api.observation import Observation, Transport, named, observing
from api.settings import LogLevel
from tests.conftest import Published


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


pytestmark = pytest.mark.usefixtures("logging_as_before")


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


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Where the log goes, at its usual level."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging()
    return stream


def test_a_line_begins_with_when_how_bad_and_what(log: io.StringIO) -> None:
    structlog.get_logger().warning("something_happened", aaa=1)

    assert list(json.loads(log.getvalue())) == ["timestamp", "level", "event", "aaa"]


def test_what_a_library_says_comes_in_the_same_form(log: io.StringIO) -> None:
    with observing(Observation(request_id="r1", transport=Transport.REST)):
        logging.getLogger("some.library").warning("retrying %s", "it")

    line = json.loads(log.getvalue())
    assert line["event"] == "retrying it"
    assert line["logger"] == "some.library"
    assert (line["level"], line["request_id"]) == ("warning", "r1")


def test_a_library_s_traceback_is_part_of_its_line(log: io.StringIO) -> None:
    logging.getLogger("some.library").error("broken", exc_info=ZeroDivisionError())

    assert "ZeroDivisionError" in json.loads(log.getvalue())["exception"]


@pytest.mark.parametrize(
    "text",
    [
        "mi_0a1b2c3d_canary-canary-canary",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.canary",
        "Authorization: Bearer canary.canary",
        "redis://:canary@127.0.0.1:6379/0",
        "postgresql://insight:canary@db/insight",
    ],
)
def test_what_looks_like_a_credential_is_taken_out_whoever_logs_it(log: io.StringIO, text: str) -> None:
    structlog.get_logger().error("ours", detail=text, nested={"deep": [text]})
    logging.getLogger("theirs").error("theirs: %s", text)
    structlog.get_logger().error("crashed", exc_info=ValueError(text))

    assert log.getvalue().count("[credential]") == 4
    assert "canary" not in log.getvalue()


def test_less_than_the_level_is_not_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    logged = {}
    for level in LogLevel:
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        configure_logging(level)
        for logger in (structlog.get_logger(), logging.getLogger("some.library")):
            for method in ("debug", "info", "warning"):
                getattr(logger, method)(method)
        logged[level] = len(stream.getvalue().splitlines())

    assert logged == {LogLevel.DEBUG: 6, LogLevel.INFO: 4, LogLevel.WARNING: 2}


@pytest.mark.parametrize("library", ["sqlalchemy.engine.Engine", "metricflow.engine", "asyncio"])
def test_libraries_that_narrate_are_quiet_even_at_debug(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging(LogLevel.DEBUG)

    logging.getLogger(library).info("SELECT secret")
    logging.getLogger(library).warning("worth it")

    assert len(stream.getvalue().splitlines()) == 1


async def test_a_request_is_one_line_with_what_an_operator_asks_first(
    api: httpx.AsyncClient, synthetic: Published
) -> None:
    with capture_logs(processors=[named]) as logs:
        answer = await api.post("/v1/query", json={"metrics": ["total_revenue"]}, headers={"X-Request-Id": "r1"})
        await api.get("/v1/dimensions/nonsense/values?search=not-logged")

    answered, refused = [entry for entry in logs if entry["event"] == "request"]
    assert len(logs) == 2
    assert answered.pop("ms") > 0
    assert len(answered.pop("principal")) == 8
    assert answered.pop("cache") in ("hit", "miss")
    assert answered == {
        "event": "request",
        "log_level": "info",
        "request_id": "r1",
        "method": "POST",
        "path": "/v1/query",
        "status": 200,
        "query_id": answer.json()["meta"]["query_id"],
        "metrics": ("total_revenue",),
        "rows": 1,
        "publication": synthetic.version,
    }
    assert (refused["path"], refused["status"], refused["code"]) == (
        "/v1/dimensions/nonsense/values",
        404,
        "unknown_dimension",
    )
    assert "not-logged" not in str(refused)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_probes_are_logged_at_debug_alone(api: httpx.AsyncClient, path: str) -> None:
    with capture_logs() as logs:
        await api.get(path)

    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("request", "debug")]
