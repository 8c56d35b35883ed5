"""A question cut into spans that mean something: the fewest that leave the least unexplained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from clients.planner.index import Index, Sense
from clients.planner.words import Word

# What a span costs beside 1. A name that is longer by fillers or stands in another number is a worse match than a
# shorter one and a filler: "which product sold" is not "products sold".
_UNKNOWN_COST, _REPAIR_COST, _SKIP_COST, _NUMBER_COST = 100.0, 0.4, 0.8, 0.4
# Each word of a phrase that is no name costs less than the same words as fillers.
_FILLER_COST, _PHRASE_COST = 0.3, 0.25
_MOST_SKIPPED = 6  # fillers within a name, as in "items that we sell per order"
# Classes of fillers that tell something where nothing else does (reading/told.py).
TELLING = (
    "amount", "buy", "did", "earn", "manner", "many", "one_of", "people", "sell", "spend_on", "what", "when", "where",
    "win",
)  # fmt: skip
_SILENT = frozenset(("filler", "on", *TELLING))


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Neighbouring words, and all that they may mean together; nothing for a word that is unknown."""

    words: tuple[Word, ...]
    senses: tuple[Sense, ...]
    repaired: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """As it was written."""
        return " ".join(word.raw for word in self.words)

    @property
    def is_filler(self) -> bool:
        """Whether it says nothing by itself."""
        return bool(self.senses) and all(sense.kind in _SILENT for sense in self.senses)

    def sense(self, *kinds: str) -> Sense | None:
        """The first sense of one of the kinds."""
        return next((sense for sense in self.senses if sense.kind in kinds), None)

    def all_of(self, kind: str) -> tuple[Sense, ...]:
        """Every sense of the kind."""
        return tuple(sense for sense in self.senses if sense.kind == kind)


def cut(words: tuple[Word, ...], index: Index) -> tuple[Span, ...]:
    """The best way to cut the words into spans, by dynamic programming from the end.

    An unknown word costs more than any number of spans, a repaired one a little, and each span 1: so a long name
    goes before the short ones that it is made of.
    """
    variants = [_variants(word, index) for word in words]
    best: list[tuple[float, tuple[Span, ...]]] = [(0.0, ())] * (len(words) + 1)
    for start in range(len(words) - 1, -1, -1):
        options = [
            (cost + best[start + len(span.words)][0], (span, *best[start + len(span.words)][1]))
            for cost, span in _spans(words, variants, start, index)
        ]
        best[start] = min(options, key=lambda option: option[0])
    return best[0][1]


def _variants(word: Word, index: Index) -> tuple[str, ...]:
    """What the word may have been meant to be, or to name in another form; itself, where nothing is near."""
    if word.kind != "word" or index.is_known(word.text):
        return (word.text, *index.forms(word.text))
    return index.repairs(word.text) or (word.text,)


def _spans(
    words: tuple[Word, ...], variants: list[tuple[str, ...]], start: int, index: Index
) -> Iterator[tuple[float, Span]]:
    yield _UNKNOWN_COST, Span(words=words[start : start + 1], senses=_own_sense(words[start]))
    if words[start].is_joined:
        return
    for length in range(1, min(index.longest + _MOST_SKIPPED, len(words) - start) + 1):
        if start + length < len(words) and words[start + length].is_joined:
            continue
        part = words[start : start + length]
        for choice in product(*variants[start : start + length]):
            cost, senses = _senses(choice, index)
            if senses:
                repaired = tuple(to for word, to in zip(part, choice, strict=True) if word.text != to)
                own = _own_sense(part[0]) if length == 1 else ()
                yield cost + _REPAIR_COST * len(repaired), Span(words=part, senses=senses + own, repaired=repaired)
    if words[start].kind != "word" and _own_sense(words[start]):
        yield 1.0, Span(words=words[start : start + 1], senses=_own_sense(words[start]))


def _senses(choice: tuple[str, ...], index: Index) -> tuple[float, tuple[Sense, ...]]:
    """What the words mean, with or without the fillers between first and last, and what it costs to say so."""
    if senses := index.senses(choice):
        if all(sense.kind in _SILENT for sense in senses):
            return _FILLER_COST, senses
        if len(choice) > 1 and not any(sense.name for sense in senses):
            return _PHRASE_COST * len(choice), senses
        return 1 + (0 if len(choice) == 1 or index.is_exact(choice) else _NUMBER_COST), senses
    inner = tuple(word for word in choice[1:-1] if not _is_filler(word, index))
    skipped = len(choice) - 2 - len(inner)
    if not 0 < skipped <= _MOST_SKIPPED:
        return 0, ()
    named = index.senses((choice[0], *inner, choice[-1]))
    return 1 + _SKIP_COST * skipped, tuple(s for s in named if s.kind in ("metric", "dimension", "value"))


def _is_filler(word: str, index: Index) -> bool:
    return any(sense.kind in ("filler", "eq") for sense in index.senses((word,)))


def _own_sense(word: Word) -> tuple[Sense, ...]:
    """What a number or date is by itself."""
    match word.kind:
        case "number":
            return (Sense(kind="number"),)
        case "ordinal":
            return (Sense(kind="ordinal", value=int(word.number or 0)),)
        case "date":
            return (Sense(kind="date"),)
        case _:
            return ()
