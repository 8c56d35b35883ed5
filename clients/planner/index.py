"""All phrases that mean something: what the catalog calls its things and values, and the words of the languages."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice, product

from rapidfuzz import process
from rapidfuzz.distance import OSA
from spellchecker import SpellChecker

from clients.planner.lexicon import lexicon
from clients.planner.snapshot import Snapshot
from clients.planner.words import key_of, read_words, singular
from clients.sdk import Dimension

# A word of general English, by its count in the speller's corpus, is no misspelt name: profit is not profile.
_COMMON_COUNT = 100
_SHORTEST_REPAIRED = 3
_TWO_ERRORS_FROM = 8  # letters; below, two errors leave too little of the word
_MOST_REPAIRS = 3
# Classes that tell of a sentence what part it has in the question, and nothing of what is asked (asides.py).
_MARKS = frozenset(("binding", "subject", "courtesy"))
_LONGEST_MARK = 3
_OVER = re.compile(r"\b(\w+) over \1\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sense:
    """One thing that a phrase may mean.

    Attributes
    ----------
    kind
        `metric`, `dimension`, `value`, or a class of the lexicon such as `month`.
    name
        Of the metric or dimension.
    value
        The dimension's value, or what the class carries (3 for March).
    """

    kind: str
    name: str = ""
    value: str | int | bool | None = None


class Index:
    """What each phrase may mean to one caller, and what a misspelt word may have been."""

    def __init__(self, snapshot: Snapshot) -> None:
        senses: dict[tuple[str, ...], list[Sense]] = defaultdict(list)
        self._forms: dict[str, tuple[str, ...]] = {}
        self._marks: dict[tuple[str, ...], frozenset[str]] = {}
        for key, classes in lexicon().items():
            self._marks[key] = _MARKS.intersection(kind for kind, _ in classes)
            senses[key] += [Sense(kind=kind, value=value) for kind, value in classes if kind not in {"form", *_MARKS}]
            if formed := tuple(str(value) for kind, value in classes if kind == "form"):
                self._forms[key[0]] = formed
        names: dict[tuple[str, ...], list[Sense]] = defaultdict(list)
        exact = set(senses)
        for phrase, sense in _named(snapshot):
            key = key_of(phrase)
            if key and sense not in names[key]:
                names[key].append(sense)
            exact.add(tuple(word.text for word in read_words(phrase)))
        for key, sense in (*_renamed(snapshot), *self._stripped(names, senses)):
            if key not in names:
                names[key].append(sense)
        self._senses = {key: tuple(found) for key, found in senses.items() if found}
        self._names = {key: tuple(found) for key, found in names.items()}
        self._exact = frozenset(exact)
        self._metrics_by_word = _metrics_by_word(snapshot)
        self.longest = max(map(len, (*self._senses, *self._names)))
        self._spellings = _spellings(snapshot)
        self._known = frozenset(self._spellings)

    @staticmethod
    def _stripped(
        names: Mapping[tuple[str, ...], Sequence[Sense]], senses: Mapping[tuple[str, ...], Sequence[Sense]]
    ) -> Iterator[tuple[tuple[str, ...], Sense]]:
        """Names without the fillers inside, as they are found where other fillers stand there."""
        fillers = {key[0] for key, found in senses.items() if len(key) == 1 and any(s.kind == "filler" for s in found)}
        for key, found in list(names.items()):
            stripped = (*key[:1], *(word for word in key[1:-1] if word not in fillers), *key[-1:])
            if 1 < len(stripped) < len(key) and not any(word.isdigit() for word in key):
                yield from ((stripped, sense) for sense in found)

    def senses(self, words: tuple[str, ...]) -> tuple[Sense, ...]:
        """All that the phrase may mean; names are found in singular and plural."""
        return self._names.get(tuple(map(singular, words)), ()) + self._senses.get(words, ())

    def is_exact(self, words: tuple[str, ...]) -> bool:
        """Whether the phrase is written so, in the same number."""
        return words in self._exact

    def is_known(self, word: str) -> bool:
        """Whether it is a word of any phrase."""
        return word in self._known

    def forms(self, word: str) -> tuple[str, ...]:
        """The forms in which names have the verb, as `sold` for "sell"."""
        return self._forms.get(word, ())

    def marks(self, words: Sequence[str]) -> frozenset[str]:
        """What the words say of their sentence: that it binds the question, states something, thanks."""
        phrases = (
            tuple(words[start : start + length])
            for start in range(len(words))
            for length in range(1, _LONGEST_MARK + 1)
        )
        return frozenset(mark for phrase in phrases for mark in self._marks.get(phrase, ()))

    def metrics_speaking_of(self, words: Iterable[str]) -> frozenset[str]:
        """The metrics in whose names, labels or synonyms every one of the words stands."""
        found = [self._metrics_by_word.get(singular(word), frozenset()) for word in words]
        return frozenset.intersection(*found) if found else frozenset()

    def repairs(self, word: str) -> tuple[str, ...]:
        """Known words that it may be a misspelling of, the nearest ones; none for a word of general English."""
        if len(word) < _SHORTEST_REPAIRED or not word.isalpha() or _english().get(word, 0) >= _COMMON_COUNT:
            return ()
        errors = 1 if len(word) < _TWO_ERRORS_FROM else 2
        found = process.extract(word, self._spellings, scorer=OSA.distance, score_cutoff=errors, limit=None)
        near = [known for known, distance, _ in found if distance == min(each[1] for each in found)]
        likely = [known for known in near if len(known) > _SHORTEST_REPAIRED and known[0] == word[0]]
        if len(word) == _SHORTEST_REPAIRED:
            return tuple(likely) if len(likely) == 1 else ()
        return tuple(islice(likely or near, _MOST_REPAIRS))


def _named(snapshot: Snapshot) -> Iterator[tuple[str, Sense]]:
    for name, metric in snapshot.metrics.items():
        for phrase in (name, metric["label"], *metric["synonyms"]):
            yield phrase, Sense(kind="metric", name=name)
            if _OVER.search(phrase):  # people say "month on month", too
                yield _OVER.sub(r"\1 on \1", phrase), Sense(kind="metric", name=name)
    for name, dimension in snapshot.dimensions.items():
        for phrase in (name, dimension["label"], *dimension["synonyms"]):
            yield phrase, Sense(kind="dimension", name=name)
        yield from _values(snapshot, name)


def _renamed(snapshot: Snapshot) -> Iterator[tuple[tuple[str, ...], Sense]]:
    """Names of metrics with another word for the entity that they speak of: "new clients" are new customers."""
    entities = [it for it in snapshot.dimensions.values() if it["kind"] == "entity" and len(key_of(it["label"])) == 1]
    for name, metric in snapshot.metrics.items():
        keys = [key for phrase in (metric["label"], *metric["synonyms"]) if len(key := key_of(phrase)) > 1]
        for key, entity in product(keys, entities):
            for other in map(key_of, entity["synonyms"]):
                if len(other) == 1 and entity["label"].lower() in key:
                    renamed = tuple(other[0] if word == entity["label"].lower() else word for word in key)
                    yield renamed, Sense(kind="metric", name=name)


def _values(snapshot: Snapshot, dimension: str) -> Iterator[tuple[str, Sense]]:
    it = snapshot.dimensions[dimension]
    synonyms = it["value_synonyms"]
    for value in snapshot.values.get(dimension, ()):
        sense = Sense(kind="value", name=dimension, value=value)
        written = str(value).lower() if isinstance(value, bool) else value
        if not isinstance(value, bool):
            # One letter is a code, which nobody means by the letter alone.
            if len(value) == 1:
                yield value, replace(sense, kind="code")
            yield from ((value, sense),) if len(value) > 1 else ((f"{named} {value}", sense) for named in _called(it))
        for phrase in synonyms.get(written, ()):
            yield phrase, sense


def _called(dimension: Dimension) -> tuple[str, ...]:
    return (dimension["name"], dimension["label"], *dimension["synonyms"])


def _metrics_by_word(snapshot: Snapshot) -> Mapping[str, frozenset[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for name, metric in snapshot.metrics.items():
        for phrase in (name, metric["label"], *metric["synonyms"]):
            for word in key_of(phrase):
                found[word].add(name)
    return {word: frozenset(names) for word, names in found.items()}


def _spellings(snapshot: Snapshot) -> tuple[str, ...]:
    """Every word of every phrase once: those of metrics and dimensions first, then the languages', then values'."""
    named = sorted(_named(snapshot), key=lambda item: item[1].kind == "value")
    of_names = [word for phrase, sense in named if sense.kind != "value" for word in _both_numbers(key_of(phrase))]
    of_languages = [
        word for key, classes in lexicon().items() if any(kind not in _MARKS for kind, _ in classes) for word in key
    ]
    of_values = [word for phrase, sense in named if sense.kind == "value" for word in _both_numbers(key_of(phrase))]
    return tuple(dict.fromkeys(of_names + of_languages + of_values))


def _both_numbers(key: tuple[str, ...]) -> Iterator[str]:
    for word in key:
        yield from (word, f"{word[:-1]}ies" if word.endswith("y") else f"{word}s")


@cache
def _english() -> Mapping[str, int]:
    counts: Mapping[str, int] = SpellChecker(language="en").word_frequency.dictionary
    return counts
