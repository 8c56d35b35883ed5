"""CoinGecko: the price of bitcoin with its change over 24 hours.

References
----------
https://docs.coingecko.com/reference/simple-price (answer, `last_updated_at` in seconds),
https://docs.coingecko.com/reference/common-errors-rate-limit (errors, limits of the free plan)
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from pydantic import ValidationError

from workers.errors import ApiAway, ApiError, ApiRefused, RejectedMessage
from workers.messages import BITCOIN, BitcoinPrice, Message, Topic
from workers.producers.enrichment import volatility_category
from workers.producers.sources import Question, unusable

_PLACES: Final = Decimal("1e-8")
_BUSY: Final = 429


class CoinGecko:
    """`GET /simple/price`."""

    name: Final = "coingecko"
    topic: Topic = BITCOIN
    key_header: Final = "x-cg-demo-api-key"

    def questions(self) -> tuple[Question, ...]:
        """The one question."""
        params = {
            "ids": "bitcoin",
            "vs_currencies": "usd",
            "include_24hr_change": "true",
            "include_last_updated_at": "true",
        }
        return (Question(path="/simple/price", params=params),)

    def fault(self, answer: Any) -> ApiError | None:  # noqa: ANN401 - JSON
        """What an error body means. They come in three shapes, sometimes under status 200."""
        if not isinstance(answer, dict):
            return ApiAway("CoinGecko did not answer with an object", hint="It is asked again later")
        status = answer.get("status")
        inner = status if isinstance(status, dict) else {}
        code = inner.get("error_code") or answer.get("error_code")
        if code is None and not inner.get("error_message") and "error" not in answer:
            return None
        if code == _BUSY:
            return ApiAway("CoinGecko has been asked too often", hint="Ask less often, or get a key with a larger plan")
        told = f"with code {code}" if isinstance(code, int) else "without a code"  # a text may repeat the key
        return ApiRefused(f"CoinGecko refuses, {told}", hint="Look at INSIGHT_COINGECKO_URL and _API_KEY")

    def is_answer(self, document: Any) -> bool:  # noqa: ANN401 - JSON
        """Whether it is what `/simple/price` answers."""
        return isinstance(document, dict) and (isinstance(document.get("bitcoin"), dict) or not document)

    def read(self, answer: Any, question: Question, *, at: datetime) -> Iterator[Message | RejectedMessage]:  # noqa: ANN401 - JSON
        """The price; an unknown coin is an empty object."""
        del question
        try:
            coin = answer["bitcoin"]
            change = coin.get("usd_24h_change")
            change = None if change is None else float(change)
            seconds = coin.get("last_updated_at")
            yield BitcoinPrice(
                source=self.name,
                price=Decimal(coin["usd"]).quantize(_PLACES).normalize() + 0,
                change_24h=change,
                timestamp=at if seconds is None else datetime.fromtimestamp(int(seconds), UTC),
                volatility_category=volatility_category(change),
            )
        except (ValidationError, ArithmeticError, KeyError, TypeError, ValueError, OSError, AttributeError) as error:
            yield unusable(error, what="price")

    def news_key(self, message: Message) -> tuple[str, str]:
        """A price is news if it, or its time, is another one."""
        if not isinstance(message, BitcoinPrice):
            raise TypeError(type(message))
        return message.source, f"{message.price}@{message.timestamp:%Y-%m-%dT%H:%M:%S}"
