"""Why a document is not taken, each with what to do next.

DocumentRefused
├── NotReadable    it is no PDF, is locked or damaged, or takes too much to read
├── NoText         it is a scan
├── NotSearchable  the server of embeddings is where none may be
└── LibraryFull    there are too many documents already
"""

from __future__ import annotations


class DocumentRefused(Exception):
    """The document is not taken."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class NotReadable(DocumentRefused):
    """Nothing can be read from it within the limits."""


class NoText(DocumentRefused):
    """Its pages are pictures."""


class NotSearchable(DocumentRefused):
    """Its passages may not be sent to where vectors are made of them."""


class LibraryFull(DocumentRefused):
    """Another one has to go first."""
