"""Tells other services, over Kafka, which customers are in another segment: at least once, and in order.

What was told last is kept beside the publications. Whatever published, a whole build, events, or a rollback, the
current version is compared with it. The changes are written down before the first one is sent, so that after a failure
the same ones are sent again, with the same ids; once Kafka has them all, they become what was told last.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

import structlog
from filelock import FileLock, Timeout

from workers.build_database import BuildDatabase
from workers.messages import SEGMENT_CHANGED, Outgoing, SegmentChanged, encode
from workers.publish import PublicationStore
from workers.sending import Sender

_log = structlog.get_logger(__name__)

_SENT_AT_ONCE: Final = 500
_TOLD, _PENDING = "told.json", "pending.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Who is in another segment than was told last: customer, segment before, segment now; by the publication."""

    publication: str
    as_of: date
    noticed_at: datetime
    moved: tuple[tuple[int, int | None, int | None], ...]
    names: Mapping[int, str]

    def messages(self) -> Iterator[Outgoing]:
        """A message for each."""
        for customer, before, now in self.moved:
            changed = SegmentChanged(
                event_id=f"{self.publication}:{customer}",
                customer_id=customer,
                previous_segment_id=before,
                previous_segment=None if before is None else self.names.get(before),
                segment_id=now,
                segment=None if now is None else self.names.get(now),
                publication=self.publication,
                as_of=self.as_of,
                timestamp=self.noticed_at,
            )
            yield encode(changed, SEGMENT_CHANGED)


class Announcements:
    """What has been told of customers' segments, and what is yet to be; in a folder, for one process at a time."""

    def __init__(self, store: PublicationStore, database: BuildDatabase) -> None:
        self._store = store
        self._database = database
        self._folder = store.root.with_name("segment_changes")

    def pending(self) -> Changes | None:
        """What has to be told now, and stays to be told until `told`; None if there is nothing.

        The first look takes note of where customers are, and tells of nobody: that is what `GET /v1/segments` is for.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        if (file := self._folder / _PENDING).is_file():
            return _read(json.loads(file.read_text(encoding="utf-8")))
        current, known = self._store.current(), self._known()
        if current is None or (known is not None and known["publication"] == current):
            return None
        placed = self._store.customer_segments(current, self._database)
        if known is None:
            self._write(_TOLD, {"publication": current, "placed": placed})
            return None
        before = {int(customer): segment for customer, segment in known["placed"].items()}
        moved = [
            (customer, before.get(customer), placed.get(customer))
            for customer in sorted(before.keys() | placed.keys())
            if before.get(customer) != placed.get(customer)
        ]
        if not moved:
            self._write(_TOLD, {"publication": current, "placed": placed})
            return None
        self._write(
            _PENDING,
            {
                "publication": current,
                "as_of": self._store.as_of(current).isoformat(),
                "noticed_at": datetime.now(UTC).isoformat(),
                "moved": moved,
                "names": self._store.segment_names(current),
            },
        )
        return self.pending()

    def told(self, changes: Changes) -> None:
        """Take the changes for told. Idempotent: a kill in the midst of it has them told again."""
        known = self._known() or {"placed": {}}
        placed = {int(customer): segment for customer, segment in known["placed"].items()}
        for customer, _, now in changes.moved:
            placed.pop(customer, None)
            if now is not None:
                placed[customer] = now
        self._write(_TOLD, {"publication": changes.publication, "placed": placed})
        (self._folder / _PENDING).unlink(missing_ok=True)

    @property
    def lock(self) -> FileLock:
        """Held by whoever tells: two at once would tell everything twice."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self._folder / ".lock", timeout=0, thread_local=False)

    def _known(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads((self._folder / _TOLD).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return found

    def _write(self, name: str, content: object) -> None:
        fresh = self._folder / f".{name}.{secrets.token_hex(4)}"
        fresh.write_text(json.dumps(content), encoding="utf-8")
        fresh.replace(self._folder / name)


async def announce(announcements: Announcements, sender: Sender) -> int:
    """How many changes were told; all that there are, unless another process is at it.

    Raises
    ------
    BrokerAway
        Kafka did not take them all; they are told again the next time.
    """
    try:
        with announcements.lock:
            told = 0
            while (changes := await asyncio.to_thread(announcements.pending)) is not None:
                messages = list(changes.messages())
                for start in range(0, len(messages), _SENT_AT_ONCE):
                    await sender.send(messages[start : start + _SENT_AT_ONCE])
                await asyncio.to_thread(announcements.told, changes)
                told += len(messages)
                _log.info("segment_changes_told", publication=changes.publication, customers=len(messages))
            return told
    except Timeout:
        return 0


def _read(content: Mapping[str, Any]) -> Changes:
    return Changes(
        publication=content["publication"],
        as_of=date.fromisoformat(content["as_of"]),
        noticed_at=datetime.fromisoformat(content["noticed_at"]),
        moved=tuple((customer, before, now) for customer, before, now in content["moved"]),
        names={int(number): name for number, name in content["names"].items()},
    )
