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
        forms = [f"{label} by month", f"{label} last month compared with the month before"]
        if dimensions := snapshot.usual_dimensions([name]):
            dimension = dimensions[turn % len(dimensions)]
            forms.insert(1, f"{label} by {snapshot.dimensions[dimension]['label'].lower()}")
        yield forms[turn % len(forms)]
