"""The commands of the streams: `insight stream …`."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from workers.broker import Broker
    from workers.stream_settings import StreamSettings

commands = typer.Typer(no_args_is_help=True, help="Events: produce, consume, replay; see how far the warehouse is.")
dead_letters = typer.Typer(no_args_is_help=True, help="Messages that were rejected.")
commands.add_typer(dead_letters, name="deadletters")

AsJson = Annotated[bool, typer.Option("--json", help="The outcome as JSON on stdout.")]
Topics = Annotated[list[str] | None, typer.Option("--topic", help="One of bitcoin, news, sales; all, if left out.")]


@commands.command("consume")
def consume() -> None:
    """Load what is in the topics, and what comes, until stopped (SIGTERM, ctrl-C)."""
    from workers.meters import ConsumerMeters, serving
    from workers.runtime import Consumer
    from workers.settings import read_settings
    from workers.sinks import open_warehouse

    settings, broker = _broker()
    _log_to_stderr()
    meters = ConsumerMeters()
    patience = timedelta(seconds=settings.stream_lock_timeout_s)
    with (
        open_warehouse(read_settings().warehouse_url, lock_timeout=patience) as warehouse,
        serving(meters, host=settings.stream_host, port=settings.stream_port),
    ):
        consumer = Consumer(broker=broker, warehouse=warehouse, settings=settings, meters=meters)

        async def run() -> None:
            await consumer.run(_stopped_by_signal())

        asyncio.run(run())


@dead_letters.command("list")
def list_dead_letters(topic: Topics = None, as_json: AsJson = False) -> None:
    """Show the dead letters: where each came from, and what is wrong with it."""
    from workers.dead_letters import read_dead_letters

    _, broker = _broker()
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
    from workers.dead_letters import replay_dead_letters as replay

    _, broker = _broker()
    sent = asyncio.run(replay(broker, _full_names(broker, topic)))
    typer.echo(json.dumps({"sent": sent}) if as_json else f"{sent:,} dead letters were sent back")


def _broker() -> tuple[StreamSettings, Broker]:
    from workers.broker import Broker
    from workers.stream_settings import read_stream_settings

    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    settings = read_stream_settings()
    return settings, Broker(settings)


def _full_names(broker: Broker, topics: list[str] | None) -> list[str]:
    from workers.messages import TOPICS, find_topic

    return [broker.full_name(find_topic(name)) for name in topics or TOPICS]


def _log_to_stderr() -> None:
    from api.logs import configure_logging

    configure_logging()
    # At debug they show what they send: a password that signs in, a key in an address.
    for library in ("aiokafka", "httpx", "httpcore"):
        logging.getLogger(library).setLevel(logging.WARNING)


def _stopped_by_signal() -> asyncio.Event:
    """Set when the process is told to stop; a second signal ends it at once."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop(number: int) -> None:
        stopping.set()
        loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    return stopping
