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

from api.compiler import Column
from api.errors import NotAcceptable
from api.service import Answer

JSON = "application/json"
CSV = "text/csv"
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
OFFERED = (JSON, CSV, ARROW, PARQUET)


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


def encode(document: object) -> bytes:
    """The document as JSON: a decimal is a number with all its digits, a time ends in Z, a day is ISO 8601."""
    return orjson.dumps(document, default=_decimal, option=orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z)


def _decimal(value: object) -> orjson.Fragment:
    if isinstance(value, Decimal):
        return orjson.Fragment(plain(value))
    raise TypeError


def _json(answer: Answer) -> bytes:
    return encode(
        {"data": rows(answer.table), "columns": [column(each) for each in answer.columns], "meta": meta(answer)}
    )


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


def column(column: Column) -> dict[str, Any]:
    """The column as answered."""
    return {
        "name": column.name,
        "label": column.label,
        "kind": column.kind,
        "type": column.type,
        "unit": column.unit,
        "grain": column.grain,
    }


def meta(answer: Answer) -> Mapping[str, Any]:
    """What the answer says of itself."""
    time_range = answer.time_range
    return {
        "query_id": answer.query_id,
        "row_count": answer.table.num_rows,
        "truncated": answer.is_truncated,
        "limit": answer.limit,
        "offset": answer.offset,
        "publication": answer.publication,
        "as_of": answer.as_of,
        "time_range": time_range and {"start": time_range.start, "end": time_range.end},
        "cost": answer.cost,
        "withheld_groups": answer.withheld.groups if answer.withheld else None,
        "cache": {"plan": "hit" if answer.is_plan_cached else "miss", "result": answer.result_origin},
        "timings": {
            "compile_ms": answer.timings.compile_ms,
            "run_ms": answer.timings.run_ms,
            "total_ms": answer.timings.total_ms,
        },
    }


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
            case datetime():
                yield value.isoformat() + "Z"
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
