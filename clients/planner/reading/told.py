"""What the silent words of a turn tell: whether it counts or measures, whether somebody sells, buys or earns.

They explain nothing that is named. Where no number is, they say which one is meant, if there can be but one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from clients.planner.spans import TELLING, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What was told.

    Attributes
    ----------
    kinds
        Classes of the lexicon.
    is_sure_of_earning
        Whether a verb says by itself that money is meant, as "bring in".
    earns_and
        Whether something stands beside a verb of earning, as in "make and spend".
    counted
        What stands behind "how many".
    """

    kinds: frozenset[str] = frozenset()
    is_sure_of_earning: bool = False
    earns_and: bool = False
    counted: Span | None = None

    def has(self, *kinds: str) -> bool:
        """Whether one of the kinds was told."""
        return not self.kinds.isdisjoint(kinds)


def listen(spans: Sequence[Span]) -> Told:
    """What the spans tell, those that say nothing else included."""
    begun = next((place for place, span in enumerate(spans) if not span.is_filler), len(spans))
    senses = [
        sense
        for place, span in enumerate(spans)
        for sense in span.senses
        # Not "revenue where a coupon was used".
        if sense.kind in TELLING and (sense.kind != "where" or place < begun or place == len(spans) - 1)
    ]
    return Told(
        kinds=frozenset(sense.kind for sense in senses),
        is_sure_of_earning=any(sense.kind == "earn" and sense.value == "sure" for sense in senses),
        earns_and=any(one.sense("earn") and two.sense("and") for one, two in pairwise(spans)),
        counted=_counted(spans),
    )


def _counted(spans: Sequence[Span]) -> Span | None:
    at = next((place for place, span in enumerate(spans) if span.sense("many")), None)
    if at is None:
        return None
    behind = (span for span in spans[at + 1 :] if not span.is_filler or span.sense(*TELLING))
    return next(behind, None)
