"""Long queries while processes die: each ends once, with its rows or with a clear failure, and none is left behind."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from api.keys import ApiKeys
from api.state import open_state
from tests.altered import HALF_A_SECOND, NEVER, altered_publication, slowed
from tests.conftest import Published
from tests.server import Server
from tests.services import running_postgres

# On a machine that does other things besides.
END_S = 120.0

COUNT = {"metrics": ["line_count"], "group_by": ["customer"]}
LINES = {"metrics": ["line_count"], "group_by": ["sale"]}


class Replica(Server):
    """A service process with a client, which may be killed and started again on the same port."""

    def __init__(self, home: Path, *, publications: Path, key: str, **settings: object) -> None:
        # Without a folder of its own, beside a PostgreSQL the audit goes to the current one.
        given = {"deferred_lease_s": 2, "query_timeout_s": 120, "audit_dir": home / "audit"}
        super().__init__(publications, home, **(given | settings))
        self.asking = self.client(key)

    def started(self) -> Replica:
        """Itself, once it answers queries."""
        self.start()
        return self

    def stop(self) -> int:
        """The exit code, after a SIGTERM."""
        self.terminate()
        code, self._process = self.process.wait(timeout=30), None
        return code

    def close(self) -> None:
        self.kill()
        self.asking.close()

    def submit(self, query: dict[str, Any]) -> str:
        response = self.asking.post("/v1/queries", json=query)
        assert response.status_code == 202, response.text
        return str(response.headers["location"])

    def left(self, path: str, *states: str) -> dict[str, Any]:
        """The query, once it is in none of the states."""
        deadline = time.monotonic() + END_S
        while (found := self.asking.get(path).json())["state"] in states:
            assert time.monotonic() < deadline, found
            time.sleep(0.02)
        return dict(found)

    def rows(self, path: str) -> list[dict[str, Any]]:
        response = self.asking.get(f"{path}/results", params={"page_size": 50_000})
        assert response.status_code == 200, response.text
        rows: list[dict[str, Any]] = response.json()["data"]
        return rows

    def logged(self, event: str) -> list[dict[str, Any]]:
        """What the process said of the event, in all its lives; the last line may be cut."""
        lines = [line for line in self.log.splitlines() if event in line and line.endswith("}")]
        return [line for line in map(json.loads, lines) if line["event"] == event]


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
        return altered_publication(self._published, self.home / "publications", slowed(steps=steps, copies=copies))

    def replica(self, publications: Path, **settings: object) -> Replica:
        """A replica that is not started yet."""
        made = Replica(self.home, publications=publications, key=self._key, state_url=self.state_url, **settings)
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


@pytest.fixture(params=[pytest.param("sqlite", marks=pytest.mark.full), "postgresql"])
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
    replica = fleet.replica(fleet.slowed(steps=HALF_A_SECOND)).started()
    expected = replica.asking.post("/v1/query", json=COUNT).json()["data"]
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
    replica = sqlite_fleet.replica(sqlite_fleet.slowed(copies=60)).started()

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
        last = replica.asking.get(f"{path}/results", params={"page": pages, "page_size": 50_000}).json()
        assert len(last["data"]) == ended["row_count"] - 50_000 * (pages - 1)
        replica.asking.delete(path)
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
    dying = fleet.replica(fleet.slowed(steps=NEVER), deferred_running=2).started()
    paths = [dying.submit(COUNT | {"limit": limit}) for limit in (1, 2, 3)]
    for path in paths[:2]:
        assert dying.left(path, "queued")["state"] == "running"
    dying.kill()

    other = fleet.replica(fleet.unslowed).started()
    ended = [other.left(path, "queued", "running") for path in paths]

    assert [(query["state"], query["attempts"]) for query in ended] == [("succeeded", 2)] * 2 + [("succeeded", 1)]
    assert [len(other.rows(path)) for path in paths] == [1, 2, 3]


def test_a_service_that_is_told_to_stop_leaves_its_queries_to_the_next_at_once(sqlite_fleet: Fleet) -> None:
    endless = sqlite_fleet.slowed(steps=NEVER)
    stopping = sqlite_fleet.replica(endless, deferred_lease_s=3600).started()
    path = stopping.submit(COUNT)
    assert stopping.left(path, "queued")["state"] == "running"

    assert stopping.stop() == 0
    assert sqlite_fleet.ask("select state, attempts from deferred_queries") == [("queued", 0)]
    ended = sqlite_fleet.replica(sqlite_fleet.unslowed).started().left(path, "queued", "running")
    assert (ended["state"], ended["attempts"]) == ("succeeded", 1)
