"""What was said: turns of a question and its reply. Answers are never kept, only what they were asked with."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, TypeAlias

from clients.documents.reply import DocumentReply
from clients.planner import Mode as PlannedBy
from clients.sdk import Answer

_NAME_CHARACTERS = 48


class Topic(StrEnum):
    """What a conversation is about."""

    DATA = "data"
    DOCUMENTS = "documents"


class Outcome(StrEnum):
    """What became of a question."""

    ANSWERED = "answered"
    UNCLEAR = "unclear"  # one of the choices would make it clear
    DECLINED = "declined"
    FAILED = "failed"  # the service refused, or could not be reached


@dataclass(frozen=True, slots=True, kw_only=True)
class DataReply:
    """A reply out of the metrics.

    Attributes
    ----------
    text
        What was understood, what is unclear, or what is wrong.
    hint
        What to do next, where something is wrong.
    request
        The body of `/v1/query`, where there is one.
    """

    outcome: Outcome
    text: str
    hint: str = ""
    choices: tuple[str, ...] = ()
    request: Mapping[str, Any] | None = None
    planned_by: PlannedBy = PlannedBy.KEYLESS
    answer: Answer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CombinedReply:
    """A reply to a question of two parts: a number out of the metrics, and what the documents say."""

    asked_figure: str
    figure: DataReply
    asked_statement: str
    statement: DocumentReply


Reply: TypeAlias = DataReply | DocumentReply | CombinedReply


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A question; without a reply, it is to be answered anew."""

    question: str
    reply: Reply | None = None

    @property
    def asked_figure(self) -> str:
        """What of it was asked of the metrics."""
        return self.reply.asked_figure if isinstance(self.reply, CombinedReply) else self.question


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Turns on one topic, in order."""

    topic: Topic
    name: str = "New conversation"
    turns: tuple[Turn, ...] = ()
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def questions(self) -> tuple[str, ...]:
        """What was asked, in order."""
        return tuple(turn.question for turn in self.turns)

    @property
    def asked_figures(self) -> tuple[str, ...]:
        """What was asked of the metrics, in order."""
        return tuple(turn.asked_figure for turn in self.turns)

    def said(self, turn: Turn) -> Conversation:
        """The conversation with another turn; the first one names it."""
        name = self.name if self.turns else _shortened(turn.question)
        return replace(self, name=name, turns=(*self.turns, turn))

    def answered(self, position: int, reply: Reply) -> Conversation:
        """The conversation with another reply to one of its turns."""
        turns = list(self.turns)
        turns[position] = replace(turns[position], reply=reply)
        return replace(self, turns=tuple(turns))


def _shortened(question: str) -> str:
    text = " ".join(question.split())
    return text if len(text) <= _NAME_CHARACTERS else f"{text[:_NAME_CHARACTERS].rstrip()}…"
