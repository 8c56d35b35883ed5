"""The items of a turn while they are read: which are explained, and what they were found to say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from clients.literal import without_links
from clients.planner.draft import Condition, Ranking, Scalar, Versus
from clients.planner.errors import Unanswerable
from clients.planner.index import Index, Sense
from clients.planner.reading.told import Told
from clients.planner.snapshot import Snapshot
from clients.planner.spans import Span
from clients.planner.times import Item, Time
from clients.planner.words import singular


@dataclass(slots=True)
class Found:
    """What the passes have found so far, with the place of each metric to keep their order.

    Attributes
    ----------
    conditioned
        Places of metrics that are there for a condition or an order.
    values
        Dimension, value, and whether it is excluded.
    is_sold
        Whether what is ranked is ranked by how much of it was sold.
    is_instead
        Whether something is said to take the place of something else.
    is_compared
        Whether values are set against each other.
    """

    metrics: dict[int, str] = field(default_factory=dict)
    candidates: tuple[str, ...] = ()
    group_by: list[str] = field(default_factory=list)
    loose: list[str] = field(default_factory=list)
    conditioned: set[int] = field(default_factory=set)
    values: list[tuple[str, Scalar, bool]] = field(default_factory=list)
    where: list[Condition] = field(default_factory=list)
    having: list[Condition] = field(default_factory=list)
    time: Time | None = None
    versus: Versus | None = None
    ranking: Ranking | None = None
    is_trend: bool = False
    is_sold: bool = False
    is_instead: bool = False
    is_compared: bool = False
    everywhere: list[str] = field(default_factory=list)


class Board:
    """Holds the items of one turn; a pass takes off what it explains."""

    def __init__(
        self, items: Sequence[Item], index: Index, snapshot: Snapshot, told: Told, before: Sequence[str] = ()
    ) -> None:
        self.items: tuple[Item, ...] = tuple(
            item for item in items if isinstance(item, Time) or item.sense("noun") is None
        )
        self.index = index
        self.snapshot = snapshot
        self.told = told
        self.before = before  # the metrics of the turn before
        self.left = set(range(len(self.items)))
        self.found = Found()

    def span(self, place: int) -> Span | None:
        """The span there, if it is not explained yet."""
        item = self.items[place] if place in self.left else None
        return item if isinstance(item, Span) else None

    def sense(self, place: int, *kinds: str) -> Sense | None:
        """What the span there means as one of the kinds, if it is not explained yet."""
        span = self.span(place)
        return span.sense(*kinds) if span else None

    def senses(self, place: int, kind: str) -> tuple[Sense, ...]:
        """All that the span there may mean of the kind."""
        span = self.span(place)
        return span.all_of(kind) if span else ()

    def places(self, *kinds: str) -> Iterator[int]:
        """Where something of the kinds is left, from the left; what is taken meanwhile is passed over."""
        for place in range(len(self.items)):
            if self.sense(place, *kinds) is not None:
                yield place

    def has(self, *kinds: str) -> bool:
        """Whether something of the kinds is left."""
        return any(True for _ in self.places(*kinds))

    def replace(self, place: int, span: Span) -> None:
        """Have the span in place of the one there."""
        self.items = (*self.items[:place], span, *self.items[place + 1 :])

    def take(self, *places: int) -> None:
        """They are explained."""
        self.left.difference_update(places)

    def dimension(self, place: int) -> str | None:
        """The dimension that the span names; of several, one by its values before one by its key."""
        if self.sense(place, "unit"):
            return None
        return self.by_values([sense.name for sense in self.senses(place, "dimension")])

    def named(self, kind: str, *words: str) -> str | None:
        """The metric or dimension that the catalog knows by these words."""
        names = [sense.name for sense in self.index.senses(words) if sense.kind == kind]
        return self.by_values(names) if kind == "dimension" else next(iter(names), None)

    def by_values(self, names: Sequence[str]) -> str | None:
        """The one of the dimensions that people mean by a name that all have; None for none."""
        ranks = {"categorical": 0, "time": 1, "entity": 2}
        return min(names, key=lambda name: ranks[self.snapshot.dimensions[name]["kind"]], default=None)

    def refuse(self, spans: Sequence[Span]) -> NoReturn:
        """Raise, as nobody knows what these words mean here."""
        words = ", ".join(f"“{without_links(span.text) or '…'}”" for span in spans[:5])
        usual = [self.snapshot.metrics[name]["label"] for name in self.snapshot.usual_metrics[:4]]
        raise Unanswerable(
            f"I do not know what {words} means here.",
            instead=f"I can answer with numbers such as {', '.join(usual)}, by what the catalog has.",
        )

    def is_than(self, place: int) -> bool:
        """Whether the span there sets one thing against another, as "more than" does where no number follows."""
        span = self.span(place)
        return span is not None and span.words[-1].text == "than"

    def is_plural(self, place: int) -> bool:
        """Whether the span there is written in the plural."""
        span = self.span(place)
        return span is not None and is_plural_span(span)

    def group(self, place: int, name: str) -> int:
        """Group by the name, with the grain behind it if it is a time; the place after it."""
        self.take(place)
        unit = self.sense(place + 1, "unit")
        if name in self.snapshot.dimensions and self.snapshot.dimensions[name]["kind"] == "time" and unit:
            self.take(place + 1)
            self.found.group_by.append(f"{name}__{unit.value}")
            return place + 2
        self.found.group_by.append(name)
        return place + 1


def is_plural_span(span: Span) -> bool:
    """Whether its last word is a plural."""
    last = span.words[-1].text
    return singular(last) != last or any(last == f"{sense.value}s" for sense in span.senses)
