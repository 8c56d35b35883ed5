"""The names under which pages leave things for each other in the session."""

from __future__ import annotations

import streamlit as st

from clients.chatbot.desk import Desk

PAGES = "pages"
DESK = "desk"
TO_EXPLORE = "to_explore"  # a request that the page Explore is to begin with
TO_ASK = "to_ask"  # questions on a topic that were typed, or stand on a button, and wait to be answered
REFUSED = "refused"  # files that were not taken, and why; said until the next question


def current_desk() -> Desk:
    """The desk of who is signed in."""
    desk: Desk = st.session_state[DESK]
    return desk
