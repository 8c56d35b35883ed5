"""Places for runs: never more at once, given in turn, and refused early where waiting would be in vain."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from api.admission import Admission, AdmissionCounters, QueueLimits
from api.errors import TooManyRequests, Unavailable
from api.main import create_app
from api.settings import Settings
from tests.altered import altered_publication, sleeping
from tests.api.test_caching import unasked
from tests.api.test_refusals import problem
from tests.conftest import Published, connect

QUEUE = QueueLimits(total=100, per_principal=50, timeout=timedelta(seconds=30))


class House:
    """Runs under an admission, each until it is told to end; remembers who ran in which order."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.order: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []
        self._ends: list[asyncio.Event] = []

    async def ask(self, *names: str) -> None:
        """Ask for a place for each name, in that order; return when all run or wait."""
        for name in names:
            self.tasks.append(asyncio.create_task(self._run(name)))
            await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def end(self) -> None:
        """End the run that began first; return when its place is given on."""
        self._ends.pop(0).set()
        for _ in range(5):
            await asyncio.sleep(0)

    async def _run(self, name: str) -> None:
        async with self.admission.place(name):
            self.order.append(name)
            end = asyncio.Event()
            self._ends.append(end)
            await end.wait()

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks)


@asynccontextmanager
async def house(*, places: int, queue: QueueLimits = QUEUE) -> AsyncIterator[House]:
    made = House(Admission(places=places, queue=queue))
    try:
        yield made
    finally:
        await made.close()
        counters = made.admission.counters()
        assert (counters.running, counters.waiting) == (0, 0), "a place or a turn was lost"


async def test_no_more_run_at_once_than_there_are_places() -> None:
    async with house(places=2) as runs:
        await runs.ask("ann", "ann", "ann", "bob")

        assert runs.order == ["ann", "ann"]
        assert runs.admission.counters() == AdmissionCounters(running=2, waiting=2, admitted=2, shed=0, timed_out=0)


async def test_principals_take_turns_and_each_keeps_its_order() -> None:
    async with house(places=1) as runs:
        await runs.ask("ann", "ann", "ann", "ann", "bob", "cid", "bob")
        for _ in range(6):
            await runs.end()

        assert runs.order == ["ann", "ann", "bob", "cid", "ann", "bob", "ann"]


async def test_one_that_asks_for_much_delays_another_by_one_turn_at_most() -> None:
    async with house(places=1) as runs:
        await runs.ask(*["greedy"] * 40)
        for _ in range(5):
            await runs.end()
        await runs.ask("modest")
        await runs.end()
        await runs.end()

        assert "modest" in runs.order[-2:]


async def test_who_has_its_share_waiting_is_refused_while_others_are_not() -> None:
    queue = QueueLimits(total=10, per_principal=2, timeout=timedelta(seconds=30))
    async with house(places=1, queue=queue) as runs:
        await runs.ask("ann", "ann", "ann")
        with pytest.raises(TooManyRequests) as refused:
            async with runs.admission.place("ann"):
                pass
        await runs.ask("bob")

        assert (refused.value.status, refused.value.code) == (429, "too_many_queries")
        assert refused.value.retry_after >= timedelta(seconds=1)
        assert [task.done() for task in runs.tasks] == [False, False, True, False]  # ann's newest made room for bob
        assert runs.admission.counters().waiting == 2
        assert runs.admission.counters().shed == 2


async def test_a_queue_that_is_full_refuses_everybody_at_once() -> None:
    queue = QueueLimits(total=2, per_principal=2, timeout=timedelta(seconds=30))
    async with house(places=1, queue=queue) as runs:
        await runs.ask("ann", "bob", "cid")
        started = time.perf_counter()
        with pytest.raises(Unavailable) as refused:
            async with runs.admission.place("dan"):
                pass

        assert time.perf_counter() - started < 0.1
        assert (refused.value.status, refused.value.code) == (503, "overloaded")
        assert refused.value.retry_after is not None


@pytest.mark.parametrize(("total", "share"), [(6, 10), (10, 6)], ids=["the queue", "one's share of it"])
async def test_once_the_queue_was_full_few_wait_until_nobody_has_been_refused_for_a_while(
    total: int, share: int
) -> None:
    queue = QueueLimits(total=total, per_principal=share, timeout=timedelta(seconds=30))
    async with house(places=2, queue=queue) as runs:

        async def waiting_after(asked: int) -> int:
            await runs.ask(*["ann"] * asked)
            return runs.admission.counters().waiting

        assert await waiting_after(2 + 6) == 6  # a burst
        assert await waiting_after(1) == 6  # too much
        for _ in range(6):
            await runs.end()
        assert await waiting_after(5) == 2
        await runs.end()
        await runs.end()
        assert await waiting_after(5) == 2  # though nobody waited for an instant
        await runs.end()
        await runs.end()
        await asyncio.sleep(1.2)
        assert await waiting_after(6) == 6  # a burst again


async def test_who_asks_for_little_finds_room_in_a_queue_that_others_have_filled() -> None:
    queue = QueueLimits(total=6, per_principal=5, timeout=timedelta(seconds=30))
    async with house(places=2, queue=queue) as runs:
        await runs.ask(*["ann"] * 6, *["bob"] * 2, *["cid"] * 3)

        refused = {place for place, task in enumerate(runs.tasks) if task.done()}
        assert refused == {5, 9, 10}  # the newest of ann, who had most; cid's beyond its part
        assert runs.admission.counters().waiting == 6
        assert runs.admission.counters().shed == 3
        for _ in range(6):
            await runs.end()
        assert Counter(runs.order) == {"ann": 5, "bob": 2, "cid": 1}


async def test_who_has_nothing_under_way_finds_room_among_many_who_have_one_each_waiting() -> None:
    queue = QueueLimits(total=2, per_principal=2, timeout=timedelta(seconds=30))
    async with house(places=2, queue=queue) as runs:
        await runs.ask("ann", "bob", "ann", "bob", "cid")

        assert [task.done() for task in runs.tasks] == [False, False, True, False, False]
        await runs.end()
        await runs.end()
        assert runs.order == ["ann", "bob", "bob", "cid"]


async def test_without_a_queue_only_who_finds_a_place_runs() -> None:
    queue = QueueLimits(total=0, per_principal=1, timeout=timedelta(seconds=30))
    async with house(places=1, queue=queue) as runs:
        await runs.ask("ann")
        with pytest.raises(Unavailable):
            async with runs.admission.place("bob"):
                pass


async def test_who_waits_too_long_is_told_so_and_leaves_the_queue() -> None:
    queue = QueueLimits(total=10, per_principal=10, timeout=timedelta(seconds=0.2))
    async with house(places=1, queue=queue) as runs:
        await runs.ask("ann")
        started = time.perf_counter()
        with pytest.raises(Unavailable) as refused:
            async with runs.admission.place("bob"):
                pass

        assert 0.15 < time.perf_counter() - started < 2
        assert (refused.value.status, refused.value.code) == (503, "queue_timeout")
        assert runs.admission.counters() == AdmissionCounters(running=1, waiting=0, admitted=1, shed=0, timed_out=1)


async def test_who_would_wait_in_vain_is_refused_before_it_waits() -> None:
    queue = QueueLimits(total=10, per_principal=10, timeout=timedelta(seconds=0.5))
    async with house(places=1, queue=queue) as runs:
        await runs.ask("ann")
        await asyncio.sleep(0.4)  # so long does a run take
        await runs.end()
        await runs.ask("ann", "bob")  # who would wait 0.4 s
        with pytest.raises(Unavailable) as refused:  # and this one 0.8 s
            async with runs.admission.place("cid"):
                pass

        assert refused.value.code == "overloaded"
        assert runs.admission.counters().timed_out == 0


@pytest.mark.parametrize(("others", "least_s", "most_s"), [((), 4, 15), (("cid", "dan"), 12, 45)])
async def test_retry_after_is_the_wait_that_is_to_be_expected(
    others: tuple[str, ...], least_s: float, most_s: float
) -> None:
    queue = QueueLimits(total=100, per_principal=8, timeout=timedelta(seconds=60))
    async with house(places=1, queue=queue) as runs:
        await runs.ask("ann")
        await asyncio.sleep(0.5)  # so long does a run take
        await runs.end()
        await runs.ask("ann", *[name for name in ("bob", *others) for _ in range(8)])
        with pytest.raises(TooManyRequests) as refused:
            async with runs.admission.place("bob"):
                pass

    assert timedelta(seconds=least_s) < refused.value.retry_after < timedelta(seconds=most_s)


async def test_who_goes_away_while_it_waits_leaves_the_queue_and_costs_no_turn() -> None:
    async with house(places=1) as runs:
        await runs.ask("ann", "bob", "cid")
        runs.tasks[1].cancel()
        await asyncio.wait((runs.tasks[1],))
        assert runs.admission.counters().waiting == 1
        await runs.end()

        assert runs.order == ["ann", "cid"]


async def test_a_turn_that_comes_as_its_owner_goes_away_goes_to_the_next() -> None:
    async with house(places=1) as runs:
        await runs.ask("ann", "bob", "cid")
        runs.tasks[0].cancel()  # gives its place to bob, who
        await asyncio.sleep(0)
        runs.tasks[1].cancel()  # is cancelled before he has seen it
        for _ in range(5):
            await asyncio.sleep(0)

        assert runs.order == ["ann", "cid"]


async def test_no_place_is_lost_or_made_whatever_happens_in_which_order() -> None:
    queue = QueueLimits(total=20, per_principal=8, timeout=timedelta(seconds=0.02))
    admission = Admission(places=3, queue=queue)
    chance = random.Random(7)
    running = most = 0
    outcomes: Counter[str] = Counter()

    async def run(name: str, *, lasts_s: float | None = None) -> None:
        nonlocal running, most
        try:
            async with admission.place(name):
                running += 1
                most = max(most, running)
                try:
                    await asyncio.sleep(chance.random() * 0.01 if lasts_s is None else lasts_s)
                finally:
                    running -= 1
        except (TooManyRequests, Unavailable) as error:
            outcomes[error.code] += 1
        else:
            outcomes["ran"] += 1

    # Behind three that last, the fourth waits in vain, however fast the machine is.
    tasks = [asyncio.create_task(run("a", lasts_s=0.2)) for _ in range(3)] + [asyncio.create_task(run("b"))]
    await asyncio.wait(tasks)
    for _ in range(2_000):
        task = asyncio.create_task(run(chance.choice("abcde")))
        tasks.append(task)
        if chance.random() < 0.3:
            asyncio.get_running_loop().call_later(chance.random() * 0.03, task.cancel)
        if chance.random() < 0.3:
            await asyncio.sleep(chance.random() * 0.004)
    await asyncio.wait(tasks)

    assert most == 3
    counters = admission.counters()
    assert (counters.running, counters.waiting) == (0, 0)
    assert counters.timed_out == outcomes["queue_timeout"]
    assert counters.shed == outcomes["overloaded"] + outcomes["too_many_queries"]
    assert {"ran", "queue_timeout", "overloaded"} <= set(outcomes)
    assert [task.exception() for task in tasks if not task.cancelled() and task.exception()] == []


# Through the service


@asynccontextmanager
async def serving(slow: Path, state: Path, **settings: Any) -> AsyncIterator[tuple[httpx.AsyncClient, FastAPI]]:
    app = create_app(
        Settings(_env_file=None, publication_dir=slow, state_url=f"sqlite:///{state}", auth="off", **settings)
    )
    async with app.router.lifespan_context(app), connect(app) as client:
        yield client, app


@pytest.fixture(scope="module")
def slow(synthetic: Published, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Publications in which whatever reads the sales takes half a second, without work for the machine."""
    return altered_publication(synthetic, tmp_path_factory.mktemp("slow"), sleeping(0.5))


async def test_queries_beyond_the_places_wait_for_their_turn(slow: Path, tmp_path: Path) -> None:
    async with serving(slow, tmp_path / "state.db", pool_size=4) as (client, _):
        await client.post("/v1/query", json=unasked())  # the plan
        started = time.perf_counter()
        answers = await asyncio.gather(*(client.post("/v1/query", json=unasked()) for _ in range(8)))

    assert [answer.status_code for answer in answers] == [200] * 8
    assert time.perf_counter() - started > 0.95


async def test_a_query_that_waits_is_answered_at_the_queue_time_out_and_not_when_a_run_ends(
    slow: Path, tmp_path: Path
) -> None:
    async with serving(slow, tmp_path / "state.db", pool_size=1, queue_timeout_s=0.1) as (client, _):
        running = asyncio.create_task(client.post("/v1/query", json=unasked()))
        await asyncio.sleep(0.2)
        refused = await client.post("/v1/query", json=unasked())

        assert not running.done()
        problem(refused, 503, "queue_timeout")
        assert int(refused.headers["retry-after"]) >= 1
        assert (await running).status_code == 200


async def test_the_query_time_out_begins_when_the_run_begins(slow: Path, tmp_path: Path) -> None:
    async with serving(slow, tmp_path / "state.db", pool_size=1, query_timeout_s=0.9) as (client, _):
        answers = await asyncio.gather(*(client.post("/v1/query", json=unasked()) for _ in range(3)))

    assert [answer.status_code for answer in answers] == [200] * 3


async def test_what_is_kept_or_shared_is_answered_while_every_place_is_taken(slow: Path, tmp_path: Path) -> None:
    settings = {"pool_size": 1, "queue_size": 0, "query_timeout_s": 30}
    async with serving(slow, tmp_path / "state.db", **settings) as (client, _):
        kept, running = unasked(), unasked()
        await client.post("/v1/query", json=kept)
        flights = [asyncio.create_task(client.post("/v1/query", json=running)) for _ in range(5)]
        await asyncio.sleep(0.2)
        refused = await client.post("/v1/query", json=unasked())
        again = await client.post("/v1/query", json=kept)

        problem(refused, 503, "overloaded")
        assert again.json()["meta"]["cache"]["result"] == "hit"
        assert not any(flight.done() for flight in flights)
        assert {(await flight).status_code for flight in flights} == {200}


async def test_one_principals_share_is_a_429_that_says_when_to_come_again(slow: Path, tmp_path: Path) -> None:
    settings = {"pool_size": 1, "queue_size_per_principal": 1}
    async with serving(slow, tmp_path / "state.db", **settings) as (client, _):
        answers = await asyncio.gather(*(client.post("/v1/query", json=unasked()) for _ in range(4)))

    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(refused) == 2
    for answer in refused:
        problem(answer, 429, "too_many_queries")
        assert int(answer.headers["retry-after"]) >= 1


async def test_a_publication_that_is_replaced_answers_those_that_wait_for_it(
    slow: Path, synthetic: Published, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(slow, tmp_path / "publications"))
    version = (folder / "current").read_text().strip()
    later = f"{version[:-1]}{'0' if version[-1] != '0' else '1'}"
    shutil.copytree(folder / version, folder / later)
    record = json.loads((folder / later / "publication.json").read_text())
    (folder / later / "publication.json").write_text(json.dumps(record | {"version": later}))
    settings = {"pool_size": 1, "publication_poll_s": 0.1}
    async with serving(folder, tmp_path / "state.db", **settings) as (client, _):
        waiting = [asyncio.create_task(client.post("/v1/query", json=unasked())) for _ in range(4)]
        await asyncio.sleep(0.2)
        (folder / "current").write_text(later)
        answers = [await task for task in waiting]

        assert [answer.json()["meta"]["publication"] for answer in answers] == [version] * 4
        assert (await client.post("/v1/query", json=unasked())).json()["meta"]["publication"] == later
