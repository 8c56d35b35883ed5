"""What a planner makes of a conversation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Action(StrEnum):
    """Ask the service, ask back, or decline."""

    QUERY = "query"
    CLARIFY = "clarify"
    REFUSE = "refuse"


class Mode(StrEnum):
    """Who planned it; the last one where a language model was wanted and did not answer."""

    KEYLESS = "keyless"
    LLM = "llm"
    FALLBACK = "keyless_fallback"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The end of planning.

    Attributes
    ----------
    request
        The body of `/v1/query`, with absolute days; only for a query.
    message
        What was understood, what is unclear, or why not.
    choices
        Texts of which one answers the question back; four at most.
    """

    action: Action
    message: str
    request: Mapping[str, Any] | None = None
    choices: tuple[str, ...] = ()
    mode: Mode = Mode.KEYLESS
