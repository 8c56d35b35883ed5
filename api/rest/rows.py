"""Rows as bytes: CSV, NDJSON, Arrow and Parquet, whole or piece by piece, the same either way."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

CSV = "text/csv"
NDJSON = "application/x-ndjson"
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"

JSON_OPTIONS = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z

# Parquet is written and read by groups of rows; smaller ones make a file larger and slower to read.
_GROUP_ROWS = 65_536

_FEW = 32  # values; measured, as Arrow takes 0.1 ms to begin


class RowEncoder(Protocol):
    """Writes tables of one schema as one document, in order."""

    def add(self, table: pa.Table) -> bytes:
        """What comes next for these rows; the first time with what a document begins with."""

    def end(self) -> bytes:
        """What is left, and what a document ends with. Without it, nobody may take the document for whole."""


def row_encoder(media_type: str, schema: pa.Schema) -> RowEncoder:
    """A new document in the format."""
    return _ENCODERS[media_type](schema)


def document(media_type: str, table: pa.Table) -> bytes:
    """The whole table as one document in the format."""
    encoder = row_encoder(media_type, table.schema)
    return encoder.add(table) + encoder.end()


def rows(table: pa.Table) -> list[dict[str, Any]]:
    """The rows as objects for orjson: a decimal is a JSON number with all its digits, a day is ISO 8601."""
    objects: list[dict[str, Any]] = [{} for _ in range(table.num_rows)]
    for name, array in zip(table.column_names, table.itercolumns(), strict=True):  # a quarter of the time of row by row
        for row, value in zip(objects, _values(array), strict=True):
            row[name] = value
    return objects


def _values(array: pa.ChunkedArray) -> list[Any]:
    if pa.types.is_date32(array.type):
        return list(array.cast(pa.string()).to_pylist())  # ISO 8601; a tenth of the time that many dates take
    if not pa.types.is_decimal(array.type):
        return list(array.to_pylist())
    # As text, since a float would lose digits. (Not by pa.array(texts): it imports pandas, a second and 40 MB.)
    return [None if text is None else orjson.Fragment(text) for text in _plain_texts(array)]


def _plain_texts(array: pa.ChunkedArray) -> list[str | None]:
    """`plain` for a whole column; a long one in half the time, while a short one would wait for Arrow to begin."""
    if len(array) <= _FEW:
        return [None if value is None else plain(value) for value in array.to_pylist()]
    texts = array.cast(pa.string())
    shortest = pc.utf8_rtrim(pc.utf8_rtrim(texts, "0"), ".") if array.type.scale > 0 else texts
    written = list(shortest.to_pylist())
    small = pc.indices_nonzero(pc.match_substring(texts, "E"))  # below a millionth Arrow writes an exponent
    for place, value in zip(small.to_pylist(), array.take(small).to_pylist(), strict=True):
        written[place] = plain(value)
    return written


def plain(number: Decimal) -> str:
    """The shortest text of the exact number: `5061245.81634`, never an exponent."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


class _Csv:
    """A line of names, then a line for each row."""

    def __init__(self, schema: pa.Schema) -> None:
        self._sink = io.StringIO()
        self._writer = csv.writer(self._sink)
        self._writer.writerow(schema.names)

    def add(self, table: pa.Table) -> bytes:
        self._writer.writerows(zip(*map(_texts, table.itercolumns()), strict=True))
        return self._taken()

    def end(self) -> bytes:
        return self._taken()

    def _taken(self) -> bytes:
        content = self._sink.getvalue()
        self._sink.seek(0)
        self._sink.truncate()
        return content.encode()


def _texts(array: pa.ChunkedArray) -> Iterator[str]:
    """As JSON would write each value, with nothing for a null."""
    for value in array.to_pylist():
        match value:
            case None:
                yield ""
            case bool():
                yield "true" if value else "false"
            case Decimal():
                yield plain(value)
            case datetime(tzinfo=None):
                yield value.isoformat() + "Z"
            case datetime():
                yield value.isoformat()
            case _:
                yield str(value)


class _JsonLines:
    """A line with an object for each row."""

    def __init__(self, schema: pa.Schema) -> None:
        del schema

    def add(self, table: pa.Table) -> bytes:
        return b"".join(orjson.dumps(row, option=JSON_OPTIONS | orjson.OPT_APPEND_NEWLINE) for row in rows(table))

    def end(self) -> bytes:
        return b""


class _ArrowStream:
    """An Arrow IPC stream."""

    def __init__(self, schema: pa.Schema) -> None:
        self._sink = _Sink()
        self._writer = pa.ipc.new_stream(self._sink, schema)

    def add(self, table: pa.Table) -> bytes:
        self._writer.write_table(table)
        return self._sink.taken()

    def end(self) -> bytes:
        self._writer.close()
        return self._sink.taken()


class _ParquetFile:
    """A Parquet file, which can be read once its end is there."""

    def __init__(self, schema: pa.Schema) -> None:
        self._sink = _Sink()
        self._writer = pa.parquet.ParquetWriter(self._sink, schema, compression="zstd")
        self._waiting: list[pa.Table] = []

    def add(self, table: pa.Table) -> bytes:
        self._waiting.append(table)
        if sum(part.num_rows for part in self._waiting) >= _GROUP_ROWS:
            self._write_group()
        return self._sink.taken()

    def end(self) -> bytes:
        if self._waiting:
            self._write_group()
        self._writer.close()
        return self._sink.taken()

    def _write_group(self) -> None:
        self._writer.write_table(pa.concat_tables(self._waiting))
        self._waiting.clear()


class _Sink(io.RawIOBase):
    """A file that is taken away while it is written."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:  # noqa: ANN401 - whatever Arrow has for a buffer
        self._parts.append(bytes(content))
        self._size += len(self._parts[-1])
        return len(self._parts[-1])

    def tell(self) -> int:
        return self._size

    def taken(self) -> bytes:
        """What was written since the last time."""
        content = b"".join(self._parts)
        self._parts.clear()
        return content


_ENCODERS: Mapping[str, Callable[[pa.Schema], RowEncoder]] = {
    CSV: _Csv,
    NDJSON: _JsonLines,
    ARROW: _ArrowStream,
    PARQUET: _ParquetFile,
}
