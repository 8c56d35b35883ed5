"""The planner that needs no language model: a grammar over the catalog.

It answers only what it can explain word by word; else it asks back, or says which word it does not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date

from clients.planner.asides import clauses, without_asides
from clients.planner.checks import check
from clients.planner.draft import Cue, Draft, laid_over, narrowed, request_of
from clients.planner.errors import Unanswerable, Unclear
from clients.planner.index import Index
from clients.planner.plan import Action, Plan
from clients.planner.reading import read_turn
from clients.planner.reading.told import listen
from clients.planner.snapshot import Snapshot
from clients.planner.spans import Span, cut
from clients.planner.times import When, read_times
from clients.planner.wording import sentence
from clients.planner.words import MAX_CHARACTERS, key_of, read_words

_MOST_WORDS = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """Where the conversation stands: the draft, and the metrics that were offered if one is asked back."""

    draft: Draft
    offered: tuple[str, ...] = ()


class KeylessPlanner:
    """Plans for one caller over one publication; holds no state between conversations."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._index = Index(snapshot)

    def plan(self, turns: Sequence[str], *, as_of: date | None = None) -> Plan:
        """The plan for the last of the turns, each of which may go on from the one before.

        `as_of` is the day that relative time is relative to; the publication's own, if not said.
        """
        snapshot = replace(self._snapshot, as_of=as_of or self._snapshot.as_of)
        said = _Said(draft=Draft())
        for turn in turns[:-1]:
            said, _ = self._next(said, turn, snapshot)
        _, plan = self._next(said, turns[-1], snapshot)
        return plan

    def _next(self, said: _Said, turn: str, snapshot: Snapshot) -> tuple[_Said, Plan]:
        """Where the conversation stands after the turn, and what is to be done; a refused turn changes nothing."""
        try:
            draft, left_out = self._understood(said, turn, snapshot)
        except Unanswerable as error:
            return said, Plan(action=Action.REFUSE, message=error.message)
        said, plan = self._planned(said, draft, snapshot)
        return said, plan.without(left_out)

    def _planned(self, said: _Said, draft: Draft, snapshot: Snapshot) -> tuple[_Said, Plan]:
        try:
            request = request_of(draft, snapshot)
            check(request, snapshot)
        except Unclear as error:
            plan = Plan(action=Action.CLARIFY, message=error.message, choices=error.choices)
            offered = [name for name in snapshot.metrics if snapshot.metrics[name]["label"] in error.choices]
            return _Said(draft=draft, offered=tuple(offered)), plan
        except Unanswerable as error:
            return said, Plan(action=Action.REFUSE, message=error.message)
        message = sentence(request, snapshot)
        return _Said(draft=draft), Plan(action=Action.QUERY, message=message, request=request)

    def _understood(self, said: _Said, turn: str, snapshot: Snapshot) -> tuple[Draft, tuple[str, ...]]:
        """What the turn asks, and what stands beside it and was left out."""
        try:
            return self._read(said, turn, snapshot), ()
        except Unanswerable:
            for aside in without_asides(turn, self._index) if len(turn) <= MAX_CHARACTERS else ():
                with suppress(Unanswerable):
                    draft = self._read(said, aside.question, snapshot)
                    if aside.is_beside(draft, snapshot):
                        return draft, aside.left_out
            with suppress(Unanswerable):
                return self._stepwise(said, turn, snapshot), ()
            raise

    def _stepwise(self, said: _Said, turn: str, snapshot: Snapshot) -> Draft:
        """What the clauses say one after the other: "forget the weekends, and show it by week"."""
        if said.draft.is_empty or len(parts := clauses(turn)) == 1:
            raise Unanswerable("There is but one step.", instead="")
        for part in parts:
            said = _Said(draft=self._read(said, part, snapshot))
        return said.draft

    def _read(self, said: _Said, turn: str, snapshot: Snapshot) -> Draft:
        if (chosen := self._chosen(said, turn, snapshot)) is not None:
            metrics = tuple(dict.fromkeys((*said.draft.metrics, chosen)))
            return replace(said.draft, metrics=metrics, candidates=(), is_vague=False)
        words = read_words(turn[: MAX_CHARACTERS + 1])
        if len(turn) > MAX_CHARACTERS or len(words) > _MOST_WORDS:
            raise Unanswerable("That is too long to be sure of every word.", instead="Ask one question at a time.")
        spans = cut(words, self._index)
        _decline(spans, snapshot)
        told = listen(spans)
        draft = read_turn(read_times(spans, snapshot.as_of), self._index, snapshot, told, said.draft.metrics)
        if draft.is_empty and draft.when not in (When.EARLIER, When.YEAR_EARLIER) and not draft.cue & Cue.DROPS:
            raise Unanswerable("I found nothing in it that I could look up.", instead=_examples(snapshot))
        if draft.cue & Cue.DROPS and (said.draft.is_empty or draft.is_empty):
            raise Unanswerable("I found nothing that could be taken away.", instead=_examples(snapshot))
        is_answer = bool(said.offered) and not (draft.group_by or draft.where or draft.days)
        is_new = bool(draft.metrics or draft.candidates) and draft.cue is Cue.NONE and not is_answer
        is_new = is_new or Cue.RESTARTS in draft.cue
        return draft if is_new or said.draft.is_empty else laid_over(said.draft, draft, snapshot)

    def _chosen(self, said: _Said, turn: str, snapshot: Snapshot) -> str | None:
        """The offered metric of which the turn says enough to tell it from the others."""
        if not said.offered:
            return None
        labels = {
            name: frozenset(
                word
                for phrase in (snapshot.metrics[name]["label"], *snapshot.metrics[name]["synonyms"])
                for word in key_of(phrase)
            )
            for name in said.offered
        }
        return narrowed(frozenset(key_of(turn)), labels)


def _decline(spans: Sequence[Span], snapshot: Snapshot) -> None:
    """Refuse what no number answers: causes, forecasts, advice, and questions about the system itself."""
    kinds = {sense.kind for span in spans for sense in span.senses if not span.sense("metric", "dimension", "value")}
    named = [sense.name for span in spans if (sense := span.sense("metric"))]
    label = snapshot.metrics[named[0]]["label"] if named else None
    instead = f"I can show {label} by month, or beside the period before." if label else _examples(snapshot)
    if "why" in kinds:
        raise Unanswerable("The data say what happened, not why.", instead=instead)
    if "forecast" in kinds:
        raise Unanswerable(f"The data end on {snapshot.as_of}; nothing here looks ahead.", instead=instead)
    words = {word.text for span in spans for word in span.words}
    if ("definition" in kinds or ("meaning" in kinds and "what" in words)) and named:
        raise Unanswerable(f"{label}: {snapshot.metrics[named[0]]['description']}", instead="")
    if "advice" in kinds:
        raise Unanswerable("That is for you to judge.", instead=instead)
    if "help" in kinds:
        raise Unanswerable("I answer with numbers of the catalog.", instead=_examples(snapshot))


def _examples(snapshot: Snapshot) -> str:
    labels = [snapshot.metrics[name]["label"] for name in snapshot.usual_metrics[:3]]
    return f"Ask, for example: {labels[0].lower()} by month." if labels else "There is no number that you may see."
