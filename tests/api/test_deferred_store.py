"""The tables of long queries: whoever comes and whenever it dies, a query is run by one and ends once, rows and all."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, is_dataclass, replace
from datetime import date, timedelta
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pyarrow as pa
import pytest
import sqlalchemy as sa

from api.answer import Answer
from api.deferred_query import Claim, State
from api.deferred_store import DeferredStore, StoreLimits
from api.errors import Failure, InternalFault, TooManyRequests, Unavailable
from api.pieces import part, pieces
from api.policy import Principal
from api.query import MetricQuery
from api.state import open_state
from tests import services
from tests.services import running_postgres

ADA = Principal(principal_id="ada", name="Ada", role="regional", claims={"regions": ("Chicago", "New York")})
BOB = Principal(principal_id="bob", name="Bob", role="admin")
QUESTION = MetricQuery(metrics=("line_count",), limit=3)
ROOMY = StoreLimits(
    waiting=1_000, waiting_each=1_000, kept_bytes_each=10**9, keep_for=timedelta(hours=1), lease=timedelta(seconds=60)
)
FAILURE = Failure.of(InternalFault("It broke", hint="Mend it."))

required_binary = services.required_binary


@pytest.fixture
def store(state: sa.Engine) -> DeferredStore:
    return DeferredStore(state, ROOMY)


def hasty(state: sa.Engine) -> DeferredStore:
    """A store whose claims lapse in no time."""
    return DeferredStore(state, replace(ROOMY, lease=timedelta()))


def numbers(count: int) -> pa.Table:
    return pa.table({"n": pa.array(range(count), pa.int64()), "text": [f"row {n}" for n in range(count)]})


def answer(table: pa.Table) -> Answer:
    """An answer with these rows; whatever else it says is as small as its type allows."""
    hints = get_type_hints(Answer)
    return Answer(
        table=table, **{item.name: least(hints[item.name]) for item in fields(Answer) if item.name != "table"}
    )


def least(hint: Any) -> Any:
    if type(None) in get_args(hint):
        return None
    if get_origin(hint) is tuple:
        return ()
    if is_dataclass(hint):
        return hint(**{name: least(inner) for name, inner in get_type_hints(hint).items()})
    return next(iter(hint)) if issubclass(hint, Enum) else date(2019, 12, 31) if hint is date else hint()


def claimed(store: DeferredStore) -> Claim:
    claim = store.claim()
    assert claim is not None
    return claim


def state_of(store: DeferredStore, query_id: str, owner: Principal = ADA) -> State:
    found = store.find(owner.principal_id, query_id)
    assert found is not None
    return found.state


# Pieces


@pytest.mark.parametrize("count", [0, 1, 8_191, 8_192, 8_193, 30_000])
def test_a_table_in_pieces_is_the_table(count: int) -> None:
    table = numbers(count)
    found = pieces(table)

    assert part(found, first=0, count=max(count, 1)).equals(table)
    assert sum(piece.row_count for piece in found) == count
    assert [piece.first_row for piece in found] == list(range(0, max(count, 1), 8_192))


@pytest.mark.parametrize(
    ("first", "count"), [(0, 1), (0, 1_024), (8_191, 2), (8_192, 8_192), (16_000, 9_000), (29_999, 50)]
)
def test_any_part_of_a_stored_result_is_read_by_itself(store: DeferredStore, first: int, count: int) -> None:
    table = numbers(30_000)
    query_id = store.add(ADA, QUESTION).query_id
    assert store.succeed(claimed(store), answer(table))

    found = store.rows(query_id, first=first, count=count)
    assert found is not None
    assert found.equals(table.slice(first, count))


def test_a_result_without_rows_keeps_its_columns(store: DeferredStore) -> None:
    query_id = store.add(ADA, QUESTION).query_id
    assert store.succeed(claimed(store), answer(numbers(0)))

    found = store.rows(query_id, first=0, count=100)
    assert found is not None
    assert (found.num_rows, found.column_names) == (0, ["n", "text"])


# Claims


def test_who_asked_and_what_comes_back_as_it_went_in(store: DeferredStore) -> None:
    added = store.add(ADA, QUESTION)
    claim = claimed(store)

    assert (claim.query_id, claim.principal, claim.question, claim.attempt) == (added.query_id, ADA, QUESTION, 1)
    assert (added.state, state_of(store, added.query_id)) == (State.QUEUED, State.RUNNING)
    assert store.claim() is None


def test_of_many_that_claim_at_once_each_query_has_one(store: DeferredStore) -> None:
    expected = {store.add(ADA if n % 2 else BOB, QUESTION).query_id for n in range(40)}
    start = threading.Barrier(8)

    def work() -> list[str]:
        found, idle = [], 0
        start.wait()
        while idle < 5:  # a claim may come back empty while others take what it looked at
            if (claim := store.claim()) is None:
                idle += 1
                continue
            found.append(claim.query_id)
            assert store.succeed(claim, answer(numbers(10)))
        return found

    with ThreadPoolExecutor(8) as threads:
        done = [query_id for worker in [threads.submit(work) for _ in range(8)] for query_id in worker.result()]

    assert sorted(done) == sorted(expected)


def test_a_claim_that_lapsed_is_taken_over_and_its_holder_ends_nothing(state: sa.Engine) -> None:
    store = hasty(state)
    query_id = store.add(ADA, QUESTION).query_id
    dead, alive = claimed(store), claimed(store)

    assert (alive.query_id, alive.attempt) == (query_id, 2)
    assert store.held([dead.token, alive.token]) == {alive.token}
    assert not store.succeed(dead, answer(numbers(5)))
    assert not store.fail(dead, FAILURE)
    store.release(dead)
    assert state_of(store, query_id) is State.RUNNING
    assert store.rows(query_id, first=0, count=1) is None

    assert store.succeed(alive, answer(numbers(7)))
    assert not store.succeed(alive, answer(numbers(7)))
    assert not store.fail(alive, FAILURE)
    found = store.find("ada", query_id)
    assert found is not None
    assert (found.state, found.row_count, found.attempts, found.failure) == (State.SUCCEEDED, 7, 2, None)


def test_a_claim_that_is_renewed_does_not_lapse(state: sa.Engine) -> None:
    query_id = hasty(state).add(ADA, QUESTION).query_id
    claim = claimed(hasty(state))
    DeferredStore(state, ROOMY).renew([claim.token])

    assert hasty(state).claim() is None
    assert DeferredStore(state, ROOMY).succeed(claim, answer(numbers(1)))
    assert state_of(hasty(state), query_id) is State.SUCCEEDED


def test_a_query_is_begun_three_times_at_most(state: sa.Engine) -> None:
    store = hasty(state)
    query_id = store.add(ADA, QUESTION).query_id

    assert [claimed(store).attempt for _ in range(3)] == [1, 2, 3]
    assert store.claim() is None
    failed = store.find("ada", query_id)
    assert failed is not None
    assert failed.failure is not None
    assert (failed.state, failed.failure.code) == (State.FAILED, "query_abandoned")


def test_a_query_that_is_put_back_waits_for_its_pause_and_loses_no_attempt(store: DeferredStore) -> None:
    query_id = store.add(ADA, QUESTION).query_id
    store.release(claimed(store), pause=timedelta(seconds=0.3))

    assert state_of(store, query_id) is State.QUEUED
    assert store.claim() is None
    time.sleep(0.35)
    assert claimed(store).attempt == 1


def test_the_oldest_goes_first_and_principals_take_turns(store: DeferredStore) -> None:
    queued = [store.add(owner, QUESTION).query_id for owner in (ADA, ADA, ADA, BOB, BOB) if not time.sleep(0.002)]

    assert [claimed(store).query_id for _ in queued] == [queued[n] for n in (0, 3, 1, 4, 2)]


# Endings


def test_a_cancelled_query_stays_cancelled_whatever_its_runner_does(store: DeferredStore) -> None:
    query_id = store.add(ADA, QUESTION).query_id
    claim = claimed(store)

    assert [store.end("ada", query_id) for _ in range(2)] == [True, True]
    assert store.held([claim.token]) == frozenset()
    assert not store.succeed(claim, answer(numbers(5)))
    assert not store.fail(claim, FAILURE)
    store.release(claim)
    store.renew([claim.token])
    assert state_of(store, query_id) is State.CANCELLED
    assert store.claim() is None
    assert store.rows(query_id, first=0, count=1) is None


def test_a_query_that_is_cancelled_and_stored_at_once_is_one_of_the_two_as_a_whole(store: DeferredStore) -> None:
    ends = set()
    for _ in range(20):
        query_id = store.add(ADA, QUESTION).query_id
        claim, start = claimed(store), threading.Barrier(2)

        def run(claim: Claim = claim, start: threading.Barrier = start) -> bool:
            start.wait()
            return store.succeed(claim, answer(numbers(20_000)))

        with ThreadPoolExecutor(1) as threads:
            stored = threads.submit(run)
            start.wait()
            assert store.end("ada", query_id)
        found = store.find("ada", query_id)
        assert found is not None
        # Whoever came first won; a result that was stored first was then let go.
        assert (found.state is State.SUCCEEDED) == stored.result() == found.is_expired
        assert store.rows(query_id, first=0, count=1) is None
        ends.add(found.state)
    assert ends <= {State.SUCCEEDED, State.CANCELLED}


def test_nobody_ends_or_finds_a_query_of_somebody_else(store: DeferredStore) -> None:
    query_id = store.add(ADA, QUESTION).query_id

    assert not store.end("bob", query_id)
    assert store.find("bob", query_id) is None
    assert store.recent("bob", before=None, limit=10) == ((), 0)
    assert state_of(store, query_id) is State.QUEUED


def test_there_is_room_for_so_many_and_for_no_more(state: sa.Engine) -> None:
    store = DeferredStore(state, replace(ROOMY, waiting=3, waiting_each=2, kept_bytes_each=1_000))
    for _ in range(2):
        store.add(ADA, QUESTION)
    with pytest.raises(TooManyRequests, match="2 of your queries"):
        store.add(ADA, QUESTION)
    store.add(BOB, QUESTION)
    with pytest.raises(Unavailable, match="3 queries are waiting"):
        store.add(BOB, QUESTION)
    assert store.recent("bob", before=None, limit=10)[1] == 1

    for _ in range(3):
        store.succeed(claimed(store), answer(numbers(10_000)))
    with pytest.raises(TooManyRequests, match="MB already"):
        store.add(ADA, QUESTION)


def test_a_sweep_takes_what_expired_and_nothing_else(state: sa.Engine) -> None:
    brief = DeferredStore(state, replace(ROOMY, keep_for=timedelta()))
    store = DeferredStore(state, ROOMY)
    gone, waiting = [store.add(ADA, QUESTION).query_id for _ in range(2) if not time.sleep(0.002)]
    brief.succeed(claimed(brief), answer(numbers(9_000)))
    kept = store.add(BOB, QUESTION).query_id
    store.succeed(claimed(store), answer(numbers(9_000)))

    for _ in range(2):
        store.sweep()

    expired = store.find("ada", gone)
    assert expired is not None
    assert expired.is_expired
    assert store.rows(gone, first=0, count=1) is None
    assert store.rows(kept, first=0, count=10) == numbers(10)
    assert state_of(store, waiting) is State.QUEUED
    assert [query.query_id for query in store.recent("ada", before=None, limit=10)[0]] == [waiting]


def test_a_database_that_is_away_is_said_to_be_away(tmp_path: Path) -> None:
    with running_postgres() as server:
        engine = open_state(server.url)
        store = DeferredStore(engine, ROOMY)
        query_id = store.add(ADA, QUESTION).query_id
        server.stop()
        with pytest.raises(Unavailable) as caught:
            store.find("ada", query_id)
        server.start()

        assert caught.value.retry_after is not None
        # The connections of the pool died with the server; one try finds that out.
        for _ in range(2):
            try:
                found = store.find("ada", query_id)
            except Unavailable:
                continue
        assert found is not None
        engine.dispose()
