"""A statement taken apart: a call of the semantic layer, the SQL around it, or SQL over the virtual tables."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

from api.flight.calls import Call, not_understood, parse_call

MAX_CHARACTERS = 50_000

CALLED = "semantic_layer_rows"  # the table that stands for a call's rows in the SQL around it

# Its quotes are skipped whole, so that braces and parentheses in a text end nothing.
_QUOTED = r"""'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+\""""
_IN_BRACES = re.compile(rf"\{{\{{-?((?:{_QUOTED}|[^'\"{{}}])*+)-?\}}\}}", re.DOTALL)
_BARE_HEAD = re.compile(r"(?<![\w.])semantic_layer\s*\.\s*\w+\s*\(")
_BARE = re.compile(
    rf"(semantic_layer\s*\.\s*\w+\s*\((?:{_QUOTED}|[^'\"()]|\((?:{_QUOTED}|[^'\"()])*+\))*+\))", re.DOTALL
)
_JUST_THE_ROWS = re.compile(rf"\s*SELECT\s+\*\s+FROM\s+{CALLED}(?:\s+AS\s+\w+)?\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStatement:
    """A call, and the SELECT over its rows under the name `CALLED`; None where the rows are wanted as they are."""

    call: Call
    around: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TableStatement:
    """SQL over the virtual tables."""

    sql: str


Statement: TypeAlias = CallStatement | TableStatement


def parse_statement(text: str) -> Statement:
    """What the statement is; no SQL in it has been looked at.

    Raises
    ------
    InvalidQuery
        It is empty, too long or no text, or what stands in braces is no call.
    """
    if len(text) > MAX_CHARACTERS:
        raise not_understood(f"The statement has {len(text)} characters", hint=f"At most {MAX_CHARACTERS} are allowed.")
    if re.search("[\0\ud800-\udfff]", text):
        raise not_understood("The statement holds a NUL or half a character", hint="Send it as well-formed Unicode.")
    body = text.strip().removesuffix(";").strip()
    found = _found_call(body)
    if found is None:
        return TableStatement(sql=body)
    around = f"{body[: found.start()]} {CALLED} {body[found.end() :]}"
    if "{{" in around or "{%" in around or "{#" in around:
        raise not_understood(
            "The statement has more than one call, or a Jinja statement", hint="Write one call in double braces."
        )
    is_plain = around.strip() == CALLED or _JUST_THE_ROWS.fullmatch(around)
    return CallStatement(call=parse_call(found[1]), around=None if is_plain else around)


def _found_call(body: str) -> re.Match[str] | None:
    """The first call. Only one place is tried: trying each would take a time that grows with the square."""
    if (at := body.find("{{")) >= 0:
        return _IN_BRACES.match(body, at)
    head = _BARE_HEAD.search(body)
    return _BARE.match(body, head.start()) if head else None
