"""What the audit says of one request: who asked for what, and how it ended; bounded in size, without credentials."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, date, datetime
from functools import cache
from typing import Any

import orjson

from api.filters import AllOf, AnyOf, Comparison, Filter, Not
from api.observation import Observation
from api.query import MetricQuery
from api.redaction import redacted

_TEXT_CHARACTERS = 200
_WHAT_CHARACTERS = 8_000  # a question of usual size has 200; the largest allowed would have a million
_DEPTH = 12  # groups within each other; more than a question may have
_ITEM_CHARACTERS = 4  # quotes, comma and space around each
_LARGEST_NUMBER = 2**63  # beyond it a number is kept as a text

# Last, as filters alone are ever too long to be kept whole.
_LAST_FIELDS = ("where", "having")


def line_of(observation: Observation) -> bytes:
    """The record as one line of JSON, without its end."""
    known = observation.known_again
    return known.audit_line(observation) if known is not None else _line_of(observation)


def _line_of(observation: Observation) -> bytes:
    line = orjson.dumps(_record(observation))
    # PostgreSQL keeps no NUL in a text.
    return redacted(line.decode().replace("\\u0000", "\\ufffd")).encode()


def _record(observation: Observation) -> dict[str, Any]:
    principal, answer, query = observation.principal, observation.answer, observation.query
    return {
        "id": observation.record_id,
        "request_id": observation.request_id,
        "at": datetime.fromtimestamp(observation.began_at_ns / 1e9, UTC),
        "principal_id": _cut(principal.principal_id) if principal else None,
        "principal_name": _cut(principal.name) if principal else None,
        "role": _cut(principal.role) if principal else None,
        "transport": observation.transport,
        "action": _cut(observation.action),
        "what": _Asked().of(observation.parameters, query),
        "metrics": f" {' '.join(map(_cut, query.metrics[:10]))} " if query else None,
        "decision": observation.decision,
        "status": observation.status,
        "code": observation.code,
        "rows": answer.rows if answer else None,
        "publication": answer.publication if answer else None,
        "cache": answer.origin if answer else None,
        "sql_hash": answer.sql_hash if answer else None,
        "ms": round(observation.duration_ns / 1e6, 3),
    }


class _Asked:
    """Says in JSON what was asked, until it is too long; then it says that it was cut."""

    def __init__(self) -> None:
        self._left = _WHAT_CHARACTERS
        self._is_cut = False

    def of(self, parameters: Mapping[str, object], query: MetricQuery | None) -> dict[str, object]:
        what = {name: self._plain(value, 0) for name, value in parameters.items()}
        if query is not None:
            what |= self._set_fields(query, 0)
        if self._is_cut:
            what["cut"] = True
        return what

    def _set_fields(self, value: Any, depth: int) -> dict[str, object]:  # noqa: ANN401 - any dataclass
        """The fields that differ from their defaults, so that a question reads as its caller wrote it."""
        given = {}
        for name, default in _fields_of(type(value)):  # type: ignore[arg-type] # a class is hashable, whatever mypy says
            if (item := getattr(value, name)) != default:
                given[name] = self._plain(item, depth + 1)
        return given

    def _plain(self, value: object, depth: int) -> object:
        if self._left <= 0 or depth > _DEPTH:
            self._is_cut = True
            return "…"
        match value:
            case str():
                return self._text(value)
            case None | date() | int() if not (isinstance(value, int) and abs(value) >= _LARGEST_NUMBER):
                self._left -= _ITEM_CHARACTERS
                return value
            case Comparison() | AllOf() | AnyOf() | Not():
                return self._filter(value, depth)
            case Mapping():
                return {self._text(str(key)): self._plain(item, depth + 1) for key, item in value.items()}
            case Iterable():
                return self._items(value, depth)
            case _ if is_dataclass(value):
                return self._set_fields(value, depth)
            case _:
                return self._text(str(value))

    def _filter(self, tree: Filter, depth: int) -> object:
        match tree:
            case Comparison():
                named = {"field": self._text(tree.field), "op": tree.operator}
                return named | ({"values": self._items(tree.values, depth)} if tree.values else {})
            case AllOf(parts):
                return {"all_of": self._items(parts, depth)}
            case AnyOf(parts):
                return {"any_of": self._items(parts, depth)}
            case Not(part):
                return {"not": self._plain(part, depth + 1)}

    def _items(self, values: Iterable[object], depth: int) -> list[object]:
        items = []
        for value in values:
            items.append(self._plain(value, depth + 1))
            if self._is_cut:
                break
        return items

    def _text(self, text: str) -> str:
        shown = _cut(text)
        self._left -= len(shown) + _ITEM_CHARACTERS
        return shown


@cache
def _fields_of(kind: Any) -> list[tuple[str, object]]:  # noqa: ANN401 - any class of dataclass
    """Its fields with their defaults."""
    ordered = sorted(fields(kind), key=lambda field: field.name in _LAST_FIELDS)
    return [(field.name, field.default) for field in ordered]


def _cut(text: str) -> str:
    shown = text if len(text) <= _TEXT_CHARACTERS else text[: _TEXT_CHARACTERS - 1] + "…"
    return shown if shown.isascii() else shown.encode("utf-8", "replace").decode()
