"""The audit as `insight audit` shows it: a line for each request."""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson
import typer

if TYPE_CHECKING:
    from api.audit_store import AuditQuestion, AuditStore

_AGO = re.compile(r"([0-9]{1,6})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

_LOOK_S = 1.0
_LATE = timedelta(minutes=1)  # a record may come that much after others of its time, from another process
_MOST_NEW = 10_000

_COLUMNS = (("at (UTC)", 19), ("decision", 13), ("who", 24), ("action", 22), ("rows", 7), ("ms", 8))
HEADING = "  ".join(f"{name:<{width}}" for name, width in _COLUMNS) + "  what"


def parse_since(text: str) -> datetime:
    """The moment that is `2h`, `7d` ago, or the day or time that is written in ISO 8601 (UTC unless it says else)."""
    if (ago := _AGO.fullmatch(text)) is not None:
        return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no time; write it as 2h, 7d or 2019-01-31") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def in_json(record: Mapping[str, Any]) -> str:
    """Everything that is known of the request."""
    return orjson.dumps(dict(record), option=orjson.OPT_UTC_Z).decode()


def in_one_line(record: Mapping[str, Any]) -> str:
    """The request under the columns of `HEADING`."""
    cells = (
        f"{record['at']:%Y-%m-%d %H:%M:%S}",
        f"{record['decision']:<9} {record['status'] or ''}",
        f"{record['principal_name']} ({record['role']})" if record["principal_id"] else "-",
        record["action"],
        "" if record["rows"] is None else f"{record['rows']}",
        f"{record['ms']:.1f}",
    )
    line = "  ".join(f"{cell:<{width}}" for cell, (_, width) in zip(cells, _COLUMNS, strict=True))
    return f"{line}  {record['code'] + ': ' if record['code'] else ''}{_asked(record['what'])}".rstrip(": ")


def following(store: AuditStore, question: AuditQuestion, *, limit: int) -> Iterator[Mapping[str, Any]]:
    """The newest records, oldest first, and then new ones as they come, without end."""
    shown: OrderedDict[str, None] = OrderedDict()
    since, found = question.since, store.newest(question, limit=limit)
    while True:
        for record in reversed(found):
            if record["id"] not in shown:
                shown[record["id"]] = None
                since = max(since or record["at"], record["at"] - _LATE)
                yield record
        while len(shown) > 2 * _MOST_NEW:
            shown.popitem(last=False)
        time.sleep(_LOOK_S)
        found = store.newest(replace(question, since=since), limit=_MOST_NEW)


def _asked(what: Mapping[str, Any]) -> str:
    """The question in a few words; what has none reads as `name=value`."""
    words = [",".join(what["metrics"])] if isinstance(what.get("metrics"), list) else []
    if what.get("group_by"):
        words.append(f"by {','.join(what['group_by'])}")
    words += [f"{name} {_filter(what[name])}" for name in ("where", "having") if name in what]
    rest = {name: value for name, value in what.items() if name not in ("metrics", "group_by", "where", "having")}
    if isinstance(what.get("metrics"), str):
        rest["metrics"] = what["metrics"]
    return " ".join([*words, *(f"{name}={_plain(value)}" for name, value in rest.items())])


def _filter(tree: Any) -> str:  # noqa: ANN401 - what JSON can say
    match tree:
        case {"field": field, "op": op}:
            return f"{field} {op} {','.join(map(str, tree.get('values', ())))}".rstrip()
        case {"all_of": parts}:
            return f"({' and '.join(map(_filter, parts))})"
        case {"any_of": parts}:
            return f"({' or '.join(map(_filter, parts))})"
        case {"not": part}:
            return f"not {_filter(part)}"
        case _:
            return _plain(tree)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
