"""Lines on disk that outlive the process: appended by it, taken away by it or, after its death, by another.

Each process writes files of its own and holds a lock on them, which the kernel lets go of when the process dies,
whatever it died of. So a file that can be locked is nobody's, and is whoever's finds it first.

A line is in the kernel's hands once `append` returns: it survives `kill -9`, not a power cut. It is put there through a
mapping: a call into the kernel would let other threads have Python's lock, and to get that back can take longer than
all the rest of an answer that is kept. Behind the last line there are zeros, room for the next ones.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from collections.abc import Iterator
from pathlib import Path

_SUFFIX = ".jsonl"
_ROOM = bytes(256 * 1024)  # that is made at once, some hundred lines
_END = ord("\n")


class JournalFile:
    """One file and the lock on it. `append` belongs to one thread; the rest to whoever has taken the file from it."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._size_bytes = 0  # of what we have appended
        self._room_bytes = 0
        self._mapped: mmap.mmap | None = None
        self.line_count = 0

    @classmethod
    def create(cls, folder: Path) -> JournalFile:
        """A new one, locked; files sort by their names into the order in which they were made."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / f"{time.time_ns():020d}-{os.getpid()}{_SUFFIX}"
        # Under its final name only once it is locked: else another process could take it in between.
        unlocked = path.with_suffix(".new")
        descriptor = os.open(unlocked, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            unlocked.rename(path)
        except OSError:
            os.close(descriptor)
            raise
        return cls(path, descriptor)

    @classmethod
    def claim_abandoned(cls, folder: Path) -> Iterator[JournalFile]:
        """The files of dead processes, oldest first, locked for this one. Blocks while it reads them."""
        for path in sorted(folder.glob(f"*{_SUFFIX}")):
            if (file := cls._claim(path)) is not None:
                yield file

    @classmethod
    def _claim(cls, path: Path) -> JournalFile | None:
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_there = path.stat().st_ino == os.fstat(descriptor).st_ino
        except (BlockingIOError, FileNotFoundError):
            is_there = False  # its process lives, or another one has just taken it
        if not is_there:
            os.close(descriptor)
            return None
        file = cls(path, descriptor)
        file.line_count = sum(1 for _ in file.lines())
        return file

    def append(self, line: bytes) -> None:
        """Write the line, without its end, as a whole or not at all.

        Raises
        ------
        OSError
            It cannot be written, for instance because the disk is full.
        """
        end = self._size_bytes + len(line)
        if self._mapped is None or end >= len(self._mapped):
            self._mapped = self._make_room(end + 1)
        self._mapped[self._size_bytes : end] = line
        self._mapped[end] = _END  # last: whoever finds it finds all that is before it
        self._size_bytes = end + 1
        self.line_count += 1

    def _make_room(self, size_bytes: int) -> mmap.mmap:
        # Written, not only told: what the disk has no room for would otherwise end the process when it is touched.
        while self._room_bytes < size_bytes:
            self._room_bytes += os.pwrite(self._descriptor, _ROOM, self._room_bytes)
        if self._mapped is not None:
            self._mapped.close()
        return mmap.mmap(self._descriptor, self._room_bytes)

    def lines(self) -> Iterator[bytes]:
        """Every line; one that its process did not finish is left out, for nobody was told that it is written."""
        with os.fdopen(os.dup(self._descriptor), "rb") as file:  # by descriptor: somebody may have removed the name
            file.seek(0)
            for line in file:
                if line.endswith(b"\n"):
                    yield line

    def remove(self) -> None:
        """Take the file away; what it held is elsewhere."""
        self._path.unlink(missing_ok=True)
        self.release()

    def release(self) -> None:
        """Leave the file to whoever finds it."""
        if self._mapped is not None:
            self._mapped.close()  # with its own hold on the lock
            os.ftruncate(self._descriptor, self._size_bytes)
        os.close(self._descriptor)
