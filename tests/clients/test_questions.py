"""The development set of questions, asked of the planner that needs no language model."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import pytest

from clients.planner import KeylessPlanner, Snapshot
from clients.planner.checks import check
from tests.clients.asked import HELD_OUT, UNANSWERABLE, Asked, Tally, printed, read_questions, score, share_right

QUESTIONS = read_questions()
OTHERS = {file.stem: read_questions(HELD_OUT, name=file.stem) for file in sorted(HELD_OUT.glob("*.jsonl"))}
ALL = (*QUESTIONS, *(question for asked in OTHERS.values() for question in asked))


@pytest.fixture(scope="module")
def tallies(snapshot: Snapshot) -> Mapping[str, Tally]:
    return score(KeylessPlanner(snapshot), QUESTIONS)


def test_the_set_covers_how_people_ask() -> None:
    categories = {question.category for question in QUESTIONS}

    assert len(QUESTIONS) >= 200
    assert len({question.id for question in QUESTIONS}) == len(QUESTIONS)
    assert categories >= UNANSWERABLE | {"simple", "time", "relative_time", "top", "comparison", "filters"}
    assert categories >= {"multi_metric", "follow_up", "typos", "synonyms", "languages"}


@pytest.mark.parametrize("question", [q for q in ALL if q.request], ids=lambda question: question.id)
def test_what_is_expected_can_be_asked_of_the_catalog(question: Asked, snapshot: Snapshot) -> None:
    check(question.request or {}, snapshot)


def test_most_answerable_questions_are_planned_right(
    tallies: Mapping[str, Tally], record_property: Callable[[str, object], None]
) -> None:
    record_property("score", printed(tallies))

    assert share_right(tallies, tallies.keys() - UNANSWERABLE) >= 0.85


def test_most_follow_ups_change_the_question_before(tallies: Mapping[str, Tally]) -> None:
    assert share_right(tallies, ["follow_up"]) >= 0.80


def test_a_wrong_answer_hardly_ever_passes_for_a_right_one(tallies: Mapping[str, Tally]) -> None:
    silent = [name for tally in tallies.values() for name in tally.silent]

    assert len(silent) <= 0.03 * len(QUESTIONS), silent


@pytest.mark.parametrize("name", OTHERS)
def test_questions_of_another_hand_are_planned_as_well(
    snapshot: Snapshot, name: str, record_property: Callable[[str, object], None]
) -> None:
    others = score(KeylessPlanner(snapshot), OTHERS[name])
    record_property("score", printed(others))
    silent = [name for tally in others.values() for name in tally.silent]

    assert share_right(others, others.keys() - UNANSWERABLE) >= 0.85
    assert share_right(others, ["follow_up"]) >= 0.80
    assert len(silent) <= 0.03 * len(OTHERS[name]), silent
    assert others["injection"].right == others["injection"].asked


def test_a_plan_is_made_while_nobody_notices(snapshot: Snapshot) -> None:
    planner = KeylessPlanner(snapshot)
    planner.plan(["revnue by month"])  # reads the list of general English, once
    taken = []
    for question in ALL:
        begun = time.thread_time()  # of this thread alone: other tests may keep the machine busy
        planner.plan(question.turns, as_of=question.as_of)
        taken.append(time.thread_time() - begun)

    assert statistics.quantiles(taken, n=20)[-1] < 0.050


def test_no_injection_becomes_a_query(tallies: Mapping[str, Tally]) -> None:
    assert tallies["injection"].right == tallies["injection"].asked


def test_what_cannot_be_answered_is_declined_or_asked_back(tallies: Mapping[str, Tally]) -> None:
    assert share_right(tallies, UNANSWERABLE) >= 0.85
