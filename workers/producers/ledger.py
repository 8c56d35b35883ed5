"""What a producer must remember when it starts again: requests that it made, and what it has sent of each thing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from workers.producers.sources import Budget

_KEEP_SENT: Final = timedelta(days=60)
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS calls (source TEXT NOT NULL, called_at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS calls_by_time ON calls (source, called_at);
CREATE TABLE IF NOT EXISTS pauses (source TEXT PRIMARY KEY, until REAL NOT NULL);
CREATE TABLE IF NOT EXISTS sent (
    source TEXT NOT NULL, thing TEXT NOT NULL, digest TEXT NOT NULL, sent_at REAL NOT NULL,
    PRIMARY KEY (source, thing));
"""


class Ledger:
    """A small SQLite file, shared by the producers of a machine; each operation is one transaction."""

    def __init__(self, path: Path) -> None:
        """Make the file if it is missing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        with self._open() as connection:
            connection.executescript(_TABLES)

    def try_call(self, source: str, budgets: Sequence[Budget], *, now: datetime) -> timedelta:
        """Book a request, if the budgets allow it now: nothing to wait for then; else how long until they may.

        It is booked before it is made: a crash in between costs one request, never one too many.
        """
        at = now.timestamp()
        with self._open() as connection:
            wait = max((_wait(connection, source, budget, at) for budget in budgets), default=0.0)
            (until,) = connection.execute("SELECT max(until) FROM pauses WHERE source = ?", (source,)).fetchone()
            wait = max(wait, (until or 0.0) - at)
            if wait > 0:
                return timedelta(seconds=wait)
            connection.execute("INSERT INTO calls VALUES (?, ?)", (source, at))
            longest = max((budget.within for budget in budgets), default=timedelta())
            connection.execute(
                "DELETE FROM calls WHERE source = ? AND called_at < ?", (source, at - longest.total_seconds())
            )
            return timedelta()

    def pause(self, source: str, *, until: datetime) -> None:
        """Let nobody ask the source before then, not even after a restart."""
        with self._open() as connection:
            connection.execute("INSERT OR REPLACE INTO pauses VALUES (?, ?)", (source, until.timestamp()))

    def is_news(self, source: str, thing: str, digest: str) -> bool:
        """Whether this has not been sent of the thing, or something else since."""
        with self._open() as connection:
            row = connection.execute(
                "SELECT digest FROM sent WHERE source = ? AND thing = ?", (source, thing)
            ).fetchone()
        return row is None or row[0] != digest

    def note_sent(self, source: str, sent: Sequence[tuple[str, str]], *, now: datetime) -> None:
        """Remember things with their digests, after Kafka has them: a crash in between sends them twice, never not."""
        with self._open() as connection:
            rows = [(source, thing, digest, now.timestamp()) for thing, digest in sent]
            connection.executemany("INSERT OR REPLACE INTO sent VALUES (?, ?, ?, ?)", rows)
            connection.execute("DELETE FROM sent WHERE sent_at < ?", ((now - _KEEP_SENT).timestamp(),))

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self._path, timeout=30, isolation_level="IMMEDIATE")
        try:
            with connection:
                yield connection
        finally:
            connection.close()


def _wait(connection: sqlite3.Connection, source: str, budget: Budget, at: float) -> float:
    """Seconds until one more request is within the budget."""
    since = at - budget.within.total_seconds()
    query = "SELECT called_at FROM calls WHERE source = ? AND called_at > ? ORDER BY called_at DESC LIMIT 1 OFFSET ?"
    row = connection.execute(query, (source, since, budget.requests - 1)).fetchone()
    return 0.0 if row is None else float(row[0]) - since


def utc_now() -> datetime:
    """The time, UTC."""
    return datetime.now(UTC)
