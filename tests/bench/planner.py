"""Questions in plain language: what a planner knows is fetched once, then each question is planned in the client."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

from clients.planner import KeylessPlanner, take_snapshot
from clients.sdk import Client
from tests.bench.service import PORT, published, serving
from tests.clients.asked import HELD_OUT, read_questions

GOAL_P95_MS = 50


def measure() -> None:
    """Print what the snapshot and the plans of the development set take."""
    with serving(published(1)) as service, Client(f"http://127.0.0.1:{PORT}", key=service.key) as client:
        snapshots = [_ms(lambda: take_snapshot(client)) for _ in range(3)]
        snapshot = take_snapshot(client)
    begun = time.perf_counter()
    planner = KeylessPlanner(snapshot)
    made_ms = (time.perf_counter() - begun) * 1000
    first_ms = _ms(lambda: planner.plan(["revnue by month"]))  # reads the list of general English
    questions = [*read_questions(), *read_questions(HELD_OUT)]
    plans = [_ms(partial(planner.plan, question.turns, as_of=question.as_of)) for question in questions]
    print("\n## Questions in plain language\n")
    print("| what | ms |")
    print("| --- | --- |")
    print(f"| the snapshot, first and again | {snapshots[0]:,.0f}, {snapshots[-1]:,.0f} |")
    print(f"| a planner over it | {made_ms:,.0f} |")
    print(f"| the first plan with an unknown word | {first_ms:,.0f} |")
    print(f"| a plan, of {len(plans)}: p50 | {statistics.median(plans):.1f} |")
    print(f"| p95 (goal {GOAL_P95_MS}) | {statistics.quantiles(plans, n=20)[-1]:.1f} |")
    print(f"| the longest | {max(plans):.1f} |")


def _ms(run: Callable[[], object]) -> float:
    begun = time.perf_counter()
    run()
    return (time.perf_counter() - begun) * 1000
