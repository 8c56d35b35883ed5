"""Producers against a server that answers as the real APIs do, and as badly as they may."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from outgoing import GuardedTransport
from tests.apis import Reply, StandInApi, stand_in_api
from tests.conftest import REPOSITORY
from workers.errors import ApiAway, ApiError, ApiRefused, BrokerAway
from workers.messages import Outgoing
from workers.producers.coingecko import CoinGecko
from workers.producers.enrichment import count_words, has_crypto_mention, volatility_category
from workers.producers.ledger import Ledger
from workers.producers.newsapi import NewsApi
from workers.producers.polling import Poller
from workers.producers.sources import Api, Budget, Source

STREAMS = REPOSITORY.parent / "shared" / "data" / "streams"

PRICE = {"bitcoin": {"usd": 76975, "usd_24h_change": -1.4093297098441402, "last_updated_at": 1779092258}}
HTML = b"<html><body>error code: 1020</body></html>"


def article(number: int, **changes: object) -> dict[str, Any]:
    return {
        "source": {"id": None, "name": "Example Wire"},
        "author": None,
        "title": f"Retail sales rise {number}",
        "description": None,
        "url": f"https://example.com/a/{number}",
        "urlToImage": None,
        "publishedAt": "2025-01-15T08:15:30.123Z",
        "content": None,
        **changes,
    }


def headlines(*articles: dict[str, Any]) -> dict[str, Any]:
    return {"status": "ok", "totalResults": len(articles), "articles": list(articles)}


@pytest.fixture
def api() -> Iterator[StandInApi]:
    with stand_in_api() as server:
        yield server


class Log:
    """Where messages are sent to; away as often as it is told."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.keys: list[bytes | None] = []
        self.away = 0
        self._changed = asyncio.Event()

    async def send(self, messages: Sequence[Outgoing]) -> None:
        if self.away:
            self.away -= 1
            raise BrokerAway("Kafka does not answer", hint="Wait")
        self.messages += [json.loads(each.value) for each in messages]
        self.keys += [each.key for each in messages]
        self._changed.set()

    async def has(self, count: int) -> None:
        """Return when so many messages are in it."""
        while len(self.messages) < count:
            self._changed.clear()
            await self._changed.wait()


@asynccontextmanager
async def polling(
    api: StandInApi,
    source: Source,
    home: Path,
    *,
    timeout_s: float = 5,
    every_s: float = 0.01,
    budgets: Sequence[Budget] = (),
) -> AsyncIterator[tuple[Poller, Log]]:
    log = Log()
    reached = Api(url=api.url, key=SecretStr("the-key"), every=timedelta(seconds=every_s), budgets=tuple(budgets))
    guarded = GuardedTransport(("127.0.0.1",))
    async with httpx2.AsyncClient(transport=guarded, timeout=timeout_s) as client:
        yield Poller(source, reached, client=client, ledger=Ledger(home / "producers.db"), send=log.send), log


NEWS = NewsApi(country="us", categories=("business", "technology"))


async def asked_once(api: StandInApi, source: Source, home: Path, **options: Any) -> Log:
    async with polling(api, source, home, **options) as (poller, log):
        await poller.ask(source.questions()[0])
    return log


async def test_a_price_is_asked_with_its_change_and_the_key_stays_out_of_the_address(
    api: StandInApi, tmp_path: Path
) -> None:
    api.replies = [Reply.of(PRICE)]

    log = await asked_once(api, CoinGecko(), tmp_path)

    assert log.messages == [
        {
            "source": "coingecko",
            "price": 76975,
            "change_24h": -1.4093297098441402,
            "timestamp": "2026-05-18T08:17:38Z",
            "volatility_category": "Low",
        }
    ]
    assert log.keys == [b"coingecko"]
    (asked,) = api.asked
    assert asked.path == "/simple/price"
    assert asked.params["include_24hr_change"] == ["true"]
    assert asked.headers["x-cg-demo-api-key"] == "the-key"


async def test_a_price_without_a_change_has_no_category(api: StandInApi, tmp_path: Path) -> None:
    api.replies = [Reply.of({"bitcoin": {"usd": 76975.5, "usd_24h_change": None}})]

    (message,) = (await asked_once(api, CoinGecko(), tmp_path)).messages

    assert message["change_24h"] is None
    assert message["volatility_category"] == "Unknown"
    assert abs(datetime.fromisoformat(message["timestamp"]) - datetime.now(UTC)) < timedelta(minutes=1)


async def test_an_article_is_enriched_and_keyed_by_its_url(api: StandInApi, tmp_path: Path) -> None:
    api.replies = [Reply.of(headlines(article(1, title="Bitcoin climbs - Wire", description="Two more words, here.")))]

    log = await asked_once(api, NEWS, tmp_path)

    (message,) = log.messages
    assert message["category"] == "business"
    assert message["word_count"] == 7
    assert message["has_crypto_mention"] is True
    assert message["published_at"] == "2025-01-15T08:15:30.123000Z"
    assert log.keys == [b"https://example.com/a/1"]
    assert api.asked[0].headers["x-api-key"] == "the-key"
    assert api.asked[0].params["category"] == ["business"]


async def test_what_is_no_article_is_left_out_and_the_others_go_on(api: StandInApi, tmp_path: Path) -> None:
    removed = article(9, title="[Removed]", description="[Removed]", publishedAt="1970-01-01T00:00:00Z")
    odd = [article(1), removed, article(1, description="Again."), article(2, title=None), article(3, url=None), None]
    api.replies = [Reply.of(headlines(*odd, article(4)))]

    async with polling(api, NEWS, tmp_path) as (poller, log):
        await poller.ask(NEWS.questions()[0])

    assert [message["url"] for message in log.messages] == ["https://example.com/a/1", "https://example.com/a/4"]
    assert poller.tally.unusable == 3


async def test_no_articles_are_no_news_and_no_fault(api: StandInApi, tmp_path: Path) -> None:
    api.replies = [Reply.of(headlines())]

    assert (await asked_once(api, NEWS, tmp_path)).messages == []


async def test_what_was_sent_is_not_sent_again_not_even_after_a_restart(api: StandInApi, tmp_path: Path) -> None:
    api.replies = [Reply.of(PRICE)]
    first = await asked_once(api, CoinGecko(), tmp_path)
    again = await asked_once(api, CoinGecko(), tmp_path)
    api.replies = [Reply.of({"bitcoin": {**PRICE["bitcoin"], "usd": 76976}})]
    moved = await asked_once(api, CoinGecko(), tmp_path)

    assert [len(log.messages) for log in (first, again, moved)] == [1, 0, 1]


async def test_an_article_that_was_rewritten_is_news_again(api: StandInApi, tmp_path: Path) -> None:
    api.replies = [Reply.of(headlines(article(1), article(2)))]
    await asked_once(api, NEWS, tmp_path)
    api.replies = [Reply.of(headlines(article(1), article(2, title="Corrected")))]

    assert [message["headline"] for message in (await asked_once(api, NEWS, tmp_path)).messages] == ["Corrected"]


async def test_what_could_not_be_sent_is_still_news(api: StandInApi, tmp_path: Path) -> None:
    api.replies = [Reply.of(PRICE)]
    async with polling(api, CoinGecko(), tmp_path) as (poller, log):
        log.away = 1
        with pytest.raises(BrokerAway):
            await poller.ask(CoinGecko().questions()[0])
        await poller.ask(CoinGecko().questions()[0])

    assert len(log.messages) == 1


BUSY = {"status": {"error_code": 429, "error_message": "You've exceeded the Rate Limit."}}
KEYLESS = {"status": "error", "code": "apiKeyMissing", "message": "Your API key is missing."}

FAULTS = [
    pytest.param(CoinGecko(), Reply(delay_s=1.0), ApiAway, id="time-out"),
    pytest.param(CoinGecko(), Reply.of(BUSY, status=429, headers={"retry-after": "60"}), ApiAway, id="429"),
    pytest.param(CoinGecko(), Reply.of(BUSY), ApiAway, id="429 under status 200"),
    pytest.param(CoinGecko(), Reply(body=HTML, status=503), ApiAway, id="503 in HTML"),
    pytest.param(CoinGecko(), Reply(body=HTML, status=403), ApiRefused, id="403 in HTML"),
    pytest.param(CoinGecko(), Reply(body=HTML), ApiAway, id="HTML under status 200"),
    pytest.param(CoinGecko(), Reply(body=b'{"bitcoin": {"usd": 769'), ApiAway, id="truncated JSON"),
    pytest.param(CoinGecko(), Reply(body=json.dumps(PRICE).encode(), cut_off=True), ApiAway, id="body cut off"),
    pytest.param(CoinGecko(), Reply.of({"error": "Missing parameter"}, status=422), ApiRefused, id="422"),
    pytest.param(
        CoinGecko(),
        Reply.of({"error_code": 10011, "status": {"error_message": "x"}}, status=400),
        ApiRefused,
        id="flat",
    ),
    pytest.param(CoinGecko(), Reply(body=b" " * 6_000_000), ApiAway, id="larger than any answer"),
    pytest.param(CoinGecko(), Reply(status=302, headers={"location": "http://[::1]/"}), ApiRefused, id="redirect"),
    pytest.param(NEWS, Reply.of(KEYLESS, status=401), ApiRefused, id="news: no key"),
    pytest.param(NEWS, Reply.of(KEYLESS), ApiRefused, id="news: no key, under status 200"),
    pytest.param(NEWS, Reply.of({"status": "error", "code": "rateLimited"}, status=429), ApiAway, id="news: 429"),
    pytest.param(NEWS, Reply.of({"status": "error", "code": "unexpectedError"}, status=500), ApiAway, id="news: 500"),
    pytest.param(NEWS, Reply.of({"status": "ok"}), ApiRefused, id="news: no articles at all"),
    pytest.param(NEWS, Reply.of([1]), ApiAway, id="news: a list"),
]


@pytest.mark.parametrize(("source", "reply", "kind"), FAULTS)
async def test_a_fault_sends_nothing_and_says_whether_it_passes(
    api: StandInApi, tmp_path: Path, source: Source, reply: Reply, kind: type[ApiError]
) -> None:
    api.replies = [reply]

    patience = 0.3 if reply.delay_s else 5.0  # the machine may stand still for a moment, too
    async with polling(api, source, tmp_path, timeout_s=patience) as (poller, log):
        with pytest.raises(kind) as caught:
            await poller.ask(source.questions()[0])

    assert log.messages == []
    assert "the-key" not in caught.value.message + caught.value.hint
    if "retry-after" in reply.headers:
        assert isinstance(caught.value, ApiAway)
        assert caught.value.retry_after_s == 60


async def test_an_unknown_coin_is_unusable(api: StandInApi, tmp_path: Path) -> None:
    async with polling(api, CoinGecko(), tmp_path) as (poller, log):
        await poller.ask(CoinGecko().questions()[0])

    assert (log.messages, poller.tally.unusable) == ([], 1)


async def test_a_producer_goes_on_after_faults_and_asks_one_category_after_another(
    api: StandInApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.producers.polling.SHORTEST_PAUSE_S", 0.01)
    api.replies = [
        Reply(body=HTML, status=500),
        Reply(body=b"{"),
        Reply.of(headlines(article(1))),
        Reply.of(headlines(article(2))),
    ]
    async with polling(api, NEWS, tmp_path) as (poller, log):
        stopping = asyncio.Event()
        running = asyncio.create_task(poller.run(stopping))
        async with asyncio.timeout(10):
            await log.has(2)
        stopping.set()
        await running

    assert [message["category"] for message in log.messages] == ["business", "technology"]
    assert poller.tally.failed == 2


async def test_retry_after_is_kept_even_across_a_restart(api: StandInApi, tmp_path: Path) -> None:
    api.replies = [Reply.of(BUSY, status=429, headers={"retry-after": "3600"})]
    for _ in range(3):
        async with polling(api, CoinGecko(), tmp_path) as (poller, _):
            stopping = asyncio.Event()
            running = asyncio.create_task(poller.run(stopping))
            await asyncio.sleep(0.2)
            stopping.set()
            await running

    assert len(api.asked) == 1


async def test_a_budget_holds_across_restarts(api: StandInApi, tmp_path: Path) -> None:
    api.replies = [Reply.of(headlines())]
    budgets = [Budget(requests=5, within=timedelta(hours=12))]
    for _ in range(3):
        async with polling(api, NEWS, tmp_path, budgets=budgets) as (poller, _):
            stopping = asyncio.Event()
            running = asyncio.create_task(poller.run(stopping))
            await asyncio.sleep(0.3)
            stopping.set()
            await running

    assert len(api.asked) == 5


def test_a_budget_allows_again_what_has_left_its_span(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "producers.db")
    budgets = (Budget(requests=2, within=timedelta(minutes=1)), Budget(requests=3, within=timedelta(days=31)))
    start = datetime(2026, 1, 1, tzinfo=UTC)

    def after(seconds: float) -> float:
        return ledger.try_call("s", budgets, now=start + timedelta(seconds=seconds)).total_seconds()

    assert [after(0), after(10), after(20), after(59), after(60)] == [0, 0, 40, 1, 0]
    assert after(61) == 31 * 86_400 - 61
    assert ledger.try_call("another", budgets, now=start) == timedelta()


@pytest.mark.parametrize(
    ("change", "category"),
    [(5, "High"), (-5, "High"), (4.99, "Medium"), (2, "Medium"), (-1.99, "Low"), (0, "Low"), (None, "Unknown")],
)
def test_a_change_has_a_category(change: float | None, category: str) -> None:
    assert volatility_category(change) == category


@pytest.mark.parametrize(
    ("text", "mentions"),
    [
        ("Bitcoin climbs", True),
        ("BTC: what now?", True),
        ("A crypto-friendly bank", True),
        ("Cryptocurrencies slide", True),
        ("(ETH)", True),
        ("Cryptographers gather for annual meeting", False),
        ("Mentions cryptography", False),
        ("An ethereal method", False),
        ("Whether or not", False),
    ],
)
def test_a_cryptocurrency_is_a_word_of_its_own(text: str, mentions: bool) -> None:  # noqa: FBT001 - a case
    assert has_crypto_mention(None, text) is mentions


def test_words_are_counted_not_marks() -> None:
    assert count_words("O'Brien said: \u201cDROP TABLE news;\u201d \u2013 twice", "café 3.5") == 8


@pytest.mark.skipif(not STREAMS.exists(), reason="the payloads are not there")
def test_the_recorded_payloads_are_read_as_their_readme_says() -> None:
    recorded = (STREAMS / "bitcoin" / "coingecko_simple_price.replay_2019.jsonl").read_text().splitlines()
    at = datetime(2026, 1, 1, tzinfo=UTC)
    source = CoinGecko()
    prices = [
        message.model_dump()
        for line in recorded
        for message in source.read(json.loads(line, parse_float=Decimal), source.questions()[0], at=at)
    ]
    counts = {name: sum(price["volatility_category"] == name for price in prices) for name in ("Low", "Medium", "High")}
    assert counts == {"Low": 1_315, "Medium": 594, "High": 281}

    errors = json.loads((STREAMS / "bitcoin" / "coingecko_errors.json").read_text())
    assert all(source.fault(each["body"]) is not None for each in errors if "body" in each)
    errors = json.loads((STREAMS / "news" / "newsapi_errors.json").read_text())
    assert all(NEWS.fault(each["body"]) is not None for each in errors)

    awkward = json.loads((STREAMS / "news" / "newsapi_top_headlines.awkward.json").read_text())
    read = list(NEWS.read(awkward, NEWS.questions()[0], at=at))
    assert [getattr(each, "url", None) for each in read] == [
        "https://example.com/a/1",
        "https://example.com/a/2",
        "https://example.com/a/3",
        None,
    ]
    # The third one's headline has cryptographers alone, but its description has "cryptocurrency" as a word.
    assert [getattr(each, "has_crypto_mention", None) for each in read] == [True, False, True, None]
    for name, count in (("us_business", 64), ("us_technology", 65)):
        real = json.loads((STREAMS / "news" / f"newsapi_top_headlines.{name}.json").read_text())
        assert len(list(NEWS.read(real, NEWS.questions()[0], at=at))) == count
