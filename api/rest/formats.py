"""Answers as bytes: JSON, CSV, Arrow and Parquet, chosen by the Accept header."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet

from api.errors import NotAcceptable
from api.rest.resources import AnswerResource, Resource
from api.service import Answer

JSON = "application/json"
CSV = "text/csv"
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
BINARY = (ARROW, PARQUET)
OFFERED = (JSON, CSV, *BINARY)


def negotiate(accept: str | None) -> str:
    """The offered media type that the Accept header likes best; JSON where it says nothing (RFC 9110, 12.5.1).

    Raises
    ------
    NotAcceptable
        The header excludes every offered type.
    """
    ranges = [_media_range(part) for part in accept.split(",")] if accept and accept.strip() else [("*/*", 1.0)]
    ranked = sorted(OFFERED, key=lambda offered: -_liking(offered, ranges))  # stable, so JSON wins a tie
    if _liking(ranked[0], ranges) == 0:
        raise NotAcceptable("None of the accepted formats is offered", hint=f"Accept one of: {', '.join(OFFERED)}.")
    return ranked[0]


def _media_range(part: str) -> tuple[str, float]:
    name, *parameters = (piece.strip() for piece in part.split(";"))
    quality = next((item[2:] for item in parameters if item.lower().startswith("q=")), "1")
    try:
        return name.lower(), min(max(float(quality), 0.0), 1.0)
    except ValueError:
        return name.lower(), 0.0


def _liking(offered: str, ranges: Iterable[tuple[str, float]]) -> float:
    matching = {offered, offered.partition("/")[0] + "/*", "*/*"}
    found = [(len(name), quality) for name, quality in ranges if name in matching]
    # The most specific range decides; `*/*` is the shortest of the three.
    return max(found)[1] if found else 0.0


def render(answer: Answer, media_type: str) -> bytes:
    """The rows of the answer in the format; JSON carries columns and meta besides, the others just the rows."""
    return _RENDERERS[media_type](answer)


def encode(resource: Resource) -> bytes:
    """The resource as JSON: a decimal is a number with all its digits, a time ends in Z, a day is ISO 8601."""
    return orjson.dumps(resource, default=_encodable, option=orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z)


def _encodable(value: object) -> object:
    match value:
        case Decimal():
            return orjson.Fragment(plain(value))
        case Resource():
            return vars(value)
        case _:
            raise TypeError


def _json(answer: Answer) -> bytes:
    return encode(AnswerResource.of(answer, rows=rows(answer.table)))


def rows(table: pa.Table) -> list[dict[str, Any]]:
    """The rows as objects for orjson: a decimal is a JSON number with all its digits, a day is ISO 8601."""
    columns = [_values(array) for array in table.itercolumns()]
    names = table.column_names
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _values(array: pa.ChunkedArray) -> list[Any]:
    values: list[Any] = array.to_pylist()
    if not pa.types.is_decimal(array.type):
        return values
    # As text, since a float would lose digits. (Not by pa.array(texts): it imports pandas, a second and 40 MB.)
    return [None if value is None else orjson.Fragment(plain(value)) for value in values]


def plain(number: Decimal) -> str:
    """The shortest text of the exact number: `5061245.81634`, never an exponent."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _csv(answer: Answer) -> bytes:
    sink = io.StringIO()
    writer = csv.writer(sink)
    writer.writerow(answer.table.column_names)
    writer.writerows(zip(*map(_texts, answer.table.itercolumns()), strict=True))
    return sink.getvalue().encode()


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


def _arrow(answer: Answer) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, answer.table.schema) as writer:
        writer.write_table(answer.table)
    return sink.getvalue()


def _parquet(answer: Answer) -> bytes:
    sink = io.BytesIO()
    pa.parquet.write_table(answer.table, sink, compression="zstd")
    return sink.getvalue()


_RENDERERS: Mapping[str, Callable[[Answer], bytes]] = {JSON: _json, CSV: _csv, ARROW: _arrow, PARQUET: _parquet}
