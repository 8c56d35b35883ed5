"""Lines and bodies that are filled in instead of made anew are what they would have been."""

from __future__ import annotations

import asyncio
import io
import re
import sys
from dataclasses import replace

import orjson
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from api.audit_record import line_of
from api.filters import Comparison, Operator
from api.known import KnownLines
from api.logs import configure_logging, write_line
from api.observation import AnsweredWith, Observation, Transport, observing, unique_id
from api.policy import Principal
from api.query import MetricQuery
from api.settings import LogLevel
from api.template import Template
from tests.api.test_logs import Terminal

TOLD = AnsweredWith(metrics=("total_revenue",), publication="1", sql_hash="ab", query_id="q", rows=3, origin="hit")
CALLER = Principal(principal_id="p", name="100 % & more", role="admin")


def request(text: str = "", *, status: int = 200, caller: Principal = CALLER) -> Observation:
    return Observation(
        request_id=unique_id(),
        transport=Transport.REST,
        method="POST",
        path="/v1/query",
        principal=caller,
        action="run_query",
        query=MetricQuery(
            metrics=("total_revenue",), where=Comparison(field="x", operator=Operator.EQ, values=(text,))
        ),
        answer=TOLD,
        status=status,
        ended_ns=10**15,
    )


@given(st.text(max_size=300))
def test_a_line_of_a_repeat_is_the_line_that_would_be_written(text: str) -> None:
    repeat = request(text)
    plain = line_of(repeat)

    known = repeat.known = KnownLines(request(text), told=TOLD)

    assert known.fit(repeat)
    assert known.audit_line(repeat) == line_of(repeat) == plain


@pytest.mark.parametrize("other", [request(status=499), request(caller=replace(CALLER, role="viewer"))])
def test_a_request_that_ended_otherwise_has_a_line_of_its_own(other: Observation) -> None:
    other.known = KnownLines(request(), told=TOLD)

    record = orjson.loads(line_of(other))

    assert (record["status"], record["role"]) == (other.status, other.principal and other.principal.role)


@pytest.mark.parametrize("mark", ["0f1e2d3c4b5a69788796a5b4c3d2e1f0", "1f0e3d2c5b4a79689786b5a4d3c2f1e0"])
def test_what_was_asked_may_not_look_like_what_is_left_open(mark: str) -> None:
    marked = orjson.loads(KnownLines(request(), told=TOLD)._audit._format.replace(b"%b", b"0"))  # noqa: SLF001
    assert marked["id"] == marked["request_id"] == "0"

    with pytest.raises(ValueError, match="marks"):
        KnownLines(request(mark), told=TOLD)


@pytest.mark.usefixtures("logging_as_before")
async def test_the_log_says_of_a_repeat_what_it_would_have_said(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging()
    repeat = request()
    with observing(repeat):
        structlog.get_logger().info("request", **repeat.summary)

    line = KnownLines(request(), told=TOLD).log_line(repeat)

    assert line is not None
    write_line(line)
    await asyncio.sleep(0.2)
    written, filled = stream.getvalue().splitlines()
    assert repeat.request_id in filled
    assert moment_gone(written) == moment_gone(filled)


def moment_gone(line: str) -> str:
    return re.sub(r"20\d\d-\d\d-\d\dT[0-9:.]+Z", "", line)


@pytest.mark.usefixtures("logging_as_before")
@pytest.mark.parametrize(
    ("stream", "level"), [(Terminal(), LogLevel.INFO), (io.StringIO(), LogLevel.WARNING)], ids=["terminal", "quiet"]
)
def test_there_is_no_line_where_the_log_has_none_or_is_for_people(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, level: LogLevel
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging(level)

    assert KnownLines(request(), told=TOLD).log_line(request()) is None


def test_a_template_takes_what_comes_between_its_marks_as_it_is() -> None:
    template = Template(b"100% %b {A} and {B}%", (b"{A}", b"{B}"))

    assert template.filled(b"%s", b"2") == b"100% %b %s and 2%"


@pytest.mark.parametrize("example", [b"{B} {A}", b"{A}", b"{A} {B} {B}", b""])
def test_marks_are_there_once_and_in_their_order(example: bytes) -> None:
    with pytest.raises(ValueError, match="marks"):
        Template(example, (b"{A}", b"{B}"))
