"""Webhooks of shops: signed orders become sales lines, anything else is refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from workers.errors import BrokerAway
from workers.messages import Outgoing
from workers.producers.webhooks import Shop, create_webhooks, read_shopify_order, read_woocommerce_order

SECRET = "shop-secret"

SHOPIFY = {
    "id": 450789469,
    "created_at": "2026-01-10T23:30:00-05:00",
    "customer": {"id": 207119551},
    "discount_codes": [{"code": "SPRING"}],
    "total_shipping_price_set": {"shop_money": {"amount": "10.00"}},
    "line_items": [
        {
            "sku": "IPOD-1",
            "variant_id": 1,
            "title": "IPod  Nano",
            "price": "199.00",
            "quantity": 1,
            "product_type": "Audio",
        },
        {"sku": "", "variant_id": 39072856, "title": "Case", "price": "10.50", "quantity": 2},
        {
            "sku": "IPOD-1",
            "variant_id": 1,
            "title": "IPod Nano",
            "price": "99.00",
            "quantity": 1,
            "product_type": "Audio",
        },
    ],
}
WOOCOMMERCE = {
    "id": 727,
    "date_created_gmt": "2026-01-11T04:30:00",
    "customer_id": 26,
    "shipping_total": "5.00",
    "coupon_lines": [],
    "line_items": [{"sku": "W-1", "product_id": 93, "name": "Woo Single", "price": 3, "quantity": 2}],
}


class Log:
    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.keys: list[bytes | None] = []
        self.is_away = False

    async def send(self, messages: Sequence[Outgoing]) -> None:
        if self.is_away:
            raise BrokerAway("Kafka does not answer", hint="Wait")
        self.lines += [json.loads(each.value) for each in messages]
        self.keys += [each.key for each in messages]


SHOPS = (
    Shop(
        name="shopify",
        signature_header="x-shopify-hmac-sha256",
        secret=SecretStr(SECRET),
        lines=read_shopify_order,
    ),
    Shop(
        name="woocommerce",
        signature_header="x-wc-webhook-signature",
        secret=SecretStr(SECRET),
        lines=read_woocommerce_order,
    ),
)
HEADERS = {shop.name: shop.signature_header for shop in SHOPS}


def signature(body: bytes, secret: str = SECRET) -> str:
    return base64.b64encode(hmac.new(secret.encode(), body, hashlib.sha256).digest()).decode()


async def sent(log: Log, shop: str, body: bytes, *, signed: str | None = None) -> httpx.Response:
    transport = httpx.ASGITransport(app=create_webhooks(SHOPS, log.send), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://hooks.test") as client:
        headers = {HEADERS[shop]: signature(body) if signed is None else signed}
        return await client.post(f"/webhooks/{shop}", content=body, headers=headers)


async def test_an_order_of_shopify_becomes_a_line_for_each_sku() -> None:
    log = Log()

    response = await sent(log, "shopify", json.dumps(SHOPIFY).encode())

    assert (response.status_code, response.json()) == (200, {"lines": 2})
    first, second = log.lines
    assert first == {
        "transaction_id": 450789469,
        "product_sku": "IPOD-1",
        "customer_id": 207119551,
        "transaction_date": "2026-01-11",
        "product_description": "IPod Nano",
        "product_category": "Audio",
        "quantity": 2,
        "avg_price": 149.0,
        "delivery_charges": 10.0,
        "coupon_status": "Used",
        "timestamp": "2026-01-11T04:30:00Z",
    }
    assert (second["product_sku"], second["product_category"], second["quantity"]) == ("39072856", "Unknown", 2)
    assert log.keys == [b"450789469"] * 2


async def test_an_order_of_woocommerce_becomes_lines() -> None:
    log = Log()

    assert (await sent(log, "woocommerce", json.dumps(WOOCOMMERCE).encode())).status_code == 200

    (line,) = log.lines
    assert (line["transaction_id"], line["avg_price"], line["coupon_status"]) == (727, 3.0, "Not Used")
    assert line["timestamp"] == "2026-01-11T04:30:00Z"


@pytest.mark.parametrize(
    "signed", ["", "x", signature(b"another body"), signature(json.dumps(SHOPIFY).encode(), "other")]
)
async def test_an_order_that_is_not_signed_by_the_shop_is_refused(signed: str) -> None:
    log = Log()

    assert (await sent(log, "shopify", json.dumps(SHOPIFY).encode(), signed=signed)).status_code == 401
    assert log.lines == []


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"null",
        json.dumps(SHOPIFY | {"id": None}).encode(),
        json.dumps(SHOPIFY | {"created_at": "yesterday"}).encode(),
        json.dumps(SHOPIFY | {"line_items": [{"sku": "A", "title": "B", "price": "x", "quantity": 1}]}).encode(),
        json.dumps(SHOPIFY | {"line_items": [{"sku": "A", "title": "B", "price": "1", "quantity": -1}]}).encode(),
    ],
)
async def test_an_order_that_cannot_be_read_is_a_422_and_sends_nothing(body: bytes) -> None:
    log = Log()

    assert (await sent(log, "shopify", body)).status_code == 422
    assert log.lines == []


async def test_an_order_that_kafka_does_not_take_is_a_503_so_that_the_shop_sends_it_again() -> None:
    log = Log()
    log.is_away = True

    response = await sent(log, "shopify", json.dumps(SHOPIFY).encode())

    assert (response.status_code, response.headers["retry-after"]) == (503, "30")


async def test_a_body_larger_than_any_order_is_refused_before_it_is_read_to_its_end() -> None:
    assert (await sent(Log(), "shopify", b"x" * 2_000_000)).status_code == 413
