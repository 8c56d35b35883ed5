"""Pages cut into passages that are small enough to be quoted; a passage never crosses a page, so it can be cited."""

from __future__ import annotations

import re
from collections.abc import Iterator

LENGTH = 700  # characters, about; a paragraph
_OVERLAP = 150  # that a passage repeats of the one before, so that no sentence is cut for both
_HYPHENED = re.compile(r"(?<=[a-z])-\n(?=[a-z])")
_PIECES = re.compile(r".*?(?:[.!?][\"”')\]]*(?=\s)|\n|$)", flags=re.DOTALL)


def passages_of(page: str) -> tuple[str, ...]:
    """The passages of a page, in order, with spaces and line breaks made single spaces."""
    return tuple(_gathered(list(_pieces(page))))


def sentences_of(passage: str) -> tuple[str, ...]:
    """The sentences of a passage."""
    return tuple(found.strip() for found in _PIECES.findall(passage) if found.strip())


def _pieces(page: str) -> Iterator[str]:
    """Sentences and lines, none longer than a passage."""
    text = re.sub(r"(?<![.!?:])\n(?=[a-z(])", " ", _HYPHENED.sub("", page))  # a line that goes on
    for found in _PIECES.findall(text):
        piece = " ".join(found.replace("\0", " ").split())
        for start in range(0, len(piece), LENGTH):
            yield piece[start : start + LENGTH]


def _gathered(pieces: list[str]) -> Iterator[str]:
    gathered: list[str] = []
    for piece in pieces:
        if gathered and sum(map(len, gathered)) + len(piece) > LENGTH:
            yield " ".join(gathered)
            gathered = _tail(gathered)
        gathered.append(piece)
    if gathered:
        yield " ".join(gathered)


def _tail(pieces: list[str]) -> list[str]:
    """The last pieces that are short enough to be repeated."""
    tail: list[str] = []
    for piece in reversed(pieces):
        if sum(map(len, tail)) + len(piece) > _OVERLAP:
            break
        tail.insert(0, piece)
    return tail
