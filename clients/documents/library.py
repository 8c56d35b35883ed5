"""A user's documents: add, list, ask, delete."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from clients.documents.embeddings import Embedder, chosen_embedder
from clients.documents.errors import LibraryFull, NoText, NotSearchable
from clients.documents.extraction import read_pages
from clients.documents.passages import passages_of
from clients.documents.reply import DocumentReply, Passage
from clients.documents.search import ENOUGH, content_words, search
from clients.documents.settings import DocumentSettings
from clients.documents.store import Document, PassageStore
from clients.documents.writing import Writer, chosen_writer
from outgoing import AddressRefused

_SHOWN = 3  # passages
_GIVEN = 6  # passages, to a model that writes
_MOST_QUESTION = 2_000  # characters
_FOLLOWS = re.compile(
    r"^(and|or|what about|how about|also|und|et|y)\b|\b(it|its|they|them|their|that|this|those)\b", re.IGNORECASE
)
_NOT_FOUND = "That is not in the documents."
_SILENT = "The language model did not answer, or could not quote what it said; these are the passages themselves."


class Library:
    """What one user has uploaded, in a folder that is the user's own. Blocks."""

    def __init__(
        self,
        folder: Path,
        *,
        settings: DocumentSettings | None = None,
        embedder: Embedder | None = None,
        writer: Writer | None = None,
    ) -> None:
        self.settings = settings or DocumentSettings()
        self._store = PassageStore(folder)
        self._embedder = embedder or chosen_embedder(self.settings)
        self._writer = writer or chosen_writer()

    def documents(self) -> list[Document]:
        """What is there, by name."""
        return self._store.documents()

    def add(self, name: str, content: bytes) -> Document:
        """The document, now that it can be asked about; one of the same name is replaced.

        Raises
        ------
        DocumentRefused
            It is not taken; what was there before stays.
        """
        name = plain_name(name)
        known = {document.name for document in self.documents()}
        if name not in known and len(known) >= self.settings.max_count:
            raise LibraryFull(f"There are {len(known)} documents already.", hint="Delete one that you no longer need.")
        pages = [passages_of(page) for page in read_pages(content, self.settings)]
        if not any(pages):
            raise NoText("It has no text.", hint="Run it through text recognition (OCR) and upload the result.")
        self._check_address()
        self._store.add(name, pages)
        self._embed()
        return next(document for document in self.documents() if document.name == name)

    def delete(self, name: str) -> None:
        """Forget it and everything made of it. Idempotent."""
        self._store.delete(name)

    def answer(self, question: str, *, before: Sequence[str] = ()) -> DocumentReply:
        """The reply to a question, which may go on from the one before."""
        question = question[:_MOST_QUESTION]
        if not self.documents():
            return DocumentReply(text="There are no documents yet.", hint="Upload a PDF first.", is_found=False)
        asked = f"{before[-1]} {question}" if before and _FOLLOWS.search(question) else question
        try:
            return self._answer(asked)
        except AddressRefused as error:  # whoever set it up has to know
            return DocumentReply(text=f"The model's server is not asked: {error}.", hint=error.hint, is_found=False)

    def _answer(self, asked: str) -> DocumentReply:
        found = search(self._store, asked, vector=self._vector(asked), model=self._model)
        is_found = found.coverage >= ENOUGH or found.similarity >= self.settings.min_similarity
        is_silent = False
        if self._writer is not None and found.rows:
            if (written := self._writer.write(asked, self._store.passages(found.rows[:_GIVEN]))) is not None:
                return written
            is_silent = True
        passages = self._store.passages(found.rows[:_SHOWN])
        if not is_found or not passages:
            names = ", ".join(document.name for document in self.documents())
            return DocumentReply(
                text=_NOT_FOUND, hint=f"I looked in {names}. Try other words, or upload another one.", is_found=False
            )
        hint = _SILENT if is_silent else ""
        return DocumentReply(text=_introduced(passages), passages=tuple(passages), is_found=True, hint=hint)

    def finds(self, question: str) -> bool:
        """Whether a passage has the words of the question; no model is asked."""
        return search(self._store, question[:_MOST_QUESTION]).coverage >= ENOUGH

    @property
    def _model(self) -> str:
        return self._embedder.model if self._embedder else ""

    def _vector(self, text: str) -> Sequence[float] | None:
        if self._embedder is None or not content_words(text):
            return None
        vectors = self._embedder.embed([text])
        return vectors[0] if vectors else None

    def _check_address(self) -> None:
        """Return if texts may be sent to where embeddings are made."""
        if self._embedder is not None:
            try:
                self._embedder.embed(())
            except AddressRefused as error:
                raise NotSearchable(f"It cannot be made searchable: {error}.", hint=error.hint) from error

    def _embed(self) -> None:
        """Give a vector to every passage that has none; without the model's server they are searched by words."""
        if self._embedder is None:
            return
        waiting = self._store.not_embedded(self._embedder.model)
        vectors = self._embedder.embed(list(waiting.values()))
        if vectors is not None:
            self._store.embed(self._embedder.model, dict(zip(waiting, vectors, strict=True)))


def plain_name(name: str) -> str:
    """The last part of a file's name, in letters that can be shown; never used as a path."""
    last = PurePosixPath(PureWindowsPath(name).name).name
    shown = "".join(letter if letter.isprintable() else " " for letter in last)
    return " ".join(shown.split())[:120].strip(". ") or "document.pdf"


def _introduced(passages: Sequence[Passage]) -> str:
    best = passages[0]
    return f"The best passages, as they stand in the documents; first {best.document}, page {best.page}:"
