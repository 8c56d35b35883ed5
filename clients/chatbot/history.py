"""Conversations of one user, kept in one SQLite file: questions and requests, never an answer.

An answer is asked for anew when a conversation is opened again, so it is fresh and within the rights of that moment.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clients.chatbot.conversation import CombinedReply, Conversation, DataReply, Outcome, Topic, Turn
from clients.documents.reply import DocumentReply
from clients.planner import Mode as PlannedBy

_SCHEMA = """
create table if not exists conversation (
    id text primary key, topic text not null, name text not null, turns text not null, changed_at text not null
) strict
"""
_WAIT_S = 5.0  # for another tab of the same user, which writes a few KB at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A conversation in the list."""

    id: str
    topic: Topic
    name: str
    changed_at: datetime


class History:
    """The conversations in a folder of the user's own, made if there is none and closed to others on the machine."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = folder / "conversations.db"
        with self._opened() as database:
            database.execute(_SCHEMA)
        self._file.chmod(0o600)

    def entries(self, topic: Topic) -> list[Entry]:
        """The conversations on the topic, the latest first."""
        with self._opened() as database:
            rows = database.execute(
                "select id, topic, name, changed_at from conversation where topic = ? order by changed_at desc, id",
                [topic],
            ).fetchall()
        return [
            Entry(id=id_, topic=Topic(kind), name=name, changed_at=datetime.fromisoformat(at))
            for id_, kind, name, at in rows
        ]

    def save(self, conversation: Conversation) -> None:
        """Keep the conversation as it is now."""
        turns = json.dumps([_body(turn) for turn in conversation.turns], default=float)
        now = datetime.now(UTC).isoformat()
        with self._opened() as database:
            database.execute(
                "insert into conversation values (?, ?, ?, ?, ?) on conflict (id) do update set"
                " name = excluded.name, turns = excluded.turns, changed_at = excluded.changed_at",
                [conversation.id, conversation.topic, conversation.name, turns, now],
            )

    def open(self, id_: str) -> Conversation | None:
        """The conversation, its answers still to be asked for; None if it is gone."""
        with self._opened() as database:
            row = database.execute("select topic, name, turns from conversation where id = ?", [id_]).fetchone()
        if row is None:
            return None
        topic, name, turns = row
        return Conversation(id=id_, topic=Topic(topic), name=name, turns=tuple(map(_turn, json.loads(turns))))

    def rename(self, id_: str, name: str) -> None:
        """Call it that."""
        with self._opened() as database:
            database.execute("update conversation set name = ? where id = ?", [name, id_])

    def delete(self, id_: str) -> None:
        """Forget it; its pages in the file are overwritten. Idempotent."""
        with self._opened() as database:
            database.execute("delete from conversation where id = ?", [id_])

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        database = sqlite3.connect(self._file, timeout=_WAIT_S)
        try:
            database.execute("pragma secure_delete = on")
            with database:
                yield database
        finally:
            database.close()


def _body(turn: Turn) -> dict[str, Any]:
    body: dict[str, Any] = {"question": turn.question}
    match turn.reply:
        case DataReply():
            body["reply"] = _asked(turn.reply)
        case CombinedReply():
            body["reply"] = _asked(turn.reply.figure)
            body["parts"] = {"figure": turn.reply.asked_figure, "statement": turn.reply.asked_statement}
        case DocumentReply() | None:
            pass
    return body


def _asked(reply: DataReply) -> dict[str, Any]:
    return {
        "outcome": reply.outcome,
        "text": reply.text,
        "hint": reply.hint,
        "choices": list(reply.choices),
        "request": reply.request,
        "planned_by": reply.planned_by,
    }


def _turn(body: Mapping[str, Any]) -> Turn:
    if (kept := body.get("reply")) is None:
        return Turn(question=body["question"])
    reply = DataReply(
        outcome=Outcome(kept["outcome"]),
        text=kept["text"],
        hint=kept["hint"],
        choices=tuple(kept["choices"]),
        request=kept["request"],
        planned_by=PlannedBy(kept["planned_by"]),
    )
    if (parts := body.get("parts")) is not None:
        unknown = DocumentReply(text="", is_found=False)  # until it is asked for anew
        both = CombinedReply(
            asked_figure=parts["figure"], figure=reply, asked_statement=parts["statement"], statement=unknown
        )
        return Turn(question=body["question"], reply=both)
    return Turn(question=body["question"], reply=reply)
