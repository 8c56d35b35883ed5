"""The shop's order webhooks: Shopify's and WooCommerce's, signatures checked, as messages of topic `sales`.

An order is answered with 200 only when Kafka has all of its lines; else with 503, and the shop sends it again. A line
that comes twice counts once: its key is transaction and SKU.

References
----------
https://shopify.dev/docs/apps/build/webhooks/subscribe/https (X-Shopify-Hmac-Sha256: base64 of HMAC-SHA-256 of the body)
https://woocommerce.com/document/webhooks (X-WC-Webhook-Signature, the same way)
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

import structlog
from pydantic import SecretStr, ValidationError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from workers.errors import BrokerAway
from workers.messages import SALES, SalesLine, encode
from workers.producers.polling import Send

_log = structlog.get_logger(__name__)

MOST_BODY_BYTES: Final = 1_000_000
_CENT: Final = Decimal("0.01")
_UNKNOWN: Final = "Unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """A shop system: where its signature stands, the secret that signs, and how its orders read."""

    name: str
    signature_header: str
    secret: SecretStr
    lines: Callable[[Mapping[str, Any]], Iterator[SalesLine]]


def create_webhooks(shops: Sequence[Shop], send: Send) -> Starlette:
    """The endpoint: `POST /webhooks/<shop>` for each of the shops, and `GET /healthz`."""

    async def health(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok", "shops": [shop.name for shop in shops]})

    routes = [Route("/healthz", health)]
    routes += [Route(f"/webhooks/{shop.name}", _endpoint(shop, send), methods=["POST"]) for shop in shops]
    return Starlette(routes=routes)


def _endpoint(shop: Shop, send: Send) -> Callable[[Request], Any]:
    async def take(request: Request) -> JSONResponse:
        try:
            body = await _body(request)
        except ClientDisconnect:
            return _refusal(400, "The body was cut off")
        if body is None:
            return _refusal(413, f"The body has more than {MOST_BODY_BYTES} bytes")
        if not is_signed(body, request.headers.get(shop.signature_header), shop.secret):
            _log.warning("webhook_refused", shop=shop.name, reason="signature")
            return _refusal(401, "The signature is missing or wrong")
        try:
            order = json.loads(body, parse_float=Decimal)
            lines = tuple(shop.lines(order))
        except (ValidationError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
            _log.warning("webhook_refused", shop=shop.name, reason=type(error).__name__)
            return _refusal(422, f"The order cannot be read: {_fault(error)}")
        try:
            await send([encode(line, SALES) for line in lines])
        except BrokerAway as error:
            _log.warning("webhook_delayed", shop=shop.name, reason=error.message)
            return _refusal(503, "Try again later", {"retry-after": "30"})
        return JSONResponse({"lines": len(lines)})

    return take


def is_signed(body: bytes, signature: str | None, secret: SecretStr) -> bool:
    """Whether the signature is that of the body, compared in constant time."""
    made = base64.b64encode(hmac.new(secret.get_secret_value().encode(), body, hashlib.sha256).digest())
    return signature is not None and hmac.compare_digest(made, signature.strip().encode("ascii", "replace"))


async def _body(request: Request) -> bytes | None:
    """The body; None, if it is too large."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BODY_BYTES:
            return None
    return bytes(body)


def _refusal(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"status": status, "detail": detail}, status_code=status, headers=headers)


def _fault(error: Exception) -> str:
    if isinstance(error, ValidationError):
        fault = error.errors(include_input=False, include_url=False)[0]
        return f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
    return type(error).__name__


def read_shopify_order(order: Mapping[str, Any]) -> Iterator[SalesLine]:
    """The lines of a Shopify order (topics orders/create, orders/paid)."""
    at = _moment(order["created_at"])
    delivery = _money(((order.get("total_shipping_price_set") or {}).get("shop_money") or {}).get("amount", "0"))
    for line in _merged(order["line_items"], sku=lambda item: item.get("sku") or item["variant_id"], unit="price"):
        yield SalesLine(
            transaction_id=int(order["id"]),
            customer_id=int((order.get("customer") or {}).get("id") or 0),
            transaction_date=at.date(),
            product_description=_folded(line.item["title"]),
            product_category=_folded(line.item.get("product_type") or _UNKNOWN),
            coupon_status="Used" if order.get("discount_codes") else "Not Used",
            product_sku=line.sku,
            quantity=line.quantity,
            avg_price=line.price,
            delivery_charges=delivery,
            timestamp=at,
        )


def read_woocommerce_order(order: Mapping[str, Any]) -> Iterator[SalesLine]:
    """The lines of a WooCommerce order (topics order.created, order.updated)."""
    at = _moment(f"{order['date_created_gmt']}Z" if order.get("date_created_gmt") else order["date_created"])
    for line in _merged(order["line_items"], sku=lambda item: item.get("sku") or item["product_id"], unit="price"):
        yield SalesLine(
            transaction_id=int(order["id"]),
            customer_id=int(order.get("customer_id") or 0),
            transaction_date=at.date(),
            product_description=_folded(line.item["name"]),
            product_category=_UNKNOWN,
            coupon_status="Used" if order.get("coupon_lines") else "Not Used",
            product_sku=line.sku,
            quantity=line.quantity,
            avg_price=line.price,
            delivery_charges=_money(order.get("shipping_total") or "0"),
            timestamp=at,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """A product of an order: several items of one SKU are one line, at their average price."""

    sku: str
    item: Mapping[str, Any]
    quantity: int
    price: Decimal


def _merged(
    items: Sequence[Mapping[str, Any]], *, sku: Callable[[Mapping[str, Any]], Any], unit: str
) -> Iterator[_Line]:
    by_sku: dict[str, list[Mapping[str, Any]]] = {}
    for item in items:
        by_sku.setdefault(_folded(str(sku(item))), []).append(item)
    for name, same in by_sku.items():
        quantity = sum(int(item["quantity"]) for item in same)
        gross = sum((Decimal(str(item[unit])) * int(item["quantity"]) for item in same), Decimal())
        yield _Line(sku=name, item=same[0], quantity=quantity, price=_money(gross / max(quantity, 1)))


def _money(amount: Any) -> Decimal:  # noqa: ANN401 - a number or a text in JSON
    return Decimal(str(amount)).quantize(_CENT, rounding=ROUND_HALF_UP)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _folded(text: str) -> str:
    return " ".join(text.split())
