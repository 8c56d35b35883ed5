"""Synthetic recordings, in the shape in which the APIs answer, for the year of the synthetic shop.

Bitcoin every four hours, as CoinGecko's `/simple/price` answers; headlines of three categories, as NewsAPI's
`/v2/top-headlines` answers, with its quirks: missing fields, an article twice, one that was removed, words that only
look like cryptocurrencies. The same seed gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np

from workers.generate import GeneratedFile
from workers.recordings import RECORDINGS
from workers.shop import DAYS, YEAR_START

_START: Final = datetime.combine(YEAR_START, datetime.min.time(), UTC)

_EVENTS_A_DAY: Final = 6
_FIRST_PRICE_USD: Final = 3_700.0
_DRIFT: Final = 0.00035  # of an event: the year ends at about twice its beginning
_SWINGS: Final = (0.004, 0.012, 0.035)  # widest move of an event in a calm, a lively and a wild day
_SWING_WEIGHTS: Final = (60, 32, 8)  # as of 2019: three fifths of changes below 2 percent, an eighth of 5 or more

CATEGORIES: Final = ("business", "technology", "general")
_OUTLETS: Final = (("herald", "The Daily Herald"), (None, "Market Courier"), (None, "Tech Gazette"), ("wire", "Wire"))
_SUBJECTS: Final = (
    "Retail sales", "Chip makers", "Travel stocks", "Bitcoin", "Cloud providers", "Cryptographers", "Home devices",
    "Ether", "Coffee prices", "Car makers", "Crypto exchanges", "Streaming services",
)  # fmt: skip
_VERBS: Final = ("climb", "slip", "steady themselves", "surprise analysts", "face new rules", "look to spring")
_REASONS: Final = (
    "as shoppers return", "after a quiet week", "on supply worries", "ahead of earnings", "as rates hold",
    "\u2013 again",
)  # fmt: skip


def generate_streams(out: Path, *, seed: int = 2019) -> tuple[GeneratedFile, ...]:
    """The recordings that were written into `out/streams`, each whole or not at all."""
    folder = out / RECORDINGS
    folder.mkdir(parents=True, exist_ok=True)
    prices, headlines = np.random.SeedSequence([seed, 1]).spawn(2)
    return (
        _write(folder / "bitcoin.jsonl", _bitcoin(np.random.Generator(np.random.PCG64(prices)))),
        _write(folder / "news.jsonl", _news(np.random.Generator(np.random.PCG64(headlines)))),
    )


def _write(path: Path, answers: Iterator[Mapping[str, Any]]) -> GeneratedFile:
    part = path.with_name(f".{path.name}.part")
    rows = 0
    with part.open("w", encoding="utf-8", newline="\n") as file:
        for answer in answers:
            file.write(json.dumps(answer, ensure_ascii=False) + "\n")
            rows += 1
    part.replace(path)
    return GeneratedFile(path=path, rows=rows)


def _bitcoin(rng: np.random.Generator) -> Iterator[Mapping[str, Any]]:
    """One answer every four hours. The change is null on the first day, as nothing was known the day before."""
    edges = np.cumsum(_SWING_WEIGHTS)
    days = np.searchsorted(edges, np.floor(rng.random(DAYS) * edges[-1]), side="right")
    moves = rng.random(DAYS * _EVENTS_A_DAY) * 2 - 1
    prices: list[float] = []
    price = _FIRST_PRICE_USD
    for number, move in enumerate(moves):
        price *= 1 + _DRIFT + float(move) * _SWINGS[int(days[number // _EVENTS_A_DAY])]
        prices.append(round(price, 2))
        before = prices[number - _EVENTS_A_DAY] if number >= _EVENTS_A_DAY else None
        at = _START + timedelta(hours=24 / _EVENTS_A_DAY * number)
        yield {
            "bitcoin": {
                "usd": prices[-1],
                "usd_24h_change": None if before is None else (prices[-1] - before) / before * 100,
                "last_updated_at": int(at.timestamp()),
            }
        }


def _news(rng: np.random.Generator) -> Iterator[Mapping[str, Any]]:
    """One answer a day and category, with what was asked, as the answer itself does not say it."""
    number = 0
    for day in range(DAYS):
        for place, category in enumerate(CATEGORIES):
            received_at = _START + timedelta(days=day, hours=8 + 4 * place, minutes=5)
            articles = []
            for _ in range(1 + int(rng.random() * 4)):
                articles.append(_article(rng, number, received_at))
                number += 1
            if day % 9 == place:
                articles.append({**articles[0], "description": "The same article again."})
            if day % 50 == place:
                articles.append(_removed())
            yield {
                "asked": {"country": "us", "category": category},
                "received_at": f"{received_at:%Y-%m-%dT%H:%M:%SZ}",
                "answer": {"status": "ok", "totalResults": len(articles), "articles": articles},
            }


def _article(rng: np.random.Generator, number: int, received_at: datetime) -> Mapping[str, Any]:
    subject, verb, reason = (words[int(rng.random() * len(words))] for words in (_SUBJECTS, _VERBS, _REASONS))
    outlet_id, outlet = _OUTLETS[int(rng.random() * len(_OUTLETS))]
    published_at = received_at - timedelta(minutes=5 + int(rng.random() * 180))
    return {
        "source": {"id": outlet_id, "name": outlet},
        "author": None if number % 8 == 0 else "A. Writer",
        "title": f"{subject} {verb} {reason} - {outlet}",
        "description": None if number % 11 == 0 else f"{subject} {verb}: what to know, in {3 + number % 5} points.",
        "url": f"https://news.example.com/{published_at:%Y/%m/%d}/{number}",
        "urlToImage": None,
        "publishedAt": f"{published_at:%Y-%m-%dT%H:%M:%SZ}",
        "content": None,
    }


def _removed() -> Mapping[str, Any]:
    fields = dict.fromkeys(("title", "description", "content"), "[Removed]")
    source = {"id": None, "name": "[Removed]"}
    origin = {"url": "https://removed.example.com", "urlToImage": None, "publishedAt": "1970-01-01T00:00:00Z"}
    return {"source": source, "author": None, **fields, **origin}
