"""API keys: shown once, kept as hashes, over when they expire or are revoked."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from api.errors import Unauthenticated, Unavailable, UnknownName
from api.keys import ApiKeys
from api.main import create_app
from api.state import open_state
from tests.conftest import Published, connect, service_settings


@pytest.fixture
def state_file(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "down" / "state.db"


@pytest.fixture
def keys(state_file: Path) -> Iterator[ApiKeys]:
    state = open_state(f"sqlite:///{state_file}")
    yield ApiKeys(state)
    state.dispose()


@pytest.fixture
async def stranger(synthetic: Published, state_file: Path, keys: ApiKeys) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a key, of a service with the keys under test."""
    app = create_app(service_settings(synthetic, state_url=f"sqlite:///{state_file}"))
    async with app.router.lifespan_context(app), connect(app) as client:
        yield client


async def status(client: httpx.AsyncClient, **headers: str) -> int:
    return (await client.get("/v1/entities", headers=headers)).status_code


async def test_a_key_opens_the_door_as_a_bearer_token_or_in_its_own_header(
    stranger: httpx.AsyncClient, keys: ApiKeys
) -> None:
    key = keys.create("both", role="analyst")

    assert await status(stranger, Authorization=f"Bearer {key}") == 200
    assert await status(stranger, Authorization=f"bearer {key}") == 200
    assert await status(stranger, **{"X-API-Key": key}) == 200
    assert await status(stranger, **{"X-API-Key": key[:-1]}) == 401
    assert await status(stranger, **{"X-API-Key": key.upper()}) == 401


async def test_a_key_is_over_when_it_has_expired(stranger: httpx.AsyncClient, keys: ApiKeys) -> None:
    expired = keys.create("short", role="analyst", lifetime=timedelta(microseconds=1))
    lasting = keys.create("long", role="analyst", lifetime=timedelta(days=1))

    assert await status(stranger, **{"X-API-Key": expired}) == 401
    assert await status(stranger, **{"X-API-Key": lasting}) == 200


async def test_a_key_in_use_is_over_two_seconds_after_it_expires(stranger: httpx.AsyncClient, keys: ApiKeys) -> None:
    key = keys.create("brief", role="analyst", lifetime=timedelta(seconds=0.5))
    assert await status(stranger, **{"X-API-Key": key}) == 200

    await asyncio.sleep(2.6)

    assert await status(stranger, **{"X-API-Key": key}) == 401


async def test_a_revoked_key_is_over_within_two_seconds_and_the_others_are_not(
    stranger: httpx.AsyncClient, keys: ApiKeys
) -> None:
    key, other = keys.create("to be revoked", role="analyst"), keys.create("other", role="analyst")
    assert await status(stranger, **{"X-API-Key": key}) == 200

    keys.revoke(next(record.key_id for record in keys.records() if record.name == "to be revoked"))
    await asyncio.sleep(2.1)

    assert await status(stranger, **{"X-API-Key": key}) == 401
    assert await status(stranger, **{"X-API-Key": other}) == 200


async def test_a_key_that_was_let_in_is_known_until_it_is_found_invalid(keys: ApiKeys) -> None:
    key = keys.create("known", role="analyst")
    assert not keys.has_let_in(key)
    await keys.authenticate(key)
    assert keys.has_let_in(key)

    keys.revoke(keys.records()[0].key_id)
    await asyncio.sleep(2.1)
    with pytest.raises(Unauthenticated):
        await keys.authenticate(key)

    assert not keys.has_let_in(key)


def test_a_second_revocation_keeps_the_time_of_the_first(keys: ApiKeys) -> None:
    keys.create("once", role="analyst")
    key_id = keys.records()[0].key_id

    keys.revoke(key_id)
    first = keys.records()[0].revoked_at
    keys.revoke(key_id)

    assert first is not None
    assert keys.records()[0].revoked_at == first


def test_an_unknown_key_cannot_be_revoked(keys: ApiKeys) -> None:
    with pytest.raises(UnknownName):
        keys.revoke("00000000")


def test_only_a_hash_of_the_key_is_kept(keys: ApiKeys, state_file: Path) -> None:
    key = keys.create("secret", role="analyst")

    assert key.partition("_")[0] == "mi"
    secret = key.split("_", 2)[2]
    with sqlite3.connect(state_file) as state:
        dump = "\n".join(state.iterdump())
    state.close()
    assert secret not in dump
    assert secret not in repr(keys.records())


def test_keys_are_all_different_and_listed_newest_first(keys: ApiKeys) -> None:
    made = [keys.create(f"key {number}", role="viewer") for number in range(20)]

    assert len(set(made)) == len({record.key_id for record in keys.records()}) == 20
    assert [record.name for record in keys.records()] == [f"key {number}" for number in reversed(range(20))]


async def test_the_refusal_does_not_say_why_a_key_is_not_valid(keys: ApiKeys) -> None:
    revoked, expired = (
        keys.create("revoked", role="analyst"),
        keys.create("expired", role="analyst", lifetime=timedelta(microseconds=1)),
    )
    keys.revoke(next(record.key_id for record in keys.records() if record.name == "revoked"))

    texts = set()
    for key in (revoked, expired, "mi_00000000_unknown", ""):
        with pytest.raises(Unauthenticated) as caught:
            await keys.authenticate(key)
        texts.add((caught.value.detail, caught.value.hint, caught.value.code))
    assert len(texts) == 1


async def test_a_state_database_that_fails_is_a_503_with_a_time_to_retry(
    stranger: httpx.AsyncClient, keys: ApiKeys, state_file: Path
) -> None:
    key = keys.create("stranded", role="analyst")
    with sqlite3.connect(state_file) as state:
        state.execute("DROP TABLE api_keys")
    state.close()

    answer = await stranger.get("/v1/entities", headers={"X-API-Key": key})

    assert (answer.status_code, answer.json()["code"]) == (503, "state_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    with pytest.raises(Unavailable) as caught:
        await keys.authenticate(key)
    assert isinstance(caught.value.__cause__, sa.exc.SQLAlchemyError)


async def test_with_authentication_off_everybody_may_ask(synthetic: Published, state_file: Path) -> None:
    app = create_app(service_settings(synthetic, state_url=f"sqlite:///{state_file}", auth="off"))
    async with app.router.lifespan_context(app), connect(app) as client:
        assert await status(client) == 200
        assert await status(client, Authorization="Bearer whatever") == 200
