"""The documents of a user, and what they say."""

from __future__ import annotations

import streamlit as st

from clients.chatbot.desk import Desk
from clients.chatbot.views.places import REFUSED
from clients.chatbot.views.plain import label, quote, say
from clients.documents.errors import DocumentRefused
from clients.documents.reply import DocumentReply

_UPLOADS = "uploads"  # counts them: a new number is a new, empty field


def show_library(desk: Desk) -> None:
    """Show what was uploaded, with a field to upload more."""
    documents = desk.library.documents()
    with st.expander(f"Your documents ({len(documents)})", expanded=not documents, icon=":material/description:"):
        settings = desk.library.settings
        field = f"{_UPLOADS}-{st.session_state.get(_UPLOADS, 0)}"
        files = st.file_uploader(
            f"PDF files, up to {settings.max_mb} MB and {settings.max_pages} pages each; nobody else sees them",
            type=["pdf"],
            accept_multiple_files=True,
            key=field,
        )
        if files:
            _take(desk, {file.name: file.getvalue() for file in files})
        for document in documents:
            with st.container(horizontal=True, vertical_alignment="center"):
                pages = "1 page" if document.pages == 1 else f"{document.pages} pages"
                empty = f", {document.empty_pages} of them without text" if document.empty_pages else ""
                say(f"{document.name} · {pages}{empty}")
                st.button(
                    "Delete",
                    key=f"forget-{document.name}",
                    icon=":material/delete:",
                    type="tertiary",
                    on_click=desk.delete_document,
                    args=(document.name,),
                )
    for name, why in st.session_state.get(REFUSED, {}).items():
        st.error(label(f"{name}: {why}"), icon=":material/error:")


def _take(desk: Desk, files: dict[str, bytes]) -> None:
    refused: dict[str, str] = {}
    for name, content in files.items():
        with st.spinner(f"Reading {label(name)}…"):
            try:
                desk.library.add(name, content)
            except DocumentRefused as error:
                refused[name] = f"{error.message} {error.hint}"
    st.session_state[REFUSED] = refused
    st.session_state[_UPLOADS] = st.session_state.get(_UPLOADS, 0) + 1
    st.rerun()


def show_passages(reply: DocumentReply) -> None:
    """Show the reply with the passages it rests on, each with document and page."""
    say(reply.text)
    if reply.hint:
        st.caption(label(reply.hint))
    for passage in reply.passages:
        st.caption(f"**{label(passage.document)}, page {passage.page}**")
        quote(passage.text)
    if reply.is_written and reply.passages:
        st.caption("Written by a language model from the quoted words.")
