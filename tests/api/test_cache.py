"""One run for each key, whatever happens to the callers, to memory and to Redis.

Long, because `api.cache` and `api.redis_tier` are tested together, through the one door that callers have.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from structlog.testing import capture_logs

from api.cache import CachedResult, Origin, Reason, ResultCache
from api.errors import InvalidQuery, Unavailable
from api.redis_link import RedisLink
from api.redis_tier import RedisTier, Turn
from tests import services
from tests.services import RedisServer, free_port

redis_server = services.redis_server

# What an outage may cost one answer: 0.15 s for one Redis command, and all that a busy machine adds.
BOUND_S = 1.0

# For tests in which Redis is well: it must not be given up because the machine is busy.
PATIENT = timedelta(seconds=5)
AS_SHIPPED = timedelta(milliseconds=150)


class Query:
    """A query that counts its runs, and ends when it is let go."""

    def __init__(self, table: pa.Table | None = None, *, seconds: float = 0.0, error: Exception | None = None) -> None:
        self.table = pa.table({"n": [1, 2, 3]}) if table is None else table
        self.seconds = seconds
        self.error = error
        self.runs = 0
        self.stopped = 0

    async def __call__(self) -> pa.Table:
        self.runs += 1
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        if self.error is not None:
            raise self.error
        return self.table


def numbers(*values: int) -> pa.Table:
    return pa.table({"n": list(values)})


def redis_cache(server: RedisServer, *, memory_bytes: int = 16 * 2**20, patience: timedelta = PATIENT) -> ResultCache:
    redis = RedisTier(server.url, keep_for=timedelta(minutes=5), patience=patience)
    return ResultCache(memory_bytes=memory_bytes, redis=redis)


@asynccontextmanager
async def replicas(
    server: RedisServer, count: int, *, memory_bytes: int = 16 * 2**20, patience: timedelta = PATIENT
) -> AsyncIterator[list[ResultCache]]:
    """Caches that share one Redis; with `memory_bytes=0` Redis answers all that is kept."""
    async with AsyncExitStack() as stack:
        caches = [redis_cache(server, memory_bytes=memory_bytes, patience=patience) for _ in range(count)]
        for opened in caches:
            stack.push_async_callback(opened.close)
        yield caches


def entry_of(key: str) -> str:
    return Turn(key).names[0]


def lock_of(key: str) -> str:
    return Turn(key).names[1]


async def timed(cache: ResultCache, key: str, query: Query) -> tuple[CachedResult, float]:
    started = time.perf_counter()
    result = await cache.get_or_run(key, query)
    return result, time.perf_counter() - started


async def until(condition: Callable[[], bool], *, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
async def _no_task_is_left_behind() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    assert not {task for task in asyncio.all_tasks() - before - {asyncio.current_task()} if not _is_asyncios(task)}


def _is_asyncios(task: asyncio.Task[object]) -> bool:
    """Whether the coroutine is asyncio's own: `wait_for` makes one, and the session's service waits all the time."""
    coroutine = task.get_coro()
    return inspect.iscoroutine(coroutine) and Path(coroutine.cr_code.co_filename).parent.name == "asyncio"


@pytest.fixture(params=["memory", "redis"])
async def cache(request: pytest.FixtureRequest) -> AsyncIterator[ResultCache]:
    """Either kind; both pass the same suite."""
    kind: str = request.param
    opened = ResultCache() if kind == "memory" else redis_cache(request.getfixturevalue("redis_server"))
    yield opened
    assert opened.counters().redis_errors == 0
    await opened.close()


# Both kinds of cache.


async def test_a_key_is_run_once_and_then_kept(cache: ResultCache) -> None:
    query = Query()

    first = await cache.get_or_run("k", query)
    second = await cache.get_or_run("k", query)

    assert (first.origin, second.origin, query.runs) == (Origin.MISS, Origin.HIT, 1)
    assert first.table.equals(query.table)
    assert second.table.equals(query.table)


async def test_another_key_is_another_result(cache: ResultCache) -> None:
    await cache.get_or_run("role a", Query(numbers(1)))

    other = await cache.get_or_run("role b", Query(numbers(2)))

    assert other.origin is Origin.MISS
    assert other.table.equals(numbers(2))


async def test_a_refresh_runs_again_and_is_kept(cache: ResultCache) -> None:
    await cache.get_or_run("k", Query(numbers(1)))

    fresh = await cache.refresh("k", Query(numbers(2)))
    later = await cache.get_or_run("k", Query(numbers(3)))

    assert fresh.origin is Origin.BYPASS
    assert fresh.table.equals(numbers(2))
    assert later.origin is Origin.HIT
    assert later.table.equals(numbers(2))


async def test_a_refresh_does_not_join_an_older_run_nor_is_it_overwritten_by_it(cache: ResultCache) -> None:
    older = asyncio.create_task(cache.get_or_run("k", Query(numbers(1), seconds=0.3)))
    await asyncio.sleep(0.1)

    fresh = await cache.refresh("k", Query(numbers(2)))
    answered = await older

    assert (fresh.origin, answered.origin) == (Origin.BYPASS, Origin.MISS)
    assert answered.table.equals(numbers(1))
    assert (await cache.get_or_run("k", Query(numbers(3)))).table.equals(numbers(2))


async def test_refreshes_and_readers_share_a_refresh_under_way(cache: ResultCache) -> None:
    query = Query(seconds=0.1)

    results = await asyncio.gather(cache.refresh("k", query), cache.refresh("k", query), cache.get_or_run("k", query))

    assert [result.origin for result in results] == [Origin.BYPASS, Origin.SHARED, Origin.SHARED]
    assert query.runs == 1


async def test_a_hundred_callers_share_one_run(cache: ResultCache) -> None:
    query = Query(seconds=0.1)

    results = await asyncio.gather(*(cache.get_or_run("k", query) for _ in range(100)))

    assert query.runs == 1
    assert Counter(result.origin for result in results) == {Origin.MISS: 1, Origin.SHARED: 99}
    assert all(result.table is results[0].table for result in results)


async def test_a_caller_that_goes_away_does_not_stop_the_run_of_the_others(cache: ResultCache) -> None:
    query = Query(seconds=0.2)
    leader, *others = [asyncio.create_task(cache.get_or_run("k", query)) for _ in range(5)]
    await asyncio.sleep(0.05)

    leader.cancel()
    others[0].cancel()
    results = await asyncio.gather(*others[1:])

    assert leader.cancelled() or leader.cancelling()
    assert (query.runs, query.stopped) == (1, 0)
    assert all(result.table.equals(query.table) for result in results)
    assert (await cache.get_or_run("k", query)).origin is Origin.HIT


async def test_the_last_caller_that_goes_away_stops_the_run_before_it_returns(cache: ResultCache) -> None:
    query = Query(seconds=30)
    callers = [asyncio.create_task(cache.get_or_run("k", query)) for _ in range(5)]
    await until(lambda: query.runs == 1)

    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)

    assert all(caller.cancelled() for caller in callers)
    assert query.stopped == 1
    again = Query()
    assert (await cache.get_or_run("k", again)).origin is Origin.MISS
    assert again.runs == 1


async def test_a_newcomer_does_not_join_a_run_that_is_being_stopped(cache: ResultCache) -> None:
    async def slow_to_stop() -> pa.Table:
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.2)

    caller = asyncio.create_task(cache.get_or_run("k", slow_to_stop))
    await asyncio.sleep(0.05)
    caller.cancel()
    await asyncio.sleep(0.05)

    newcomer = await cache.get_or_run("k", Query())

    assert newcomer.table.equals(Query().table)
    with pytest.raises(asyncio.CancelledError):
        await caller


async def test_a_caller_cancelled_at_once_leaves_nothing_behind(cache: ResultCache) -> None:
    query = Query()
    caller = asyncio.create_task(cache.get_or_run("k", query))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)

    assert (await cache.get_or_run("k", query)).table.equals(query.table)


async def test_an_error_reaches_every_caller_and_is_not_kept(cache: ResultCache) -> None:
    broken = Query(seconds=0.05, error=InvalidQuery("It cannot be answered", hint="Ask for something else."))

    results = await asyncio.gather(*(cache.get_or_run("k", broken) for _ in range(10)), return_exceptions=True)

    assert [type(result) for result in results] == [InvalidQuery] * 10
    assert broken.runs == 1
    assert (await cache.get_or_run("k", Query())).origin is Origin.MISS


async def test_an_error_that_nobody_waits_for_is_not_reported_as_lost(cache: ResultCache) -> None:
    async def fails_when_stopped() -> pa.Table:
        try:
            await asyncio.sleep(30)
        finally:
            raise InvalidQuery("It failed while it stopped", hint="-")

    caller = asyncio.create_task(cache.get_or_run("k", fails_when_stopped))
    await asyncio.sleep(0.05)
    caller.cancel()

    with pytest.raises(asyncio.CancelledError):
        await caller


async def test_a_closed_cache_stops_its_runs_and_tells_their_callers(cache: ResultCache) -> None:
    query = Query(seconds=30)
    callers = [asyncio.create_task(cache.get_or_run("k", query)) for _ in range(3)]
    await until(lambda: query.runs == 1)

    await cache.close()
    results = await asyncio.gather(*callers, return_exceptions=True)

    assert [type(result) for result in results] == [Unavailable] * 3
    assert query.stopped == 1
    await cache.close()
    assert (await cache.get_or_run("later", Query())).origin is Origin.MISS


async def test_answers_are_counted_by_origin(cache: ResultCache) -> None:
    query = Query(seconds=0.05)
    await asyncio.gather(*(cache.get_or_run("k", query) for _ in range(3)))
    await cache.get_or_run("k", query)
    await cache.refresh("k", query)

    counters = cache.counters()

    assert (counters.hits, counters.misses, counters.shared, counters.bypasses) == (1, 1, 2, 1)
    assert counters.entries == 1
    assert counters.entries_bytes >= query.table.nbytes


# Memory and its budget.


async def test_the_result_used_longest_ago_is_dropped_first() -> None:
    table = pa.table({"n": pa.array(range(1_000), pa.int64())})  # 8,000 bytes and 2,048 of our own
    cache = ResultCache(memory_bytes=100_000)
    for number in range(9):
        await cache.get_or_run(f"k{number}", Query(table))
    await cache.get_or_run("k0", Query(table))

    await cache.get_or_run("k9", Query(table))

    assert (await cache.get_or_run("k0", Query(table))).origin is Origin.HIT
    assert (await cache.get_or_run("k1", Query(table))).origin is Origin.MISS
    assert cache.counters().entries_bytes <= 100_000


async def test_memory_stays_within_its_budget_whatever_is_kept() -> None:
    drawn = random.Random(7)
    cache = ResultCache(memory_bytes=200_000)
    for _ in range(2_000):
        table = pa.table({"n": pa.array(range(drawn.randrange(4_000)), pa.int64())})
        await drawn.choice((cache.get_or_run, cache.refresh))(f"k{drawn.randrange(100)}", Query(table))
        assert cache.counters().entries_bytes <= 200_000
    assert cache.counters().entries > 5


async def test_empty_results_take_room_too() -> None:
    cache = ResultCache(memory_bytes=100_000)
    for number in range(500):
        await cache.get_or_run(f"k{number}", Query(numbers().slice(0, 0)))

    assert cache.counters().entries < 50


async def test_a_result_larger_than_its_share_is_answered_but_not_kept() -> None:
    large = Query(pa.table({"n": pa.array(range(3_000), pa.int64())}))
    cache = ResultCache(memory_bytes=100_000)
    await cache.get_or_run("small", Query())

    assert (await cache.get_or_run("large", large)).table.equals(large.table)

    assert (await cache.get_or_run("large", large)).origin is Origin.MISS
    assert (await cache.get_or_run("small", Query())).origin is Origin.HIT


# Why.


async def test_a_result_says_why_it_came_from_where_it_did(cache: ResultCache) -> None:
    query = Query(seconds=0.05)
    leader, follower = await asyncio.gather(cache.get_or_run("k", query), cache.get_or_run("k", query))
    kept = await cache.get_or_run("k", query)
    anew = await cache.refresh("k", query)

    assert [result.reason for result in (leader, follower, kept, anew)] == [
        Reason.FIRST_TIME,
        Reason.UNDER_WAY,
        Reason.KEPT,
        Reason.ASKED_ANEW,
    ]


async def test_a_miss_says_whether_the_result_was_dropped_or_was_too_large() -> None:
    table, large = numbers(*range(1_000)), numbers(*range(3_000))
    cache = ResultCache(memory_bytes=100_000)
    for number in range(10):
        assert (await cache.get_or_run(f"k{number}", Query(table))).reason is Reason.FIRST_TIME

    dropped = await cache.get_or_run("k0", Query(table))
    back = await cache.get_or_run("k0", Query(table))
    first, second = [await cache.get_or_run("large", Query(large)) for _ in range(2)]

    assert [dropped.reason, back.reason, first.reason, second.reason] == [
        Reason.DROPPED,
        Reason.KEPT,
        Reason.FIRST_TIME,
        Reason.TOO_LARGE,
    ]


async def test_a_result_that_shrank_is_too_large_no_more() -> None:
    cache = ResultCache(memory_bytes=100_000)
    await cache.get_or_run("k", Query(numbers(*range(3_000))))

    await cache.refresh("k", Query(numbers(1)))
    for number in range(50):
        await cache.get_or_run(f"k{number}", Query(numbers(*range(500))))

    assert (await cache.get_or_run("k", Query())).reason is Reason.DROPPED


async def test_a_run_that_failed_leaves_no_reason_behind() -> None:
    cache = ResultCache()
    with pytest.raises(InvalidQuery):
        await cache.get_or_run("k", Query(error=InvalidQuery("x", hint="y")))

    assert (await cache.get_or_run("k", Query())).reason is Reason.FIRST_TIME


async def test_only_so_many_reasons_are_remembered() -> None:
    cache = ResultCache(memory_bytes=20_000)
    for number in range(5_000):
        await cache.get_or_run(f"k{number}", Query(numbers()))

    assert (await cache.get_or_run("k0", Query())).reason is Reason.FIRST_TIME
    assert (await cache.get_or_run("k4000", Query())).reason is Reason.DROPPED


# Several replicas over one Redis.


async def test_what_one_replica_ran_another_finds(redis_server: RedisServer) -> None:
    query = Query()
    async with replicas(redis_server, 2) as (one, other):
        await one.get_or_run("k", query)

        assert (await other.get_or_run("k", query)).origin is Origin.HIT
        assert query.runs == 1

        redis_server.ask("FLUSHALL")
        assert (await other.get_or_run("k", query)).origin is Origin.HIT, "it is not in the memory of the other"


async def test_replicas_share_one_run(redis_server: RedisServer) -> None:
    query = Query(seconds=0.3)
    async with replicas(redis_server, 4) as caches:
        results = await asyncio.gather(*(cache.get_or_run("k", query) for cache in caches for _ in range(25)))

    assert query.runs == 1
    assert Counter(result.origin for result in results) == {Origin.MISS: 1, Origin.SHARED: 99}
    assert redis_server.ask("EXISTS", lock_of("k")) == b":0\r\n"


async def test_a_refresh_in_one_replica_reaches_the_others_through_redis(redis_server: RedisServer) -> None:
    async with replicas(redis_server, 2, memory_bytes=0) as (one, other):
        await other.get_or_run("k", Query(numbers(1)))
        await one.refresh("k", Query(numbers(2)))

        assert (await other.get_or_run("k", Query(numbers(3)))).table.equals(numbers(2))


async def test_a_run_that_fails_in_one_replica_gives_the_turn_to_the_next(redis_server: RedisServer) -> None:
    broken = Query(seconds=0.1, error=InvalidQuery("It cannot be answered", hint="-"))
    async with replicas(redis_server, 2) as (one, other):
        failing = asyncio.create_task(one.get_or_run("k", broken))
        await until(lambda: broken.runs == 1)

        result, took_s = await timed(other, "k", Query())

        assert result.origin is Origin.MISS
        assert took_s < BOUND_S
        with pytest.raises(InvalidQuery):
            await failing


async def test_a_run_that_is_stopped_gives_its_turn_back(redis_server: RedisServer) -> None:
    query = Query(seconds=30)
    async with replicas(redis_server, 2) as (one, other):
        caller = asyncio.create_task(one.get_or_run("k", query))
        await until(lambda: query.runs == 1)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)

        _, took_s = await timed(other, "k", Query())

        assert took_s < BOUND_S


async def test_a_replica_that_died_holds_the_others_up_for_a_bounded_time(redis_server: RedisServer) -> None:
    redis_server.ask("SET", lock_of("k"), "of the dead")  # without an end, which is worse than ours
    async with replicas(redis_server, 1) as (cache,):
        result, took_s = await timed(cache, "k", Query())

        assert result.origin is Origin.MISS
        assert 2.5 < took_s < 3 + BOUND_S
        assert redis_server.ask("GET", lock_of("k")).endswith(b"of the dead\r\n"), "another's lock is not ours to drop"
        assert (await cache.get_or_run("k", Query())).origin is Origin.HIT


async def test_a_result_too_large_for_redis_is_run_by_each_replica_without_waiting(redis_server: RedisServer) -> None:
    noise = random.Random(7).randbytes(6 * 2**20)
    query = Query(pa.table({"blob": [noise[:3_000_000], noise[3_000_000:]]}), seconds=0.2)
    async with replicas(redis_server, 3, memory_bytes=0) as caches:
        await caches[0].get_or_run("k", query)
        assert redis_server.ask("STRLEN", entry_of("k")) == b":32\r\n"

        timings = await asyncio.gather(*(timed(cache, "k", query) for cache in caches))

        assert [result.origin for result, _ in timings] == [Origin.MISS] * 3
        assert max(took_s for _, took_s in timings) < 0.2 + BOUND_S
        assert all(result.table.equals(query.table) for result, _ in timings)


async def test_entries_run_out(redis_server: RedisServer) -> None:
    cache = ResultCache(memory_bytes=0, redis=RedisTier(redis_server.url, keep_for=timedelta(milliseconds=100)))
    await cache.get_or_run("k", Query())
    await asyncio.sleep(0.2)

    assert (await cache.get_or_run("k", Query())).origin is Origin.MISS
    assert redis_server.ask("PTTL", entry_of("k")) != b":-1\r\n"
    await cache.close()


@pytest.mark.parametrize(
    "key", ["", "\ud800", "\x00\r\n", "k" * 1_000_000], ids=["empty", "surrogate", "control", "long"]
)
async def test_any_text_is_a_key(redis_server: RedisServer, key: str) -> None:
    async with replicas(redis_server, 2) as (one, other):
        await one.get_or_run(key, Query())

        assert (await other.get_or_run(key, Query())).origin is Origin.HIT


async def test_redis_never_sees_a_key(redis_server: RedisServer) -> None:
    async with replicas(redis_server, 1) as (cache,):
        await cache.get_or_run("country = 'a secret'", Query())

    names = redis_server.ask("KEYS", "*")
    assert b"insight:result:" in names
    assert b"secret" not in names


# Types.


def typed() -> pa.Table:
    moment = datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC)
    return pa.table(
        {
            "money": pa.array(
                [Decimal("1.0000000001"), None, Decimal("-99999999999999999999.5")], pa.decimal128(38, 10)
            ),
            "count": pa.array([10**30, None, -1], pa.decimal128(38, 0)),
            "day": pa.array([date(2024, 2, 29), None, date(1, 1, 1)], pa.date32()),
            "naive": pa.array([moment.replace(tzinfo=None), None, None], pa.timestamp("us")),
            "aware": pa.array([moment, None, None], pa.timestamp("us", tz="UTC")),
            "exact": pa.array([1, None, -1], pa.timestamp("ns")),
            "city": pa.array(["Zürich", None, "Zürich"]).dictionary_encode(),
            "text": pa.array(["", None, "\x00 💶"], pa.string()),
            "ratio": pa.array([0.1, None, float("inf")], pa.float64()),
            "flag": pa.array([True, None, False], pa.bool_()),
            "small": pa.array([1, None, -128], pa.int8()),
            "nothing": pa.nulls(3),
            "list": pa.array([[1, None], None, []], pa.list_(pa.int64())),
        },
        metadata={"unit": "usd"},
    )


def chunked_dictionaries() -> pa.Table:
    """One column whose chunks have different dictionaries."""
    chunks = [pa.array(["a", "b"]).dictionary_encode(), pa.array(["c", "a"]).dictionary_encode()]
    return pa.table({"city": pa.chunked_array(chunks)})


TABLES = {
    "every type": typed(),
    "no rows": typed().slice(0, 0),
    "no chunks": typed().schema.empty_table(),
    "a slice": typed().slice(1, 1),
    "no columns": pa.table({}),
    "several dictionaries": chunked_dictionaries(),
    "compressed": pa.concat_tables([typed()] * 500),
    "packed in a thread": pa.concat_tables([typed()] * 5_000).combine_chunks(),
}


@pytest.mark.parametrize("name", TABLES)
async def test_a_table_comes_back_from_redis_as_it_was(redis_server: RedisServer, name: str) -> None:
    table = TABLES[name]
    async with replicas(redis_server, 2, memory_bytes=0) as (one, other):
        await one.get_or_run("k", Query(table))
        result = await other.get_or_run("k", Query())

    assert result.origin is Origin.HIT
    result.table.validate(full=True)
    assert result.table.schema.equals(table.schema, check_metadata=True)
    assert result.table.equals(table)


# Bytes that are no entry.


async def test_bytes_that_are_no_entry_are_a_miss_and_are_replaced(redis_server: RedisServer) -> None:
    drawn = random.Random(7)
    async with replicas(redis_server, 1, memory_bytes=0) as (cache,):
        await cache.get_or_run("k", Query(typed()))
        stored = redis_server.ask("GET", entry_of("k")).split(b"\r\n", 1)[1][:-2]
        await cache.get_or_run("other", Query(numbers(9)))
        foreign = redis_server.ask("GET", entry_of("other")).split(b"\r\n", 1)[1][:-2]
        flips = [(at, bytes([stored[at] ^ (1 << drawn.randrange(8))])) for at in drawn.sample(range(len(stored)), 200)]
        damaged = [stored[:at] + flipped + stored[at + 1 :] for at, flipped in flips if not 28 <= at < 32]  # padding
        damaged += [b"", b"x", b"garbage" * 100, stored[:-1], stored[:40], stored + b"x", foreign, stored[32:]]
        damaged += [b"insight0" + stored[8:], b"\x80\x04N."]
        for number, entry in enumerate(damaged):
            redis_server.ask("SET", entry_of("k"), entry)

            result = await cache.get_or_run("k", Query(numbers(number)))

            assert result.origin is Origin.MISS
            assert result.table.equals(numbers(number))
            assert (await cache.get_or_run("k", Query())).table.equals(numbers(number))
        assert cache.counters().redis_errors == len(damaged) - 1, "all but the empty one"


async def test_a_value_that_is_no_string_is_a_miss(redis_server: RedisServer) -> None:
    redis_server.ask("LPUSH", entry_of("k"), "x")
    async with replicas(redis_server, 1) as (cache,):
        assert (await cache.get_or_run("k", Query())).origin is Origin.MISS


# Redis away, slow, flushed.


async def ask_all(cache: ResultCache, *, queries: int) -> float:
    """The longest time that one of many answers took, each of them right."""
    longest_s = 0.0
    for number in range(queries):
        result, took_s = await timed(cache, f"k{number % 5}", Query(numbers(number % 5)))
        assert result.table.equals(numbers(number % 5))
        longest_s = max(longest_s, took_s)
    return longest_s


@pytest.mark.parametrize("fault", ["stop", "pause"])
async def test_without_redis_every_answer_is_right_and_soon_and_it_is_used_again_once_it_is_back(
    redis_server: RedisServer, fault: str
) -> None:
    break_, mend = {
        "stop": (redis_server.stop, redis_server.start),
        "pause": (redis_server.pause, redis_server.resume),
    }[fault]
    async with replicas(redis_server, 2, memory_bytes=0, patience=AS_SHIPPED) as (cache, other):
        await ask_all(cache, queries=10)
        with capture_logs() as logs:
            break_()
            longest_s = await ask_all(cache, queries=200)
            settled_s = await ask_all(cache, queries=200)
            errors = cache.counters().redis_errors
            mend()
            await until(lambda: any(line["event"] == "result_cache_redis_back" for line in logs))

        assert longest_s < BOUND_S
        assert settled_s < 0.1, "left alone, it costs nothing"
        assert 3 <= errors < 10
        assert [line["event"] for line in logs] == ["result_cache_redis_lost", "result_cache_redis_back"]
        await cache.refresh("back", Query())
        assert (await cache.get_or_run("back", Query())).origin is Origin.HIT
        assert (await other.get_or_run("back", Query())).origin is Origin.HIT


async def test_while_one_waits_for_a_silent_redis_the_others_do_not(redis_server: RedisServer) -> None:
    async def ping() -> object:
        return await link.client.ping()

    link = RedisLink(redis_server.url, purpose="test", probe=ping, patience=PATIENT)
    assert await link.ask(ping) is True
    redis_server.pause()
    first = asyncio.create_task(link.ask(ping))
    await asyncio.sleep(PATIENT.total_seconds() / 2)
    started = time.perf_counter()
    assert await asyncio.gather(*(link.ask(ping) for _ in range(10))) == [None] * 10
    assert time.perf_counter() - started < PATIENT.total_seconds() / 4
    redis_server.resume()
    assert await first is True
    assert await link.ask(ping) is True
    await link.close()


async def test_an_outage_under_concurrent_callers_is_an_error_for_none(redis_server: RedisServer) -> None:
    async def client(cache: ResultCache, number: int) -> float:
        longest_s = 0.0
        for step in range(100):
            key = (number * step) % 30
            result, took_s = await timed(cache, f"k{key}", Query(numbers(key), seconds=0.005))
            assert result.table.equals(numbers(key))
            longest_s = max(longest_s, took_s)
        return longest_s

    async def chaos() -> None:
        faults = (redis_server.pause, redis_server.resume, redis_server.stop, redis_server.start)
        for fault in faults:
            await asyncio.sleep(0.15)
            await asyncio.to_thread(fault)
            redis_server.ask("FLUSHALL") if fault == redis_server.start else None

    async with replicas(redis_server, 2, memory_bytes=0, patience=AS_SHIPPED) as caches:
        *longest_s, _ = await asyncio.gather(*(client(caches[n % 2], n) for n in range(20)), chaos())

    assert max(longest_s) < 2 * BOUND_S


async def test_a_flush_in_the_midst_of_a_run_costs_no_answer(redis_server: RedisServer) -> None:
    query = Query(seconds=0.2)
    async with replicas(redis_server, 2) as (one, other):
        running = [asyncio.create_task(cache.get_or_run("k", query)) for cache in (one, other)]
        await until(lambda: query.runs == 1)
        redis_server.ask("FLUSHALL")
        results = await asyncio.gather(*running)

        assert all(result.table.equals(query.table) for result in results)
        assert one.counters().redis_errors == other.counters().redis_errors == 0
        assert redis_server.ask("EXISTS", entry_of("k"), lock_of("k")) == b":1\r\n"


async def test_a_waiter_whose_redis_dies_runs_the_query_itself(redis_server: RedisServer) -> None:
    slow, quick = Query(seconds=1.0), Query()
    async with replicas(redis_server, 2, patience=AS_SHIPPED) as (one, other):
        running = asyncio.create_task(one.get_or_run("k", slow))
        await until(lambda: slow.runs == 1)
        waiting = asyncio.create_task(timed(other, "k", quick))
        await asyncio.sleep(0.1)
        assert quick.runs == 0

        redis_server.stop()

        result, took_s = await waiting
        assert (result.origin, quick.runs) == (Origin.MISS, 1)
        assert took_s < BOUND_S
        assert (await running).table.equals(slow.table)


async def test_a_redis_that_was_never_there_is_an_error_for_none() -> None:
    cache = ResultCache(redis=RedisTier(f"redis://127.0.0.1:{free_port()}", keep_for=timedelta(minutes=5)))

    assert await ask_all(cache, queries=50) < BOUND_S
    await cache.close()


async def test_a_full_redis_answers_what_it_has_and_is_reported_once(redis_server: RedisServer) -> None:
    async with replicas(redis_server, 1, memory_bytes=0) as (cache,):
        await cache.get_or_run("kept", Query())
        redis_server.ask("CONFIG", "SET", "maxmemory", "1")
        with capture_logs() as logs:
            assert await ask_all(cache, queries=50) < BOUND_S
        assert (await cache.get_or_run("kept", Query())).origin is Origin.HIT
    assert [line["event"] for line in logs] == ["result_cache_redis_refused"]


@pytest.mark.parametrize("reply", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b":garbage\r\n", b"$-7\r\n", b"*1\r\n", b""])
async def test_a_server_that_is_no_redis_is_an_error_for_none(reply: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(reply)
        await reader.read()  # until the other side closes
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        cache = ResultCache(redis=RedisTier(f"redis://127.0.0.1:{port}", keep_for=timedelta(minutes=5)))
        assert await ask_all(cache, queries=20) < BOUND_S
        await cache.close()
        await asyncio.sleep(0.05)  # for the other side to see it


async def test_a_paused_redis_does_not_hold_up_the_close(redis_server: RedisServer) -> None:
    async with replicas(redis_server, 1, patience=AS_SHIPPED) as (cache,):
        await cache.get_or_run("k", Query())
        redis_server.pause()
        await ask_all(cache, queries=20)
        started = time.perf_counter()

        await cache.close()

        assert time.perf_counter() - started < BOUND_S


async def test_callers_that_come_and_go_leave_no_connection_no_lock_and_no_wrong_reply(
    redis_server: RedisServer,
) -> None:
    drawn = random.Random(7)

    async def impatient(cache: ResultCache, key: int) -> None:
        try:
            async with asyncio.timeout(drawn.random() * 0.01):
                result = await cache.get_or_run(f"k{key}", Query(numbers(key), seconds=0.002))
        except TimeoutError:
            return
        assert result.table.equals(numbers(key))

    async with replicas(redis_server, 2, memory_bytes=0) as caches:
        for _ in range(50):
            await asyncio.gather(*(impatient(drawn.choice(caches), drawn.randrange(40)) for _ in range(40)))
        for key in range(100):  # more than there are connections
            _, took_s = await timed(caches[0], f"k{key}", Query(numbers(key)))
            assert took_s < BOUND_S
        assert redis_server.ask("EXISTS", *(lock_of(f"k{key}") for key in range(100))) == b":0\r\n"
        assert all(cache.counters().redis_errors == 0 for cache in caches)

    await asyncio.sleep(0.05)
    assert redis_server.ask("CLIENT", "LIST").count(b" addr=") == 1, "the one that asks"
