"""Long queries while processes die: each ends once, with its rows or with a clear failure, and none is left behind."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from api.keys import ApiKeys
from api.state import open_state
from tests.conftest import Published
from tests.services import free_port, running_postgres
from tests.slow_marts import HALF_A_SECOND, NEVER, slow_publications

INSIGHT = str(Path(sys.executable).with_name("insight"))

# On a machine that does other things besides.
START_S = 60.0
END_S = 120.0

COUNT = {"metrics": ["line_count"], "group_by": ["customer"]}
LINES = {"metrics": ["line_count"], "group_by": ["sale"]}


class Replica:
    """A service process, which may be killed and started again on the same port."""

    def __init__(self, home: Path, *, publications: Path, state_url: str, key: str, **settings: object) -> None:
        port = free_port()
        self._home = home
        self._log = home / f"{port}.log"
        given = {
            "publication_dir": publications,
            "state_url": state_url,
            "port": port,
            "deferred_lease_s": 2,
            "query_timeout_s": 120,
        } | settings
        self._environment = os.environ | {f"INSIGHT_{name}".upper(): str(value) for name, value in given.items()}
        self._process: subprocess.Popen[bytes] | None = None
        headers = {"Authorization": f"Bearer {key}"}
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60)

    def start(self) -> Replica:
        """Itself, once it answers queries."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([INSIGHT, "serve"], env=self._environment, cwd=self._home, stderr=log)
        deadline = time.monotonic() + START_S
        while not self._is_ready():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.05)
        return self

    def kill(self) -> None:
        """Return when the process is gone, as by a power cut. Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> int:
        """The exit code, after a SIGTERM."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        code, self._process = self._process.wait(timeout=30), None
        return code

    def close(self) -> None:
        self.kill()
        self.client.close()

    def submit(self, query: dict[str, Any]) -> str:
        response = self.client.post("/v1/queries", json=query)
        assert response.status_code == 202, response.text
        return str(response.headers["location"])

    def left(self, path: str, *states: str) -> dict[str, Any]:
        """The query, once it is in none of the states."""
        deadline = time.monotonic() + END_S
        while (found := self.client.get(path).json())["state"] in states:
            assert time.monotonic() < deadline, found
            time.sleep(0.02)
        return dict(found)

    def rows(self, path: str) -> list[dict[str, Any]]:
        response = self.client.get(f"{path}/results", params={"page_size": 50_000})
        assert response.status_code == 200, response.text
        rows: list[dict[str, Any]] = response.json()["data"]
        return rows

    def logged(self, event: str) -> list[dict[str, Any]]:
        """What the process said of the event, in all its lives; the last line may be cut."""
        lines = [line for line in self._log.read_text().splitlines() if event in line and line.endswith("}")]
        return [line for line in map(json.loads, lines) if line["event"] == event]

    def _is_ready(self) -> bool:
        try:
            return self.client.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False


class Fleet:
    """Replicas on one state database."""

    def __init__(self, home: Path, published: Published, state_url: str) -> None:
        self.home = home
        self.state_url = state_url
        self._published = published
        self._stack = ExitStack()
        engine = open_state(state_url)
        self._key = ApiKeys(engine).create("faults", role="admin")
        engine.dispose()

    @property
    def unslowed(self) -> Path:
        return self._published.settings.publication_dir

    def slowed(self, *, steps: int = 0, copies: int = 1) -> Path:
        return slow_publications(self._published, self.home, steps=steps, copies=copies)

    def replica(self, publications: Path, **settings: object) -> Replica:
        """A replica that is not started yet."""
        made = Replica(self.home, publications=publications, state_url=self.state_url, key=self._key, **settings)
        self._stack.callback(made.close)
        return made

    def ask(self, statement: str) -> list[Any]:
        """The rows of a statement over the state database."""
        engine = sa.create_engine(self.state_url)
        with engine.connect() as connection:
            rows = list(connection.execute(sa.text(statement)))
        engine.dispose()
        return rows

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def fleet(request: pytest.FixtureRequest, synthetic: Published, tmp_path: Path) -> Iterator[Fleet]:
    """No replica yet, over a state database of either kind."""
    with ExitStack() as stack:
        is_sqlite = request.param == "sqlite"
        url = f"sqlite:///{tmp_path / 'state.db'}" if is_sqlite else stack.enter_context(running_postgres()).url
        made = Fleet(tmp_path, synthetic, url)
        stack.callback(made.close)
        yield made


@pytest.fixture
def sqlite_fleet(synthetic: Published, tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path, synthetic, f"sqlite:///{tmp_path / 'state.db'}")
    yield made
    made.close()


KILLS = [pytest.param(2), pytest.param(40, marks=[pytest.mark.full, pytest.mark.timeout(1_800)])]


@pytest.mark.parametrize("kills", KILLS)
def test_a_service_that_is_killed_again_and_again_loses_no_query_and_doubles_none(fleet: Fleet, kills: int) -> None:
    dice = random.Random(kills)
    replica = fleet.replica(fleet.slowed(steps=HALF_A_SECOND)).start()
    expected = replica.client.post("/v1/query", json=COUNT).json()["data"]
    assert len(expected) > 100

    paths: dict[str, int] = {}
    for _ in range(kills):
        fresh = {replica.submit(COUNT | {"limit": limit}): limit for limit in range(len(paths) + 1, len(paths) + 4)}
        paths |= fresh
        replica.left(next(iter(fresh)), "queued")
        time.sleep(dice.uniform(0, 0.3))
        replica.kill()
        replica.start()
    ended = {path: replica.left(path, "queued", "running") for path in paths}

    assert len(ended) == 3 * kills
    succeeded = {path for path, query in ended.items() if query["state"] == "succeeded"}
    for path in paths:
        if path in succeeded:
            assert replica.rows(path) == expected[: paths[path]]
        else:  # killed three times out of three
            assert ended[path]["error"]["code"] == "query_abandoned"
            assert ended[path]["attempts"] == 3
    assert len(succeeded) >= 2 * kills
    assert max(query["attempts"] for query in ended.values()) > 1
    assert fleet.ask("select count(*) from deferred_rows") == [(len(succeeded),)]
    kept = Counter(line["request_id"] for line in replica.logged("deferred_query_succeeded") if line["is_kept"])
    assert set(kept.values()) == {1}


def test_a_service_that_is_killed_while_it_stores_a_result_stores_it_as_a_whole_the_next_time(
    sqlite_fleet: Fleet,
) -> None:
    replica = sqlite_fleet.replica(sqlite_fleet.slowed(copies=60)).start()

    def size() -> int:
        return sum(file.stat().st_size for file in sqlite_fleet.home.glob("state.db*"))

    for _ in range(6):
        path, before, deadline = replica.submit(LINES), size(), time.monotonic() + END_S
        while size() < before + 500_000:
            assert time.monotonic() < deadline
        replica.kill()
        was_cut_short = sqlite_fleet.ask("select state from deferred_queries order by query_id")[-1] == ("running",)
        assert was_cut_short == (
            sqlite_fleet.ask(f"select count(*) from deferred_rows where query_id = '{Path(path).name}'") == [(0,)]
        )

        replica.start()
        ended = replica.left(path, "queued", "running")
        assert (ended["state"], ended["attempts"]) == ("succeeded", 2 if was_cut_short else 1)
        pages = -(-ended["row_count"] // 50_000)
        assert ended["row_count"] > 500_000
        last = replica.client.get(f"{path}/results", params={"page": pages, "page_size": 50_000}).json()
        assert len(last["data"]) == ended["row_count"] - 50_000 * (pages - 1)
        replica.client.delete(path)
        if was_cut_short:
            return
    pytest.fail("no kill met the service while it stored")


def test_of_two_services_on_one_state_each_query_runs_in_one(fleet: Fleet) -> None:
    publications = fleet.slowed(steps=HALF_A_SECOND // 2)
    one, other = (fleet.replica(publications, deferred_running=1) for _ in range(2))
    one.start(), other.start()
    paths = [one.submit(COUNT | {"limit": limit}) for limit in range(1, 13)]
    ended = [other.left(path, "queued", "running") for path in paths]

    begun = [[line["query_id"] for line in replica.logged("deferred_query_started")] for replica in (one, other)]
    assert [(query["state"], query["attempts"]) for query in ended] == [("succeeded", 1)] * 12
    assert sorted(begun[0] + begun[1]) == sorted(Path(path).name for path in paths)
    assert all(begun)
    assert [len(one.rows(path)) for path in paths] == list(range(1, 13))


def test_a_service_that_dies_is_followed_by_the_other(fleet: Fleet) -> None:
    dying = fleet.replica(fleet.slowed(steps=NEVER), deferred_running=2).start()
    paths = [dying.submit(COUNT | {"limit": limit}) for limit in (1, 2, 3)]
    for path in paths[:2]:
        assert dying.left(path, "queued")["state"] == "running"
    dying.kill()

    other = fleet.replica(fleet.unslowed).start()
    ended = [other.left(path, "queued", "running") for path in paths]

    assert [(query["state"], query["attempts"]) for query in ended] == [("succeeded", 2)] * 2 + [("succeeded", 1)]
    assert [len(other.rows(path)) for path in paths] == [1, 2, 3]


def test_a_service_that_is_told_to_stop_leaves_its_queries_to_the_next_at_once(sqlite_fleet: Fleet) -> None:
    endless = sqlite_fleet.slowed(steps=NEVER)
    stopping = sqlite_fleet.replica(endless, deferred_lease_s=3600).start()
    path = stopping.submit(COUNT)
    assert stopping.left(path, "queued")["state"] == "running"

    assert stopping.stop() == 0
    assert sqlite_fleet.ask("select state, attempts from deferred_queries") == [("queued", 0)]
    ended = sqlite_fleet.replica(sqlite_fleet.unslowed).start().left(path, "queued", "running")
    assert (ended["state"], ended["attempts"]) == ("succeeded", 1)
