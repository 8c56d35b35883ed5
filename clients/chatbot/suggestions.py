"""Questions to begin with, made from the catalog."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from clients.planner import Action, KeylessPlanner, Snapshot

_MOST_TRIED = 8  # metrics; each takes a few milliseconds


def suggested_questions(snapshot: Snapshot, count: int = 4) -> tuple[str, ...]:
    """Questions that the caller's catalog answers, the usual ones first; each is planned before it is proposed."""
    planner = KeylessPlanner(snapshot)
    fitting = (text for text in _candidates(snapshot) if planner.plan([text]).action is Action.QUERY)
    return tuple(islice(fitting, count))


def _candidates(snapshot: Snapshot) -> Iterator[str]:
    """One of each form in turn, about different metrics."""
    for turn, name in enumerate(snapshot.usual_metrics[:_MOST_TRIED]):
        label = snapshot.metrics[name]["label"]
        dimensions = [snapshot.dimensions[each]["label"].lower() for each in snapshot.usual_dimensions([name])[:2]]
        forms = [f"{label} by month", f"{label} last month compared with the month before"]
        forms += [f"{label} by {dimension}" for dimension in dimensions[:1]]
        forms += [f"top 5 {dimension} by {label.lower()}" for dimension in dimensions[1:]]
        yield forms[(0, 2, 1, 3)[turn % 4] % len(forms)]
