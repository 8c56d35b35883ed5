"""What stands beside a question: "My boss is waiting. Revenue by month?" has two sentences, of which one asks.

A sentence may be left out if it has a word that nobody here knows, and nothing that could restrict or change the
question: no value, number or time, no name but of what is asked anyway, none of the words that bind. The plan says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

from clients.planner.draft import METRIC_TIME, Draft, dimension_of
from clients.planner.index import Index
from clients.planner.snapshot import Snapshot
from clients.planner.spans import Span, cut
from clients.planner.words import read_words

# First by sentences, then by clauses too; the mark that ends a part stays with it.
_ENDS = (re.compile(r"(?<=[.!?;:…])\s+|\s+[-–—]+\s+|\n+"), re.compile(r"(?<=[.!?;:…,])\s+|\s+[-–—]+\s+|\n+"))  # noqa: RUF001
_MOST_WORDS_OF_THANKS = 6
_BINDING = frozenset(
    ("code", "number", "date", "cardinal", "ordinal", "grain", "by", "cross", "not", "drop", "instead_of", "versus")
).union(
    ("compare", "top", "bottom", "rank", "sort", "trend", "since", "until", "between", "split", "everything_else"),
    ("on_year", "on_year_of", "on_period", "both_sides", "currency", "eq", "new_question"),
)
# A sentence with one of these is left out only if the question has a time of its own.
_TIMELY = frozenset(("month", "quarter", "half", "half_unit", "season", "holiday", "so_far", "weekend"))
_LEADS_UNIT = frozenset(("this", "last", "past", "next"))
_UNNAMED = ("unit", "filler", "noun")  # what may be a name and hardly ever is
# What is judged or foretold is not looked up; beside a name it may be the question.
_JUDGED = frozenset(("why", "forecast", "advice", "definition", "meaning", "help", "future"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Aside:
    """The question without what stands beside it.

    Attributes
    ----------
    names
        What each name or value that is left out may speak of; the question has to speak of it, too.
    is_timed
        Whether something that is left out has a time; the question has to have its own.
    """

    question: str
    left_out: tuple[str, ...]
    names: tuple[frozenset[str], ...]
    is_timed: bool

    def is_beside(self, question: Draft, snapshot: Snapshot) -> bool:
        """Whether the question has itself whatever is left out and might have restricted it."""
        groups = [dimension_of(name, snapshot) for name in question.group_by]
        filtered = [condition.field for condition in question.where if condition.field is not None]
        asked = {*question.metrics, *groups, *filtered}
        has_names = not any(names.isdisjoint(asked) for names in self.names)
        return has_names and (question.days is not None or not self.is_timed)


def clauses(turn: str, ends: re.Pattern[str] = _ENDS[-1]) -> list[str]:
    """The parts of the turn, with the marks that end them."""
    return [part for part in ends.split(turn) if part.strip()]


def without_asides(turn: str, index: Index) -> Iterator[Aside]:
    """The ways to leave out what stands beside the question, the one that leaves the longest parts first."""
    for ends in _ENDS:
        parts = clauses(turn, ends)
        read = [_Part.of(part, index) for part in parts]
        asking = [place for place, part in enumerate(read) if not part.is_left_out(index)]
        if not asking or len(asking) == len(parts):
            continue
        first = next((place for place in asking if read[place].is_naming), asking[0])
        left = [
            place for place in range(len(parts)) if place not in asking and (place < first or read[place].is_thanks)
        ]
        yield Aside(
            question=" ".join(part for place, part in enumerate(parts) if place not in left),
            left_out=tuple(parts[place].strip() for place in left),
            names=tuple(name for place in left for name in read[place].names(index)),
            is_timed=any(read[place].is_timed for place in left),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A sentence or clause, cut into spans."""

    text: str
    spans: tuple[Span, ...]
    marks: frozenset[str]

    @classmethod
    def of(cls, text: str, index: Index) -> _Part:
        words = read_words(text)
        spans = cut(words, index)
        marks = index.marks([word.text for word in words]) - {"binding"}
        # "Only" binds; as a part of "i just got back" it does not.
        free = [word.text for span in spans if len(span.words) == 1 or not span.is_filler for word in span.words]
        return cls(text=text.strip(), spans=spans, marks=marks | (index.marks(free) & {"binding"}))

    def is_left_out(self, index: Index) -> bool:
        """Whether it may be: a statement or an exclamation, with an unknown word, that binds nothing."""
        kinds = {sense.kind for span in self.spans for sense in span.senses}
        is_unknown = self.is_timed or any(not span.senses for span in self.spans)
        is_said = "subject" in self.marks or "courtesy" in self.marks or self.text.endswith("!")
        is_plain = all(word.kind == "word" and not word.is_joined for span in self.spans for word in span.words)
        if not (is_unknown and is_said and is_plain) or self.text.endswith("?"):
            return False
        if "binding" in self.marks or kinds & _BINDING or (self.is_naming and kinds & _JUDGED):
            return False
        return all(self.names(index))

    @property
    def is_naming(self) -> bool:
        """Whether it has a name of the catalog."""
        return any(span.sense("metric", "dimension") for span in self.spans)

    @property
    def is_thanks(self) -> bool:
        """Whether it does no more than to thank."""
        return "courtesy" in self.marks and sum(len(span.words) for span in self.spans) <= _MOST_WORDS_OF_THANKS

    @property
    def is_timed(self) -> bool:
        """Whether it has a time that the question may be meant to have."""
        return any(
            span.sense(*_TIMELY) or (span.sense(*_LEADS_UNIT) and behind is not None and behind.sense("unit"))
            for span, behind in zip_longest(self.spans, self.spans[1:])
        )

    def names(self, index: Index) -> tuple[frozenset[str], ...]:
        """For each name or value in it, the dimensions that it may be of and the metrics that speak of it."""
        return tuple(
            index.metrics_speaking_of([word.text for word in span.words])
            | {sense.name for sense in span.senses if sense.kind in ("dimension", "value")}
            for span in self.spans
            if span.sense("value")
            or (
                (named := span.sense("metric", "dimension")) and named.name != METRIC_TIME and not span.sense(*_UNNAMED)
            )
        )
