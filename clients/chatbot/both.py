"""Questions that ask for a number and for what a document says: cut in two, each part answered from where it is."""

from __future__ import annotations

import re
from collections.abc import Iterator

from clients.chatbot.analyst import Analyst
from clients.chatbot.conversation import CombinedReply, Outcome
from clients.documents.library import Library

# Where one question ends and another begins.
_JOINT = re.compile(
    r"\s*[;?.]\s+(?:(?:and|also)\b)?|\s*,\s*(?:(?:and|but|while|und|et|y)\b)?"
    r"|\s+(?:(?:more|less|higher|lower|greater|smaller) than|above|below|exceeds?|compared (?:to|with)"
    r"|and|but|while|whereas|versus|vs\.?|than|against|given|und|et|y)\s+",
    re.IGNORECASE,
)
_FEWEST_WORDS = 2  # of a part; "and why" is none
_MOST_CUTS = 8


def answered_from_both(
    question: str, analyst: Analyst, library: Library, *, is_about_documents: bool = False
) -> CombinedReply | None:
    """The reply whose parts say where they come from; None where one side has nothing to say about any part.

    The metrics answer a part only if every word of it is understood. In a conversation about documents, they do not
    answer what a document does.
    """
    if not library.documents():
        return None
    for figure, statement in _cuts(question):
        if not analyst.understands(figure) or not library.finds(statement):
            continue
        if is_about_documents and library.finds(figure):
            continue
        reply, said = analyst.answer([figure]), library.answer(statement)
        if reply.outcome is not Outcome.ANSWERED or not said.is_found:
            return None  # no other cut is tried: where a language model is set up, each one costs two calls of it
        return CombinedReply(asked_figure=figure, figure=reply, asked_statement=statement, statement=said)
    return None


def _cuts(question: str) -> Iterator[tuple[str, str]]:
    """The question in two, each part taken as the one for the metrics once."""
    joints = list(_JOINT.finditer(question))[:_MOST_CUTS]
    for joint in joints:
        before, after = question[: joint.start()].strip(" ?,.;"), question[joint.end() :].strip(" ?,.;")
        if min(len(before.split()), len(after.split())) >= _FEWEST_WORDS:
            yield before, after
            yield after, before
