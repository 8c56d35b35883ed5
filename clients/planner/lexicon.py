"""The words of questions that are no names: months, units, "by", "top", "why", in each language's table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import TypeAlias

import yaml

from clients.planner.words import read_words

# The base loader reads texts alone: in YAML, `on` and `no` are truth values. Read in C, it takes 0.1 s and not 0.3.
_TEXTS = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
# What a word may be, with what it carries: ("month", 3), ("by", None).
Class: TypeAlias = tuple[str, str | int | None]


@cache
def lexicon() -> Mapping[tuple[str, ...], tuple[Class, ...]]:
    """Each phrase of each language, as words, with all that it may be; the files are read once."""
    found: dict[tuple[str, ...], tuple[Class, ...]] = {}
    for file in sorted(files("clients.planner").joinpath("languages").iterdir(), key=lambda file: file.name):
        table = yaml.load(file.read_text(encoding="utf-8"), Loader=_TEXTS)  # noqa: S506 - builds no objects
        for name, entry in table.items():
            for value, phrase in _phrases(entry):
                key = tuple(word.text for word in read_words(phrase))
                found[key] = (*found.get(key, ()), (name, value))
    return found


def _phrases(entry: object) -> Iterator[tuple[str | int | None, str]]:
    match entry:
        case dict():
            for value, phrases in entry.items():
                yield from ((int(value) if value.isdigit() else value, phrase) for _, phrase in _phrases(phrases))
        case list():
            for part in entry:
                yield from _phrases(part)
        case _:
            yield None, str(entry)
