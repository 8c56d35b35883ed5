"""Text from outside (questions, values, models, documents), shown letter by letter: no markup, no link, no picture."""

from __future__ import annotations

from html import escape

import streamlit as st

from clients.literal import literal_markdown as label

__all__ = ["label", "quote", "say"]


def say(text: str) -> None:
    """Show the text, and nothing but the text."""
    st.html(f"<p style='margin:0;overflow-wrap:anywhere'>{escape(text)}</p>")


def quote(text: str) -> None:
    """Show the text as somebody else's words."""
    style = "margin:0;padding-left:.8rem;border-left:3px solid #8885;overflow-wrap:anywhere"
    st.html(f"<blockquote style='{style}'>{escape(text)}</blockquote>")
