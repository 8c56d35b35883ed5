"""Recordings: files of events, replayed into Kafka or, without Kafka, into the warehouse, by the consumer's own code.

A recording is a log. Its name is the topic and the hash of its bytes, its offsets count its messages. So replaying it
into the warehouse is exactly-once like all else: it goes on where it was cut off, and a second time does nothing.

What a file may hold: answers of an API as they came (one in a `.json`, one a line in a `.jsonl`), the same with what
was asked (`{"asked": …, "received_at": …, "answer": …}`), messages as they are in the topic, or, for sales, a CSV.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Final

import pyarrow as pa
from pydantic import ValidationError

from workers.decoding import Decoded
from workers.errors import RejectedMessage, SettingError, UnreadableFileError, WorkerError
from workers.messages import SALES, SCHEMA_VERSION_HEADER, Message, Outgoing, SalesLine, Topic, encode
from workers.producers.coingecko import CoinGecko
from workers.producers.newsapi import NewsApi
from workers.producers.sources import Question, Source, unusable
from workers.sinks import Warehouse

RECORDINGS: Final = "streams"
"""The folder beside the files of a shop in which its recordings are, each named by its topic."""

MESSAGES_AT_ONCE: Final = 20_000

SOURCES: Final[tuple[Source, ...]] = (CoinGecko(), NewsApi())

_LONGEST_SHOWN: Final = 1_000

Recorded = Outgoing | RejectedMessage

_Refused = tuple[int, RejectedMessage, str]
"""An offset, why its message was refused, and how that begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayReport:
    """What became of a recording: messages that it holds, those written now, and those of them that were rejected."""

    topic: str
    messages: int
    loaded: int
    rejected: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """A message of a recording, as a log delivers it."""

    topic: str
    offset: int
    timestamp: int
    outgoing: Outgoing
    partition: int = 0

    @property
    def key(self) -> bytes | None:
        return self.outgoing.key

    @property
    def value(self) -> bytes:
        return self.outgoing.value

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]:
        return self.outgoing.headers


def replay(
    path: Path, topic: Topic, *, warehouse: Warehouse, progress: Callable[[int], None] = lambda _: None
) -> ReplayReport:
    """Return what became of the recording, after writing what the warehouse lacks of it.

    Messages that are rejected, and parts of answers that cannot be used, go to the quarantine.

    Raises
    ------
    SettingError
        There is no such file, or the topic has no such recordings.
    UnreadableFileError
        The file is no text, or none of the forms.
    WarehouseError
        As `Warehouse.store_events`; what was written before stays.
    """
    content = _hash(path)
    place = (f"{topic.name}@{content[:16]}", 0)
    stored = warehouse.event_offsets([place]).get(place)
    recorded_at = int(path.stat().st_mtime * 1000)
    recording = enumerate(read_recording(path, topic))
    end, loaded, rejected = stored, 0, 0
    skipped = len(list(islice(recording, stored or 0)))
    while chunk := list(islice(recording, MESSAGES_AT_ONCE)):
        decoded = Decoded(place=place, topic=topic, start=end, end=chunk[-1][0] + 1)
        refused: list[_Refused] = []
        for offset, recorded in chunk:
            if isinstance(recorded, RejectedMessage):
                refused.append((offset, recorded, ""))
            else:
                decoded.take(_Line(topic=place[0], offset=offset, timestamp=recorded_at, outgoing=recorded))
        refused += [(each.message.offset, each.reason, _shown(each.message.value or b"")) for each in decoded.letters]
        written = decoded.slice(quarantine=_quarantine(refused, path, topic, content))
        if written is not None and warehouse.store_events([written]):
            raise WorkerError("Another process replays this file", hint="Let it end; nothing is lost or doubled")
        end, loaded, rejected = decoded.end, loaded + len(decoded.events), rejected + len(refused)
        progress(len(chunk))
    return ReplayReport(topic=topic.name, messages=skipped + loaded + rejected, loaded=loaded, rejected=rejected)


def read_recording(path: Path, topic: Topic) -> Iterator[Recorded]:
    """Yield every message of a recording as it is sent, or why there is none; raises as `replay`."""
    if not path.is_file():
        raise SettingError(f"There is no file {path}", hint="Name a file of events: .jsonl, .json or, for sales, .csv")
    match path.suffix.lower():
        case ".csv" | ".xlsx" if topic is SALES:
            yield from _sales_lines(path)
        case ".json":
            yield from _read_document(_text(path), path, topic)
        case ".jsonl" | ".ndjson":
            with path.open(encoding="utf-8") as lines:
                for line in lines:
                    if line.strip():
                        yield from _read_document(line, path, topic)
        case other:
            raise SettingError(f"Files of type '{other}' hold no events of {topic.name}", hint="Use .jsonl or .json")


def _shown(value: bytes) -> str:
    return value[:_LONGEST_SHOWN].decode(errors="replace")


def _hash(path: Path) -> str:
    if not path.is_file():
        raise SettingError(f"There is no file {path}", hint="Name a file of events: .jsonl, .json or, for sales, .csv")
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableFileError(f"{path.name} is not text in UTF-8", hint="Save it as UTF-8") from error


def _read_document(text: str, path: Path, topic: Topic) -> Iterator[Recorded]:
    try:
        document = json.loads(text, parse_float=Decimal)
    except ValueError as error:
        yield unusable(error, what="document")
        return
    answer, question, at = document, Question(path=""), datetime.fromtimestamp(path.stat().st_mtime, UTC)
    if isinstance(document, dict) and "answer" in document:
        answer = document["answer"]
        question = Question(path="", about=document.get("asked") or {})
        at = datetime.fromisoformat(document["received_at"]) if "received_at" in document else at
    for source in SOURCES:
        if source.topic is topic and source.is_answer(answer):
            yield from (_encoded(each, topic) for each in source.read(answer, question, at=at))
            return
    yield _as_it_is(text.strip().encode(), topic)


def _as_it_is(value: bytes, topic: Topic) -> Outgoing:
    """A message that stands in the recording; whoever consumes it checks it."""
    version = topic.newest_version
    try:
        key = topic.schemas[version].model_validate_json(value).key().encode()
    except ValidationError:
        key = None
    return Outgoing(topic=topic.name, key=key, value=value, headers=((SCHEMA_VERSION_HEADER, str(version).encode()),))


def _encoded(read: Message | RejectedMessage, topic: Topic) -> Recorded:
    return read if isinstance(read, RejectedMessage) else encode(read, topic)


def _sales_lines(path: Path) -> Iterator[Recorded]:
    from workers.ingest import checked_rows

    with checked_rows(path, kind="online_sales") as (good, bad):
        for batch in good:
            for row in batch.drop_columns(["line_number"]).to_pylist():
                yield encode(SalesLine(**row), SALES)
        for batch in bad:
            for row in batch.to_pylist():
                yield RejectedMessage(f"Line {row['line_number']}: {row['reason']}", kind="unusable_line")


def _quarantine(refused: Sequence[_Refused], path: Path, topic: Topic, content: str) -> pa.Table | None:
    if not refused:
        return None
    count = len(refused)
    return pa.table(
        {
            "file_hash": [content] * count,
            "file_name": [path.name] * count,
            "file_kind": [topic.name] * count,
            "line_number": pa.array([offset + 1 for offset, *_ in refused], pa.int64()),
            "column_name": pa.array([None] * count, pa.string()),
            "reason": [reason.message for _, reason, _ in refused],
            "raw_value": [raw for *_, raw in refused],
        }
    )
