"""The schema of the state database: made, brought up to date, never by two at once, and the one the code declares."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

import api.main  # noqa: F401 - every module that declares a table
from api.errors import SemanticLayerError, Unavailable, WrongSetting
from api.keys import ApiKeys
from api.state import metadata, now_revision, open_state


def test_the_migrations_make_just_the_tables_that_the_code_declares(tmp_path: Path) -> None:
    state = open_state(f"sqlite:///{tmp_path / 'state.db'}")
    with state.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    assert "api_keys" in metadata.tables
    state.dispose()


def test_opening_again_changes_nothing_and_loses_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'deep' / 'er' / 'state.db'}"
    first = open_state(url)
    ApiKeys(first).create("kept", role="viewer")
    revision = now_revision(first)
    first.dispose()

    again = open_state(url)
    assert now_revision(again) == revision is not None
    assert [record.name for record in ApiKeys(again).records()] == ["kept"]
    again.dispose()


def test_many_that_open_a_new_state_at_once_all_find_it_whole(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'state.db'}"
    start, faults, made = threading.Barrier(8), [], []

    def opener(number: int) -> None:
        start.wait()
        try:
            state = open_state(url)
            made.append(ApiKeys(state).create(f"key {number}", role="viewer"))
            state.dispose()
        except SemanticLayerError as error:
            faults.append(error)

    threads = [threading.Thread(target=opener, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert len(set(made)) == 8


def test_a_migration_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    file = tmp_path / "state.db"
    with sqlite3.connect(file) as raw:
        raw.execute("CREATE TABLE secrets (something TEXT)")  # in the way of the second table
    raw.close()
    with pytest.raises(Unavailable):
        open_state(f"sqlite:///{file}")
    with sqlite3.connect(file) as raw:
        tables = {name for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    raw.close()
    assert tables == {"secrets"}


def test_a_state_of_a_later_version_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'state.db'}"
    state = open_state(url)
    with state.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    state.dispose()
    with pytest.raises(WrongSetting, match="9999"):
        open_state(url)


@pytest.mark.parametrize("url", ["nonsense", "postgres://user:secret@host/db", "oracle://user:secret@host/db", ""])
def test_a_url_that_cannot_be_used_is_a_clear_error_without_its_password(url: str) -> None:
    with pytest.raises(WrongSetting, match="INSIGHT_STATE_URL") as caught:
        open_state(url)
    assert "secret" not in caught.value.detail + caught.value.hint
