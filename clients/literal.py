"""Text from outside (questions, values, models, documents) as Markdown that shows it letter by letter."""

from __future__ import annotations

import re

_JOINER = "\N{WORD JOINER}"  # has no width; what it parts is no address any more
_ADDRESS = re.compile(r"(://|\bwww(?=\.)|@)", re.IGNORECASE)
_MARK = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~$:&])")  # Streamlit has formulas ($) and colours (:) as well
_LINKS = re.compile(r"\b[a-z][a-z0-9+.-]*://\S*|//\S+|\bwww\.\S+|\b(?:data|javascript|mailto|file):\S*", re.IGNORECASE)
_MARKUP = re.compile(r"[\[\]<>`\\*_#|!\x00-\x1f\x7f]+")
_MARK_INSIDE = re.compile(r"([\\`*_\[\]!|<>~&])")


def literal_markdown(text: str) -> str:
    """The text on one line, without markup, link or picture, for Streamlit's buttons and headings."""
    return _MARK.sub(r"\\\1", _plain(text))


def literal_inside(text: str) -> str:
    """The same for plain Markdown, where the text stands inside a line and what only begins one needs no care."""
    return _MARK_INSIDE.sub(r"\\\1", _plain(text))


def without_links(text: str) -> str:
    """The text on one line, without links and markup: a model, or a question, may repeat what somebody has planted."""
    return " ".join(_MARKUP.sub(" ", _LINKS.sub("…", text)).split())


def _plain(text: str) -> str:
    return _ADDRESS.sub(rf"\1{_JOINER}", " ".join(text.split()))
