"""A question as far as it is understood: what one turn says, laid over what was said before, made into a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from enum import Flag, auto
from typing import Any, TypeAlias

from clients.planner import calendars
from clients.planner.calendars import Days
from clients.planner.errors import Unanswerable, Unclear
from clients.planner.snapshot import Snapshot
from clients.planner.times import When
from clients.planner.words import key_of

METRIC_TIME = "metric_time"
_DAILY_UP_TO = 31  # days of a trend without a grain; longer ones are by month
Scalar: TypeAlias = str | bool | int | float


class Cue(Flag):
    """What the words of a turn say about the turn before."""

    NONE = 0
    FOLLOWS = auto()  # "what about", "only": the rest stays
    ADDS = auto()  # "also", "too": what is named comes to what there is
    BREAKS_DOWN = auto()  # "break it down by": the same for groups
    DROPS = auto()  # "drop the": what is named goes
    RESTARTS = auto()  # "different question": nothing stays


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A filter: a dimension, metric or entity against values. Without a field it is on the only metric."""

    field: str | None
    op: str
    values: tuple[Scalar, ...]
    per: str | None = None  # the entity, if it is on the metric of each one

    def body(self, field: str | None = None) -> dict[str, Any]:
        """As REST has it."""
        if self.per is not None:
            return {"metric": self.field, "per": [self.per], "op": self.op, "values": list(self.values)}
        return {"field": self.field or field, "op": self.op, "values": list(self.values)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Versus:
    """What is compared with: named days, or the period before, or the year before."""

    days: Days | None = None
    unit: str | None = None  # of the period before, where it was said
    is_year_before: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The order of the rows; without a metric by the first one, without a limit all of them."""

    descending: bool
    metric: str | None = None
    limit: int | None = None
    is_quality: bool = False  # "best" and "worst", which turn around where less is better


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What is understood; everything may be missing.

    Attributes
    ----------
    candidates
        Metrics of which one is meant, as only a part of a name was said.
    loose
        Dimensions that were named without a word that says what for.
    is_trend
        Whether a series is asked for whose grain was not said.
    is_vague
        Whether it is asked how something is "doing", which may be a number or how it developed.
    everywhere
        Dimensions of which all values are asked for, so that no filter on them stays.
    """

    metrics: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()
    group_by: tuple[str, ...] = ()
    loose: tuple[str, ...] = ()
    where: tuple[Condition, ...] = ()
    having: tuple[Condition, ...] = ()
    days: Days | None = None
    when: When = When.IN
    versus: Versus | None = None
    ranking: Ranking | None = None
    is_trend: bool = False
    is_vague: bool = False
    everywhere: tuple[str, ...] = ()
    cue: Cue = Cue.NONE

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all was understood."""
        return replace(self, cue=Cue.NONE) == Draft()


def request_of(draft: Draft, snapshot: Snapshot) -> dict[str, Any]:
    """The body of the request, with absolute days.

    Raises
    ------
    Unclear, Unanswerable
        Something is missing, or cannot be asked together.
    """
    metrics = _metrics(draft, snapshot)
    if draft.is_vague:
        label = snapshot.metrics[metrics[0]]["label"]
        raise Unclear("Do you want the number, or how it developed?", choices=[label, "by month"])
    if draft.loose:
        labels = [snapshot.dimensions[name]["label"].lower() for name in draft.loose]
        raise Unclear(f"Do you want a row for each {labels[0]}?", choices=[f"by {label}" for label in labels])
    draft = _compared(replace(draft, metrics=metrics), snapshot.as_of)
    group_by = _group_by(draft, snapshot)
    request: dict[str, Any] = {"metrics": list(metrics)}
    if group_by:
        request["group_by"] = list(group_by)
    where = [condition.body() for condition in (*draft.where, *_open_start(draft))]
    if where:
        request["where"] = where
    if draft.having:
        request["having"] = [
            condition.body() if condition.field else condition.body(_only(metrics, snapshot))
            for condition in draft.having
        ]
    if draft.days is not None and draft.when is When.IN:
        request["time_range"] = {"start": draft.days.start.isoformat(), "end": draft.days.end.isoformat()}
    if draft.versus is not None:
        request["compare_to"] = "same_period_last_year" if draft.versus.is_year_before else "previous_period"
    return request | _ranked(draft, group_by, snapshot)


def _metrics(draft: Draft, snapshot: Snapshot) -> tuple[str, ...]:
    if draft.candidates:
        labels = [snapshot.metrics[name]["label"] for name in draft.candidates]
        raise Unclear("Which one do you mean?", choices=labels)
    if not draft.metrics:
        labels = [snapshot.metrics[name]["label"] for name in snapshot.usual_metrics if _joins(name, draft, snapshot)]
        raise Unclear("Which number do you mean?", choices=labels)
    return draft.metrics


def _joins(metric: str, draft: Draft, snapshot: Snapshot) -> bool:
    known = snapshot.metrics[metric]["dimensions"]
    return all(dimension_of(name, snapshot) in known for name in draft.group_by)


def _group_by(draft: Draft, snapshot: Snapshot) -> tuple[str, ...]:
    has_time = any(dimension_of(name, snapshot) == METRIC_TIME for name in draft.group_by)
    if draft.is_trend and not has_time:
        is_short = draft.days is not None and (draft.days.end - draft.days.start).days < _DAILY_UP_TO
        return (f"{METRIC_TIME}__{'day' if is_short else 'month'}", *draft.group_by)
    if not has_time and any(snapshot.metrics[name]["requires_metric_time"] for name in draft.metrics):
        return (f"{METRIC_TIME}__month", *draft.group_by)
    return draft.group_by


def _ranked(draft: Draft, group_by: tuple[str, ...], snapshot: Snapshot) -> dict[str, Any]:
    if draft.ranking is None:
        return {}
    if not group_by:
        usual = [snapshot.dimensions[name]["label"] for name in snapshot.usual_dimensions(draft.metrics)]
        choices = ["by day", "by month", *(f"by {label.lower()}" for label in usual)]
        raise Unclear("The highest or lowest of what?", choices=choices)
    field = draft.ranking.metric or draft.metrics[0]
    limit = {} if draft.ranking.limit is None else {"limit": draft.ranking.limit}
    return {"order_by": [{"field": field, "descending": _is_descending(draft.ranking, field, snapshot)}], **limit}


# Words of labels. A discount may be a cost, or what brings customers in: nobody can tell whether less is better.
_LESS_IS_BETTER = frozenset(("churn", "churned", "attrition", "lost", "cost", "lapsed", "refund"))
_UNCERTAIN = frozenset(("discount", "tax", "delivery", "charge", "spend", "volatility", "variance", "price"))


def _is_descending(ranking: Ranking, metric: str, snapshot: Snapshot) -> bool:
    words = frozenset(key_of(snapshot.metrics[metric]["label"])) if ranking.is_quality else frozenset()
    if words & _LESS_IS_BETTER:
        return not ranking.descending
    if words & _UNCERTAIN and "return" not in words:  # return on ad spend
        raise Unclear("Is more of it better?", choices=["highest first", "lowest first"])
    return ranking.descending


def _open_start(draft: Draft) -> tuple[Condition, ...]:
    """The filter that stands for a range without a beginning."""
    if draft.days is None or draft.when not in (When.UNTIL, When.BEFORE):
        return ()
    day = draft.days.end if draft.when is When.UNTIL else draft.days.start
    op = "lte" if draft.when is When.UNTIL else "lt"
    return (Condition(field=f"{METRIC_TIME}__day", op=op, values=(day.isoformat(),)),)


def _only(metrics: tuple[str, ...], snapshot: Snapshot) -> str:
    if len(metrics) > 1:
        raise Unclear(
            "Which number is the condition on?", choices=[snapshot.metrics[name]["label"] for name in metrics]
        )
    return metrics[0]


def _compared(draft: Draft, as_of: date) -> Draft:
    """The draft with the days that are compared made the range, and the comparison one that the service has."""
    if (versus := draft.versus) is None:
        return draft
    if versus.days is None:
        main = draft.days or (calendars.this_unit(as_of, versus.unit) if versus.unit else None)
        if main is None:
            raise Unclear(
                "Compared over which period?", choices=["this month", "last month", "this quarter", "this year"]
            )
        days = main if versus.is_year_before else main.whole
        return replace(draft, days=days)
    return _compared_with(draft, versus.days.whole, as_of)


def _compared_with(draft: Draft, other: Days, as_of: date) -> Draft:
    main = draft.days
    if main is None and other.unit is not None and other.count == 1:
        main = calendars.this_unit(as_of, other.unit)
    if main is None:
        raise Unclear("Which days do you compare?", choices=["this month", "last month", "this quarter", "this year"])
    later, earlier = main.whole, other
    if later.start < earlier.start:
        later, earlier = earlier, later
    if _same(earlier, calendars.before(later)) or _same(earlier, later):
        return replace(draft, days=later, versus=Versus())
    is_year = earlier.unit == "year" and earlier.count == 1 and earlier.start.year == later.start.year - 1
    if is_year or _same(earlier, calendars.year_before(later)):
        return replace(draft, days=later, versus=Versus(is_year_before=True))
    if earlier.unit is not None and (earlier.unit, earlier.count) == (later.unit, 1):
        return _side_by_side(draft, (earlier, later), earlier.unit)
    raise Unclear(
        "These two periods cannot be set against each other. Which one do you want?",
        choices=[f"from {days.start} to {days.end}" for days in (later, earlier)],
    )


def _side_by_side(draft: Draft, periods: tuple[Days, ...], unit: str) -> Draft:
    """Two units that are no neighbours, as two rows."""
    field = f"{METRIC_TIME}__{unit}"
    chosen = Condition(field=field, op="in", values=tuple(days.start.isoformat() for days in periods))
    return replace(draft, days=None, versus=None, group_by=(field, *draft.group_by), where=(*draft.where, chosen))


def _same(one: Days, two: Days) -> bool:
    return (one.start, one.end) == (two.start, two.end)


def dimension_of(group_by: str, snapshot: Snapshot) -> str:
    """The dimension without its grain."""
    return group_by if group_by in snapshot.dimensions else group_by.rpartition("__")[0]


_EARLIER: Mapping[When, Callable[[Days], Days]] = {
    When.EARLIER: calendars.before,
    When.YEAR_EARLIER: calendars.year_before,
}


def laid_over(before: Draft, turn: Draft, snapshot: Snapshot) -> Draft:
    """What was asked, changed by what the next turn says."""
    if Cue.DROPS in turn.cue:
        return _dropped(before, turn)
    days, when = (turn.days, turn.when) if turn.days else (before.days, before.when)
    if turn.when in _EARLIER and before.days is not None:
        days, when = _EARLIER[turn.when](before.days), before.when
    return replace(
        before,
        metrics=_merged(before.metrics, turn.metrics, turn.cue),
        candidates=turn.candidates or (() if turn.metrics else before.candidates),
        group_by=_regrouped(before, turn, snapshot),
        loose=turn.loose,
        where=_refiltered(before, turn),
        having=turn.having or (() if turn.metrics and Cue.ADDS not in turn.cue else before.having),
        days=days,
        when=when,
        versus=turn.versus or (None if turn.days or turn.when in _EARLIER else before.versus),
        ranking=_reranked(before, turn),
        is_trend=turn.is_trend or before.is_trend,
        is_vague=turn.is_vague,
        cue=Cue.NONE,
    )


def _merged(before: tuple[str, ...], turn: tuple[str, ...], cue: Cue) -> tuple[str, ...]:
    if not turn:
        return before
    return tuple(dict.fromkeys((*before, *turn))) if Cue.ADDS in cue else turn


def _regrouped(before: Draft, turn: Draft, snapshot: Snapshot) -> tuple[str, ...]:
    """A time takes the place of a time; anything else that of all groups, unless it is added to them."""
    if not turn.group_by:
        return before.group_by
    if turn.cue & (Cue.ADDS | Cue.BREAKS_DOWN):
        return tuple(dict.fromkeys((*before.group_by, *turn.group_by)))
    is_time = {name: dimension_of(name, snapshot) == METRIC_TIME for name in (*before.group_by, *turn.group_by)}
    if all(is_time[name] for name in turn.group_by):
        if any(is_time[name] for name in before.group_by):
            kept = [turn.group_by if is_time[name] else (name,) for name in before.group_by]
            return tuple(dict.fromkeys(name for names in kept for name in names))
        return (*before.group_by, *turn.group_by)
    return turn.group_by


def _refiltered(before: Draft, turn: Draft) -> tuple[Condition, ...]:
    """A filter takes the place of one on the same dimension, or joins it where it is added."""
    fields = {condition.field for condition in turn.where} | set(turn.everywhere)
    kept = [condition for condition in before.where if condition.field not in fields]
    if Cue.ADDS not in turn.cue:
        return (*kept, *turn.where)
    joined = []
    for condition in turn.where:
        same = [old for old in before.where if old.field == condition.field and old.op in ("eq", "in")]
        values = tuple(dict.fromkeys((*(value for old in same for value in old.values), *condition.values)))
        joined.append(condition if not same else Condition(field=condition.field, op="in", values=values))
    return (*kept, *joined)


def _reranked(before: Draft, turn: Draft) -> Ranking | None:
    if turn.ranking is None or before.ranking is None:
        ranking = turn.ranking or before.ranking
    else:
        limit = turn.ranking.limit if turn.ranking.limit is not None else before.ranking.limit
        ranking = replace(turn.ranking, limit=limit, metric=turn.ranking.metric)
    if ranking is not None and ranking.metric is not None and turn.metrics and ranking.metric not in turn.metrics:
        return replace(ranking, metric=None)
    return ranking


_OPPOSITE = {"gt": "lte", "gte": "lt", "lt": "gte", "lte": "gt", "eq": "ne"}


def _dropped(before: Draft, turn: Draft) -> Draft:
    """What was asked without what is dropped; rows are dropped by the opposite of their condition.

    Raises
    ------
    Unanswerable
        Nothing of it was asked.
    """
    is_asked = set(turn.group_by) <= set(before.group_by) and set(turn.metrics) <= set(before.metrics)
    is_in_time = turn.days is None or (before.days is not None and _same(turn.days, before.days))
    if not (turn.having or (is_asked and is_in_time)):
        raise Unanswerable("That is not among what was asked, so it cannot be dropped.", instead="Ask once more.")
    if any(condition.op not in _OPPOSITE for condition in turn.having):
        raise Unanswerable("I cannot drop rows by that condition.", instead="Say which ones to keep.")
    having = tuple(replace(condition, op=_OPPOSITE[condition.op]) for condition in turn.having)
    return replace(
        before,
        metrics=before.metrics if having else tuple(name for name in before.metrics if name not in turn.metrics),
        group_by=before.group_by if having else tuple(name for name in before.group_by if name not in turn.group_by),
        where=_unfiltered(before, turn),
        having=(*before.having, *having),
        days=None if turn.days else before.days,
        cue=Cue.NONE,
    )


def _unfiltered(before: Draft, turn: Draft) -> tuple[Condition, ...]:
    """The filters without those that are dropped; a value of a group that nothing filters is left out itself."""
    gone = {condition.field for condition in turn.where} | set(turn.everywhere)
    kept = [condition for condition in before.where if condition.field not in gone]
    filtered = {condition.field for condition in before.where}
    excluded = [
        replace(condition, op={"eq": "ne", "in": "not_in"}.get(condition.op, condition.op))
        for condition in turn.where
        if condition.field in before.group_by and condition.field not in filtered
    ]
    return (*kept, *excluded)


def narrowed(turn_words: frozenset[str], labels: Mapping[str, frozenset[str]]) -> str | None:
    """The one of the labels that all the words stand in; None where there is not exactly one."""
    found = [name for name, words in labels.items() if turn_words and turn_words <= words]
    return found[0] if len(found) == 1 else None
