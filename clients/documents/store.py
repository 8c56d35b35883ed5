"""The passages of one user in one SQLite file, searched by words (FTS5) and by meaning (sqlite-vec).

One file for each user, so no search can reach another's; words, vectors and list change in one transaction.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import apsw
import sqlite_vec

from clients.documents.reply import Passage

_SCHEMA = """
create table if not exists document (
    id integer primary key, name text not null unique, pages integer not null, empty_pages integer not null,
    added_at text not null
) strict;
create virtual table if not exists passage using fts5(
    name, text, document unindexed, page unindexed, tokenize = "porter unicode61 remove_diacritics 2"
);
insert into passage (passage, rank) values ('secure-delete', 1);
create table if not exists embedding (model text not null, dimensions integer not null) strict;
"""
_WAIT_MS = 5_000
_NAME_WEIGHT = 0.3  # of a word in a document's name, against one in its text


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document in the list."""

    name: str
    pages: int
    empty_pages: int
    added_at: datetime


class PassageStore:
    """What one user has uploaded; the folder is the user's own, and is made if there is none."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = folder / "documents.db"
        with self._opened() as database:
            database.execute(_SCHEMA)
        self._file.chmod(0o600)

    def documents(self) -> list[Document]:
        """What is there, by name."""
        with self._opened() as database:
            rows = _rows(database, "select name, pages, empty_pages, added_at from document order by name")
        return [
            Document(name=name, pages=pages, empty_pages=empty, added_at=datetime.fromisoformat(at))
            for name, pages, empty, at in rows
        ]

    def add(self, name: str, pages: Sequence[Sequence[str]]) -> None:
        """Keep the passages of each page; a document of the same name is replaced."""
        empty = sum(not passages for passages in pages)
        with self._opened() as database:
            self._remove(database, name)
            database.execute(
                "insert into document (name, pages, empty_pages, added_at) values (?, ?, ?, ?)",
                (name, len(pages), empty, datetime.now(UTC).isoformat()),
            )
            document = database.last_insert_rowid()
            database.executemany(
                "insert into passage (name, text, document, page) values (?, ?, ?, ?)",
                [(name, text, document, page) for page, texts in enumerate(pages, 1) for text in texts],
            )

    def delete(self, name: str) -> None:
        """Forget the document with all its passages and vectors; nothing of it is left in the file. Idempotent."""
        with self._opened() as database:
            self._remove(database, name)
            database.execute("insert into passage (passage) values ('optimize')")
        database = apsw.Connection(str(self._file))
        database.set_busy_timeout(_WAIT_MS)
        database.execute("vacuum")
        database.close()

    def count(self) -> int:
        """How many passages there are."""
        with self._opened() as database:
            return int(database.execute("select count(*) from passage").get)

    def with_word(self, word: str) -> frozenset[int]:
        """The passages in which the word stands, in any of its forms, or in whose document's name."""
        with self._opened() as database:
            rows = _rows(database, "select rowid from passage where passage match ?", _term(word))
        return frozenset(row[0] for row in rows)

    def by_words(self, words: Sequence[str], count: int) -> list[int]:
        """The passages with most of the words, rare ones first (BM25)."""
        if not words:
            return []
        with self._opened() as database:
            rows = _rows(
                database,
                "select rowid from passage where passage match ? order by bm25(passage, ?, 1.0) limit ?",
                " OR ".join(_term(word) for word in words),
                _NAME_WEIGHT,
                count,
            )
        return [row[0] for row in rows]

    def by_meaning(self, vector: Sequence[float], model: str, count: int) -> dict[int, float]:
        """The passages nearest to the vector, with the cosine of each; none where the vectors are another model's."""
        with self._opened() as database:
            if _embedded_with(database) != (model, len(vector)):
                return {}
            rows = _rows(
                database,
                "select rowid, distance from vector where embedding match ? and k = ?",
                _packed(vector),
                count,
            )
        return {row: 1.0 - distance for row, distance in rows}

    def not_embedded(self, model: str) -> dict[int, str]:
        """The texts of the passages that have no vector of this model."""
        with self._opened() as database:
            texts: dict[int, str] = dict(_rows(database, "select rowid, text from passage"))
            found = _embedded_with(database)
            done = _rows(database, "select rowid from vector") if found and found[0] == model else []
        for (row,) in done:
            texts.pop(row, None)
        return texts

    def embed(self, model: str, vectors: Mapping[int, Sequence[float]]) -> None:
        """Keep the vectors; those of another model are forgotten, as they cannot be compared."""
        if not vectors:
            return
        dimensions = len(next(iter(vectors.values())))
        with self._opened() as database:
            if _embedded_with(database) != (model, dimensions):
                database.execute("drop table if exists vector; delete from embedding")
                database.execute(
                    f"create virtual table vector using vec0(embedding float[{int(dimensions)}] distance_metric=cosine)"
                )
                database.execute("insert into embedding values (?, ?)", (model, dimensions))
            database.executemany(
                "insert into vector (rowid, embedding) values (?, ?)",
                [(row, _packed(vector)) for row, vector in vectors.items()],
            )

    def passages(self, rows: Sequence[int]) -> list[Passage]:
        """The passages, in that order."""
        with self._opened() as database:
            found = {
                row: Passage(document=name, page=page, text=text)
                for each in rows
                for row, name, page, text in _rows(
                    database, "select rowid, name, page, text from passage where rowid = ?", each
                )
            }
        return [found[row] for row in rows if row in found]

    @staticmethod
    def _remove(database: apsw.Connection, name: str) -> None:
        known = "select passage.rowid from passage join document on document.id = document where document.name = ?"
        rows = _rows(database, known, name)
        if _embedded_with(database) is not None:
            database.executemany("delete from vector where rowid = ?", rows)
        database.executemany("delete from passage where rowid = ?", rows)
        database.execute("delete from document where name = ?", (name,))

    @contextmanager
    def _opened(self) -> Iterator[apsw.Connection]:
        database = apsw.Connection(str(self._file))
        try:
            database.config(apsw.SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1)  # for this library alone, not for SQL
            database.load_extension(sqlite_vec.loadable_path())
            database.set_busy_timeout(_WAIT_MS)
            database.execute("pragma secure_delete = on")
            with database:
                yield database
        finally:
            database.close()


def _rows(database: apsw.Connection, statement: str, *values: str | float | bytes) -> list[tuple[Any, ...]]:
    """The rows; Any, as a column of SQLite may hold anything, and the schema says what."""
    return list(database.execute(statement, values))


def _embedded_with(database: apsw.Connection) -> tuple[str, int] | None:
    """The model whose vectors there are, and how long they are."""
    return next(((model, size) for model, size in _rows(database, "select model, dimensions from embedding")), None)


def _term(word: str) -> str:
    """The word as FTS5 takes it, whatever is in it."""
    return '"' + word.replace('"', '""') + '"'


def _packed(vector: Sequence[float]) -> bytes:
    return struct.pack(f"<{len(vector)}f", *vector)
