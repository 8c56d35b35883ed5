"""Text from outside (questions, values, models, documents), shown letter by letter: no markup, no link, no picture."""

from __future__ import annotations

import re
from html import escape

import streamlit as st

_JOINER = "\N{WORD JOINER}"  # has no width; what it parts is no address any more
_ADDRESS = re.compile(r"(://|\bwww(?=\.)|@)", re.IGNORECASE)
_MARK = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~$:&])")


def label(text: str) -> str:
    """The text as Markdown that shows it letter by letter, for buttons and headings."""
    return _MARK.sub(r"\\\1", _ADDRESS.sub(rf"\1{_JOINER}", " ".join(text.split())))


def say(text: str) -> None:
    """Show the text, and nothing but the text."""
    st.html(f"<p style='margin:0;overflow-wrap:anywhere'>{escape(text)}</p>")


def quote(text: str) -> None:
    """Show the text as somebody else's words."""
    style = "margin:0;padding-left:.8rem;border-left:3px solid #8885;overflow-wrap:anywhere"
    st.html(f"<blockquote style='{style}'>{escape(text)}</blockquote>")
