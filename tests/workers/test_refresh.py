"""From an event to an answer: what a refresh builds, what it leaves, and that a sales line counts once."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from aiokafka import TopicPartition
from fastapi.testclient import TestClient

from api.main import create_app
from api.settings import AuthMode
from tests import kafka as kafka_plugin
from tests.conftest import SILENT, Published, service_settings, warehouse_file, worker_settings
from tests.kafka import KafkaBroker
from workers.announcing import Announcements, announce
from workers.broker import Broker
from workers.messages import BITCOIN, NEWS, SALES
from workers.pipeline import Pipeline, build_database
from workers.recordings import replay
from workers.sending import Sender
from workers.settings import WorkerSettings
from workers.sinks import open_warehouse
from workers.stream_settings import StreamSettings

kafka = kafka_plugin.kafka


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, synthetic: Published) -> WorkerSettings:
    """A copy of the published synthetic data, which the tests of this file add to one after another."""
    folder = tmp_path_factory.mktemp("refresh")
    shutil.copytree(synthetic.warehouse.parent, folder / "home")
    return worker_settings(folder / "home", segments=True)


def play(home: WorkerSettings, topic: Any, folder: Path, *lines: object) -> int:
    path = folder / f"{topic.name}.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    with open_warehouse(home.warehouse_url) as warehouse:
        warehouse.ensure_raw_tables()
        report = replay(path, topic, warehouse=warehouse)
    assert report.rejected == 0
    return report.loaded


def ask(home: WorkerSettings, metrics: Sequence[str], group_by: Sequence[str] = ()) -> list[dict[str, Any]]:
    published = Published(data=Path(), settings=home, version="")
    with TestClient(create_app(service_settings(published, auth=AuthMode.OFF))) as client:
        answer = client.post("/v1/query", json={"metrics": metrics, "group_by": group_by})
        assert answer.status_code == 200, answer.text
        return list(answer.json()["data"])


def built_nodes(home: WorkerSettings, *, since: datetime) -> set[str]:
    """What was built after the moment; the file tells of every node as it went last."""
    results = json.loads((warehouse_file(home).parent / "dbt-target" / "run_results.json").read_text())
    return {
        result["unique_id"].split(".")[2]
        for result in results["results"]
        if datetime.fromisoformat(result["timing"][0]["started_at"]) > since
    }


def price(at: str, usd: float, change: float | None) -> dict[str, Any]:
    seconds = int(datetime.fromisoformat(at).timestamp())
    return {"bitcoin": {"usd": usd, "usd_24h_change": change, "last_updated_at": seconds}}


def headline(number: int, at: str, title: str) -> dict[str, Any]:
    return {"source": {"name": "Wire"}, "title": title, "url": f"https://example.com/{number}", "publishedAt": at}


def test_prices_and_news_answer_by_hour_and_by_day_and_only_what_they_feed_is_built(
    home: WorkerSettings, tmp_path: Path
) -> None:
    before = Pipeline(home).store.current()
    prices = [
        price("2019-03-01T10:00:00+00:00", 100.0, -2.5),
        price("2019-03-01T10:30:00+00:00", 110.0, 5.0),
        price("2019-03-01T12:00:00+00:00", 99.0, None),
        price("2019-03-02T00:00:00+00:00", 101.5, 0.5),
    ]
    assert play(home, BITCOIN, tmp_path, *prices) == 4
    articles = [
        headline(1, "2019-03-01T10:15:00Z", "Bitcoin climbs"),
        headline(2, "2019-03-01T10:45:00Z", "Cryptographers gather"),
        headline(3, "2019-03-02T08:00:00Z", "Retail sales rise"),
    ]
    answer = {"asked": {"category": "business"}, "answer": {"status": "ok", "articles": articles}}
    assert play(home, NEWS, tmp_path, answer) == 3

    began_at = datetime.now(UTC)
    version = Pipeline(home).refresh(SILENT)

    assert version != before
    built = built_nodes(home, since=began_at)
    assert built >= {"fct_bitcoin_prices", "fct_news_events", "dim_datetime"}
    assert not built & {"fct_sales", "dim_customer", "stg_ecommerce__online_sales"}
    assert ask(home, ["bitcoin_price_avg", "bitcoin_price_max"], ["bitcoin__event_at__hour"]) == [
        {"bitcoin__event_at__hour": "2019-03-01T10:00:00Z", "bitcoin_price_avg": 105.0, "bitcoin_price_max": 110.0},
        {"bitcoin__event_at__hour": "2019-03-01T12:00:00Z", "bitcoin_price_avg": 99.0, "bitcoin_price_max": 99.0},
        {"bitcoin__event_at__hour": "2019-03-02T00:00:00Z", "bitcoin_price_avg": 101.5, "bitcoin_price_max": 101.5},
    ]
    assert ask(home, ["bitcoin_price_latest"], ["metric_time__day"]) == [
        {"metric_time__day": "2019-03-01", "bitcoin_price_latest": 99.0},
        {"metric_time__day": "2019-03-02", "bitcoin_price_latest": 101.5},
    ]
    assert ask(home, ["news_count", "crypto_news_share"], ["news__published_at__hour"]) == [
        {"news__published_at__hour": "2019-03-01T10:00:00Z", "news_count": 2, "crypto_news_share": 0.5},
        {"news__published_at__hour": "2019-03-02T08:00:00Z", "news_count": 1, "crypto_news_share": 0.0},
    ]


def test_a_refresh_without_new_events_publishes_nothing(home: WorkerSettings) -> None:
    current = Pipeline(home).store.current()

    assert Pipeline(home).refresh(SILENT) == current


def test_a_late_price_is_added_and_renews_the_one_after_it(home: WorkerSettings, tmp_path: Path) -> None:
    play(home, BITCOIN, tmp_path, price("2019-03-01T11:00:00+00:00", 50.0, None))

    Pipeline(home).refresh(SILENT)

    days = ask(home, ["bitcoin_price_min", "bitcoin_squared_log_return"], ["metric_time__day"])
    with duckdb.connect() as connection:
        squares = "ln(110.0/100)**2 + ln(50.0/110)**2 + ln(99.0/50)**2, ln(101.5/99)**2"
        first, second = connection.execute(f"select {squares}").fetchall()[0]
    assert [day["bitcoin_price_min"] for day in days] == [50.0, 101.5]
    assert [day["bitcoin_squared_log_return"] for day in days] == pytest.approx([first, second])


def test_a_sales_line_that_came_both_ways_counts_once_as_the_file_has_it(home: WorkerSettings, tmp_path: Path) -> None:
    (before,) = ask(home, ["gross_revenue", "line_count", "transaction_count"])
    line = sold(home) | {"quantity": 1000}
    new = line | {"transaction_id": 999_999_999, "quantity": 3, "avg_price": "7.25"}
    play(home, SALES, tmp_path, line, new, new)

    Pipeline(home).refresh(SILENT)

    (after,) = ask(home, ["gross_revenue", "line_count", "transaction_count"])
    assert after["gross_revenue"] == pytest.approx(before["gross_revenue"] + 21.75)
    assert after["line_count"] == before["line_count"] + 1
    assert after["transaction_count"] == before["transaction_count"] + 1


def sold(home: WorkerSettings) -> dict[str, Any]:
    """A line as an event has it: one that a file has, too."""
    names = (
        "transaction_id, product_sku, customer_id, transaction_date, product_description, product_category, "
        "quantity, avg_price, delivery_charges, coupon_status"
    )
    with duckdb.connect(warehouse_file(home), read_only=True) as connection:
        filed = connection.execute(f"select {names} from raw.online_sales limit 1").fetchone()
    assert filed is not None
    found: dict[str, Any] = json.loads(json.dumps(dict(zip(names.split(", "), filed, strict=True)), default=str))
    return found


def test_whoever_buys_is_put_into_a_segment_anew_and_others_hear_of_it_at_least_once(
    home: WorkerSettings, tmp_path: Path, kafka: KafkaBroker
) -> None:
    pipeline = Pipeline(home)
    store, announcements = pipeline.store, Announcements(pipeline.store, build_database(home))
    before = store.customer_segments(store.current() or "", build_database(home))
    assert announcements.pending() is None  # where everybody is now goes without saying
    lapsed = next(customer for customer, segment in before.items() if segment == 4)
    line = sold(home) | {"customer_id": lapsed, "transaction_date": "2019-12-31", "quantity": 9, "avg_price": "90.50"}
    bought = [line | {"transaction_id": 888_000_000 + number, "coupon_status": "Not Used"} for number in range(40)]
    newcomer = line | {"transaction_id": 888_100_000, "customer_id": 77_777_777}
    play(home, SALES, tmp_path, *bought, newcomer)

    version = pipeline.refresh(SILENT)

    after = store.customer_segments(version, build_database(home))
    assert {customer for customer in after if after[customer] != before.get(customer)} == {lapsed, 77_777_777}
    assert after[lapsed] == 0
    published = Published(data=Path(), settings=home, version=version)
    with TestClient(create_app(service_settings(published, auth=AuthMode.OFF))) as client:
        for customer in (lapsed, 77_777_777):
            standing = client.get(f"/v1/customers/{customer}/segment").json()
            (scored,) = client.post("/v1/segments/score", json={"rows": [{"features": standing["features"]}]}).json()[
                "data"
            ]
            assert standing["segment"]["segment_id"] == after[customer] == scored["result"]["segment"]["segment_id"]
    assert pipeline.refresh(SILENT) == version

    messages = asyncio.run(told(announcements, kafka))

    first, again = messages[:2], messages[2:]
    assert [message.value for message in first] == [message.value for message in again]  # the second is known by its id
    assert [message.key for message in first] == [str(lapsed).encode(), b"77777777"]
    moved, new = (json.loads(message.value) for message in first)
    assert moved | {"timestamp": ""} == {
        "event_id": f"{version}:{lapsed}",
        "customer_id": lapsed,
        "previous_segment_id": 4,
        "previous_segment": "At-Risk",
        "segment_id": 0,
        "segment": "Champions",
        "publication": version,
        "as_of": "2019-12-31",
        "timestamp": "",
    }
    assert (new["previous_segment_id"], new["segment_id"]) == (None, after[77_777_777])
    assert announcements.pending() is None
    assert dict(first[0].headers) == {"schema_version": b"1"}


async def told(announcements: Announcements, kafka: KafkaBroker) -> list[Any]:
    """The messages of an attempt that dies before it takes them for told, and of the next one."""
    prefix = f"t{uuid.uuid4().hex[:8]}."
    settings = StreamSettings(
        _env_file=None,
        kafka_bootstrap_servers=kafka.bootstrap_servers,
        kafka_topic_prefix=prefix,
        kafka_partitions=1,
    )
    sender = Sender(Broker(settings))
    changes = announcements.pending()
    assert changes is not None
    await sender.send(list(changes.messages()))
    assert await announce(announcements, sender) == 2
    assert await announce(announcements, sender) == 0
    await sender.close()
    place = TopicPartition(f"{prefix}segment_changed", 0)
    async with Broker(settings).reader([place]) as reader:
        await reader.seek_to_beginning(place)
        return [await asyncio.wait_for(reader.getone(), 20) for _ in range(4)]


def test_an_event_is_answered_within_a_minute_and_freshness_says_so(
    home: WorkerSettings, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """`insight stream run` without Kafka; how long it takes is printed, and has the test's patience for its limit."""
    environment = {
        "INSIGHT_WAREHOUSE_URL": home.warehouse_url,
        "INSIGHT_PUBLICATION_DIR": str(home.publication_dir),
        "INSIGHT_STREAM_REFRESH_S": "5",
        "PATH": str(Path(sys.executable).parent),
    }
    insight = Path(sys.executable).with_name("insight")
    published = Published(data=Path(), settings=home, version="")
    with (
        subprocess.Popen(
            [insight, "stream", "run"], env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL
        ) as running,
        TestClient(create_app(service_settings(published, auth=AuthMode.OFF))) as client,
    ):
        try:
            time.sleep(2)
            play(home, BITCOIN, tmp_path, price("2019-04-01T00:00:00+00:00", 4_242.0, 1.0))
            began = time.monotonic()
            question = {"metrics": ["bitcoin_price_latest"]}
            while client.post("/v1/query", json=question).json()["data"] != [{"bitcoin_price_latest": 4_242.0}]:
                assert time.monotonic() - began < 180, "the event was never answered"
                time.sleep(0.2)
            seconds = time.monotonic() - began
            sources = {source["name"]: source for source in client.get("/v1/freshness").json()["sources"]}
            assert sources["bitcoin"]["data_through"] == "2019-04-01"
        finally:
            running.terminate()
            assert running.wait(timeout=60) == 0
    record_property("counts", f"Freshness: from the event to its answer {seconds:.1f} s (the goal: 60 s)")
