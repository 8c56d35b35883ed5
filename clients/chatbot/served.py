"""What Streamlit serves: the script of the pages, and who signs people in, without a file of secrets."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from clients.chatbot.settings import ChatSettings

app = st.App(Path(__file__).with_name("app.py"), secrets=ChatSettings().sign_in_secrets)
