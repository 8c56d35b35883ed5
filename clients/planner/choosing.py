"""Which planner plans, as settings say."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from enum import StrEnum
from typing import Protocol

from clients.planner.keyless import KeylessPlanner
from clients.planner.plan import Plan
from clients.planner.snapshot import Snapshot
from clients.sdk import ApiError
from clients.settings import LlmSettings


class PlannerKind(StrEnum):
    """Who plans: the grammar, a language model, or the latter where one is set up."""

    AUTO = "auto"
    KEYLESS = "keyless"
    LLM = "llm"


class Planner(Protocol):
    """Turns a conversation into a plan."""

    def plan(self, turns: Sequence[str], *, as_of: date | None = None) -> Plan:
        """The plan for the last of the turns."""
        ...


def chosen_planner(kind: PlannerKind, snapshot: Snapshot) -> Planner:
    """The planner of that kind, for one caller.

    Raises
    ------
    ApiError
        A language model is wanted, and none is set up or installed.
    """
    if kind is PlannerKind.KEYLESS:
        return KeylessPlanner(snapshot)
    settings = LlmSettings()
    if not settings.is_set_up:
        if kind is PlannerKind.AUTO:
            return KeylessPlanner(snapshot)
        raise ApiError("There is no language model", hint="Set INSIGHT_LLM_MODEL and OPENAI_API_KEY.", code="no_model")
    try:
        from clients.planner.llm import LlmPlanner
    except ModuleNotFoundError as error:
        raise ApiError(
            f"A language model needs {error.name}", hint="Install it: pip install openai", code="not_installed"
        ) from error
    return LlmPlanner(snapshot, settings)
