"""What a message must be, and what becomes of one that is not."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.decoding import Decoded
from workers.errors import RejectedMessage
from workers.messages import (
    BITCOIN,
    NEWS,
    SALES,
    TOPICS,
    BitcoinPrice,
    Event,
    Message,
    NewsArticle,
    SalesLine,
    Topic,
    decode,
    encode,
)


@dataclass(frozen=True, kw_only=True)
class Record:
    value: bytes | None
    topic: str = "bitcoin"
    partition: int = 0
    offset: int = 0
    timestamp: int = 1_546_300_800_000
    key: bytes | None = b"key"
    headers: Sequence[tuple[str, bytes]] = field(default_factory=tuple)


PRICE = {
    "source": "coingecko",
    "price": 3800.25,
    "change_24h": -2.5,
    "timestamp": "2019-01-01T04:00:00Z",
    "volatility_category": "Medium",
}
ARTICLE = {
    "source": "newsapi",
    "headline": "Retail sales rise; café chains \u2018surprised\u2019 \U0001f4c8",
    "description": None,
    "url": "https://example.com/a/1",
    "category": "business",
    "source_name": "Example",
    "word_count": 5,
    "has_crypto_mention": False,
    "published_at": "2025-01-15T08:15:30.123Z",
    "timestamp": "2025-01-15T09:00:00+01:00",
}
LINE = {
    "transaction_id": 5,
    "product_sku": "A",
    "customer_id": 7,
    "transaction_date": "2019-12-31",
    "product_description": "A Tee",
    "product_category": "Apparel",
    "quantity": 2,
    "avg_price": 3.1,
    "delivery_charges": "6.50",
    "coupon_status": "Used",
}
GOOD: dict[str, Mapping[str, Any]] = {"bitcoin": PRICE, "news": ARTICLE, "sales": LINE}


def read(value: bytes | None, topic: Topic = BITCOIN, **record: Any) -> Event:
    return decode(Record(value=value, **record), topic)


def refused(value: bytes | None, topic: Topic = BITCOIN, **record: Any) -> RejectedMessage:
    with pytest.raises(RejectedMessage) as caught:
        read(value, topic, **record)
    return caught.value


@pytest.mark.parametrize("name", TOPICS)
@pytest.mark.parametrize("written", [json.dumps, partial(json.dumps, ensure_ascii=False, indent=1)])
def test_a_good_message_is_taken_as_it_came(name: str, written: Callable[[object], str]) -> None:
    payload = written(GOOD[name])

    event = read(payload.encode(), TOPICS[name])

    assert event.payload == payload
    assert event.message_key == "key"
    assert event.schema_version == 1
    assert event.event_at.tzinfo is not None


def test_times_become_utc_and_a_message_without_one_has_that_of_its_record() -> None:
    events = [read(json.dumps(ARTICLE).encode(), NEWS), read(json.dumps(LINE).encode(), SALES)]
    decoded = Decoded(place=("news", 0), topic=NEWS, start=0, end=2, offsets=[0, 1], events=events)

    stored = decoded.slice()

    assert stored is not None
    assert [at.isoformat() for at in stored.rows["event_at"].to_pylist()] == [
        "2025-01-15T08:00:00",
        "2019-01-01T00:00:00",
    ]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        pytest.param(None, "no_payload", id="null"),
        pytest.param(b'{"source":', "not_json", id="cut off"),
        pytest.param(b"null", "wrong_value", id="JSON null"),
        pytest.param(b"[1]", "wrong_value", id="a list"),
        pytest.param(b"[" * 100_000, "not_json", id="deep"),
        pytest.param(b"x" * 5_000_000, "too_large", id="5 MB"),
        pytest.param(b'{"source": "\xff"}', "not_utf8", id="bad UTF-8"),
        pytest.param(json.dumps(PRICE).replace("coingecko", "\\ud800").encode(), "not_json", id="half a character"),
        pytest.param(json.dumps(PRICE | {"source": "a\0b"}).encode(), "nul_character", id="NUL, escaped"),
        pytest.param(
            json.dumps(PRICE).replace('"price"', '"price": 1, "price"').encode(), "repeated_field", id="twice"
        ),
        pytest.param(
            json.dumps(PRICE).replace('"price"', '"pri\\u0063e": 1, "price"').encode(),
            "repeated_field",
            id="twice, hidden",
        ),
        pytest.param(
            json.dumps(PRICE).replace('"price"', '"price" \n: 1, "price"').encode(),
            "repeated_field",
            id="twice, spaced",
        ),
        pytest.param(json.dumps(PRICE).replace("3800.25", "NaN").encode(), "wrong_value", id="NaN"),
        pytest.param(json.dumps(PRICE).replace("3800.25", "1e999").encode(), "wrong_value", id="infinite"),
        pytest.param(json.dumps(PRICE).replace("3800.25", "9" * 5_000).encode(), "not_json", id="5,000 digits"),
        pytest.param(
            json.dumps({key: PRICE[key] for key in PRICE if key != "price"}).encode(), "missing_field", id="lacks"
        ),
        pytest.param(json.dumps(PRICE | {"other": 1}).encode(), "unknown_field", id="unknown field"),
    ],
)
def test_what_is_no_message_is_rejected_with_its_kind(value: bytes | None, kind: str) -> None:
    assert refused(value).kind == kind


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("bitcoin", {"price": "abc"}),
        ("bitcoin", {"price": True}),
        ("bitcoin", {"price": 0}),
        ("bitcoin", {"price": -1}),
        ("bitcoin", {"price": 1e10}),
        ("bitcoin", {"price": "0.123456789"}),
        ("bitcoin", {"change_24h": "1"}),
        ("bitcoin", {"volatility_category": "low"}),
        ("bitcoin", {"timestamp": 1_546_300_800}),
        ("bitcoin", {"timestamp": "1546300800"}),
        ("bitcoin", {"timestamp": "yesterday"}),
        ("bitcoin", {"timestamp": "2019-01-01T00:00:00"}),
        ("bitcoin", {"timestamp": "2019-02-30T00:00:00Z"}),
        ("bitcoin", {"timestamp": "9019-02-20T00:00:00Z"}),
        ("news", {"headline": None}),
        ("news", {"headline": ""}),
        ("news", {"url": "javascript:alert(1)"}),
        ("news", {"word_count": -1}),
        ("news", {"has_crypto_mention": 1}),
        ("sales", {"quantity": 0}),
        ("sales", {"quantity": 2.0}),
        ("sales", {"quantity": "2"}),
        ("sales", {"transaction_id": 2**63 + 5}),
        ("sales", {"avg_price": 3.123}),
        ("sales", {"avg_price": -0.01}),
        ("sales", {"transaction_date": "1/1/2019"}),
        ("sales", {"transaction_date": "2019-12-31T00:00:00Z"}),
        ("sales", {"product_description": "two  blanks"}),
        ("sales", {"coupon_status": "used"}),
    ],
)
def test_a_wrong_value_is_rejected_by_the_name_of_its_field_and_not_repeated(name: str, change: dict[str, Any]) -> None:
    error = refused(json.dumps(GOOD[name] | change).encode(), TOPICS[name])

    assert error.kind == "wrong_value"
    ((field_name, value),) = change.items()
    assert error.message.startswith(field_name)
    assert len(str(value)) < 5 or str(value) not in error.message


@pytest.mark.parametrize("version", [b"2", b"0", b"", b"one", b"-1", b"11111"])
def test_a_schema_version_that_is_not_known_is_rejected(version: bytes) -> None:
    error = refused(json.dumps(PRICE).encode(), headers=(("schema_version", version),))

    assert error.kind == "unknown_schema_version"
    assert "known are 1" in error.message


def test_a_message_without_a_version_is_of_the_first_and_the_last_header_counts() -> None:
    assert read(json.dumps(PRICE).encode()).schema_version == 1
    headers = (("schema_version", b"7"), ("schema_version", b"1"))
    assert read(json.dumps(PRICE).encode(), headers=headers).schema_version == 1


def test_a_key_may_be_missing_but_not_unreadable() -> None:
    assert read(json.dumps(PRICE).encode(), key=None).message_key is None
    assert refused(json.dumps(PRICE).encode(), key=b"\xff").kind == "not_utf8"


MESSAGES: list[tuple[Message, Topic]] = [
    (
        BitcoinPrice(
            source="coingecko",
            price=Decimal("3800.25"),
            change_24h=None,
            timestamp=datetime(2019, 1, 1, tzinfo=UTC),
            volatility_category="Unknown",
        ),
        BITCOIN,
    ),
    (
        NewsArticle(
            source="newsapi",
            headline="A",
            description=None,
            url="https://example.com",
            category=None,
            source_name=None,
            word_count=1,
            has_crypto_mention=True,
            published_at=datetime(2019, 1, 1, tzinfo=UTC),
            timestamp=datetime(2019, 1, 1, 1, 30, tzinfo=UTC),
        ),
        NEWS,
    ),
    (
        SalesLine(
            transaction_id=2**60,
            product_sku="A",
            customer_id=7,
            transaction_date=date(2019, 12, 31),
            product_description="A Tee",
            product_category="Apparel",
            quantity=2,
            avg_price=Decimal("1234567890.12"),
            delivery_charges=Decimal(0),
            coupon_status="Not Used",
        ),
        SALES,
    ),
]


@pytest.mark.parametrize(("message", "topic"), MESSAGES, ids=lambda each: getattr(each, "name", ""))
def test_what_is_sent_is_taken_and_says_the_same(message: Message, topic: Topic) -> None:
    sent = encode(message, topic)

    event = decode(Record(value=sent.value, key=sent.key, headers=sent.headers), topic)

    assert topic.schemas[1].model_validate_json(event.payload) == message
    assert event.message_key == message.key()


_ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(name=st.sampled_from(sorted(TOPICS)), data=st.data())
def test_whatever_is_taken_can_be_read_by_staging(name: str, data: st.DataObject) -> None:
    """One bad cast in a staging view would stop every build; so nothing may pass that DuckDB reads otherwise."""
    field_name = data.draw(st.sampled_from(sorted(GOOD[name])))
    value = data.draw(
        _ANY_JSON
        | st.sampled_from(["2019-12-31", "2019-1-1", "2024-02-29", "1e5", " 7", "+7", "0x10", "1_000", "٣", "inf"])
        | st.decimals(allow_nan=False, allow_infinity=False).map(str)
        | st.datetimes(timezones=st.just(UTC)).map(lambda at: at.isoformat())
    )
    payload = json.dumps({**GOOD[name], field_name: value})
    try:
        event = read(payload.encode("utf-8", "surrogatepass"), TOPICS[name])
    except RejectedMessage:
        return
    casts = _CASTS[name].format(field="json_extract_string(try_cast($payload as json), '$.")
    row = duckdb.execute(casts, {"payload": event.payload}).fetchone()
    assert row is not None
    assert None not in row


def _cast(field_name: str, kind: str) -> str:
    return f"cast({{field}}{field_name}') as {kind})"


_CASTS = {
    "bitcoin": f"select {_cast('price', 'decimal(18, 8)')}, coalesce({_cast('change_24h', 'double')}, 0)",
    "news": f"select {_cast('word_count', 'integer')}, {_cast('has_crypto_mention', 'boolean')},"
    f" {_cast('published_at', 'timestamptz')}, {_cast('url', 'varchar')}",
    "sales": f"select {_cast('transaction_id', 'bigint')}, {_cast('customer_id', 'bigint')},"
    f" {_cast('transaction_date', 'date')}, {_cast('quantity', 'integer')}, {_cast('avg_price', 'decimal(18, 2)')},"
    f" {_cast('delivery_charges', 'decimal(18, 2)')}",
}
