"""Text from outside (questions, values, models, documents) as Markdown that shows it letter by letter."""

from __future__ import annotations

import re

_JOINER = "\N{WORD JOINER}"  # has no width; what it parts is no address any more
_ADDRESS = re.compile(r"(://|\bwww(?=\.)|@)", re.IGNORECASE)
_MARK = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~$:&])")  # Streamlit has formulas ($) and colours (:) as well
_MARK_INSIDE = re.compile(r"([\\`*_\[\]!|<>~&])")


def literal_markdown(text: str) -> str:
    """The text on one line, without markup, link or picture, for Streamlit's buttons and headings."""
    return _MARK.sub(r"\\\1", _plain(text))


def literal_inside(text: str) -> str:
    """The same for plain Markdown, where the text stands inside a line and what only begins one needs no care."""
    return _MARK_INSIDE.sub(r"\\\1", _plain(text))


def _plain(text: str) -> str:
    return _ADDRESS.sub(rf"\1{_JOINER}", " ".join(text.split()))
