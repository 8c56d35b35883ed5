"""Answers as bytes: JSON with all that is to say of them, or just the rows in another format; Accept chooses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson

from api.answer import Answer
from api.errors import NotAcceptable
from api.rest.resources import ColumnResource, Resource, meta_of
from api.rest.rows import ARROW, CSV, JSON_OPTIONS, NDJSON, PARQUET, document, plain, rows

JSON = "application/json"
TEXTS, BINARY = (CSV, NDJSON), (ARROW, PARQUET)
OFFERED = (JSON, CSV, ARROW, PARQUET, NDJSON)
STREAMED = (NDJSON, CSV, ARROW, PARQUET)


def negotiate(accept: str | None, offered: Sequence[str] = OFFERED) -> str:
    """The offered media type that the Accept header likes best, the first where it says nothing (RFC 9110, 12.5.1).

    Raises
    ------
    NotAcceptable
        The header excludes every offered type.
    """
    if not accept or accept.strip() in ("", "*/*"):  # as most clients say
        return offered[0]
    ranges = [_media_range(part) for part in accept.split(",")]
    ranked = sorted(offered, key=lambda each: -_liking(each, ranges))  # stable, so the first wins a tie
    if _liking(ranked[0], ranges) == 0:
        raise NotAcceptable("None of the accepted formats is offered", hint=f"Accept one of: {', '.join(offered)}.")
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """The rows of an answer in a format, for as many answers as have these rows."""

    media_type: str
    _rows: bytes

    @property
    def has_meta(self) -> bool:
        """Whether a document says where its answer comes from; JSON alone does."""
        return self.media_type == JSON

    @classmethod
    def of(cls, answer: Answer, media_type: str) -> Encoded:
        """The rows of the answer; in JSON with their columns, beneath `AnswerResource`."""
        if media_type != JSON:
            return cls(media_type=media_type, _rows=document(media_type, answer.table))
        columns = [ColumnResource.of(column) for column in answer.columns]
        told = orjson.dumps({"data": rows(answer.table), "columns": columns}, default=_encodable, option=JSON_OPTIONS)
        return cls(media_type=media_type, _rows=told.removesuffix(b"}"))

    def document(self, answer: Answer) -> bytes:
        """The whole document of an answer; JSON ends with its meta, the others have just the rows."""
        if not self.has_meta:
            return self._rows
        return b'%b,"meta":%b}' % (self._rows, encode(meta_of(answer)))


def encode(resource: Resource | dict[str, Any]) -> bytes:
    """The resource as JSON: a decimal is a number with all its digits, a time ends in Z, a day is ISO 8601."""
    return orjson.dumps(resource, default=_encodable, option=JSON_OPTIONS)


def _encodable(value: object) -> object:
    match value:
        case Decimal():
            return orjson.Fragment(plain(value))
        case Resource():
            return vars(value)
        case _:
            raise TypeError
