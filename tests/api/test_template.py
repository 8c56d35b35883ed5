"""Lines and bodies that are filled in instead of made anew are what they would have been."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.audit_record import LineTemplate, line_of
from api.filters import Comparison, Operator
from api.observation import AnsweredWith, Observation, Transport, unique_id
from api.policy import Principal
from api.query import MetricQuery
from api.template import Template

TOLD = AnsweredWith(metrics=("total_revenue",), publication="1", sql_hash="ab", query_id="q", rows=3, origin="hit")
CALLER = Principal(principal_id="p", name="100 % & more", role="admin")


def request(text: str = "", *, status: int = 200, caller: Principal = CALLER) -> Observation:
    return Observation(
        request_id=unique_id(),
        transport=Transport.REST,
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

    repeat.known_line = LineTemplate(request(text), told=TOLD)

    assert repeat.known_line.fits(repeat)
    assert repeat.known_line.filled(repeat) == line_of(repeat) == plain


@pytest.mark.parametrize("other", [request(status=499), request(caller=replace(CALLER, role="viewer"))])
def test_a_request_that_ended_otherwise_has_a_line_of_its_own(other: Observation) -> None:
    other.known_line = LineTemplate(request(), told=TOLD)

    record = orjson.loads(line_of(other))

    assert (record["status"], record["role"]) == (other.status, other.principal and other.principal.role)


def test_what_was_asked_may_not_look_like_what_is_left_open() -> None:
    marked = orjson.loads(LineTemplate(request(), told=TOLD)._line._format.replace(b"%b", b"0"))  # noqa: SLF001
    assert marked["id"] == marked["request_id"] == "0"

    with pytest.raises(ValueError, match="marks"):
        LineTemplate(request("0f1e2d3c4b5a69788796a5b4c3d2e1f0"), told=TOLD)


def test_a_template_takes_what_comes_between_its_marks_as_it_is() -> None:
    template = Template(b"100% %b {A} and {B}%", (b"{A}", b"{B}"))

    assert template.filled(b"%s", b"2") == b"100% %b %s and 2%"


@pytest.mark.parametrize("example", [b"{B} {A}", b"{A}", b"{A} {B} {B}", b""])
def test_marks_are_there_once_and_in_their_order(example: bytes) -> None:
    with pytest.raises(ValueError, match="marks"):
        Template(example, (b"{A}", b"{B}"))
