"""How a source file becomes records: numbered rows of text cells, from CSV or from a workbook.

A record keeps the physical line on which it starts, so that a person finds it again. What is wrong with one
row (too few cells, misplaced quotes) travels with that row; what is wrong with the file is an error.
"""

import csv
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, time
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol, TextIO
from xml.etree.ElementTree import ParseError
from zipfile import BadZipFile, ZipFile

import pyarrow as pa
from openpyxl import load_workbook

from workers.errors import CutOffError, UnknownFileKindError, UnreadableFileError
from workers.sources import Header, recognise_cells, recognise_line

FILE_SUFFIXES: Final = (".csv", ".xlsx")

PIECE_ROWS: Final = 4_096
"""Rows held as Python objects at a time: 32,768 fell out of the processor's cache and took nearly twice as long."""

LONGEST_HEADER_CHARACTERS: Final = 65_536
LARGEST_WORKBOOK_BYTES: Final = 1 << 30
"""Unpacked. A workbook is a zip file, and a small one can unpack to more than the machine holds."""

CUT_HINT: Final = "Fetch the file again, it was probably not copied to its end; nothing of it was loaded"
_UTF8_HINT: Final = "Save the file as 'CSV UTF-8' and load it again"
_WORKBOOK_FAULTS: Final = (BadZipFile, zlib.error, EOFError, ParseError, KeyError, ValueError, TypeError)
"""What openpyxl lets through when a workbook's parts are damaged or missing."""


Record = tuple[int, Sequence[str], str]
"""One row of a file: its line number, its cells, and why the row as a whole cannot be read ("" if it can).

A plain tuple: for a million rows, named ones took three seconds more.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordBatch:
    """Rows in file order: those that can be read as columns of text, named as in the raw table, and the others.

    `cells` has `line_number` as its first column and lies in pieces of `PIECE_ROWS`.
    """

    cells: pa.Table
    faulty: tuple[Record, ...]


class Records(Protocol):
    """The records of one open file. Iterated once; blank lines are left out."""

    header: Header

    unended_line: int | None
    """After the iteration: the line of the last record, if the file does not end with a line end."""

    def __iter__(self) -> Iterator[Record]:
        """Yield the records in file order."""

    def bytes_read(self) -> int:
        """Return how far into the file the reading is."""


@contextmanager
def open_records(path: Path) -> Iterator[Records]:
    """Yield the records of a file, open for the time of the block.

    Raises
    ------
    UnknownFileKindError
        The header is not that of a known kind, or the file is empty.
    UnreadableFileError
        The file is not text in UTF-8, not a workbook, or of another type.
    CutOffError
        While iterating: the file ends in the middle of a line.

    """
    match path.suffix.lower():
        case ".csv":
            with _open_csv(path) as records:
                yield records
        case ".xlsx":
            with _open_workbook(path) as records:
                yield records
        case other:
            message = f"Files of type '{other}' are not read"
            raise UnreadableFileError(message, hint=f"Use one of {', '.join(FILE_SUFFIXES)}")


def in_batches(records: Records, *, most_rows: int) -> Iterator[RecordBatch]:
    """Yield the records in batches of at most so many rows (or of one piece)."""
    texts = ((column.name, pa.string()) for column in records.header.columns)
    schema = pa.schema([("line_number", pa.int64()), *texts])
    rest = iter(records)
    while True:
        faulty: list[Record] = []
        starts = range(0, most_rows, PIECE_ROWS)
        pieces = [_columns(islice(rest, PIECE_ROWS), schema=schema, faulty=faulty) for _ in starts]
        cells = pa.Table.from_batches(pieces)
        if not cells and not faulty:
            return
        yield RecordBatch(cells=cells, faulty=tuple(faulty))


def _columns(records: Iterable[Record], *, schema: pa.Schema, faulty: list[Record]) -> pa.RecordBatch:
    line_numbers: list[int] = []
    rows: list[Sequence[str]] = []
    for line_number, cells, fault in records:
        if fault:
            faulty.append((line_number, cells, fault))
        else:
            line_numbers.append(line_number)
            rows.append(cells)
    columns = zip(*rows, strict=True) if rows else [()] * (len(schema) - 1)
    return pa.record_batch([line_numbers, *columns], schema=schema)


@contextmanager
def _open_csv(path: Path) -> Iterator[Records]:
    # newline="" leaves line ends to the csv module, which must see those inside quoted cells.
    with path.open(encoding="utf-8-sig", newline="") as stream:
        try:
            yield _CsvRecords(stream)
        except UnicodeDecodeError as error:
            raise _not_utf8(path) from error


class _CsvRecords:
    """Records of a CSV file; the header is read on construction."""

    def __init__(self, stream: TextIO) -> None:
        self.unended_line: int | None = None
        self._stream = stream
        self._last_text = ""
        self._lines_before = 0
        self.header = recognise_line(self._header_text())

    def bytes_read(self) -> int:
        return self._stream.buffer.tell()

    def __iter__(self) -> Iterator[Record]:
        last = None
        for last in self._records():
            yield last
        if last is None or self._last_text.endswith(("\n", "\r")):
            return
        self.unended_line, cells, _ = last
        if len(cells) < len(self.header.columns) or not cells[-1].strip():
            message = f"The file is cut off in the middle of line {self.unended_line}"
            raise CutOffError(message, hint=CUT_HINT)

    def _header_text(self) -> str:
        while line := self._stream.readline(LONGEST_HEADER_CHARACTERS):
            self._lines_before += 1
            if line.strip():
                return line
        message = "The file is empty"
        raise UnknownFileKindError(message, hint="A file starts with a header line that names its columns")

    def _texts(self) -> Iterator[str]:
        for text in self._stream:
            self._last_text = text
            yield text

    def _records(self) -> Iterator[Record]:
        reader = csv.reader(self._texts(), delimiter=self.header.delimiter, strict=True)
        width = len(self.header.columns)
        while True:
            start = self._lines_before + reader.line_num + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                yield self._misquoted(error, start=start, end=self._lines_before + reader.line_num)
                continue
            if cells is None:
                return
            if len(cells) == width:
                yield start, cells, ""
            elif cells and (len(cells) > 1 or cells[0].strip()):
                yield start, cells, _wrong_width(cells, width)

    def _misquoted(self, error: csv.Error, *, start: int, end: int) -> Record:
        if "unexpected end of data" in str(error):
            message = f"The file ends inside a quoted cell that opens on line {start}"
            raise CutOffError(message, hint=CUT_HINT) from error
        if end > start:
            # Lines in between were swallowed as one cell: rejecting one row would hide that they are gone.
            message = f"A quoted cell that opens on line {start} is not closed properly by line {end}"
            raise UnreadableFileError(message, hint=f"Correct the quotes on line {start}") from error
        fault = "has a cell that is too long" if "field limit" in str(error) else "has misplaced quotes"
        return start, [self._last_text.rstrip("\r\n")], f"the row {fault}"


def _wrong_width(cells: Sequence[str], width: int) -> str:
    return f"the row has {len(cells)} cells, the header has {width}"


def _not_utf8(path: Path) -> UnreadableFileError:
    offset = 0
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                message = f"The file is not text in UTF-8: line {number}, byte {offset + error.start} of the file"
                return UnreadableFileError(message, hint=_UTF8_HINT)
            offset += len(line)
    return UnreadableFileError("The file is not text in UTF-8", hint=_UTF8_HINT)


@contextmanager
def _open_workbook(path: Path) -> Iterator[Records]:
    try:
        with ZipFile(path) as archive:
            unpacked = sum(part.file_size for part in archive.infolist())
        if unpacked > LARGEST_WORKBOOK_BYTES:
            message = f"The workbook unpacks to {unpacked:,} bytes, more than {LARGEST_WORKBOOK_BYTES:,}"
            raise UnreadableFileError(message, hint="Save the sheet as CSV UTF-8 and load that")
        book = load_workbook(path, read_only=True, data_only=True)
    except _WORKBOOK_FAULTS as error:
        raise _broken_workbook() from error
    with closing(book):
        yield _WorkbookRecords(book.worksheets)


class _WorkbookRecords:
    """Records of the one sheet of a workbook whose header is a known kind; line numbers are sheet rows."""

    def __init__(self, sheets: Sequence[Any]) -> None:  # Any: openpyxl has no types
        self.unended_line: int | None = None
        self._sheet, self._header_row, self.header = _known_sheet(sheets)

    def bytes_read(self) -> int:
        return 0

    def __iter__(self) -> Iterator[Record]:
        width = len(self.header.columns)
        for number, cells in _filled_rows(self._sheet):
            if number <= self._header_row:
                continue
            padded = [*cells, *[""] * (width - len(cells))]
            yield number, padded, "" if len(padded) == width else _wrong_width(padded, width)


def _known_sheet(sheets: Sequence[Any]) -> tuple[Any, int, Header]:
    known, unknown = [], []
    for sheet in sheets:
        number, cells = next(_filled_rows(sheet), (0, []))
        try:
            known.append((sheet, number, recognise_cells(cells)))
        except UnknownFileKindError as error:
            unknown.append(error)
    match known:
        case [only]:
            return only
        case []:
            raise unknown[0]
    titles = " and ".join(f"'{sheet.title}'" for sheet, _, _ in known)
    message = f"The sheets {titles} are each a file of their own"
    raise UnknownFileKindError(message, hint="Save each sheet as its own workbook")


def _filled_rows(sheet: Any) -> Iterator[tuple[int, list[str]]]:  # noqa: ANN401  openpyxl has no types
    # The size that a workbook claims for a sheet may be smaller than the sheet, and would cut it.
    sheet.reset_dimensions()
    try:
        for number, values in enumerate(sheet.iter_rows(values_only=True), start=1):
            cells = [_cell_text(value) for value in values]
            while cells and not cells[-1].strip():
                cells.pop()
            if cells:
                yield number, cells
    except _WORKBOOK_FAULTS as error:
        raise _broken_workbook() from error


def _cell_text(value: object) -> str:
    match value:
        case None:
            return ""
        case float():
            # 15 digits are what a spreadsheet shows; the 17 of repr would make 12.99 a 12.989999999999998.
            return f"{value:.15g}"
        case datetime() if value.time() == time():
            return value.date().isoformat()
        case _:
            return str(value)


def _broken_workbook() -> UnreadableFileError:
    message = "The file is not a readable workbook: it is damaged, cut off, encrypted, or of another type"
    return UnreadableFileError(message, hint="Open it in a spreadsheet program and save it again as .xlsx")
