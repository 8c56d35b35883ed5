"""Which passages answer a question, and whether any does."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from clients.documents.store import PassageStore

# Of the question's words, weighted by how rare they are, that a passage must have to be an answer: measured on the
# questions of tests/clients/documents, where it tells those that are answered from those that are not.
ENOUGH = 0.5
_LOOKED_AT = 40  # passages
_RANK_OFFSET = 60  # Cormack, Clarke and Buettcher, Reciprocal Rank Fusion, SIGIR 2009
_MOST_WORDS = 40
_CURLY = "\N{RIGHT SINGLE QUOTATION MARK}"
_WORD = re.compile(rf"\w+(?:['{_CURLY}]\w+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Passages, the best first; `coverage` is the share of the question that the best one has words for."""

    rows: tuple[int, ...]
    coverage: float
    similarity: float


def search(store: PassageStore, question: str, *, vector: Sequence[float] | None = None, model: str = "") -> Found:
    """The passages that speak of what is asked, by words and, where there is a vector, by meaning."""
    words = content_words(question)
    shares = _coverage(store, words)
    by_words = store.by_words(words, _LOOKED_AT)
    by_words.sort(key=lambda row: -shares.get(row, 0.0))  # stable: BM25 decides between equals
    similar = store.by_meaning(vector, model, _LOOKED_AT) if vector else {}
    rankings = [by_words, sorted(similar, key=lambda row: -similar[row])]
    return Found(
        rows=tuple(_fused([ranking for ranking in rankings if ranking])),
        coverage=max(shares.values(), default=0.0),
        similarity=max(similar.values(), default=0.0),
    )


def content_words(text: str) -> tuple[str, ...]:
    """The words that say what is asked, each once, in order."""
    words = [word.casefold().replace(_CURLY, "'").removesuffix("'s") for word in _WORD.findall(text)]
    return tuple(dict.fromkeys(word for word in words if word not in _function_words()))[:_MOST_WORDS]


def _coverage(store: PassageStore, words: Sequence[str]) -> dict[int, float]:
    """For each passage, the share of the words that it has, rare ones weighing more."""
    count = store.count()
    having = {word: store.with_word(word) for word in words}
    # Of few passages every word is in most; without the 1 those that are there would weigh next to nothing.
    weights = {word: math.log(1 + (count + 1) / (len(rows) + 0.5)) for word, rows in having.items()}
    total = sum(weights.values())
    shares: dict[int, float] = {}
    for word, rows in having.items():
        for row in rows:
            shares[row] = shares.get(row, 0.0) + weights[word] / total
    return shares


def _fused(rankings: Sequence[Sequence[int]]) -> list[int]:
    """One ranking of them all."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, row in enumerate(ranking, 1):
            scores[row] = scores.get(row, 0.0) + 1 / (_RANK_OFFSET + rank)
    return sorted(scores, key=lambda row: -scores[row])


def matching(words: Mapping[str, object] | Sequence[str], text: str) -> int:
    """How many of the words stand in the text, by their first letters."""
    there = {word.casefold()[:5] for word in _WORD.findall(text)}
    return sum(word[:5] in there for word in words)


@cache
def _function_words() -> frozenset[str]:
    return frozenset(files("clients.documents").joinpath("function_words.txt").read_text(encoding="utf-8").split())
