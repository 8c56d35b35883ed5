"""Who is there: by the key of the environment, where only this machine can reach the page, or by one that is typed."""

from __future__ import annotations

import os

import streamlit as st

from clients.chatbot.desk import Desk
from clients.chatbot.settings import ChatSettings
from clients.chatbot.views.places import DESK
from clients.chatbot.views.plain import label
from clients.connection import service_url
from clients.sdk import ApiError

_SIGNED_OUT = "signed_out"
_UNAUTHENTICATED = 401


def signed_in() -> Desk | None:
    """The desk of who is signed in; else None, and a form to sign in."""
    if DESK in st.session_state:
        return st.session_state[DESK]  # type: ignore[no-any-return] # whatever a session holds
    settings = ChatSettings()
    known = os.environ.get("INSIGHT_API_KEY") if settings.is_private and _SIGNED_OUT not in st.session_state else None
    if known and _sign_in(known, settings):
        st.rerun()
    if not known:
        _form(settings)
    return None


def _sign_in(credential: str | None, settings: ChatSettings) -> bool:
    """Whether the service lets the credential in; says why not."""
    try:
        with st.spinner("Reading the catalog…"):
            st.session_state[DESK] = Desk(service_url(), credential=credential, folder=settings.folder)
    except ApiError as error:
        if error.status == _UNAUTHENTICATED:
            st.error("The service does not know this key.", icon=":material/key_off:")
            st.caption("Ask for one, or make one with `insight keys create NAME`.")
            if os.environ.get("INSIGHT_API_KEY") == credential:
                _form(settings)
        else:
            st.error(label(error.message), icon=":material/cloud_off:")
            st.caption(label(error.hint))
            st.button("Try again", icon=":material/refresh:")
        return False
    return True


def _form(settings: ChatSettings) -> None:
    st.title("Marketing Insight")
    st.write("Ask about your metrics and documents in plain language. Every number comes from the semantic layer.")
    with st.form("sign_in"):
        typed = st.text_input(
            "API key or token", type="password", help="It is kept in this session alone, never on a disk."
        )
        if st.form_submit_button("Sign in", type="primary") and _sign_in(typed.strip() or None, settings):
            st.session_state.pop(_SIGNED_OUT, None)
            st.rerun()
    st.caption("No key yet? Whoever runs the service makes one with `insight keys create NAME`.")


def sign_out_button() -> None:
    """Show a way out, below everything else."""
    with st.sidebar:
        if st.button("Sign out", icon=":material/logout:", type="tertiary"):
            st.session_state[DESK].close()
            st.session_state.clear()
            st.session_state[_SIGNED_OUT] = True
            st.rerun()
