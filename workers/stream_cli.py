"""The commands of the streams: `insight stream …`."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from workers.broker import Broker
    from workers.settings import WorkerSettings
    from workers.stream_settings import StreamSettings

commands = typer.Typer(no_args_is_help=True, help="Events: produce, consume, replay; see how far the warehouse is.")
dead_letters = typer.Typer(no_args_is_help=True, help="Messages that were rejected.")
commands.add_typer(dead_letters, name="deadletters")

AsJson = Annotated[bool, typer.Option("--json", help="The outcome as JSON on stdout.")]
Topics = Annotated[list[str] | None, typer.Option("--topic", help="One of bitcoin, news, sales; all, if left out.")]

_QUIET_S = 10.0
_RATE_SPAN = timedelta(minutes=1)


@commands.command("produce")
def produce(
    source: Annotated[str, typer.Argument(help="bitcoin (CoinGecko), news (NewsAPI), or sales.")],
    file: Annotated[
        Path | None, typer.Option(help="For sales: a CSV of lines to replay; without, the shops' webhooks are served.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Lines a second; as fast as can be, if left out.")
    ] = None,
) -> None:
    """Send events until stopped: poll an API, replay a file of sales, or take orders from a shop."""
    from workers.streaming import poll, run_until_stopped, serve_webhooks

    _, settings = _settings()
    _log_to_stderr(settings)
    if source != "sales":
        run_until_stopped(partial(poll, name=source, settings=settings))
    elif file is None:
        run_until_stopped(partial(serve_webhooks, settings=settings))
    else:
        _replay_to_kafka(file, "sales", rate=rate, settings=settings, as_json=False)


@commands.command("consume")
def consume() -> None:
    """Load what is in the topics, and what comes, until stopped (SIGTERM, ctrl-C)."""
    from workers.streaming import consume as consume_until_stopped
    from workers.streaming import run_until_stopped

    worker, settings = _settings()
    _log_to_stderr(settings)
    run_until_stopped(partial(consume_until_stopped, worker=worker, settings=settings))


@commands.command("run")
def run() -> None:
    """Consume, where there is a Kafka, and publish what has come, until stopped."""
    from workers.streaming import run_all, run_until_stopped

    worker, settings = _settings()
    _log_to_stderr(settings)
    run_until_stopped(partial(run_all, worker=worker, settings=settings))


@commands.command("replay")
def replay(
    file: Annotated[Path, typer.Argument(help="A recording: .jsonl, .json, or for sales .csv.")],
    topic: Annotated[str, typer.Option(help="bitcoin, news or sales.")],
    rate: Annotated[float | None, typer.Option(min=0.001, help="With Kafka: messages a second.")] = None,
    as_json: AsJson = False,
) -> None:
    """Replay a recording: into Kafka, or, where there is none, straight into the warehouse."""
    worker, settings = _settings()
    if settings.kafka_bootstrap_servers:
        _replay_to_kafka(file, topic, rate=rate, settings=settings, as_json=as_json)
    else:
        _replay_to_warehouse(file, topic, worker=worker, as_json=as_json)


@commands.command("status")
def status(as_json: AsJson = False) -> None:
    """Show how far the warehouse is: lag, rate and dead letters of every partition."""
    from workers.sinks import open_warehouse
    from workers.stream_status import read_status

    worker, settings = _settings()
    with open_warehouse(worker.warehouse_url) as warehouse:
        rows = asyncio.run(
            read_status(warehouse, settings=settings, since=datetime.now(UTC) - _RATE_SPAN, span=_RATE_SPAN)
        )
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], default=str))
        return
    heads = ("topic", "partition", "at offset", "lag", "loaded", "per second", "rejected", "last load")
    table = Table(*heads, box=SIMPLE_HEAD, caption="rate: over the last minute, of the topic")
    for row in rows:
        lag = "?" if row.lag is None else f"{row.lag:,}"
        last = "never" if row.updated_at is None else f"{row.updated_at:%Y-%m-%d %H:%M:%S}"
        counts = (f"{row.loaded:,}", f"{row.topic_per_second:,.1f}", f"{row.rejected:,}")
        table.add_row(row.topic, str(row.partition), f"{row.next_offset:,}", lag, *counts, last)
    Console().print(table if rows else "Nothing was streamed yet.")


@commands.command("skip")
def skip(
    topic: Annotated[str, typer.Argument(help="The topic's name in the cluster.")],
    partition: Annotated[int, typer.Argument(min=0)],
    offset: Annotated[int, typer.Argument(min=0, help="Where to go on.")],
) -> None:
    """Go on at an offset: what lies before it and was not loaded is given up."""
    from workers.sinks import open_warehouse

    worker, _ = _settings()
    with open_warehouse(worker.warehouse_url) as warehouse:
        warehouse.skip_to((topic, partition), offset)
    typer.echo(f"{topic}/{partition} goes on at offset {offset}")


@dead_letters.command("list")
def list_dead_letters(topic: Topics = None, as_json: AsJson = False) -> None:
    """Show the dead letters: where each came from, and what is wrong with it."""
    from workers.dead_letters import read_dead_letters

    broker = _broker()
    names = _full_names(broker, topic)

    async def read() -> list[dict[str, Any]]:
        return [asdict(letter) async for letter in read_dead_letters(broker, names)]

    letters = asyncio.run(read())
    if as_json:
        typer.echo(json.dumps(letters))
        return
    table = Table("topic", "partition", "offset", "error", "what is wrong", "failed at", box=SIMPLE_HEAD)
    for letter in letters:
        origin = (letter["origin_topic"], str(letter["origin_partition"]), str(letter["origin_offset"]))
        table.add_row(*origin, letter["error_class"], letter["error_text"], letter["failed_at"])
    Console().print(table if letters else "There are no dead letters.")


@dead_letters.command("replay")
def replay_dead_letters(topic: Topics = None, as_json: AsJson = False) -> None:
    """Send dead letters back to their topics: each that was not sent back before, once."""
    from workers.dead_letters import replay_dead_letters as send_back

    broker = _broker()
    sent = asyncio.run(send_back(broker, _full_names(broker, topic)))
    typer.echo(json.dumps({"sent": sent}) if as_json else f"{sent:,} dead letters were sent back")


def _replay_to_warehouse(file: Path, topic: str, *, worker: WorkerSettings, as_json: bool) -> None:
    from workers.messages import find_topic
    from workers.recordings import replay as replay_recording
    from workers.sinks import open_warehouse

    with open_warehouse(worker.warehouse_url) as warehouse, _progress() as progress:
        warehouse.ensure_raw_tables()
        task = progress.add_task("Replaying", total=None)
        report = replay_recording(
            file, find_topic(topic), warehouse=warehouse, progress=lambda count: progress.advance(task, count)
        )
    told = f"{report.messages:,} messages: {report.loaded:,} loaded now, {report.rejected:,} rejected now"
    typer.echo(json.dumps(asdict(report)) if as_json else told)


def _replay_to_kafka(file: Path, topic: str, *, rate: float | None, settings: StreamSettings, as_json: bool) -> None:
    from workers.messages import find_topic
    from workers.streaming import send_recording

    with _progress() as progress:
        task = progress.add_task("Sending", total=None)
        sent, unusable = asyncio.run(
            send_recording(
                file,
                find_topic(topic),
                rate=rate,
                settings=settings,
                progress=lambda count: progress.advance(task, count),
            )
        )
    told = f"{sent:,} messages sent, {unusable:,} could not be made"
    typer.echo(json.dumps({"topic": topic, "sent": sent, "unusable": unusable}) if as_json else told)


def _progress() -> Progress:
    columns = (SpinnerColumn(), TextColumn("{task.description} {task.completed:,}"), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True))


def _settings() -> tuple[WorkerSettings, StreamSettings]:
    from workers.settings import read_settings
    from workers.stream_settings import read_stream_settings

    return read_settings(), read_stream_settings()


def _broker() -> Broker:
    from workers.broker import Broker

    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    return Broker(_settings()[1])


def _full_names(broker: Broker, topics: list[str] | None) -> list[str]:
    from workers.messages import TOPICS, find_topic

    return [broker.full_name(find_topic(name)) for name in topics or TOPICS]


def _log_to_stderr(settings: StreamSettings) -> None:
    from api.logs import configure_logging
    from api.settings import LogLevel

    configure_logging(LogLevel(settings.log_level))
    # At debug they show what they send: a password that signs in, a key in an address.
    for library in ("aiokafka", "httpx2", "httpcore2", "snowflake", "urllib3", "botocore"):
        logging.getLogger(library).setLevel(logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_Sparse())


class _Sparse(logging.Filter):
    """Lets what aiokafka says pass once in ten seconds: it says the same ten times a second while a broker is away."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith("aiokafka"):
            return True
        is_due = record.created - self._said.get(record.msg, 0.0) > _QUIET_S
        if is_due:
            self._said[record.msg] = record.created
        return is_due
