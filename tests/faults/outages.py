"""R6: a warehouse that nobody can have, while messages come in and questions are asked."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Timer
from typing import Literal

import httpx

from tests.conftest import Published
from tests.faults import questions
from tests.faults.load import Reply, at_a_rate, problems
from tests.kafka import KafkaBroker
from tests.server import Server
from tests.services import free_port
from tests.streams import VERSION_1, Sent, Stream, price, streaming

EVENTS = 10_000
QUESTIONS_PER_S = 4
CAUGHT_UP_S = 60

_HOLD = """
import duckdb, sys, time
while True:
    try: held = duckdb.connect(sys.argv[1]); break
    except duckdb.IOException: time.sleep(0.01)
print('held', flush=True); time.sleep(float(sys.argv[2]))
"""

Kind = Literal["locked", "away"]


@dataclass(slots=True, kw_only=True)
class Outage:
    """What goes on while nobody can have the warehouse; `over` returns when it is there again."""

    kind: Kind
    seconds: float
    ends_at: float
    over: Callable[[], None]
    replies: Future[list[Reply]]


@dataclass(slots=True, kw_only=True)
class Deployment:
    """A consumer that loads into a warehouse, and a service that answers from what was last published of it."""

    stream: Stream
    service: Server
    version: str
    health_port: int
    asker: ThreadPoolExecutor
    sent: Sent = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=itertools.count)
    holders: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def begin(self, kind: Kind, seconds: float) -> Outage:
        """Take the warehouse away for so long, send messages and ask questions; returns at once."""
        over = self._lock(seconds) if kind == "locked" else self._move(seconds)
        ends_at = time.monotonic() + seconds
        replies = self.asker.submit(asyncio.run, self._ask(seconds))
        self.send(EVENTS)
        return Outage(kind=kind, seconds=seconds, ends_at=ends_at, over=over, replies=replies)

    def end(self, outage: Outage) -> str:
        """Wait until it is over; everything must have been loaded and answered. The counts, in words."""
        if time.monotonic() < outage.ends_at - 2:
            sign = "is in use by another process" if outage.kind == "locked" else "is gone"
            self.stream.wait_until(lambda: sign in str(self.health()["holding"]), what=f"the reason {sign!r}")
        outage.over()
        caught_up_s = self.stream.wait_for_all(self.sent, timeout_s=CAUGHT_UP_S)
        replies = outage.replies.result()
        assert problems(replies, self.version) == Counter()
        assert len(replies) > outage.seconds * QUESTIONS_PER_S / 2
        by_status = Counter(reply.status for reply in replies)
        assert by_status[200] > len(replies) / 2
        told = ", ".join(f"{count} answers of status {status}" for status, count in sorted(by_status.items()))
        return f"{outage.kind} for {outage.seconds:g} s, {told}, caught up in {caught_up_s:.1f} s"

    def send(self, count: int) -> None:
        """Send so many good messages."""
        numbers = list(itertools.islice(self.numbers, count))
        self.sent |= self.stream.send(
            {("bitcoin", place): [(price(number), VERSION_1) for number in numbers[place::2]] for place in (0, 1)}
        )

    def health(self) -> dict[str, object]:
        """What the consumer says of itself, which must be that it is well."""
        answer = httpx.get(f"http://127.0.0.1:{self.health_port}/healthz")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def _ask(self, seconds: float) -> list[Reply]:
        async with self.service.async_client() as client:
            until = time.perf_counter() + seconds
            return await at_a_rate([client], questions.sales, per_s=QUESTIONS_PER_S, until=until)

    def _lock(self, seconds: float) -> Callable[[], None]:
        command = [sys.executable, "-c", _HOLD, str(self.stream.warehouse), str(seconds)]
        holder = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        holder.stdout.close()
        self.holders.append(holder)

        def over() -> None:
            assert holder.wait() == 0

        return over

    def _move(self, seconds: float) -> Callable[[], None]:
        """As if the disk were gone: the folder, with all that is in it."""
        folder = self.stream.warehouse.parent
        away = folder.rename(folder.with_name("away"))
        made_anew: list[Path] = []

        def bring_back() -> None:
            made_anew.extend(folder.rglob("*"))
            away.rename(folder)

        timer = Timer(seconds, bring_back)
        timer.start()

        def over() -> None:
            timer.join()
            assert made_anew == [], "somebody made a new warehouse"

        return over


@contextmanager
def deployed(kafka: KafkaBroker, synthetic: Published, folder: Path) -> Iterator[Deployment]:
    """A deployment over a copy of what is published, for the length of the block; some messages are loaded."""
    port, home = free_port(), folder / "home"
    shutil.copytree(synthetic.settings.publication_dir, home / "publications")
    with streaming(kafka, home, INSIGHT_STREAM_PORT=str(port)) as stream, ThreadPoolExecutor(1) as asker:
        stream.warehouse.parent.mkdir()
        shutil.copy(synthetic.warehouse, stream.warehouse)
        stream.create_topics({"bitcoin": 2})
        stream.start()
        service = Server(home / "publications", folder)
        service.start()
        made = Deployment(stream=stream, service=service, version=synthetic.version, health_port=port, asker=asker)
        try:
            made.send(10)
            stream.wait_for_all(made.sent)
            yield made
        finally:
            service.kill()
            for holder in made.holders:
                holder.kill()
                holder.wait()
