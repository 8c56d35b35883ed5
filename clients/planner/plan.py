"""What a planner makes of a conversation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from clients.literal import without_links


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
    left_out
        What stood beside the question and was not read; the message says so.
    """

    action: Action
    message: str
    request: Mapping[str, Any] | None = None
    choices: tuple[str, ...] = ()
    mode: Mode = Mode.KEYLESS
    left_out: tuple[str, ...] = ()

    def without(self, left_out: tuple[str, ...]) -> Plan:
        """The plan, which says what was left out."""
        plan = replace(self, left_out=left_out)
        return replace(plan, message=f"{plan.warning}{self.message}")

    @property
    def warning(self) -> str:
        """A sentence that says what was left out, and a space; empty if nothing was."""
        quoted = ", ".join(f"“{without_links(part)}”" for part in self.left_out)
        return f"I left out: {quoted}. " if quoted else ""
