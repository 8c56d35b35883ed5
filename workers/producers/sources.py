"""What a polled API looks like from here. Another API is one small class: what to ask, and how to read the answer.

Reading is pure, so a recorded answer is read by the very code that reads a live one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from pydantic import SecretStr, ValidationError

from workers.errors import ApiError, RejectedMessage
from workers.messages import Message, Topic

_LONGEST_FAULT: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One request: path and parameters; `about` is what the answer does not repeat, such as the category asked for."""

    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """At most so many requests within any span of such length."""

    requests: int
    within: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """Where an API is, who we are to it, how often we ask, and what it lets us."""

    url: str
    key: SecretStr | None
    every: timedelta
    budgets: tuple[Budget, ...]


class Source(Protocol):
    """One API."""

    @property
    def name(self) -> str:
        """What its messages name as their source."""

    @property
    def topic(self) -> Topic:
        """Where its messages go."""

    @property
    def key_header(self) -> str:
        """The header that carries the key."""

    def questions(self) -> Sequence[Question]:
        """What to ask, one after another, round after round."""

    def fault(self, answer: Any) -> ApiError | None:  # noqa: ANN401 - JSON
        """What an error body means, whatever status it came under; None, if it is an answer."""

    def is_answer(self, document: Any) -> bool:  # noqa: ANN401 - JSON
        """Whether a document of a recording is an answer of this API."""

    def read(self, answer: Any, question: Question, *, at: datetime) -> Iterable[Message | RejectedMessage]:  # noqa: ANN401 - JSON
        """The messages in an answer, enriched; what cannot be used comes as the reason why.

        Parameters
        ----------
        answer
            Parsed JSON, numbers with a point as Decimal.
        question
            What was asked.
        at
            When the answer came, UTC.
        """

    def news_key(self, message: Message) -> tuple[str, str]:
        """What the message is about, and a digest of what it says of it: the same again is no news."""


def unusable(error: Exception, *, what: str) -> RejectedMessage:
    """Why something in an answer cannot be used, without its values."""
    if isinstance(error, ValidationError):
        fault = error.errors(include_input=False, include_url=False)[0]
        text = f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
    else:  # the text of a ValueError repeats the value
        text = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else type(error).__name__
    return RejectedMessage(f"The {what} cannot be used: {text}"[:_LONGEST_FAULT], kind="unusable_answer")
