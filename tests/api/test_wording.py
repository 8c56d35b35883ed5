"""What to do next is said in the words of the transport that an error came over."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from api.observation import Transport
from api.wording import worded
from tests.conftest import REPOSITORY

# What nobody meets over Flight SQL, which has no long queries.
ONLY_LATER = re.compile(r"/v1/queries")


def hints() -> Iterator[str]:
    """Every hint beneath the transports; where a value would stand, `x` does."""
    for file in sorted((REPOSITORY / "api").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.keyword(arg="hint", value=value) | ast.Assign(targets=[ast.Name(id="hint")], value=value):
                    yield from texts(value)


def texts(value: ast.expr) -> Iterator[str]:
    match value:
        case ast.Constant(value=str() as text):
            yield text
        case ast.JoinedStr(values=parts):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in parts)
        case ast.IfExp(body=body, orelse=otherwise):
            yield from texts(body)
            yield from texts(otherwise)


def test_hints_are_found() -> None:
    assert sum("/v1/" in hint for hint in hints()) > 8
    assert sum("Retry-After" in hint for hint in hints()) > 3


@pytest.mark.parametrize("transport", [Transport.GRAPHQL, Transport.FLIGHT])
def test_no_hint_names_a_request_of_rest_to_others(transport: Transport) -> None:
    shown = [worded(hint, transport) for hint in hints()]

    named = [hint for hint in shown if re.search(r"/v1/|Retry-After|cursor of the page", hint)]
    assert [hint for hint in named if transport is Transport.GRAPHQL or not ONLY_LATER.search(hint)] == []


def test_over_rest_hints_stay_as_they_are() -> None:
    assert [hint for hint in hints() if worded(hint, Transport.REST) != hint] == []


@pytest.mark.parametrize(
    ("hint", "transport", "expected"),
    [
        ("List them with GET /v1/metrics.", Transport.FLIGHT, "List them with semantic_layer.metrics()."),
        ("List them with GET /v1/metrics.", Transport.GRAPHQL, "List them with the query metrics."),
        (
            "Follow it until it has succeeded: GET /v1/queries/01ab.",
            Transport.GRAPHQL,
            "Follow it until it has succeeded: query(queryId: ...).",
        ),
        (
            "Wait for one to finish, or cancel it: DELETE /v1/queries/{id}.",
            Transport.GRAPHQL,
            "Wait for one to finish, or cancel it: cancelQuery.",
        ),
        (
            "Ask for pages: POST /v1/query with limit and offset.",
            Transport.FLIGHT,
            "Ask for pages: a statement with a LIMIT.",
        ),
    ],
)
def test_a_step_has_its_own_name(hint: str, transport: Transport, expected: str) -> None:
    assert worded(hint, transport) == expected
