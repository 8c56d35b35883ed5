"""The long-running commands of the streams, wired: consumer, producers, webhooks, and the loop that publishes."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any, Final

import httpx2
import structlog

from outgoing import GuardedTransport
from workers.announcing import Announcements, announce
from workers.broker import Broker
from workers.errors import BrokerAway, SettingError
from workers.messages import Outgoing, Topic
from workers.meters import ConsumerMeters, serving
from workers.pipeline import build_database
from workers.producers.coingecko import CoinGecko
from workers.producers.ledger import Ledger
from workers.producers.newsapi import NewsApi
from workers.producers.polling import TIMEOUT, Poller
from workers.producers.sources import Api, Budget, Source
from workers.producers.webhooks import Shop, create_webhooks, read_shopify_order, read_woocommerce_order
from workers.publish import PublicationStore
from workers.recordings import read_recording
from workers.runtime import Consumer
from workers.sending import Sender
from workers.settings import WorkerSettings
from workers.sinks import open_warehouse
from workers.stream_settings import StreamSettings

_log = structlog.get_logger(__name__)

MONTH: Final = timedelta(days=31)
_SENT_AT_ONCE: Final = 500
_KILL_AFTER_S: Final = 5.0


def run_until_stopped(work: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Do the work, which ends when its event is set: by SIGTERM or SIGINT; a second one ends the process at once."""

    async def run() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()

        def stop(number: int) -> None:
            _log.info("stopping", signal=signal.Signals(number).name)
            stopping.set()
            loop.remove_signal_handler(number)

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number)
        await work(stopping)

    asyncio.run(run())


async def consume(stopping: asyncio.Event, *, worker: WorkerSettings, settings: StreamSettings) -> None:
    """Consume every topic until told to stop."""
    meters = ConsumerMeters()
    patience = timedelta(seconds=settings.stream_lock_timeout_s)
    with (
        open_warehouse(worker.warehouse_url, lock_timeout=patience) as warehouse,
        serving(meters, host=settings.stream_host, port=settings.stream_port),
    ):
        consumer = Consumer(broker=Broker(settings), warehouse=warehouse, settings=settings, meters=meters)
        await consumer.run(stopping)


async def run_all(stopping: asyncio.Event, *, worker: WorkerSettings, settings: StreamSettings) -> None:
    """Publish what has come, again and again, until told to stop; with a Kafka, consume, and tell who moved."""
    every = timedelta(seconds=settings.stream_refresh_s)
    tasks = [asyncio.create_task(_keep_publishing(stopping, every))]
    if settings.kafka_bootstrap_servers:
        tasks.append(asyncio.create_task(consume(stopping, worker=worker, settings=settings)))
        tasks.append(asyncio.create_task(_keep_announcing(stopping, every, worker=worker, settings=settings)))
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    stopping.set()
    await asyncio.wait(tasks)
    for task in done:
        task.result()


async def _keep_publishing(stopping: asyncio.Event, every: timedelta) -> None:
    """Refresh in a process of its own each time: dbt would keep the event loop, and its memory, for itself."""
    while not stopping.is_set():
        began = monotonic()
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "workers.refreshing", stdout=asyncio.subprocess.DEVNULL, start_new_session=True
        )
        ended = asyncio.create_task(child.wait())
        code = await ended  # to its end, even if told to stop: it is short, and what it has begun is worth having
        log = _log.info if code == 0 else _log.warning
        log("refreshed" if code == 0 else "refresh_failed", seconds=round(monotonic() - began, 1), exit_code=code)
        await _pause(stopping, every.total_seconds() - (monotonic() - began))


async def _keep_announcing(
    stopping: asyncio.Event, every: timedelta, *, worker: WorkerSettings, settings: StreamSettings
) -> None:
    """Tell of customers who are in another segment, whoever published that, until told to stop."""
    store = PublicationStore(worker.publication_dir, keep=worker.keep_publications)
    announcements = Announcements(store, build_database(worker))
    async with _sender(settings) as sender:
        while not stopping.is_set():
            try:
                await announce(announcements, sender)
            except BrokerAway as error:
                _log.warning("holding", reason=error.message, hint=error.hint)
            await _pause(stopping, every.total_seconds())


def polled_source(name: str, settings: StreamSettings) -> tuple[Source, Api]:
    """The source of that topic with where it is and what it allows.

    Raises
    ------
    SettingError
        There is none, or its key is missing.
    """
    if name == "bitcoin":
        per_minute = Budget(requests=settings.coingecko_per_minute, within=timedelta(minutes=1))
        per_month = Budget(requests=settings.coingecko_per_month, within=MONTH)
        every = timedelta(seconds=settings.coingecko_every_s)
        key = settings.coingecko_api_key
        return CoinGecko(), Api(url=settings.coingecko_url, key=key, every=every, budgets=(per_minute, per_month))
    if name == "news":
        if settings.newsapi_api_key is None:
            raise SettingError("NewsAPI answers nobody without a key", hint="Set INSIGHT_NEWSAPI_API_KEY")
        budget = Budget(requests=settings.newsapi_per_half_day, within=timedelta(hours=12))
        every = timedelta(seconds=settings.newsapi_every_s)
        source = NewsApi(country=settings.newsapi_country, categories=settings.newsapi_categories.split(","))
        return source, Api(url=settings.newsapi_url, key=settings.newsapi_api_key, every=every, budgets=(budget,))
    raise SettingError(f"There is no source {name!r}", hint="Choose one of bitcoin, news, sales")


async def poll(stopping: asyncio.Event, name: str, *, settings: StreamSettings) -> None:
    """Ask an API, and send what is news, until told to stop."""
    source, api = polled_source(name, settings)
    guarded = GuardedTransport(settings.internal_hosts)
    async with _sender(settings) as sender, httpx2.AsyncClient(transport=guarded, timeout=TIMEOUT) as client:
        ledger = Ledger(settings.stream_state_file)
        poller = Poller(source, api, client=client, ledger=ledger, send=sender.send)
        _log.info("polling", source=source.name, every_s=api.every.total_seconds())
        await poller.run(stopping)


async def serve_webhooks(stopping: asyncio.Event, *, settings: StreamSettings) -> None:
    """Take orders from shops until told to stop.

    Raises
    ------
    SettingError
        No shop's secret is set.
    """
    from granian.constants import HTTPModes, Interfaces
    from granian.http import HTTP1Settings
    from granian.server.embed import Server

    known = (
        ("shopify", "x-shopify-hmac-sha256", settings.shopify_secret, read_shopify_order),
        ("woocommerce", "x-wc-webhook-signature", settings.woocommerce_secret, read_woocommerce_order),
    )
    shops = [
        Shop(name=name, signature_header=header, secret=secret, lines=read)
        for name, header, secret, read in known
        if secret is not None
    ]
    if not shops:
        raise SettingError(
            "No shop may send orders",
            hint="Set INSIGHT_SHOPIFY_SECRET or INSIGHT_WOOCOMMERCE_SECRET; to replay a file, name it with --file",
        )
    async with _sender(settings) as sender:
        server: Any = Server(  # Granian ships no types
            create_webhooks(shops, sender.send),
            address=settings.webhook_host,
            port=settings.webhook_port,
            interface=Interfaces.ASGI,
            websockets=False,
            log_enabled=False,
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(header_read_timeout=10_000),
        )
        serving_ = asyncio.create_task(server.serve())
        told = asyncio.create_task(stopping.wait())
        _log.info("serving", shops=[shop.name for shop in shops], port=settings.webhook_port)
        await asyncio.wait({serving_, told}, return_when=asyncio.FIRST_COMPLETED)
        server.stop()
        await asyncio.wait({serving_}, timeout=settings.stream_stop_grace_s)
        told.cancel()


async def send_recording(
    path: Path, topic: Topic, *, rate: float | None, settings: StreamSettings, progress: Callable[[int], None]
) -> tuple[int, int]:
    """How many messages of the recording were sent, and how many could not be made; at `rate` messages a second."""
    sent, unusable = 0, 0
    async with _sender(settings) as sender:
        started = monotonic()
        for chunk in _in_chunks(read_recording(path, topic), _SENT_AT_ONCE if rate is None else 1):
            messages = [each for each in chunk if isinstance(each, Outgoing)]
            unusable += len(chunk) - len(messages)
            await _until_sent(sender, messages)
            sent += len(messages)
            progress(len(messages))
            if rate is not None:
                await asyncio.sleep(max(0.0, started + sent / rate - monotonic()))
    return sent, unusable


async def _until_sent(sender: Sender, messages: list[Outgoing]) -> None:
    while messages:
        try:
            await sender.send(messages)
        except BrokerAway as error:
            _log.warning("holding", reason=error.message, hint=error.hint)
            await asyncio.sleep(1)
        else:
            return


def _in_chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:  # messages, or why there is none
    chunk = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


@asynccontextmanager
async def _sender(settings: StreamSettings) -> AsyncIterator[Sender]:
    sender = Sender(Broker(settings))
    try:
        yield sender
    finally:
        await sender.close()


async def _pause(stopping: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await stopping.wait()
    except TimeoutError:
        return
