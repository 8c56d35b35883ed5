"""One record of every request, kept whatever happens to the process, and in the state database within seconds.

The record is a line in a journal before the first byte of the answer leaves, so whoever has seen an answer finds its
record, even after `kill -9`. A task moves the lines into the database; a line that is moved twice, for the process
died between the two steps, replaces itself. No request waits for the database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from time import monotonic

import orjson
import sqlalchemy as sa
import structlog

from api.audit_record import line_of
from api.audit_store import AuditStore, Record
from api.errors import Unavailable, WrongSetting
from api.journal import JournalFile
from api.observation import Observation
from api.settings import AuditMode

_log = structlog.get_logger(__name__)

_MOVE_EVERY_S = 1.0
_UPKEEP_EVERY_S = 3600.0
_RETRY = timedelta(seconds=2)
_REFUSED = "refused.ndjson"  # records that the database does not take, for somebody to look at


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditCounters:
    """Records: waiting to be moved now; since the start, moved, refused by the database, and not written at all."""

    backlog: int
    moved: int
    refused: int
    unwritten: int


class AuditTrail:
    """Takes records and moves them on. Everything but the moving itself belongs to the event loop's thread.

    Parameters
    ----------
    folder
        Of the journals; processes on one machine that share a state database share it.
    keep_for
        How long the database keeps a record.
    """

    def __init__(self, *, folder: Path, store: AuditStore, mode: AuditMode, keep_for: timedelta) -> None:
        self._folder = folder
        self._store = store
        self._mode = mode
        self._keep_for = keep_for
        self._open_file: JournalFile | None = None
        self._waiting: list[JournalFile] = []
        self._stopping = asyncio.Event()
        self._moving: asyncio.Task[None] | None = None
        self._next_upkeep = 0.0
        self._moved = self._refused = self._unwritten = 0
        self._troubles: set[str] = set()

    def start(self) -> None:
        """Begin to move records, those of dead processes first.

        Raises
        ------
        WrongSetting
            The journal cannot be written, and has to be.
        """
        try:
            self._open_file = JournalFile.create(self._folder)
        except OSError as error:
            if self._mode is AuditMode.REQUIRED:
                raise WrongSetting(
                    f"The audit's journal cannot be written in {self._folder}: {error.strerror}",
                    hint="Make the folder writable, name another one in INSIGHT_AUDIT_DIR, or set INSIGHT_AUDIT.",
                ) from error
        self._moving = asyncio.create_task(self._move_until_stopped())

    def write(self, observation: Observation) -> None:
        """Keep the record of the request, in place of an earlier one of the same request.

        Raises
        ------
        Unavailable
            It cannot be kept, and has to be.
        """
        try:
            if self._open_file is None:
                self._open_file = JournalFile.create(self._folder)
            self._open_file.append(line_of(observation))
        except OSError as error:
            self._unwritten += 1
            self._trouble("audit_unwritten", cause=error.strerror)
            if self._mode is AuditMode.REQUIRED:
                raise Unavailable(
                    "The audit cannot be written, and nothing is answered without it",
                    hint="Try again shortly; its operator finds the cause in the log.",
                    code="audit_unavailable",
                    retry_after=_RETRY,
                ) from error
        else:
            self._over("audit_unwritten")

    def counters(self) -> AuditCounters:
        """The counters as they are now."""
        return AuditCounters(
            backlog=sum(file.line_count for file in self._files()),
            moved=self._moved,
            refused=self._refused,
            unwritten=self._unwritten,
        )

    async def close(self) -> None:
        """Move what there is, and leave to the next start what the database does not take now. Idempotent."""
        self._stopping.set()
        if self._moving is not None:
            await self._moving
            self._moving = None
        await self._move()
        await self._move()  # what came while an outage held up what came before
        for file in self._files():
            file.release() if file.line_count else file.remove()
        self._waiting, self._open_file = [], None

    def _files(self) -> list[JournalFile]:
        return [*self._waiting, *([self._open_file] if self._open_file else [])]

    async def _move_until_stopped(self) -> None:
        while not self._stopping.is_set():
            try:
                await self._move()
            except Exception:  # noqa: BLE001 - the outermost loop: a fault here must not end the moving
                _log.exception("audit_moving_failed")
            with suppress(TimeoutError):
                async with asyncio.timeout(_MOVE_EVERY_S):
                    await self._stopping.wait()

    async def _move(self) -> None:
        """Move what there is now, as far as the database takes it."""
        if not await self._keep_up():
            return
        # New records go to a new file, unless an older one still waits.
        if self._open_file is not None and self._open_file.line_count and not self._waiting:
            self._waiting.append(self._open_file)
            self._open_file = None  # the next record opens one
        while self._waiting:
            file = self._waiting[0]
            if not await self._reached(partial(self._drain, file)):
                return
            del self._waiting[0]

    async def _keep_up(self) -> bool:
        """At the start and then every hour: take over what dead processes left, remove what is too old."""
        if monotonic() < self._next_upkeep:
            return True
        self._waiting[:0] = await asyncio.to_thread(lambda: list(JournalFile.claim_abandoned(self._folder)))
        oldest = datetime.now(UTC) - self._keep_for
        if not await self._reached(partial(self._store.remove_before, oldest)):
            return False
        self._next_upkeep = monotonic() + _UPKEEP_EVERY_S
        return True

    def _drain(self, file: JournalFile) -> None:
        refused = self._store.add(_records(file.lines()))
        for record in refused:
            _log.error("audit_record_refused", record_id=record["id"], kept_in=str(self._folder / _REFUSED))
        if refused:
            with (self._folder / _REFUSED).open("ab") as kept:
                kept.writelines(orjson.dumps(record) + b"\n" for record in refused)
        file.remove()
        self._moved += file.line_count - len(refused)
        self._refused += len(refused)

    async def _reached(self, step: Callable[[], object]) -> bool:
        """Whether the step, in a thread, reached the database; an outage is logged at its beginning and its end."""
        try:
            await asyncio.to_thread(step)
        except sa.exc.SQLAlchemyError as error:
            self._trouble("audit_delayed", cause=type(error).__name__, backlog=self.counters().backlog)
            return False
        self._over("audit_delayed")
        return True

    def _trouble(self, event: str, **facts: object) -> None:
        if event not in self._troubles:
            self._troubles.add(event)
            _log.error(event, **facts)

    def _over(self, event: str) -> None:
        if event in self._troubles:
            self._troubles.remove(event)
            _log.info(f"{event}_no_more")


def _records(lines: Iterable[bytes]) -> Iterator[Record]:
    for line in lines:
        try:
            record = orjson.loads(line)
            yield {**record, "at": datetime.fromisoformat(record["at"])}
        except (ValueError, LookupError, TypeError):
            _log.error("audit_line_unreadable", characters=len(line))  # a disk's fault; ours are whole or absent
