"""Why a question is not planned: something must be asked back, or it cannot be answered.

PlanningError
├── Unclear        one of a few answers would make it clear
└── Unanswerable   no request of this catalog answers it
"""

from __future__ import annotations

from collections.abc import Sequence


class PlanningError(Exception):
    """The question is no request as it stands."""


class Unclear(PlanningError):
    """Something must be asked back; the choices are texts to answer with, four at most."""

    def __init__(self, message: str, *, choices: Sequence[str]) -> None:
        super().__init__(message)
        self.message = message
        self.choices = tuple(choices)[:4]


class Unanswerable(PlanningError):
    """No request answers it; `instead` says what can be asked."""

    def __init__(self, message: str, *, instead: str) -> None:
        super().__init__(f"{message} {instead}")
        self.message = f"{message} {instead}"
