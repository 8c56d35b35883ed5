"""Documents of several users: nobody meets another's, and what is deleted is gone (S13)."""

from __future__ import annotations

from pathlib import Path

import pytest

from clients.documents.errors import LibraryFull
from clients.documents.library import Library
from clients.documents.settings import DocumentSettings
from clients.documents.store import PassageStore


def test_no_search_meets_another_users_passages(tmp_path: Path) -> None:
    stores = [PassageStore(tmp_path / f"user-{number}") for number in range(50)]
    for number, store in enumerate(stores):
        store.add("plan.pdf", [[f"The secret budget of user{number}owner is {number} dollars."]])

    for number, store in enumerate(stores):
        rows = store.by_words(["secret", "budget"], 100)
        assert [passage.text for passage in store.passages(rows)] == [
            f"The secret budget of user{number}owner is {number} dollars."
        ]
        assert store.by_words([f"user{(number + 1) % 50}owner"], 100) == []


def test_a_deleted_document_leaves_nothing_in_the_file(tmp_path: Path) -> None:
    store = PassageStore(tmp_path)
    store.add("kept.pdf", [["The lighthouse stands."]])
    store.add("gone.pdf", [["Zanzibar word number " + str(number)] for number in range(200)])
    store.embed("m", {row: [0.25, float(row)] for row in store.not_embedded("m")})

    store.delete("gone.pdf")

    assert [document.name for document in store.documents()] == ["kept.pdf"]
    assert store.by_words(["zanzibar"], 10) == []
    assert len(store.by_meaning([0.25, 1.0], "m", 500)) == 1
    content = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"lighthouse" in content
    assert b"zanzibar" not in content.lower()
    assert b"gone.pdf" not in content


def test_a_folder_is_closed_to_others_on_the_machine(tmp_path: Path) -> None:
    PassageStore(tmp_path / "user")

    assert (tmp_path / "user").stat().st_mode & 0o077 == 0
    assert (tmp_path / "user" / "documents.db").stat().st_mode & 0o077 == 0


def test_a_library_takes_no_more_than_it_may(tmp_path: Path) -> None:
    library = Library(tmp_path, settings=DocumentSettings(max_count=1))
    PassageStore(tmp_path).add("one.pdf", [["Words."]])

    with pytest.raises(LibraryFull):
        library.add("two.pdf", b"%PDF-")
