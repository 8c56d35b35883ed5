"""What Streamlit serves: the script of the pages, and who signs people in, without a file of secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from clients.chatbot.settings import ChatSettings
from outgoing import GuardedTransport


def guard_sign_in(settings: ChatSettings) -> None:
    """Have the issuer, and where its discovery document points to, asked only as far as these may be called.

    Streamlit makes its client of authlib's class and takes nothing but plain settings: there is no other way in.
    """
    from authlib.integrations.httpx_client import AsyncOAuth2Client
    from authlib.integrations.starlette_client import StarletteOAuth2App

    class GuardedIssuerClient(AsyncOAuth2Client):  # type: ignore[misc] # authlib has no types
        def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - they are authlib's
            super().__init__(*args, **options, transport=GuardedTransport(settings.internal_hosts))

    StarletteOAuth2App.client_cls = GuardedIssuerClient


_settings = ChatSettings()
if _settings.has_issuer:
    guard_sign_in(_settings)
app = st.App(Path(__file__).with_name("app.py"), secrets=_settings.sign_in_secrets)
