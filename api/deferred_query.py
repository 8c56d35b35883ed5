"""A long query as a value: where it stands, what came out of it, and the right to run it. Times are naive UTC."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import Any, get_type_hints

import pyarrow as pa

from api.answer import Answer
from api.documents import document, restored
from api.errors import Failure
from api.policy import Principal
from api.query import MetricQuery


class State(StrEnum):
    """Where a long query stands; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether it stays like that."""
        return self not in UNFINISHED


UNFINISHED = (State.QUEUED, State.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeferredQuery:
    """A submitted query as its owner sees it.

    `question` is None where another release wrote it down. `answer` is there once it succeeded, without its rows; None
    even then, where another release wrote it down.
    """

    query_id: str
    question: MetricQuery | None
    state: State
    created_at: datetime
    attempts: int
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None
    row_count: int | None
    answer: Answer | None
    failure: Failure | None

    @property
    def is_expired(self) -> bool:
        """Whether its owner let it go, or its time is over."""
        return self.expires_at is not None and self.expires_at <= now()


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The right to run a query, until it lapses; `token` tells it from earlier and later ones."""

    query_id: str
    token: str
    attempt: int
    principal: Principal
    question: MetricQuery
    created_at: datetime

    @property
    def age(self) -> timedelta:
        """Time since the query was submitted."""
        return now() - self.created_at


def told(answer: Answer) -> str:
    """What the answer says besides its rows, as text."""
    parts = {item.name: document(getattr(answer, item.name)) for item in fields(answer) if item.name != "table"}
    return json.dumps(parts)


def answer_told(text: str) -> Answer | None:
    """The answer that `told` wrote, without its rows; None if another release wrote it in another way."""
    try:
        parts = {name: restored(part, _hints()[name]) for name, part in json.loads(text).items()}
        return Answer(table=pa.table({}), **parts)
    except (ValueError, LookupError, TypeError):
        return None


def now() -> datetime:
    """The time, as the state database keeps it."""
    return datetime.now(UTC).replace(tzinfo=None)


@cache
def _hints() -> Mapping[str, Any]:
    return get_type_hints(Answer)
