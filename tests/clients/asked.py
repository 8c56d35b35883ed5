"""The development set of questions: what was asked, what should come of it, and how well a planner does."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from clients.planner import calendars
from clients.planner.choosing import Planner
from clients.planner.plan import Action, Plan

QUESTIONS = Path(__file__).with_name("questions")
# Each written by somebody who had not read the grammar, and asked once before anything was changed: docs/planner.md has
# how that went. Since then they are further development sets.
HELD_OUT = Path(__file__).with_name("held_out")
# What no catalog answers, or not without asking back.
UNANSWERABLE = frozenset(("ambiguous", "out_of_scope", "injection"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A conversation, and what is expected of its last turn: one of these actions, one of these requests."""

    id: str
    category: str
    turns: tuple[str, ...]
    as_of: date
    actions: tuple[Action, ...]
    requests: tuple[Mapping[str, Any], ...]

    @property
    def request(self) -> Mapping[str, Any] | None:
        """The request that is expected most; None where none is."""
        return next(iter(self.requests), None)

    def is_met_by(self, plan: Plan) -> bool:
        """Whether the plan is exactly that, up to the order of what has none."""
        expected = [canonical(request, self.as_of) for request in self.requests or (None,)]
        return plan.action in self.actions and canonical(plan.request, self.as_of) in expected


def read_questions(folder: Path = QUESTIONS, *, name: str = "*") -> list[Asked]:
    """Every question of every file, or of the one of that name."""
    lines = [line for file in sorted(folder.glob(f"{name}.jsonl")) for line in file.read_text("utf-8").splitlines()]
    return [_asked(json.loads(line)) for line in lines]


def _asked(line: Mapping[str, Any]) -> Asked:
    expected = line["expected"]
    return Asked(
        id=line["id"],
        category=line["category"],
        turns=tuple(line["turns"]),
        as_of=date.fromisoformat(line["as_of"]),
        actions=tuple(map(Action, expected.get("actions") or [expected["action"]])),
        requests=tuple(expected.get("requests") or filter(None, [expected.get("request")])),
    )


# One value of each pair says what the other says.
_ONE_VALUE = {"in": "eq", "not_in": "ne"}


def canonical(request: Mapping[str, Any] | None, as_of: date) -> object:
    """The request as what the service makes of it: two that it answers alike are equal."""
    if request is None:
        return None
    found = dict(request)
    for key in ("metrics", "group_by"):
        found[key] = sorted(found.get(key, ()))
    for key in ("where", "having"):
        found[key] = _canonical_conditions(found.get(key, ()))
    found["order_by"] = [{"descending": False} | order for order in found.get("order_by", ())]
    if days := found.get("time_range"):
        found["time_range"] = _absolute(days, as_of)
    return json.dumps(found, sort_keys=True)


def _canonical_conditions(conditions: Iterable[Any]) -> list[Any]:
    return sorted(map(_canonical_condition, conditions), key=lambda condition: json.dumps(condition, sort_keys=True))


def _canonical_condition(condition: Any) -> Any:
    match condition:
        case {"op": "in" | "not_in" as op, "values": [_]}:
            return {**condition, "op": _ONE_VALUE[op]}
        case {"op": "in" | "not_in", "values": values}:
            return {**condition, "values": sorted(values, key=str)}
        case {"any_of": parts}:
            return {"any_of": _canonical_conditions(parts)}
        case {"all_of": parts}:
            return {"all_of": _canonical_conditions(parts)}
        case {"not": part}:
            return {"not": _canonical_condition(part)}
        case _:
            return condition


def _absolute(days: Mapping[str, Any], as_of: date) -> Mapping[str, Any]:
    """The range as its first and last day, both in it."""
    match days:
        case {"preset": "today" | "yesterday" as preset}:
            found = calendars.unit_of(as_of, "day", back=int(preset == "yesterday"))
        case {"preset": preset}:
            which, _, unit = preset.partition("_")
            found = calendars.this_unit(as_of, unit) if which == "this" else calendars.unit_of(as_of, unit, back=1)
        case {"last": count, "unit": unit}:
            found = calendars.last_units(as_of, unit, count)
        case _:
            return days
    return {"start": found.start.isoformat(), "end": found.end.isoformat()}


@dataclass(slots=True)
class Tally:
    """How a category went; `silent` are answers that are wrong and do not say so."""

    asked: int = 0
    right: int = 0
    silent: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def score(planner: Planner, questions: Iterable[Asked]) -> dict[str, Tally]:
    """The planner's tally in each category."""
    tallies: dict[str, Tally] = defaultdict(Tally)
    for question in questions:
        plan = planner.plan(question.turns, as_of=question.as_of)
        tally = tallies[question.category]
        tally.asked += 1
        if question.is_met_by(plan):
            tally.right += 1
        else:
            (tally.silent if plan.action is Action.QUERY else tally.wrong).append(question.id)
    return dict(tallies)


def share_right(tallies: Mapping[str, Tally], categories: Iterable[str]) -> float:
    """Right ones over all, in these categories."""
    chosen = [tallies[name] for name in categories]
    return sum(tally.right for tally in chosen) / sum(tally.asked for tally in chosen)


def printed(tallies: Mapping[str, Tally]) -> str:
    """A line for each category."""
    lines = [
        f"{name:15} {tally.right:3} of {tally.asked:3} right, {len(tally.silent)} silently wrong"
        + (f"   {' '.join(tally.silent + tally.wrong)}" if tally.silent + tally.wrong else "")
        for name, tally in sorted(tallies.items())
    ]
    return "\n".join(lines)
