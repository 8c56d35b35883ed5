"""Answers that are kept: for the same question, publication and rows alone, and never at the price of an answer."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.keys import ApiKeys
from api.main import create_app
from api.state import open_state
from tests import services
from tests.api import test_publication
from tests.conftest import Published, connect, service_settings
from tests.services import RedisServer
from workers.publish import PublicationStore

redis_server = services.redis_server
two_versions = test_publication.two_versions

FRESH = {"Cache-Control": "no-cache"}
FORMATS = (
    "application/json",
    "text/csv",
    "application/vnd.apache.arrow.stream",
    "application/vnd.apache.parquet",
)
POLICY = """
version: 1
roles:
  admin: {metrics: ["*"], dimensions: ["*"]}
  regional: {metrics: ["*"], dimensions: ["*"], rows: [{field: customer__location, op: in, claim: regions}]}
"""

# What Redis may cost an answer when it is away (0.15 s), and all that a busy machine adds.
BOUND_S = 2.0

Client = httpx.AsyncClient

_floors = itertools.count(-1_000_000)


def unasked() -> dict[str, Any]:
    """A question that nobody has asked before; its filter lets every row pass."""
    having = {"field": "line_count", "op": "gt", "values": [next(_floors)]}
    return {"metrics": ["line_count"], "group_by": ["customer__location"], "having": [having]}


async def ask(client: Client, query: dict[str, Any], **headers: str) -> tuple[str, list[dict[str, Any]]]:
    """Where the answer came from, and its rows."""
    response = await client.post("/v1/query", json=query, headers=headers)
    assert response.status_code == 200, response.text
    return response.json()["meta"]["cache"]["result"], response.json()["data"]


@asynccontextmanager
async def serving(published: Published, state: Path, **settings: Any) -> AsyncIterator[dict[str, Client]]:
    """A service of its own, with clients for everybody and for two regions."""
    policy = state.with_name("policy.yml")
    policy.write_text(POLICY)
    url = f"sqlite:///{state}"
    app = create_app(service_settings(published, state_url=url, policy_file=policy, **settings))
    engine = open_state(url)
    keys = ApiKeys(engine)
    made = {"admin": keys.create("admin", role="admin")} | {
        place: keys.create(place, role="regional", claims={"regions": (place,)}) for place in ("California", "Chicago")
    }
    engine.dispose()
    async with app.router.lifespan_context(app):
        clients = {name: connect(app, key=key) for name, key in made.items()}
        yield clients
        for client in clients.values():
            await client.aclose()


async def test_the_same_question_runs_once_and_another_value_is_another_question(api: Client) -> None:
    query, other = unasked(), unasked()
    first, rows = await ask(api, query)
    again = await ask(api, query)
    another, _ = await ask(api, other)

    assert first == "miss"
    assert again == ("hit", rows)
    assert another == "miss"


@pytest.mark.parametrize(
    "change",
    [
        {"where": [{"field": "customer__gender", "op": "eq", "values": ["F"]}]},
        {"where": [{"field": "customer__gender", "op": "eq", "values": ["M"]}]},
        {"where": [{"field": "customer__gender", "op": "ne", "values": ["F"]}]},
        {"metrics": ["line_count", "total_revenue"]},
        {"group_by": ["customer__location", "customer__gender"]},
        {"time_range": {"start": "2019-01-01", "end": "2019-01-31"}},
        {"order_by": [{"field": "line_count", "descending": True}]},
        {"limit": 2},
        {"limit": 2, "offset": 1},
    ],
)
async def test_whatever_changes_the_answer_changes_the_entry(api: Client, change: dict[str, Any]) -> None:
    query = unasked()
    _, rows = await ask(api, query)
    origin, changed = await ask(api, query | change)

    assert origin == "miss"
    assert changed != rows
    assert await ask(api, query) == ("hit", rows)


async def test_an_answer_says_why_it_came_from_the_cache_or_not(api: Client) -> None:
    query = unasked()
    reasons = [
        (await api.post("/v1/query", json=query, headers=headers)).json()["meta"]["cache"]["reason"]
        for headers in ({}, {}, FRESH)
    ]

    assert reasons == ["first_time", "kept", "asked_anew"]


async def test_every_format_is_made_of_the_same_run(api: Client) -> None:
    query = unasked()
    csv = await api.post("/v1/query", json=query, headers={"Accept": "text/csv"})
    origin, rows = await ask(api, query)

    assert origin == "hit"
    assert len(csv.text.splitlines()) == len(rows) + 1


async def test_no_cache_runs_anew_and_what_it_found_is_kept(api: Client) -> None:
    kept, new = unasked(), unasked()
    _, rows = await ask(api, kept)

    assert await ask(api, kept, **FRESH) == ("bypass", rows)
    assert await ask(api, kept, **{"Cache-Control": "max-age=0, No-Cache"}) == ("bypass", rows)
    assert await ask(api, kept) == ("hit", rows)
    assert (await ask(api, new, **FRESH))[0] == "bypass"
    assert (await ask(api, new))[0] == "hit"


async def test_a_saved_query_is_kept_and_renewed_alike(api: Client) -> None:
    path, origins = "/v1/saved-queries/revenue_by_category/results", []
    for headers in (FRESH, {}, FRESH, {}):
        response = await api.get(path, headers=headers)
        origins.append(response.json()["meta"]["cache"]["result"])
        unchanged = await api.get(path, headers={"If-None-Match": response.headers["etag"]})
        assert (unchanged.status_code, unchanged.content) == (304, b"")

    assert origins == ["bypass", "hit", "bypass", "hit"]


async def test_a_refusal_is_not_kept(api: Client) -> None:
    refused = [await api.post("/v1/query", json={"metrics": ["no_such_metric"]}) for _ in range(2)]

    assert [response.status_code for response in refused] == [404, 404]
    assert all("etag" not in response.headers for response in refused)


async def test_fifty_equal_questions_at_once_run_once(api: Client) -> None:
    for _ in range(5):
        query = unasked() | {"metrics": ["line_count", "total_revenue"], "group_by": ["customer"]}
        answers = await asyncio.gather(*(ask(api, query) for _ in range(50)))
        origins = Counter(origin for origin, _ in answers)

        assert origins["miss"] == 1
        assert origins["shared"] + origins["hit"] == 49
        assert origins["shared"] > 0
        assert all(rows == answers[0][1] for _, rows in answers)


# Publications


async def test_another_publication_is_never_answered_from_the_kept_answers_of_the_last(
    two_versions: tuple[Path, str, str], tmp_path: Path
) -> None:
    root, older, later = two_versions
    folder = Path(shutil.copytree(root, tmp_path / "publications"))
    store = PublicationStore(folder, keep=5)
    seen: dict[str, list[tuple[str, str, str]]] = {older: [], later: []}
    async with test_publication.serving(folder) as (_, client):
        for version in (older, later, older, later):
            store.rollback(version)
            await test_publication.served(client, version, within_s=2)
            for _ in range(2):
                response = await client.post("/v1/query", json=test_publication.BODY)
                found = response.json()
                assert found["meta"]["publication"] == version
                seen[version].append((found["meta"]["cache"]["result"], str(found["data"]), response.headers["etag"]))

    for answers in seen.values():
        assert [origin for origin, _, _ in answers] == ["miss", "hit", "hit", "hit"]
        assert len({(rows, tag) for _, rows, tag in answers}) == 1
    assert seen[older][0][1] != seen[later][0][1]


async def test_a_tag_of_the_last_publication_is_answered_with_new_rows(
    two_versions: tuple[Path, str, str], tmp_path: Path
) -> None:
    root, _, later = two_versions
    folder = Path(shutil.copytree(root, tmp_path / "publications"))
    async with test_publication.serving(folder) as (_, client):
        before = await client.post("/v1/query", json=test_publication.BODY)
        known = {"If-None-Match": before.headers["etag"]}
        assert (await client.post("/v1/query", json=test_publication.BODY, headers=known)).status_code == 304

        PublicationStore(folder, keep=5).rollback(later)
        await test_publication.served(client, later, within_s=2)
        after = await client.post("/v1/query", json=test_publication.BODY, headers=known)

    assert after.status_code == 200
    assert after.json()["data"] != before.json()["data"]
    assert after.headers["etag"] != before.headers["etag"]


# Tags


@pytest.mark.parametrize("accept", FORMATS)
async def test_an_answer_that_the_caller_has_is_not_sent_again(api: Client, accept: str) -> None:
    query = unasked()
    first = await api.post("/v1/query", json=query, headers={"Accept": accept})
    tag = first.headers["etag"]
    for known in (tag, f'"some-other", {tag}', f'{tag},W/"another"'):
        again = await api.post("/v1/query", json=query, headers={"Accept": accept, "If-None-Match": known})

        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == tag
        # RFC 9110, 15.4.5: what a 200 would say of its keeping, a 304 says too.
        assert [again.headers.get(name) for name in ("Vary", "Cache-Control")] == ["Accept", "private, no-cache"]


async def test_a_tag_belongs_to_one_format_and_one_question(api: Client) -> None:
    query, other = unasked(), unasked()
    answers = [await api.post("/v1/query", json=query, headers={"Accept": accept}) for accept in FORMATS]
    tags = [answer.headers["etag"] for answer in answers]
    assert len(set(tags)) == len(FORMATS)

    for accept, tag in zip(FORMATS, [*tags[1:], tags[0]], strict=True):
        answer = await api.post("/v1/query", json=query, headers={"Accept": accept, "If-None-Match": tag})
        assert answer.status_code == 200
    assert (await api.post("/v1/query", json=other, headers={"If-None-Match": tags[0]})).status_code == 200
    assert (await api.post("/v1/query", json=query, headers={"If-None-Match": tags[0]} | FRESH)).status_code == 304


async def test_an_answer_may_be_kept_by_its_caller_alone(api: Client) -> None:
    answer = await api.post("/v1/query", json=unasked())

    assert answer.headers["cache-control"] == "private, no-cache"
    assert answer.headers["vary"] == "Accept"


# Redis


async def test_two_replicas_share_what_one_of_them_ran(
    synthetic: Published, redis_server: RedisServer, tmp_path: Path
) -> None:
    state = tmp_path / "state.db"
    async with (
        serving(synthetic, state, redis_url=redis_server.url) as one,
        serving(synthetic, state, redis_url=redis_server.url) as other,
    ):
        query = unasked()
        origin, rows = await ask(one["admin"], query)
        elsewhere = await ask(other["admin"], query)
        locally = await ask(other["admin"], query)

        together = unasked()
        answers = await asyncio.gather(*(ask(app["admin"], together) for app in (one, other) for _ in range(20)))

    assert origin == "miss"
    assert elsewhere[0] in {"hit", "shared"}
    assert elsewhere[1] == rows
    assert locally == ("hit", rows)
    assert Counter(origin for origin, _ in answers)["miss"] == 1
    assert all(found == answers[0][1] for _, found in answers)


async def test_without_redis_answers_go_on_and_with_it_again_they_are_shared_again(
    synthetic: Published, redis_server: RedisServer, tmp_path: Path
) -> None:
    state = tmp_path / "state.db"
    async with (
        serving(synthetic, state, redis_url=redis_server.url) as one,
        serving(synthetic, state, redis_url=redis_server.url) as other,
    ):
        kept = unasked()
        _, rows = await ask(one["admin"], kept)
        redis_server.stop()

        assert await ask(one["admin"], kept) == ("hit", rows)
        assert (await ask(other["admin"], kept))[0] == "miss"
        for _ in range(20):
            started = time.perf_counter()
            origin, found = await ask(one["admin"], unasked())
            assert time.perf_counter() - started < BOUND_S
            assert origin == "miss"
            assert found == rows

        redis_server.start()
        deadline = time.monotonic() + 10
        origins = ("miss", "miss")
        while origins != ("miss", "hit"):
            assert time.monotonic() < deadline, "nothing is shared again"
            query = unasked()
            origins = ((await ask(one["admin"], query))[0], (await ask(other["admin"], query))[0])
            await asyncio.sleep(0.1)


async def test_a_redis_that_is_flushed_or_paused_costs_no_answer(
    synthetic: Published, redis_server: RedisServer, tmp_path: Path
) -> None:
    async with serving(synthetic, tmp_path / "state.db", redis_url=redis_server.url) as clients:
        _, rows = await ask(clients["admin"], unasked())
        redis_server.ask("FLUSHALL")
        assert await ask(clients["admin"], unasked()) == ("miss", rows)

        redis_server.pause()
        started = time.perf_counter()
        answers = await asyncio.gather(*(ask(clients["admin"], unasked()) for _ in range(20)))
        assert time.perf_counter() - started < BOUND_S * 2
        redis_server.resume()

    assert answers == [("miss", rows)] * 20


async def test_callers_share_an_entry_only_where_the_same_rows_count_for_them(
    synthetic: Published, redis_server: RedisServer, tmp_path: Path
) -> None:
    state = tmp_path / "state.db"
    async with (
        serving(synthetic, state, redis_url=redis_server.url) as one,
        serving(synthetic, state, redis_url=redis_server.url) as other,
    ):
        query = unasked()
        first = {name: await ask(client, query) for name, client in one.items()}
        again = {name: await ask(client, query) for name, client in reversed(other.items())}
        explicit = query | {"where": [{"field": "customer__location", "op": "in", "values": ["Chicago"]}]}
        by_hand = await ask(one["admin"], explicit, **FRESH)

    assert [origin for origin, _ in first.values()] == ["miss"] * 3
    assert {name: rows for name, (_, rows) in again.items()} == {name: rows for name, (_, rows) in first.items()}
    assert {row["customer__location"] for row in first["Chicago"][1]} == {"Chicago"}
    assert {row["customer__location"] for row in first["California"][1]} == {"California"}
    assert len(first["admin"][1]) > 2
    assert by_hand[1] == first["Chicago"][1]


async def test_what_redis_holds_names_no_value_of_a_question(
    synthetic: Published, redis_server: RedisServer, tmp_path: Path
) -> None:
    async with serving(synthetic, tmp_path / "state.db", redis_url=redis_server.url) as clients:
        await ask(clients["Chicago"], unasked())
        names = redis_server.ask("KEYS", "*")

    assert b"insight:result:" in names
    assert b"Chicago" not in names
    assert b"line_count" not in names
