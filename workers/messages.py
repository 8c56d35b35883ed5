"""The messages of the topics: their schemas by version, and the one way in and the one way out.

`decode` is pure and trusts nothing: what it lets through can be read by every staging model, so a message can never
stop a build. `encode` writes what `decode` takes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Final, Literal, NamedTuple, Protocol, TypeVar

import jiter
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from workers.errors import RejectedMessage, SettingError
from workers.sources import EARLIEST_DATE, LATEST_DATE

SCHEMA_VERSION_HEADER: Final = "schema_version"
FIRST_VERSION: Final = 1
"""What a message without the header is: there was a time before there were versions."""

MOST_VALUE_BYTES: Final = 1_000_000
"""Kafka's own default for the largest message; a real one has 1 KB."""

_LONGEST_TEXT: Final = 20_000
_LONGEST_FAULT: Final = 200
_SHOWN_FAULTS: Final = 3

_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_EARLIEST: Final = datetime.fromisoformat(f"{EARLIEST_DATE}T00:00:00+00:00")
_LATEST: Final = datetime.fromisoformat(f"{LATEST_DATE}T00:00:00+00:00")

_Value = TypeVar("_Value")


def _written_as(form: re.Pattern[str], example: str, *kinds: type) -> BeforeValidator:
    # pydantic takes numbers for times, and 1_000 or digits of other scripts for decimals, which a warehouse would not.
    def check(value: _Value) -> _Value:
        if type(value) not in kinds and not (isinstance(value, str) and form.fullmatch(value)):
            raise ValueError(f"should be written like {example}")
        return value

    return BeforeValidator(check)


# In JSON a number; Decimal would be written as text.
_AS_NUMBER: Final = PlainSerializer(float, when_used="json")

# Not strict: behind a validator in Python, pydantic no longer knows that the text came from JSON.
UtcTime = Annotated[
    AwareDatetime,
    Field(strict=False, ge=_EARLIEST, le=_LATEST),
    _written_as(_TIME, "2019-01-31T23:59:59Z", datetime),
]
Day = Annotated[
    date,
    Field(strict=False, ge=_EARLIEST.date(), le=_LATEST.date()),
    _written_as(_DATE, "2019-01-31", date),
]
Text = Annotated[str, Field(min_length=1, max_length=_LONGEST_TEXT)]
Word = Annotated[str, Field(max_length=_LONGEST_TEXT, pattern=r"^\S+( \S+)*$")]  # as files are loaded: single-spaced
Identifier = Annotated[int, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(ge=0, lt=2**31)]
_NUMBER: Final = _written_as(re.compile(r"-?\d+(\.\d+)?", re.ASCII), "1234.5", int, float, Decimal)
Price = Annotated[
    Decimal, Field(strict=False, gt=0, max_digits=18, decimal_places=8, allow_inf_nan=False), _NUMBER, _AS_NUMBER
]
Money = Annotated[
    Decimal, Field(strict=False, ge=0, lt=10**13, decimal_places=2, allow_inf_nan=False), _NUMBER, _AS_NUMBER
]
Percent = Annotated[float, Field(allow_inf_nan=False)]


class Message(BaseModel):
    """What every message has: a key that orders it among its like, and a time."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    def key(self) -> str:
        """Messages of one key stay in order, as they share a partition."""
        raise NotImplementedError

    def event_at(self) -> datetime | None:
        """When it happened, UTC; None, if the message does not say."""
        raise NotImplementedError


class BitcoinPrice(Message):
    """A price of one bitcoin, in USD, as a source gave it."""

    source: Word
    price: Price
    change_24h: Percent | None
    timestamp: UtcTime
    volatility_category: Literal["High", "Medium", "Low", "Unknown"] | None

    def key(self) -> str:
        """The source: its prices stay in order."""
        return self.source

    def event_at(self) -> datetime:
        """The time of the price."""
        return self.timestamp


class NewsArticle(Message):
    """An article, as a news service listed it."""

    source: Word
    headline: Text
    description: Annotated[str, Field(max_length=_LONGEST_TEXT)] | None
    url: Annotated[str, Field(max_length=_LONGEST_TEXT, pattern=r"^https?://\S+$")]
    category: Word | None
    source_name: Text | None
    word_count: Count
    has_crypto_mention: bool
    published_at: UtcTime
    timestamp: UtcTime

    def key(self) -> str:
        """The url: versions of one article stay in order."""
        return self.url

    def event_at(self) -> datetime:
        """When it was listed."""
        return self.timestamp


class SalesLine(Message):
    """A sales line, as the shop announced it; the columns are those of the sales files."""

    transaction_id: Identifier
    product_sku: Word
    customer_id: Identifier
    transaction_date: Day
    product_description: Word
    product_category: Word
    quantity: Annotated[int, Field(ge=1, lt=2**31)]
    avg_price: Money
    delivery_charges: Money
    coupon_status: Literal["Used", "Clicked", "Not Used"]
    timestamp: UtcTime | None = None

    def key(self) -> str:
        """The transaction: its lines stay in order."""
        return str(self.transaction_id)

    def event_at(self) -> datetime | None:
        """When it was announced, if it says so."""
        return self.timestamp


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """A topic: its name without prefix, the raw table that it fills, and its schemas by version."""

    name: str
    event_table: str
    schemas: Mapping[int, type[Message]]

    @property
    def newest_version(self) -> int:
        """The version that is written."""
        return max(self.schemas)


BITCOIN: Final = Topic(name="bitcoin", event_table="bitcoin_events", schemas={1: BitcoinPrice})
NEWS: Final = Topic(name="news", event_table="news_events", schemas={1: NewsArticle})
SALES: Final = Topic(name="sales", event_table="sales_events", schemas={1: SalesLine})
TOPICS: Final[Mapping[str, Topic]] = {topic.name: topic for topic in (BITCOIN, NEWS, SALES)}

DEAD_LETTER_SUFFIX: Final = ".dlq"


class Received(Protocol):
    """A message as a log delivers it: Kafka's record, or a line of a recording."""

    @property
    def topic(self) -> str:
        """The log's name."""

    @property
    def partition(self) -> int:
        """The part of the log."""

    @property
    def offset(self) -> int:
        """The place in the part."""

    @property
    def timestamp(self) -> int:
        """Milliseconds since 1970, UTC: when it was written to the log."""

    @property
    def key(self) -> bytes | None:
        """What orders it among its like."""

    @property
    def value(self) -> bytes | None:
        """The payload."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]:
        """What is said about it."""


class Event(NamedTuple):
    """A message that was taken, as a row of its event table; `event_at` is aware, of any offset."""

    message_key: str | None
    schema_version: int
    payload: str
    event_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A message as it is sent."""

    topic: str
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


def find_topic(name: str) -> Topic:
    """The topic of that name.

    Raises
    ------
    SettingError
        There is none.
    """
    if name not in TOPICS:
        raise SettingError(f"There is no topic {name!r}", hint=f"Choose one of {', '.join(TOPICS)}")
    return TOPICS[name]


def encode(message: Message, topic: Topic) -> Outgoing:
    """The message as it is sent: UTF-8 JSON, its key, its schema version in a header."""
    headers = ((SCHEMA_VERSION_HEADER, str(topic.newest_version).encode()),)
    value = message.model_dump_json().encode()
    return Outgoing(topic=topic.name, key=message.key().encode(), value=value, headers=headers)


def decode(record: Received, topic: Topic) -> Event:
    """The message as a row, with its payload as it came.

    Raises
    ------
    RejectedMessage
        It is not what the topic promises. The text names fields and rules, never a value.
    """
    value = record.value
    if value is None:
        raise RejectedMessage("The message has no payload", kind="no_payload")
    if len(value) > MOST_VALUE_BYTES:
        raise RejectedMessage(f"The payload has {len(value)} bytes, more than {MOST_VALUE_BYTES}", kind="too_large")
    version = schema_version(record)
    if (schema := topic.schemas.get(version)) is None:
        known = ", ".join(map(str, topic.schemas))
        raise RejectedMessage(f"The schema version is unknown; known are {known}", kind="unknown_schema_version")
    payload = _text(value, "payload")
    try:
        message = schema.model_validate(_fields(value))
    except ValidationError as error:
        raise _as_rejected(error) from None  # the cause would hold the values
    key = None if record.key is None else _text(record.key, "key")
    return Event(key, version, payload, message.event_at() or datetime.fromtimestamp(record.timestamp / 1000, UTC))


def schema_version(record: Received) -> int:
    """The version in the record's header; -1, if what stands there is no number.

    The last header of that name counts, as a forwarder appends its own.
    """
    version = FIRST_VERSION
    for name, content in record.headers:
        if name == SCHEMA_VERSION_HEADER:
            version = int(content) if content and content.isdigit() and len(content) <= 4 else -1  # noqa: PLR2004
    return version


def _text(raw: bytes, what: str) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise RejectedMessage(f"The {what} is not UTF-8", kind="not_utf8") from None
    if "\0" in text:
        raise RejectedMessage(f"The {what} holds a NUL character", kind="nul_character")
    return text


def _fields(value: bytes) -> object:
    """What the payload says, if a warehouse reads it alike: no field stands twice, no text holds a NUL."""
    # pydantic's own parser, which takes the last of two; with the option it costs no more than to count the keys.
    try:
        fields: object = jiter.from_json(value, catch_duplicate_keys=True, cache_mode="keys")
    except ValueError as error:
        if str(error).startswith(_TWICE):
            raise RejectedMessage("A field stands twice", kind="repeated_field") from None
        raise RejectedMessage(f"payload: {error}"[:_LONGEST_FAULT], kind="not_json") from None
    if b"\\" in value and b"\\u0000" in value:  # the former takes a quarter of the time
        raise RejectedMessage("The payload holds a NUL character", kind="nul_character")
    return fields


_TWICE: Final = "Detected duplicate key"
_KINDS: Final = {"missing": "missing_field", "extra_forbidden": "unknown_field"}


def _as_rejected(error: ValidationError) -> RejectedMessage:
    faults = error.errors(include_input=False, include_url=False, include_context=False)
    told = [f"{'.'.join(map(str, fault['loc'])) or 'payload'}: {fault['msg']}"[:_LONGEST_FAULT] for fault in faults]
    return RejectedMessage("; ".join(told[:_SHOWN_FAULTS]), kind=_KINDS.get(faults[0]["type"], "wrong_value"))
