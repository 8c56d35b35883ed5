"""Where the next page begins, as a text that callers pass back as it came.

That of a list names the last item seen. That of an answer names publication and question, so that a walk sees one
version of one question; all that is taken from it is an offset. It is not signed, as there is nothing to gain by
forging one: every offset may be asked for openly, and names, values and rows come from the request and from the
caller's grant, never from here. The digest of the question is there to catch mistakes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import replace

from api.errors import InvalidQuery, UnreadableRequest
from api.query import CheckedQuery

_SHAPE = re.compile(r"(?P<version>[\w.-]{1,100}) (?P<question>[0-9a-f]{32}) (?P<offset>[0-9]{1,16})", re.ASCII)


def next_cursor(question: CheckedQuery, *, version: str) -> str:
    """The cursor of the page that follows the question's own."""
    text = f"{version} {_digest(question)} {question.offset + question.limit}"
    return encoded(text)


def resumed(question: CheckedQuery, cursor: str, *, version: str) -> CheckedQuery:
    """The question, from where the cursor says.

    Parameters
    ----------
    question
        Checked, with the rows that count for its caller.
    version
        The publication that answers.

    Raises
    ------
    UnreadableRequest
        The cursor is none of ours.
    InvalidQuery
        It belongs to another question, or to a publication that is current no more.
    """
    found = _SHAPE.fullmatch(decoded(cursor))
    if found is None:
        raise unreadable_cursor()
    if found["version"] != version:
        raise InvalidQuery(
            "The data were published anew since the page before",
            hint="Begin again without the cursor: pages of two versions do not fit together.",
            code="cursor_expired",
        )
    if found["question"] != _digest(question):
        raise InvalidQuery(
            "The cursor belongs to another question",
            hint="Send it with the very question that it came with; only limit may change.",
            code="cursor_mismatch",
        )
    return replace(question, offset=int(found["offset"]))


def _digest(question: CheckedQuery) -> str:
    """A name for the question without its page."""
    parts = (
        [metric.name for metric in question.metrics],
        [item.column for item in question.group_by],
        question.where,
        question.having,
        question.time_range,
        question.earlier,
        question.order_by,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def encoded(text: str) -> str:
    """The cursor that holds the text."""
    return base64.urlsafe_b64encode(text.encode()).decode()


def decoded(cursor: str) -> str:
    """The text that a cursor holds; raises `UnreadableRequest` for one that is none of ours."""
    try:
        return base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError) as error:
        raise unreadable_cursor() from error


def unreadable_cursor() -> UnreadableRequest:
    """The refusal of a cursor that is none of ours."""
    return UnreadableRequest(
        "The cursor cannot be read", hint="Pass next_cursor as it came, or none.", code="invalid_cursor"
    )
