"""A question as words: without case, accents and punctuation, numbers and written dates read."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from typing import Literal

MAX_CHARACTERS = 600
_TOKEN = re.compile(
    r"(?P<date>\d{4}-\d{1,2}-\d{1,2}|\d{1,2}/\d{1,2}/\d{4}|\d{1,2}\.\d{1,2}\.\d{4})(?![\d])"
    r"|(?P<ordinal>\d{1,2})(?:st|nd|rd|th)\b"
    r"|(?P<number>[$]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?)(?:\s?(?P<scale>k|m|mn|bn|thousand|million))?(?P<percent>\s?(?:%|percent\b))?(?![^\W\d_])"
    r"|(?P<with>(?<![^\W_])w/(?:o(?![^\W_]))?)"
    r"|(?P<word>[^\W_]+(?:['’][^\W\d_]+)?)"  # noqa: RUF001 - the apostrophe that phones write
    r"|(?P<symbol><=|>=|--|\S)",
    re.IGNORECASE,
)
_SCALES = {"k": 1_000, "thousand": 1_000, "m": 1_000_000, "mn": 1_000_000, "million": 1_000_000, "bn": 1_000_000_000}
_SILENT = frozenset("-–—_.,?!:;'\"()/…’‘“”¿¡")  # noqa: RUF001 - as people write
_DASHES = frozenset("-–—")  # noqa: RUF001
_CONTRACTED = frozenset(("s", "d", "ll", "ve", "re", "m"))  # the end of "what's", "I'd"
_SHORTEST_PLURAL = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """A word, number, date or telling symbol of the question.

    Attributes
    ----------
    text
        Lower case, without accents and possessive s.
    raw
        As it was written.
    after
        The silent symbol right before it: the dash in "Jan-Mar", a comma.
    is_joined
        Whether one underscore joins it to the word before: together they are the name of something, or of nothing.
    """

    text: str
    raw: str
    kind: Literal["word", "number", "ordinal", "date", "symbol"] = "word"
    number: Decimal | None = None
    day: date | None = None
    is_percent: bool = False
    after: str = ""
    is_joined: bool = False


def read_words(text: str) -> tuple[Word, ...]:
    """The words of the text; punctuation that says nothing is left out, any other symbol is a word of its own."""
    return tuple(_words(unicodedata.normalize("NFKC", text)))


def key_of(phrase: str) -> tuple[str, ...]:
    """The phrase as the index knows it: its words, each in the singular."""
    return tuple(singular(word.text) for word in read_words(phrase))


def singular(word: str) -> str:
    """The word without the s of an English plural; applied to names and questions alike, so that both agree."""
    if (
        len(word) < _SHORTEST_PLURAL
        or not word.isalpha()
        or word.endswith(("ss", "is", "news"))
        or (word.endswith("us") and len(word) > _SHORTEST_PLURAL)
    ):
        return word
    if word.endswith("ies") and len(word) > _SHORTEST_PLURAL:
        return f"{word[:-3]}y"
    if word.endswith(("ches", "shes", "xes", "sses")):
        return word[:-2]
    return word.removesuffix("s")


def _words(text: str) -> Iterator[Word]:
    after = ""
    for found in _TOKEN.finditer(text):
        raw = found.group()
        if found["symbol"] and raw in _SILENT:
            after = "-" if raw in _DASHES else raw
            continue
        is_joined = text[: found.start()].endswith("_") and not text[: found.start()].endswith("__")
        for word in _read(found, raw):
            yield replace(word, after=after, is_joined=is_joined)
            after, is_joined = "", False


def _read(found: re.Match[str], raw: str) -> Iterator[Word]:
    if found["date"]:
        day = _day(raw)
        yield Word(text=raw, raw=raw, kind="date" if day else "symbol", day=day)
    elif found["ordinal"]:
        number = Decimal(found["ordinal"])
        yield Word(text=raw.lower(), raw=raw, kind="ordinal", number=number)
    elif found["number"]:
        number = Decimal(found["number"].replace(",", "").lstrip("$")) * _SCALES.get((found["scale"] or "").lower(), 1)
        yield Word(text=found["number"], raw=raw, kind="number", number=number, is_percent=bool(found["percent"]))
    elif found["with"]:
        yield Word(text=raw.lower(), raw=raw)
    elif found["word"]:
        head, _, tail = _plain(raw).partition("'")
        yield Word(text=head, raw=raw)
        if tail and tail not in _CONTRACTED:
            yield Word(text=tail, raw=raw)
    else:
        yield Word(text="and" if raw == "&" else raw, raw=raw, kind="symbol")


def _plain(raw: str) -> str:
    apart = unicodedata.normalize("NFD", raw.casefold().replace("’", "'"))  # noqa: RUF001
    return "".join(letter for letter in apart if not unicodedata.combining(letter))


def _day(raw: str) -> date | None:
    """The day; with slashes the month comes first, with points the day does. None if there is no such day."""
    first, second, third = (int(part) for part in re.split(r"[-/.]", raw))
    year, month, day = {"-": (first, second, third), "/": (third, first, second), ".": (third, second, first)}[
        next(letter for letter in raw if not letter.isdigit())
    ]
    try:
        return date(year, month, day)
    except ValueError:
        return None
