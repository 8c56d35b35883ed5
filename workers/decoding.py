"""From messages of one partition, in their order, to rows that the warehouse takes and letters that it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa

from workers.errors import RejectedMessage
from workers.messages import BITCOIN, Event, Received, Topic, decode
from workers.sinks import EventSlice, Place

DECODED_AT_ONCE: Final = 500
"""Then the event loop has its turn: a heartbeat that is late costs the partitions."""

_ROWS: Final = pa.schema(
    [
        ("kafka_topic", pa.string()),
        ("kafka_partition", pa.int32()),
        ("kafka_offset", pa.int64()),
        ("message_key", pa.string()),
        ("schema_version", pa.int32()),
        ("payload", pa.string()),
        ("event_at", pa.timestamp("us", "UTC")),
    ]
)

# In the warehouse UTC goes without saying. Arrow takes a third of Python's time to make it of any offset.
_STORED: Final = _ROWS.set(_ROWS.get_field_index("event_at"), pa.field("event_at", pa.timestamp("us")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A message that was rejected, and why."""

    message: Received
    reason: RejectedMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """Messages of one partition that follow on each other, taken or rejected.

    Attributes
    ----------
    start
        Where the warehouse stands before them; None, if it has not heard of the partition.
    end
        Where it stands after them; None only if it still has not.

    """

    place: Place
    topic: Topic
    start: int | None
    end: int | None
    offsets: list[int] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)

    def take(self, message: Received) -> None:
        """Decode the message that comes next."""
        try:
            self.events.append(decode(message, self.topic))
            self.offsets.append(message.offset)
        except RejectedMessage as error:
            self.letters.append(Letter(message=message, reason=error))

    def before(self, offset: int) -> Decoded:
        """What comes before a message, without its letters."""
        kept = sum(each < offset for each in self.offsets)
        # A partition that the warehouse has not heard of must not be noted before something of it is passed.
        end = offset if kept or self.start is not None else None
        return Decoded(
            place=self.place,
            topic=self.topic,
            start=self.start,
            end=end,
            offsets=self.offsets[:kept],
            events=self.events[:kept],
        )

    def slice(self, *, quarantine: pa.Table | None = None) -> EventSlice | None:
        """What the warehouse takes; None, if nothing is passed."""
        if self.end is None or self.end == self.start:
            return None
        topic, partition = self.place
        count = len(self.events)
        columns = zip(*self.events, strict=True) if self.events else ((),) * 4
        rows = [[topic] * count, [partition] * count, self.offsets, *map(list, columns)]
        return EventSlice(
            topic=topic,
            partition=partition,
            start=self.start,
            end=self.end,
            event_table=self.topic.event_table,
            rows=pa.table(rows, schema=_ROWS).cast(_STORED),
            rejected=len(self.letters) if quarantine is None else quarantine.num_rows,
            quarantine=quarantine,
        )


def warm_up() -> None:
    """Return when what the first table needs is imported: pyarrow imports pandas then, which takes seconds.

    On the event loop they would cost a consumer the membership of its group.
    """
    Decoded(place=("", 0), topic=BITCOIN, start=None, end=0).slice()


async def decode_all(place: Place, messages: Sequence[Received], *, topic: Topic, start: int | None) -> Decoded:
    """The messages, decoded; lets other tasks have their turn meanwhile."""
    decoded = Decoded(place=place, topic=topic, start=start, end=messages[-1].offset + 1)
    for first in range(0, len(messages), DECODED_AT_ONCE):
        await asyncio.sleep(0)
        for message in messages[first : first + DECODED_AT_ONCE]:
            decoded.take(message)
    return decoded
