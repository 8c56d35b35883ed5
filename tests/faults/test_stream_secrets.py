"""S9: secrets that workers are given, or that come to them in messages, answers and orders, turn up nowhere else.

Consumers, producers and webhooks run as processes, their logs at DEBUG, against a broker that asks for a password and
APIs that repeat the key. Afterwards everything that came out is searched: logs, series, health, errors, dead letters.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaConsumer

from tests import kafka as kafka_plugin
from tests.apis import Reply, StandInApi, stand_in_api
from tests.kafka import PASSWORD, KafkaBroker
from tests.services import free_port
from tests.streams import VERSION_1, Stream, price, streaming

kafka = kafka_plugin.kafka

# Each is looked for as a whole; nothing else could have produced it.
CANARIES = {
    "password of Kafka": PASSWORD,
    "wrong password of Kafka": "canary-wrong-password-of-kafka",
    "key of CoinGecko": "CG-canaryKeyOfCoinGecko",
    "key of NewsAPI": "canary0key0of0newsapi",
    "secret of Shopify": "canary-secret-of-shopify",
    "secret of WooCommerce": "canary-secret-of-woocommerce",
    "password of the warehouse": "canary-password-of-the-warehouse",
    "password of the warehouse, misread": "canary-password-misread",
    "passphrase of the key pair": "canary-passphrase-of-the-key-pair",
    "token of the warehouse": "canary-token-of-the-warehouse",
    "password in a source's URL": "canary-password-in-a-url",
    "header authorization": "Bearer canary-header-authorization",
    "header cookie": "session=canary-header-cookie",
    "header x-api-key": "canary-header-x-api-key",
    "header access_token": "canary-header-access-token",
    "header client-secret": "canary-header-client-secret",
    "header x-shopify-hmac-sha256-signature": "canary-header-signature",
    "value of a wrong type": "canary-value-of-a-wrong-type",
    "value of a wrong form": "canary-value-of-a-wrong-form",
    "text that is no JSON": "canary-text-that-is-no-json",
    "answer's time": "canary-time-of-an-article",
    "redirect": "canary-redirect",
    "wrong signature": "canary-wrong-signature",
    "parameter of a webhook": "canary-parameter-of-a-webhook",
    "cookie of a webhook": "canary-cookie-of-a-webhook",
    "order that cannot be read": "canary-order-that-cannot-be-read",
}
PRICE = {"bitcoin": {"usd": 76975, "usd_24h_change": -1.4, "last_updated_at": 1779092258}}


@dataclass
class Outcome:
    """Everything that came out, by where."""

    said: dict[str, str] = field(default_factory=dict)

    def logged(self, where: str) -> list[dict[str, Any]]:
        """The lines of a log."""
        return [json.loads(line) for line in self.said[where].splitlines() if line.startswith("{")]

    def events(self, where: str) -> set[str]:
        """What a log tells of."""
        return {str(line["event"]) for line in self.logged(where)}


@pytest.fixture(scope="module")
def outcome(kafka: KafkaBroker, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """What the workers put out that were handed every canary."""
    made = Outcome()
    port, shop_port = free_port(), free_port()
    settings = {
        "INSIGHT_LOG_LEVEL": "debug",
        "INSIGHT_KAFKA_BOOTSTRAP_SERVERS": kafka.servers_to_sign_in,
        "INSIGHT_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "INSIGHT_KAFKA_SASL_MECHANISM": "PLAIN",
        "INSIGHT_KAFKA_SASL_USERNAME": "insight",
        "INSIGHT_KAFKA_SASL_PASSWORD": CANARIES["password of Kafka"],
        "INSIGHT_COINGECKO_API_KEY": CANARIES["key of CoinGecko"],
        "INSIGHT_COINGECKO_EVERY_S": "1",
        "INSIGHT_NEWSAPI_API_KEY": CANARIES["key of NewsAPI"],
        "INSIGHT_NEWSAPI_EVERY_S": "1",
        "INSIGHT_SHOPIFY_SECRET": CANARIES["secret of Shopify"],
        "INSIGHT_WOOCOMMERCE_SECRET": CANARIES["secret of WooCommerce"],
        "INSIGHT_WEBHOOK_PORT": str(shop_port),
        "INSIGHT_STREAM_PORT": str(port),
    }
    with (
        streaming(kafka, tmp_path_factory.mktemp("secrets"), **settings) as stream,
        stand_in_api() as coingecko,
        stand_in_api() as newsapi,
    ):
        stream.create_topics({"bitcoin": 1})
        _answer_badly(coingecko, newsapi)
        stream.settings = {
            **settings,
            "INSIGHT_INTERNAL_HOSTS": "127.0.0.1",
            "INSIGHT_COINGECKO_URL": coingecko.url,
            "INSIGHT_NEWSAPI_URL": newsapi.url,
        }
        with _worker(made, stream, "consumer", "consume"), _worker(made, stream, "webhooks", "produce", "sales"):
            with (
                _worker(made, stream, "prices", "produce", "bitcoin"),
                _worker(made, stream, "headlines", "produce", "news"),
            ):
                _send_bad_messages(made, stream)
                _order(made, f"http://127.0.0.1:{shop_port}")
                stream.wait_until(lambda: len(coingecko.replies) == len(newsapi.replies) == 1, what="all answers")
            made.said["series"] = httpx.get(f"http://127.0.0.1:{port}/metrics").text
            made.said["health"] = httpx.get(f"http://127.0.0.1:{port}/healthz").text
        _misconfigure(made, stream)
        assert coingecko.asked[0].headers["x-cg-demo-api-key"] == CANARIES["key of CoinGecko"]
        assert newsapi.asked[0].headers["x-api-key"] == CANARIES["key of NewsAPI"]
    return made


def _answer_badly(coingecko: StandInApi, newsapi: StandInApi) -> None:
    key, other = CANARIES["key of CoinGecko"], CANARIES["key of NewsAPI"]
    retry = {"retry-after": "0"}
    coingecko.replies = [
        Reply.of({"status": {"error_code": 429, "error_message": f"{key} was used too often"}}, headers=retry),
        Reply.of({"error": f"{key} is busy"}, status=503, headers=retry),
        Reply(status=502, body=f"<html>{key}</html>".encode(), headers=retry),
        Reply.of(PRICE),
        Reply.of({"error_code": key, "error": f"wrong key {key}"}, status=401),
    ]
    article = {"title": "A", "url": "https://example.com/a", "publishedAt": CANARIES["answer's time"]}
    elsewhere = {"location": f"{newsapi.url}/?apiKey={CANARIES['redirect']}", "retry-after": "0"}
    newsapi.replies = [
        Reply.of({"status": "ok", "articles": [article, {**article, "url": [CANARIES["redirect"]]}]}),
        Reply.of({"status": "error", "code": "rateLimited", "message": other}, status=429, headers=retry),
        Reply(status=503, headers=elsewhere),
        Reply.of({"status": "error", "code": other, "message": f"{other} is invalid"}, status=301, headers=elsewhere),
    ]


@contextmanager
def _worker(made: Outcome, stream: Stream, name: str, *command: str, **settings: str) -> Iterator[None]:
    """A worker for the length of the block; what it said is kept."""
    log = stream.home / f"{name}.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [stream.insight, "--debug", "stream", *command],
            env=stream.environment | settings,
            cwd=stream.home,
            stdout=said,
            stderr=said,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)
        made.said[name] = log.read_text()


def _send_bad_messages(made: Outcome, stream: Stream) -> None:
    good = price(1)
    kept = [(name.removeprefix("header "), value.encode()) for name, value in CANARIES.items() if "header " in name]
    wrong_type = good.replace(b'"change_24h": -5.5', f'"change_24h": "{CANARIES["value of a wrong type"]}"'.encode())
    wrong_form = good.replace(b'"timestamp": "', f'"timestamp": "{CANARIES["value of a wrong form"]}'.encode())
    assert good not in (wrong_type, wrong_form)
    no_json = f'{{"source": {CANARIES["text that is no JSON"]}'.encode()
    bad = [(value, (*VERSION_1, *kept)) for value in (wrong_type, wrong_form, no_json, b"\xff", None)]
    bad.append((good, (("schema_version", b"99"), *kept)))
    stream.wait_for_all(stream.send({("bitcoin", 0): [(good, VERSION_1), *bad]}))
    letters = _dead_letters(stream)
    assert len(letters) == len(bad)
    names = {name for headers in letters for name, _ in headers}
    assert "error_text" in names
    made.said["headers of dead letters"] = json.dumps(letters)
    made.said["list of dead letters"] = stream.run("stream", "deadletters", "list", "--json")


def _dead_letters(stream: Stream) -> list[list[tuple[str, str]]]:
    """The headers of each."""

    async def read() -> list[list[tuple[str, str]]]:
        topic = f"{stream.prefix}bitcoin.dlq"
        consumer = AIOKafkaConsumer(
            topic, bootstrap_servers=stream.kafka.bootstrap_servers, auto_offset_reset="earliest"
        )
        await consumer.start()
        found: list[list[tuple[str, str]]] = []
        try:
            deadline = time.monotonic() + 30
            while len(found) < 6 and time.monotonic() < deadline:
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    found += [
                        [(name, value.decode(errors="replace")) for name, value in record.headers] for record in records
                    ]
        finally:
            await consumer.stop()
        return found

    return asyncio.run(read())


def _order(made: Outcome, url: str) -> None:
    """Orders: one of a stranger, one that is signed and cannot be read."""
    said = []
    with httpx.Client(base_url=url, timeout=30) as client:
        deadline = time.monotonic() + 60
        while True:
            try:
                said.append(client.get("/healthz").text)
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline, "the webhooks do not answer"
                time.sleep(0.1)
        body = json.dumps({"created_at": CANARIES["order that cannot be read"], "id": 1}).encode()
        headers = {"cookie": CANARIES["cookie of a webhook"]}
        params = {"token": CANARIES["parameter of a webhook"]}
        forged = {**headers, "x-shopify-hmac-sha256": CANARIES["wrong signature"]}
        answers = [client.post("/webhooks/shopify", content=body, headers=forged, params=params)]
        for shop, header in (("shopify", "x-shopify-hmac-sha256"), ("woocommerce", "x-wc-webhook-signature")):
            secret = CANARIES["secret of Shopify" if shop == "shopify" else "secret of WooCommerce"]
            signed = base64.b64encode(hmac.new(secret.encode(), body, hashlib.sha256).digest()).decode()
            answers.append(client.post(f"/webhooks/{shop}", content=body, headers={**headers, header: signed}))
    assert [answer.status_code for answer in answers] == [401, 422, 422]
    made.said["answers of webhooks"] = json.dumps(said + [answer.text for answer in answers])


def _misconfigure(made: Outcome, stream: Stream) -> None:
    """Workers that cannot work: with a password that is wrong, and with settings that are."""
    wrong = {"INSIGHT_KAFKA_SASL_PASSWORD": CANARIES["wrong password of Kafka"]}
    with _worker(made, stream, "stranger", "consume", **wrong):
        log = stream.home / "stranger.log"
        stream.wait_until(lambda: '"holding"' in log.read_text(), what="a stranger that is refused")
    token, key = stream.home / "token", stream.home / "key.pem"
    token.write_text(CANARIES["token of the warehouse"])
    key.write_text("no key")
    place = f"127.0.0.1:{free_port()}/SHOP?account=none&protocol=http&warehouse=W&login_timeout=1&network_timeout=1"
    password = CANARIES["password of the warehouse"]
    misread = CANARIES["password of the warehouse, misread"]
    away: dict[str, Mapping[str, str]] = {
        "password": {"INSIGHT_WAREHOUSE_URL": f"snowflake://loader:{password}@{place}"},
        "key pair": {
            "INSIGHT_WAREHOUSE_URL": f"snowflake://loader@{place}",
            "INSIGHT_SNOWFLAKE_PRIVATE_KEY_FILE": str(key),
            "INSIGHT_SNOWFLAKE_PRIVATE_KEY_PASSPHRASE": CANARIES["passphrase of the key pair"],
        },
        "token": {
            "INSIGHT_WAREHOUSE_URL": f"snowflake://loader@{place}",
            "INSIGHT_SNOWFLAKE_TOKEN_FILE": str(token),
        },
        "contradiction": {
            "INSIGHT_WAREHOUSE_URL": f"snowflake://loader@{place}",
            "INSIGHT_SNOWFLAKE_PRIVATE_KEY_PASSPHRASE": CANARIES["passphrase of the key pair"],
        },
        "misread": {"INSIGHT_WAREHOUSE_URL": f"snowflake://loader:{misread}@host:port/SHOP"},
        "other dialect": {"INSIGHT_WAREHOUSE_URL": f"mysql://loader:{misread}@host/shop"},
        "source": {"INSIGHT_COINGECKO_URL": f"http://user:{CANARIES['password in a source' + chr(39) + 's URL']}@host"},
    }
    for name, settings in away.items():
        ended = subprocess.run(
            [stream.insight, "--debug", "stream", "status"],
            env=stream.environment | settings,
            cwd=stream.home,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode != 0, name
        made.said[f"warehouse: {name}"] = ended.stdout + ended.stderr


def test_every_canary_was_handed_over_and_everything_was_said_of_it(outcome: Outcome) -> None:
    assert len(CANARIES) >= 20
    levels = {line["level"] for name in ("consumer", "prices", "headlines") for line in outcome.logged(name)}
    assert levels >= {"info", "warning"}
    assert "assigned" in outcome.events("consumer")
    assert outcome.events("prices") >= {"polling", "source_failed"}
    assert outcome.events("headlines") >= {"polling", "source_failed", "unusable"}
    assert "webhook_refused" in outcome.events("webhooks")
    assert "holding" in outcome.events("stranger")
    assert 'insight_stream_rejected_total{error_class="wrong_value"' in outcome.said["series"]
    assert all(len(text) > 20 for text in outcome.said.values()), outcome.said


def test_none_is_anywhere(outcome: Outcome, record_property: Any) -> None:
    found = {
        (name, where)
        for where, text in outcome.said.items()
        for name, canary in CANARIES.items()
        if canary.removeprefix("Bearer ") in text
    }
    assert found == set()
    record_property("counts", f"S9: {len(CANARIES)} canaries, {len(outcome.said)} outputs, none found")
