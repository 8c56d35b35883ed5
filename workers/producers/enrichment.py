"""What producers add to what a source says: categories and counts, as pure functions."""

from __future__ import annotations

import re
from typing import Final, Literal

HIGH_PERCENT: Final = 5.0
MEDIUM_PERCENT: Final = 2.0

_WORD: Final = re.compile(r"\w+(?:['\u2019-]\w+|[.,]\d+)*")

# By word: "cryptographers" and "cryptic" are no cryptocurrency, nor is "ethereal".
_CRYPTO: Final = re.compile(
    r"\b(?:crypto(?:s|currency|currencies|coins?)?|bitcoins?|btc|ethereum|ether|eth|dogecoins?|litecoins?|solana"
    r"|ripple|xrp|stablecoins?|altcoins?|blockchains?|nfts?)\b",
    re.IGNORECASE,
)


def volatility_category(change_percent: float | None) -> Literal["High", "Medium", "Low", "Unknown"]:
    """How far a price moved in 24 hours, either way; Unknown without a change."""
    if change_percent is None:
        return "Unknown"
    if abs(change_percent) >= HIGH_PERCENT:
        return "High"
    return "Medium" if abs(change_percent) >= MEDIUM_PERCENT else "Low"


def count_words(*texts: str | None) -> int:
    """Words in all of the texts; a number is a word, a lone dash is none.

    >>> count_words("O'Brien said: 3 well-known facts", None, " - ")
    5
    """
    return sum(len(_WORD.findall(text)) for text in texts if text)


def has_crypto_mention(*texts: str | None) -> bool:
    """Whether one of the texts names a cryptocurrency, as a word of its own.

    >>> has_crypto_mention("Cryptographers gather"), has_crypto_mention("Is BTC back?")
    (False, True)
    """
    return any(_CRYPTO.search(text) for text in texts if text)
