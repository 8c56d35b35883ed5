"""Answers questions about metrics: plans them, asks the service, says what came out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from clients.chatbot.conversation import DataReply, Outcome
from clients.planner import Action, KeylessPlanner, Plan, Snapshot, take_snapshot
from clients.planner.checks import check
from clients.planner.choosing import Planner, PlannerKind, chosen_planner
from clients.planner.errors import Unanswerable
from clients.planner.wording import sentence
from clients.sdk import ApiError, Client
from outgoing import AddressRefused

_OUTCOMES = {Action.CLARIFY: Outcome.UNCLEAR, Action.REFUSE: Outcome.DECLINED}


class Analyst:
    """Speaks for one caller, with that caller's rights; looks at the catalog anew when it was published anew.

    Raises
    ------
    ApiError
        When made: the service cannot be reached, or the caller is nobody.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self._look()

    def _look(self) -> None:
        self.snapshot: Snapshot = take_snapshot(self.client)
        self._planner: Planner = chosen_planner(PlannerKind.AUTO, self.snapshot)
        self._keyless = KeylessPlanner(self.snapshot)

    def answer(self, questions: Sequence[str]) -> DataReply:
        """The reply to the last of the questions, each of which may go on from the one before."""
        try:
            plan = self._planner.plan(questions)
        except AddressRefused as error:  # whoever set it up has to know; without it, nothing was misplanned
            return DataReply(outcome=Outcome.FAILED, text=f"The language model is not asked: {error}.", hint=error.hint)
        if plan.request is None:
            return _unanswered(plan)
        reply = self.run(plan.request)
        return replace(reply, text=f"{plan.warning}{reply.text}", planned_by=plan.mode)

    def understands(self, question: str) -> bool:
        """Whether every word of it is one of the catalog's; no language model is asked."""
        return self._keyless.plan([question]).action is Action.QUERY

    def run(self, request: Mapping[str, Any]) -> DataReply:
        """The reply to a request, whoever made it; a name that is gone is a refusal, no error."""
        try:
            check(request, self.snapshot)
            text = sentence(request, self.snapshot)
            answer = self.client.query(request)
            if answer.meta["publication"] != self.snapshot.publication:
                self._look()
        except Unanswerable as error:
            return DataReply(outcome=Outcome.DECLINED, text=error.message)
        except ApiError as error:
            return failed(error, request)
        return DataReply(outcome=Outcome.ANSWERED, text=text, request=request, answer=answer)


def failed(error: ApiError, request: Mapping[str, Any] | None = None) -> DataReply:
    """The service's refusal as a reply."""
    return DataReply(outcome=Outcome.FAILED, text=error.message, hint=error.hint, request=request)


def _unanswered(plan: Plan) -> DataReply:
    return DataReply(outcome=_OUTCOMES[plan.action], text=plan.message, choices=plan.choices, planned_by=plan.mode)
