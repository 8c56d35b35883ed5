"""The script that Streamlit runs for each look at the page: signs in, then shows a page."""

from __future__ import annotations

import streamlit as st

from clients.chatbot.views import chat, explore
from clients.chatbot.views.places import PAGES
from clients.chatbot.views.signin import sign_out_button, signed_in


def main() -> None:
    """Show the page that was asked for, to whom the service knows."""
    st.set_page_config(page_title="Marketing Insight", page_icon=":material/insights:", layout="centered")
    pages = {
        "chat": st.Page(chat.page, title="Chat", icon=":material/chat:", url_path="chat", default=True),
        "explore": st.Page(explore.page, title="Explore", icon=":material/bar_chart:", url_path="explore"),
    }
    st.session_state[PAGES] = pages
    page = st.navigation(list(pages.values()), position="top")
    if signed_in() is not None:
        page.run()
        sign_out_button()


main()
