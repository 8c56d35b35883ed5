"""Files to raw tables: read, checked, quarantined, reported.

`ingest` is the door. A file is read once into a scratch DuckDB in memory (which spills to disk), where whole
columns are typed and duplicate keys found; only then, in one transaction, it goes to the warehouse. So a file
that turns out to be wrong never touches the warehouse, and the warehouse is held only while rows are copied.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Final

import duckdb
import pyarrow as pa

from workers.checking import RowChecker
from workers.errors import SettingError, SourceError, UnknownFileKindError, UnreadableFileError
from workers.records import FILE_SUFFIXES, in_batches, open_records
from workers.sinks import LoadOutcome, ParsedFile, Warehouse

BATCH_ROWS: Final = 32_768
"""Rows checked at a time, some 5 MB of text: of 8,192 to 131,072 the fastest for a million lines."""

SCRATCH_MEMORY: Final = "256MB"
"""What the scratch database may hold before it spills to disk."""


class LoadStatus(StrEnum):
    """What became of a file."""

    LOADED = "loaded"
    ALREADY_LOADED = "already loaded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileReport:
    """What became of one file. `error` and `hint` are there exactly if it failed; then nothing was loaded."""

    file_name: str
    status: LoadStatus
    kind: str | None = None
    rows_read: int = 0
    rows_loaded: int = 0
    rows_quarantined: int = 0
    seconds: float = 0.0
    error: str | None = None
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """What became of every file, in the order of loading, and the names of files that are no source files."""

    files: tuple[FileReport, ...]
    ignored: tuple[str, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether no file failed. Quarantined rows do not make a file fail."""
        return all(file.status is not LoadStatus.FAILED for file in self.files)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadProgress:
    """How far an ingestion is: the file in hand, its rows so far, and the bytes of all files of the call."""

    file_name: str
    rows_read: int
    bytes_done: int
    bytes_total: int


ProgressListener = Callable[[LoadProgress], None]


def ingest(data: Path, *, warehouse: Warehouse, progress: ProgressListener | None = None) -> LoadReport:
    """Return what became of every file of a folder, or of one file, after loading those that are new.

    Files load in the order of their names, each in one transaction of its own. A file that cannot be loaded
    is reported and does not stop the others. Idempotent: content that was loaded before, under whatever
    name, is skipped.

    Parameters
    ----------
    data
        A folder (its `.csv` and `.xlsx` files, not those of folders inside it), or one file.
    warehouse
        Where to; its raw tables are made if missing.
    progress
        Called after every batch of rows and at the end of every file.

    Raises
    ------
    SettingError
        There is nothing at `data`, or no source file in it.
    WarehouseError
        The warehouse refused or stayed locked; the files before are loaded, this one and those after are not.

    """
    started = monotonic()
    paths, ignored = _find_files(data)
    warehouse.ensure_raw_tables()
    meter = _Meter(paths, progress)
    known = dict(warehouse.loaded_hashes())
    reports = []
    for path in paths:
        reports.append(_load_file(path, warehouse=warehouse, known=known, meter=meter))
        meter.end_file(path, rows_read=reports[-1].rows_read)
    return LoadReport(files=tuple(reports), ignored=ignored, seconds=monotonic() - started)


@contextmanager
def checked_rows(path: Path, *, kind: str) -> Iterator[tuple[Iterable[pa.Table], Iterable[pa.Table]]]:
    """The rows of a file of that kind, typed, and those that cannot be read with the reason, for the time of the block.

    Raises
    ------
    SourceError
        The file is of another kind, or cannot be loaded.
    """
    with _scratch_database() as scratch:
        checker = _check_file(path, scratch=scratch, meter=_Meter((path,), None))
        if checker.kind.name != kind:
            raise UnknownFileKindError(f"{path.name} holds {checker.kind.name}", hint=f"Name a file of {kind}")
        yield checker.good_batches(), checker.rejected_batches()


class _Meter:
    """Tells the listener how far the reading is."""

    def __init__(self, paths: Sequence[Path], listener: ProgressListener | None) -> None:
        self._listener = listener
        self._sizes = {path: path.stat().st_size for path in paths}
        self._bytes_before = 0

    def tell(self, path: Path, *, rows_read: int, bytes_read: int) -> None:
        if self._listener:
            self._listener(
                LoadProgress(
                    file_name=_shown_name(path),
                    rows_read=rows_read,
                    bytes_done=self._bytes_before + min(bytes_read, self._sizes[path]),
                    bytes_total=sum(self._sizes.values()),
                )
            )

    def end_file(self, path: Path, *, rows_read: int) -> None:
        self.tell(path, rows_read=rows_read, bytes_read=self._sizes[path])
        self._bytes_before += self._sizes[path]


def _find_files(data: Path) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    if data.is_file():
        return (data,), ()
    if not data.is_dir():
        message = f"There is no file or folder {data}"
        raise SettingError(message, hint="Name a folder with .csv or .xlsx files, or one such file")
    files = sorted(path for path in data.iterdir() if path.is_file())
    paths = tuple(path for path in files if _is_source(path))
    if not paths:
        message = f"The folder {data} holds no .csv or .xlsx file"
        raise SettingError(message, hint="Put the source files directly into it, or name another folder")
    return paths, tuple(_shown_name(path) for path in files if path not in paths)


def _is_source(path: Path) -> bool:
    # Excel keeps a lock file "~$Name.xlsx" beside a workbook that is open.
    return path.suffix.lower() in FILE_SUFFIXES and not path.name.startswith((".", "~$"))


def _shown_name(path: Path) -> str:
    # A file name may hold bytes that are no text.
    return os.fsencode(path.name).decode("utf-8", "replace")


def _load_file(path: Path, *, warehouse: Warehouse, known: dict[str, str], meter: _Meter) -> FileReport:
    started = monotonic()
    try:
        file_hash = _content_hash(path)
        if file_hash in known:
            outcome = _skipped(path, kind=known[file_hash])
        else:
            outcome = _load_new(path, file_hash=file_hash, warehouse=warehouse, meter=meter)
            known[file_hash] = str(outcome.kind)
    except OSError as error:
        outcome = _failed(path, error=f"The file cannot be read: {error.strerror}", hint="Check its permissions")
    except SourceError as error:
        outcome = _failed(path, error=error.message, hint=error.hint)
    return replace(outcome, seconds=monotonic() - started)


def _skipped(path: Path, *, kind: str) -> FileReport:
    return FileReport(file_name=_shown_name(path), status=LoadStatus.ALREADY_LOADED, kind=kind)


def _failed(path: Path, *, error: str, hint: str) -> FileReport:
    return FileReport(file_name=_shown_name(path), status=LoadStatus.FAILED, error=error, hint=hint)


def _load_new(path: Path, *, file_hash: str, warehouse: Warehouse, meter: _Meter) -> FileReport:
    started = monotonic()
    with _scratch_database() as scratch:
        checker = _check_file(path, scratch=scratch, meter=meter)
        if _content_hash(path) != file_hash:
            message = "The file changed while it was read"
            raise UnreadableFileError(message, hint="Wait until it is written completely, then run this again")
        parsed = ParsedFile(
            file_hash=file_hash,
            file_name=_shown_name(path),
            file_kind=checker.kind.name,
            started=started,
            rows_read=checker.rows_read,
            rows_loaded=checker.good_rows,
            rows_quarantined=checker.bad_rows,
            good=checker.good_batches(),
            rejected=checker.rejected_batches(),
        )
        if warehouse.load(parsed) is LoadOutcome.ALREADY_LOADED:
            return _skipped(path, kind=parsed.file_kind)
    return FileReport(
        file_name=parsed.file_name,
        status=LoadStatus.LOADED,
        kind=parsed.file_kind,
        rows_read=parsed.rows_read,
        rows_loaded=parsed.rows_loaded,
        rows_quarantined=parsed.rows_quarantined,
    )


def _content_hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_file(path: Path, *, scratch: duckdb.DuckDBPyConnection, meter: _Meter) -> RowChecker:
    # DuckDB works outside the interpreter lock: one batch is checked while the next is read.
    with open_records(path) as records, ThreadPoolExecutor(max_workers=1) as checking:
        checker = RowChecker(records.header, scratch)
        checked: Future[None] | None = None
        for batch in in_batches(records, most_rows=BATCH_ROWS):
            if checked:
                checked.result()
                meter.tell(path, rows_read=checker.rows_read, bytes_read=records.bytes_read())
            checked = checking.submit(checker.check, batch)
        if checked:
            checked.result()
        if records.unended_line is not None:
            checker.refuse_cut_cell(records.unended_line)
    checker.refuse_bad_file()
    return checker


@contextmanager
def _scratch_database() -> Iterator[duckdb.DuckDBPyConnection]:
    with TemporaryDirectory(prefix="insight-") as folder:
        limits = {"memory_limit": SCRATCH_MEMORY, "temp_directory": folder}
        # Off: a table name that is missing must not fall back to a Python variable of that name.
        with duckdb.connect(":memory:", config={**limits, "python_enable_replacements": False}) as scratch:
            yield scratch
