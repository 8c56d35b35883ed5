"""How much a caller may ask: counted for each alone, over all replicas, and never at the price of an error."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from structlog.testing import capture_logs

from api.allowance import Allowances
from api.errors import TooManyRequests
from api.gate import Failures
from api.keys import ApiKeys
from api.main import create_app
from api.policy import Principal, Role
from api.state import open_state
from api.tallies import RedisCounts, Tally
from tests import services
from tests.conftest import Published, connect, service_settings
from tests.issuer import Issuer
from tests.services import RedisServer, free_port

redis_server = services.redis_server

# For tests in which Redis is well: it must not be given up because the machine is busy.
PATIENT = timedelta(seconds=5)
NOON = 1_750_000_000.0 - 1_750_000_000.0 % 86_400 + 43_200

ADA = Principal(principal_id="ada", name="Ada", role="limited")
BOB = Principal(principal_id="token:bob@example.test", name="Bob", role="limited")
THREE = Role(requests_per_minute=3)
HUNDRED_ROWS = Role(rows_per_day=100)
FREE = Role()


class Clock:
    """The time of day, which passes when the test says so."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "redis"])
async def allowances(request: pytest.FixtureRequest, clock: Clock) -> AsyncIterator[Allowances]:
    """In the process alone, and with a real Redis."""
    redis = None
    if request.param == "redis":
        redis = RedisCounts(request.getfixturevalue("redis_server").url, patience=PATIENT)
    made = Allowances(redis=redis, clock=clock)
    yield made
    await made.close()


@asynccontextmanager
async def replicas(
    server: RedisServer, clock: Clock, *, patience: timedelta = PATIENT
) -> AsyncIterator[tuple[Allowances, Allowances]]:
    """Two services on one Redis."""
    first, second = (Allowances(redis=RedisCounts(server.url, patience=patience), clock=clock) for _ in range(2))
    yield first, second
    await first.close()
    await second.close()


async def refusal(call: Awaitable[object]) -> TooManyRequests:
    with pytest.raises(TooManyRequests) as caught:
        await call
    return caught.value


async def until(condition: Callable[[], bool], *, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


# Requests


async def test_requests_are_counted_down_and_refused_until_the_minute_is_over(
    allowances: Allowances, clock: Clock
) -> None:
    clock.now += 15.5
    taken = [await allowances.take_request(ADA, THREE) for _ in range(3)]
    refused = await refusal(allowances.take_request(ADA, THREE))

    assert [item and (item.limit, item.remaining, item.resets_in) for item in taken] == [
        (3, left, timedelta(seconds=45)) for left in (2, 1, 0)
    ]
    assert (refused.code, refused.status, refused.limit) == ("rate_limited", 429, 3)
    assert refused.retry_after == timedelta(seconds=45)
    clock.now += 44.4
    await refusal(allowances.take_request(ADA, THREE))
    clock.now += 0.2
    fresh = await allowances.take_request(ADA, THREE)
    assert fresh is not None
    assert (fresh.remaining, fresh.resets_in) == (2, timedelta(seconds=60))


async def test_each_principal_has_an_allowance_of_its_own(allowances: Allowances) -> None:
    for _ in range(3):
        await allowances.take_request(ADA, THREE)
    await refusal(allowances.take_request(ADA, THREE))

    fresh = await allowances.take_request(BOB, THREE)

    assert fresh is not None
    assert fresh.remaining == 2


async def test_a_role_without_limits_is_not_counted(allowances: Allowances) -> None:
    for _ in range(50):
        assert await allowances.take_request(ADA, FREE) is None
        await allowances.require_rows(ADA, FREE)
        await allowances.count_rows(ADA, FREE, 10**9)

    counted = await allowances.take_request(ADA, THREE)
    assert counted is not None
    assert counted.remaining == 2
    await allowances.require_rows(ADA, HUNDRED_ROWS)


async def test_a_changed_limit_holds_for_what_was_asked_before(allowances: Allowances) -> None:
    for _ in range(3):
        await allowances.take_request(ADA, Role(requests_per_minute=10))

    await refusal(allowances.take_request(ADA, THREE))


# Rows


async def test_the_answer_that_passes_the_quota_is_the_last_of_the_day(allowances: Allowances, clock: Clock) -> None:
    await allowances.require_rows(ADA, HUNDRED_ROWS)
    await allowances.count_rows(ADA, HUNDRED_ROWS, 99)
    await allowances.require_rows(ADA, HUNDRED_ROWS)
    await allowances.count_rows(ADA, HUNDRED_ROWS, 5_000)

    refused = await refusal(allowances.require_rows(ADA, HUNDRED_ROWS))
    assert (refused.code, refused.limit) == ("row_quota_used", None)
    assert refused.retry_after == timedelta(hours=12)
    await allowances.require_rows(BOB, HUNDRED_ROWS)
    clock.now += 43_199
    await refusal(allowances.require_rows(ADA, HUNDRED_ROWS))
    clock.now += 1
    await allowances.require_rows(ADA, HUNDRED_ROWS)


async def test_an_answer_without_rows_costs_nothing(allowances: Allowances) -> None:
    await allowances.count_rows(ADA, Role(rows_per_day=1), 0)

    await allowances.require_rows(ADA, Role(rows_per_day=1))


# Replicas and Redis


async def test_replicas_share_one_quota(redis_server: RedisServer, clock: Clock) -> None:
    async with replicas(redis_server, clock) as (first, second):
        for replica in (first, second, first):
            await replica.take_request(ADA, THREE)
        for replica in (first, second):
            await refusal(replica.take_request(ADA, THREE))

        await first.count_rows(ADA, HUNDRED_ROWS, 60)
        await second.require_rows(ADA, HUNDRED_ROWS)
        await second.count_rows(ADA, HUNDRED_ROWS, 40)
        for replica in (first, second):
            await refusal(replica.require_rows(ADA, HUNDRED_ROWS))


async def test_of_many_requests_at_once_exactly_the_allowed_ones_pass(redis_server: RedisServer, clock: Clock) -> None:
    fifty = Role(requests_per_minute=50)
    async with replicas(redis_server, clock) as pair:
        calls = [pair[number % 2].take_request(ADA, fifty) for number in range(300)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)

    assert sum(not isinstance(outcome, Exception) for outcome in outcomes) == 50
    assert all(isinstance(outcome, TooManyRequests) for outcome in outcomes if isinstance(outcome, Exception))


async def test_what_is_in_redis_names_nobody_and_passes_away(redis_server: RedisServer, clock: Clock) -> None:
    async with replicas(redis_server, clock) as (first, _):
        await first.take_request(BOB, THREE)
        await first.count_rows(BOB, HUNDRED_ROWS, 5)
        names = redis_server.ask("KEYS", "*")
        keys = [line for line in names.split(b"\r\n") if line.startswith(b"insight:")]

        assert len(keys) == 2
        assert b"bob" not in names
        for key in keys:
            lives_s = int(redis_server.ask("TTL", key)[1:])
            assert 0 < lives_s <= (120 if b":requests:" in key else 2 * 86_400)


@pytest.mark.parametrize("fault", ["stop", "pause"])
async def test_without_redis_a_replica_goes_on_from_what_it_counted_itself(
    redis_server: RedisServer, clock: Clock, fault: str
) -> None:
    breaking = {"stop": redis_server.stop, "pause": redis_server.pause}
    ten = Role(requests_per_minute=10)
    async with replicas(redis_server, clock, patience=timedelta(milliseconds=150)) as (first, second):
        for replica in (first, first, second):
            await replica.take_request(ADA, ten)
        breaking[fault]()
        started = time.monotonic()
        for _ in range(8):
            await first.take_request(ADA, ten)
        await refusal(first.take_request(ADA, ten))
        for _ in range(500):
            await first.take_request(ADA, Role(requests_per_minute=1_000))

        assert time.monotonic() - started < 2, "a few commands wait for Redis, then none does"


async def test_an_emptied_redis_counts_anew(redis_server: RedisServer, clock: Clock) -> None:
    async with replicas(redis_server, clock) as (first, second):
        for replica in (first, second, first):
            await replica.take_request(ADA, THREE)
        redis_server.ask("FLUSHALL")

        for replica in (second, first, second):
            await replica.take_request(ADA, THREE)
        await refusal(first.take_request(ADA, THREE))


async def test_redis_is_used_again_once_it_is_back(redis_server: RedisServer, clock: Clock) -> None:
    async with replicas(redis_server, clock, patience=timedelta(milliseconds=150)) as (first, second):
        with capture_logs() as logs:
            redis_server.stop()
            for replica in (first, second):
                for _ in range(5):
                    await replica.count_rows(ADA, HUNDRED_ROWS, 1)
            redis_server.start()
            await until(lambda: [line["event"] for line in logs].count("allowance_redis_back") == 2)
        clock.now += 86_400

        await first.count_rows(ADA, HUNDRED_ROWS, 100)
        await refusal(second.require_rows(ADA, HUNDRED_ROWS))

    assert sorted(line["event"] for line in logs) == ["allowance_redis_back"] * 2 + ["allowance_redis_lost"] * 2


async def test_a_redis_that_was_never_there_is_an_error_for_none(clock: Clock) -> None:
    allowances = Allowances(redis=RedisCounts(f"redis://127.0.0.1:{free_port()}"), clock=clock)
    for _ in range(3):
        await allowances.take_request(ADA, THREE)
    await refusal(allowances.take_request(ADA, THREE))
    await allowances.close()


# Counting in the process


def test_a_tally_remembers_so_many_names_and_lets_the_oldest_go(clock: Clock) -> None:
    tally = Tally(timedelta(minutes=1), most_names=3, clock=clock)
    for name in ("a", "b", "c"):
        tally.add(name, 2)
    tally.add("a")
    tally.add("d")

    assert [tally.count(name) for name in ("a", "b", "c", "d")] == [0, 2, 2, 1]
    clock.now += 60
    tally.add("b")
    tally.add("e")
    assert [tally.count(name) for name in ("b", "c", "d", "e")] == [1, 0, 0, 1]


# Failed authentications


def failures(clock: Clock, *exempt: str) -> Failures:
    return Failures(per_minute=3, exempt=tuple(map(ip_network, exempt)), clock=clock)


def fail(counted: Failures, address: str | None, *, times: int = 3) -> None:
    for _ in range(times):
        counted.require_few(address)
        counted.count(address)


def is_refused(counted: Failures, address: str | None) -> bool:
    try:
        counted.require_few(address)
    except TooManyRequests:
        return True
    return False


def test_an_address_that_fails_too_often_waits_until_the_minute_is_over(clock: Clock) -> None:
    counted = failures(clock)
    clock.now += 20
    fail(counted, "192.0.2.1")

    assert is_refused(counted, "192.0.2.1")
    with pytest.raises(TooManyRequests) as caught:
        counted.count("192.0.2.1")
    assert (caught.value.code, caught.value.retry_after) == ("too_many_failures", timedelta(seconds=40))
    assert not is_refused(counted, "192.0.2.2")
    clock.now += 40
    assert not is_refused(counted, "192.0.2.1")


@pytest.mark.parametrize(
    ("address", "other", "is_same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
    ],
)
def test_a_subscribers_addresses_are_one(clock: Clock, address: str, other: str, *, is_same: bool) -> None:
    counted = failures(clock)
    fail(counted, address)

    assert is_refused(counted, other) == is_same


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "::1", "::ffff:10.1.2.3", None, "", "unix:"])
def test_exempt_addresses_and_those_without_one_are_not_counted(clock: Clock, address: str | None) -> None:
    counted = failures(clock, "127.0.0.0/8", "10.0.0.0/8", "::1")

    fail(counted, address, times=100)

    assert not is_refused(counted, address)


def test_only_the_last_ten_thousand_addresses_are_remembered(clock: Clock) -> None:
    counted = failures(clock)
    fail(counted, "192.0.2.1")
    for number in range(9_999):
        counted.count(f"2001:db8:0:{number:x}::1")
    assert is_refused(counted, "192.0.2.1")

    counted.count("192.0.2.2")

    assert not is_refused(counted, "192.0.2.1")


# Over HTTP

POLICY = """
version: 1
roles:
  admin: {metrics: ["*"], dimensions: ["*"], see_sql: true}
  analyst: {metrics: ["*"], dimensions: ["*"], see_sql: true}
  limited: {metrics: ["*"], dimensions: ["*"], requests_per_minute: 12}
  metered: {metrics: ["*"], dimensions: ["*"], see_sql: true, rows_per_day: 12}
"""
MONTHS = {"metrics": ["line_count"], "group_by": ["metric_time__month"], "limit": 5}


@asynccontextmanager
async def serving(published: Published, folder: Path, **settings: Any) -> AsyncIterator[tuple[FastAPI, ApiKeys]]:
    (folder / "policy.yml").write_text(POLICY)
    url = f"sqlite:///{folder / 'state.db'}"
    state = open_state(url)
    app = create_app(service_settings(published, state_url=url, policy_file=folder / "policy.yml", **settings))
    async with app.router.lifespan_context(app):
        yield app, ApiKeys(state)
    state.dispose()


async def away_from_the_end_of_a_minute() -> None:
    """Return with a quarter of a minute left, so that what a test counts falls into one."""
    left_s = 60 - time.time() % 60
    if left_s < 15:
        await asyncio.sleep(left_s + 0.1)


async def test_every_answer_to_a_limited_caller_says_what_is_left(synthetic: Published, tmp_path: Path) -> None:
    requests: list[tuple[str, str, Any, int]] = [
        ("GET", "/v1/metrics", None, 200),
        ("POST", "/v1/query", MONTHS, 200),
        ("GET", "/v1/metrics/nonsense", None, 404),
        ("GET", "/v1/metrics?limit=0", None, 422),
        ("POST", "/v1/query", {"metrics": []}, 422),
        ("POST", "/v1/query/compile", MONTHS, 403),
        ("GET", "/v1/lineage/line_count", None, 403),
        ("GET", "/v1/freshness", None, 200),
        ("GET", "/v1/publications", None, 200),
        ("GET", "/v1/saved-queries/revenue_by_month/results", None, 200),
    ]
    async with (
        serving(synthetic, tmp_path) as (app, keys),
        connect(app, key=keys.create("l", role="limited")) as client,
    ):
        await away_from_the_end_of_a_minute()
        for number, (method, path, body, status) in enumerate(requests, start=1):
            answer = await client.request(method, path, json=body)
            assert answer.status_code == status, path
            assert answer.headers["ratelimit-limit"] == "12"
            assert answer.headers["ratelimit-remaining"] == str(12 - number)
            assert 0 < int(answer.headers["ratelimit-reset"]) <= 60
        same = await client.post("/v1/query", json=MONTHS, headers={"If-None-Match": "W/x"})
        unchanged = await client.post("/v1/query", json=MONTHS, headers={"If-None-Match": same.headers["etag"]})
        assert (unchanged.status_code, unchanged.headers["ratelimit-remaining"]) == (304, "0")

        for path in ("/v1/metrics", "/v1/metrics/nonsense"):
            refused = await client.get(path)
            assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
            assert refused.headers["content-type"] == "application/problem+json"
            assert (refused.headers["ratelimit-limit"], refused.headers["ratelimit-remaining"]) == ("12", "0")
            assert refused.headers["retry-after"] == refused.headers["ratelimit-reset"]
        assert (await client.get("/healthz")).status_code == 200


async def test_who_is_not_limited_or_not_known_is_told_of_no_limit(synthetic: Published, tmp_path: Path) -> None:
    async with serving(synthetic, tmp_path) as (app, keys), connect(app) as client:
        for headers in ({"X-API-Key": keys.create("a", role="admin")}, {"X-API-Key": "mi_0_guess"}, {}):
            answer = await client.get("/v1/metrics", headers=headers)
            assert not [name for name in answer.headers if name.startswith("ratelimit")]


async def test_rows_are_counted_when_an_answer_is_made_wherever_it_came_from(
    synthetic: Published, tmp_path: Path
) -> None:
    async with serving(synthetic, tmp_path) as (app, keys):
        await away_from_the_end_of_a_minute()

        def join() -> httpx.AsyncClient:
            return connect(app, key=keys.create("m", role="metered"))

        costly: list[tuple[str, str, Any, dict[str, str]]] = [
            ("POST", "/v1/query", MONTHS, {}),
            ("POST", "/v1/query", MONTHS, {"Accept": "text/csv"}),
            ("POST", "/v1/query", MONTHS, {"Cache-Control": "no-cache"}),
            ("GET", "/v1/dimensions/customer__location/values?limit=5", None, {}),
        ]
        for method, path, body, headers in costly:
            async with join() as client:
                for _ in range(3):  # 5, 10, and 15 rows, of 12
                    assert (await client.request(method, path, json=body, headers=headers)).status_code == 200
                refused = await client.request(method, path, json=body, headers=headers)
                assert (refused.status_code, refused.json()["code"]) == (429, "row_quota_used")
                assert 0 < int(refused.headers["retry-after"]) <= 86_400
                assert (await client.get("/v1/saved-queries/revenue_by_month/results")).status_code == 429
                assert (await client.get("/v1/metrics")).status_code == 200
                assert (await client.post("/v1/query/compile", json=MONTHS)).status_code == 200


async def test_two_services_share_one_quota_through_redis(
    synthetic: Published, tmp_path: Path, redis_server: RedisServer
) -> None:
    shared = {"redis_url": redis_server.url}
    async with (
        serving(synthetic, tmp_path, **shared) as (one, keys),
        serving(synthetic, tmp_path, **shared) as (two, _),
    ):
        key = keys.create("m", role="limited")
        await away_from_the_end_of_a_minute()
        async with connect(one, key=key) as first, connect(two, key=key) as second:
            left = [
                int((await client.get("/v1/entities")).headers["ratelimit-remaining"]) for client in (first, second) * 6
            ]
            refused = await second.get("/v1/entities")

    assert left == list(range(11, -1, -1))
    assert refused.status_code == 429


def guess(app: FastAPI, address: str = "192.0.2.1") -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app, client=(address, 4711))
    return httpx.AsyncClient(transport=transport, base_url="http://insight.test")


async def test_keys_cannot_be_guessed_at_speed_and_good_ones_behind_the_same_address_go_on(
    synthetic: Published, tmp_path: Path
) -> None:
    with Issuer().serving() as issuer:
        limited = {"failures_per_minute": 5, **issuer.settings}
        async with serving(synthetic, tmp_path, **limited) as (app, keys), guess(app) as client:
            known = {"X-API-Key": keys.create("known", role="analyst")}
            new = {"X-API-Key": keys.create("new", role="analyst")}
            await away_from_the_end_of_a_minute()

            async def outcome(headers: dict[str, str], client: httpx.AsyncClient = client) -> tuple[int, str]:
                answer = await client.get("/v1/entities", headers=headers)
                return answer.status_code, "" if answer.status_code == 200 else answer.json()["code"]

            assert await outcome(known) == (200, "")
            for number in range(5):
                assert await outcome({"X-API-Key": f"mi_0_guess{number}"}) == (401, "invalid_key")
            for number in range(5, 10):
                assert await outcome({"X-API-Key": f"mi_0_guess{number}"}) == (429, "too_many_failures")
            assert await outcome({"X-API-Key": "hello"}) == (429, "too_many_failures")
            assert await outcome(known) == (200, "")
            assert await outcome({"X-API-Key": issuer.token()}) == (200, "")
            assert await outcome({}) == (401, "missing_key")
            # This one is indistinguishable from a guess until it is looked up.
            assert await outcome(new) == (429, "too_many_failures")
            async with guess(app, "192.0.2.2") as neighbour:
                assert await outcome(new, neighbour) == (200, "")
            assert await outcome(new) == (200, "")
            # A key that was good is looked up once more, and is a guess from then on.
            keys.revoke(next(record.key_id for record in keys.records() if record.name == "known"))
            await asyncio.sleep(2.1)
            assert await outcome(known) == (429, "too_many_failures")


async def test_failures_on_this_machine_are_not_counted_unless_a_setting_says_so(
    synthetic: Published, tmp_path: Path
) -> None:
    wrong = {"X-API-Key": "mi_0_guess"}
    async with serving(synthetic, tmp_path, failures_per_minute=3) as (app, _), guess(app, "127.0.0.1") as client:
        assert {(await client.get("/v1/entities", headers=wrong)).status_code for _ in range(10)} == {401}
    strict = {"failures_per_minute": 3, "failures_exempt": ""}
    async with serving(synthetic, tmp_path, **strict) as (app, _), guess(app, "127.0.0.1") as client:
        await away_from_the_end_of_a_minute()
        statuses = [(await client.get("/v1/entities", headers=wrong)).status_code for _ in range(10)]
        assert statuses == [401] * 3 + [429] * 7
