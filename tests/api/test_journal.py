"""The journal's files: a line is there as a whole or not at all, and a dead process's file is taken over once."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from api.journal import JournalFile


def claimed(folder: Path) -> list[list[bytes]]:
    return [list(file.lines()) for file in JournalFile.claim_abandoned(folder)]


@contextmanager
def room_for(size_bytes: int) -> Iterator[None]:
    """No file may grow beyond the size, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_is_appended_is_read_in_order(tmp_path: Path) -> None:
    file = JournalFile.create(tmp_path / "deep")
    for line in (b"one", b"", b"three"):
        file.append(line)

    assert list(file.lines()) == [b"one\n", b"\n", b"three\n"]
    assert file.line_count == 3


def test_a_line_that_does_not_fit_leaves_no_part_of_itself(tmp_path: Path) -> None:
    file = JournalFile.create(tmp_path)
    file.append(b"x" * 100)

    with room_for(2**19), pytest.raises(OSError, match="too large"):
        file.append(b"y" * 2**19)
    file.append(b"z")

    assert list(file.lines()) == [b"x" * 100 + b"\n", b"z\n"]
    assert file.line_count == 2


def test_a_file_that_lives_is_claimed_by_nobody(tmp_path: Path) -> None:
    file = JournalFile.create(tmp_path)
    file.append(b"mine")

    assert claimed(tmp_path) == []
    file.release()
    assert claimed(tmp_path) == [[b"mine\n"]]


def test_abandoned_files_come_in_the_order_of_their_making_and_but_once(tmp_path: Path) -> None:
    for name in (b"first", b"second"):
        file = JournalFile.create(tmp_path)
        file.append(name)
        file.release()

    held = list(JournalFile.claim_abandoned(tmp_path))

    assert [list(file.lines()) for file in held] == [[b"first\n"], [b"second\n"]]
    assert [file.line_count for file in held] == [1, 1]
    assert claimed(tmp_path) == []
    held[0].remove()
    held[1].release()
    assert claimed(tmp_path) == [[b"second\n"]]


def test_a_line_that_was_cut_short_by_death_is_passed_over(tmp_path: Path) -> None:
    file = JournalFile.create(tmp_path)
    file.append(b"whole")
    file.release()
    (path,) = tmp_path.iterdir()
    with path.open("ab") as torn:
        torn.write(b'{"id": "half')

    assert claimed(tmp_path) == [[b"whole\n"]]


def test_a_file_that_somebody_removed_still_has_its_lines(tmp_path: Path) -> None:
    file = JournalFile.create(tmp_path)
    file.append(b"kept")
    next(tmp_path.iterdir()).unlink()

    assert list(file.lines()) == [b"kept\n"]
    file.remove()


def test_the_lines_of_a_process_that_was_killed_are_there(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from api.journal import JournalFile\n"
        "file = JournalFile.create(Path(sys.argv[1]))\n"
        "for number in range(1000): file.append(str(number).encode())\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(tmp_path)], env=dict(os.environ), check=False)

    assert ended.returncode == -9
    assert claimed(tmp_path) == [[f"{number}\n".encode() for number in range(1000)]]


def test_many_lines_and_long_ones_are_all_there(tmp_path: Path) -> None:
    file = JournalFile.create(tmp_path)
    lines = [b"x" * size for size in (0, 1, 2**18 - 4, 2**18, 3 * 2**18, 5)]
    for line in lines:
        file.append(line)

    assert list(file.lines()) == [line + b"\n" for line in lines]
    file.release()
    (path,) = tmp_path.iterdir()
    assert path.read_bytes() == b"".join(line + b"\n" for line in lines)


def test_nobody_else_may_read_a_journal(tmp_path: Path) -> None:
    JournalFile.create(tmp_path / "audit")
    (path,) = (tmp_path / "audit").iterdir()

    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
