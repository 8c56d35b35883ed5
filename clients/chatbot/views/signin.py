"""Who is there: by an issuer, by the key of the environment on this machine alone, or by a key that is typed."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import streamlit as st

from clients.chatbot.caller import runs_out_at
from clients.chatbot.desk import Desk
from clients.chatbot.settings import ChatSettings
from clients.chatbot.views.places import DESK
from clients.chatbot.views.plain import label
from clients.connection import service_url
from clients.sdk import ApiError

_SIGNED_OUT = "signed_out"
_RUNS_OUT = "runs_out"  # when the token does with which somebody signed in
_UNAUTHENTICATED = 401


def signed_in() -> Desk | None:
    """The desk of who is signed in; else None, and ways to sign in."""
    settings = ChatSettings()
    if (desk := _open_desk()) is not None:
        return desk
    known = _known_credential(settings)
    if known is not None and _sign_in(known, settings):
        st.rerun()
    if known is None:
        _form(settings)
    return None


def _open_desk() -> Desk | None:
    """The desk of the session, unless what it was opened with has run out; conversations are kept."""
    desk: Desk | None = st.session_state.get(DESK)
    runs_out = st.session_state.get(_RUNS_OUT)
    if desk is None or runs_out is None or datetime.now(UTC) < runs_out:
        return desk
    desk.close()
    del st.session_state[DESK]
    return None


def _known_credential(settings: ChatSettings) -> str | None:
    """What signs in without a form: the token of who has signed in at the issuer, or the key of the environment."""
    if settings.has_issuer and st.user.is_logged_in:
        token: str | None = st.user.tokens.get(settings.oidc_token)
        return token or ""  # without one the service says that it is none
    if settings.is_private and not settings.has_issuer and _SIGNED_OUT not in st.session_state:
        return os.environ.get("INSIGHT_API_KEY")
    return None


def _sign_in(credential: str, settings: ChatSettings) -> bool:
    """Whether the service lets the credential in; says why not."""
    try:
        with st.spinner("Reading the catalog…"):
            desk = Desk(service_url(), credential=credential or None, folder=settings.folder)
    except ApiError as error:
        if error.status == _UNAUTHENTICATED:
            _unknown(credential, settings)
        else:
            st.error(label(error.message), icon=":material/cloud_off:")
            st.caption(label(error.hint))
            st.button("Try again", icon=":material/refresh:")
        return False
    st.session_state[DESK], st.session_state[_RUNS_OUT] = desk, runs_out_at(credential)
    return True


def _unknown(credential: str, settings: ChatSettings) -> None:
    """Say that the service does not let the credential in, and what to do."""
    if settings.has_issuer and st.user.is_logged_in:
        st.error("The service does not accept this sign-in any more.", icon=":material/key_off:")
        st.caption("Sign in again. If that does not help, whoever runs the service can see why in its log.")
        st.button("Sign in again", type="primary", icon=":material/login:", on_click=st.login)
        return
    st.error("The service does not know this key.", icon=":material/key_off:")
    st.caption("Ask for one, or make one with `insight keys create NAME`.")
    if os.environ.get("INSIGHT_API_KEY") == credential:
        _form(settings)


def _form(settings: ChatSettings) -> None:
    st.title("Marketing Insight")
    st.write("Ask about your metrics and documents in plain language. Every number comes from the semantic layer.")
    if settings.has_issuer:
        st.button("Sign in", type="primary", icon=":material/login:", on_click=st.login)
        with st.expander("With an API key instead", icon=":material/key:"):
            _key_form(settings)
    else:
        _key_form(settings)
        st.caption("No key yet? Whoever runs the service makes one with `insight keys create NAME`.")


def _key_form(settings: ChatSettings) -> None:
    with st.form("sign_in", border=not settings.has_issuer):
        typed = st.text_input(
            "API key or token", type="password", help="It is kept in this session alone, never on a disk."
        )
        name = "Sign in with the key" if settings.has_issuer else "Sign in"
        if st.form_submit_button(name, type="secondary" if settings.has_issuer else "primary") and _sign_in(
            typed.strip(), settings
        ):
            st.session_state.pop(_SIGNED_OUT, None)
            st.rerun()


def sign_out_button() -> None:
    """Show a way out, below everything else."""
    st.sidebar.button("Sign out", icon=":material/logout:", type="tertiary", on_click=_sign_out)


def _sign_out() -> None:
    st.session_state[DESK].close()
    st.session_state.clear()
    st.session_state[_SIGNED_OUT] = True
    if st.user.get("is_logged_in"):
        st.logout()
