"""Every status that an operation is said to answer, brought about: the other half of a description's truth.

A new operation is provoked without a word here. A status of a new kind needs a way of its own, a function in `WAYS`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pyarrow as pa
import sqlalchemy as sa
from fastapi import FastAPI

from api.keys import ApiKeys
from api.main import create_app
from api.settings import Settings
from api.state import open_state
from api.warehouse import Flight, Statement
from tests.conftest import connect
from tests.contract.served import PROBLEM, Asked, Contract, Operation, follow

# With a limit that nobody meets, an answer says what is left of it.
POLICY = """
version: 1
roles:
  admin: {metrics: ["*"], dimensions: ["*"], see_sql: true, requests_per_minute: 1000000}
  viewer: {metrics: ["*"], dimensions: ["*"]}
  frugal: {metrics: ["*"], dimensions: ["*"], see_sql: true, max_rows: 1, requests_per_minute: 1000000}
  blind: {metrics: ["*"], dimensions: [metric_time], see_sql: true, requests_per_minute: 1000000}
  hasty: {metrics: ["*"], dimensions: ["*"], see_sql: true, requests_per_minute: 1}
"""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One service in four states, and its callers."""

    app: FastAPI
    admin: httpx.AsyncClient
    stranger: httpx.AsyncClient
    nobody: httpx.AsyncClient  # has a key, of a role that the policy does not name
    viewer: httpx.AsyncClient  # sees no SQL
    frugal: httpx.AsyncClient  # gets a row at a time
    blind: httpx.AsyncClient  # sees metrics over time alone
    hasty: httpx.AsyncClient  # may ask once a minute
    unpublished: httpx.AsyncClient  # nothing is published
    hurried: httpx.AsyncClient  # every query runs too long, and what is submitted waits for ever
    forgetful: httpx.AsyncClient  # its state database is empty


@asynccontextmanager
async def staged(publications: Path, home: Path) -> AsyncIterator[Stage]:
    """The stage over the publications; its keys are kept in `home`."""
    (home / "empty").mkdir(parents=True, exist_ok=True)
    (home / "policy.yml").write_text(POLICY)
    usual = {"publication_dir": publications, "policy_file": home / "policy.yml", "redis_url": None}
    keys = _keys(home / "state.db")

    async with AsyncExitStack() as stack:

        async def started(**given: object) -> FastAPI:
            app = create_app(Settings(_env_file=None, **(usual | given)))
            await stack.enter_async_context(app.router.lifespan_context(app))
            return app

        async def client(app: FastAPI, key: str | None = None) -> httpx.AsyncClient:
            return await stack.enter_async_context(connect(app, key=key))

        app = await started(state_url=_url(home / "state.db"))
        # Each has a state of its own, or it would run what was submitted to another.
        unpublished = await client(
            await started(publication_dir=home / "empty", state_url=_url(home / "unpublished.db")),
            _keys(home / "unpublished.db")["admin"],
        )
        hurry = await started(
            query_timeout_s=0.000_001,
            export_timeout_s=0.000_001,
            body_timeout_s=0.05,
            deferred_running=0,
            state_url=_url(home / "hurried.db"),
        )
        _slow_down(hurry)
        hurried = await client(hurry, _keys(home / "hurried.db")["admin"])
        forgetful = await client(await started(state_url=_url(home / "forgetful.db")), keys["admin"])
        _forget(home / "forgetful.db")
        yield Stage(
            app=app,
            admin=await client(app, keys["admin"]),
            stranger=await client(app),
            nobody=await client(app, keys["nobody"]),
            viewer=await client(app, keys["viewer"]),
            frugal=await client(app, keys["frugal"]),
            blind=await client(app, keys["blind"]),
            hasty=await client(app, keys["hasty"]),
            unpublished=unpublished,
            hurried=hurried,
            forgetful=forgetful,
        )


def _url(state: Path) -> str:
    return f"sqlite:///{state}"


def _keys(state: Path) -> dict[str, str]:
    """A key of each role in the state, which is made."""
    engine = open_state(_url(state))
    roles = ("admin", "viewer", "frugal", "blind", "hasty", "nobody")
    keys = {role: ApiKeys(engine).create(role, role=role) for role in roles}
    engine.dispose()
    return keys


def _forget(state: Path) -> None:
    engine = sa.create_engine(_url(state))
    tables = sa.MetaData()
    tables.reflect(engine)
    tables.drop_all(engine)
    engine.dispose()


def _slow_down(app: FastAPI) -> None:
    """Make every statement of the application take a while: on a busy machine a short one may be done in no time."""
    with app.state.semantic_layer._served.lease() as publication:  # noqa: SLF001 - from outside nothing is slow enough
        engine = publication.warehouse._engine  # noqa: SLF001
    run = engine.run

    def slowly(statement: Statement, flight: Flight) -> pa.Table:
        time.sleep(0.02)
        return run(statement, flight)

    engine.run = slowly


Way = Callable[[Stage, Operation, Asked], Awaitable[httpx.Response]]


async def _plainly(stage: Stage, operation: Operation, asked: Asked) -> httpx.Response:
    return await operation.ask(stage.admin, asked)


async def _with_its_etag(stage: Stage, operation: Operation, asked: Asked) -> httpx.Response:
    first = await operation.ask(stage.admin, asked)
    return await operation.ask(stage.admin, asked, headers={"If-None-Match": first.headers.get("etag", "none")})


async def _without_a_key(stage: Stage, operation: Operation, asked: Asked) -> httpx.Response:
    return await operation.ask(stage.stranger, asked)


async def _by_nobody(stage: Stage, operation: Operation, asked: Asked) -> httpx.Response:
    return await operation.ask(stage.nobody, asked)


async def _by_a_viewer(stage: Stage, operation: Operation, asked: Asked) -> httpx.Response:
    return await operation.ask(stage.viewer, asked)


async def _by_who_sees_no_dimensions(stage: Stage, operation: Operation, asked: Asked) -> httpx.Response:
    return await operation.ask(stage.blind, asked)


async def _for_a_number_that_is_none(stage: Stage, operation: Operation, asked: Asked) -> httpx.Response:
    path = {name: 999_999 if isinstance(value, int) else value for name, value in asked.path_parameters.items()}
    return await operation.ask(stage.admin, replace(asked, path_parameters=path))


async def _for_a_name_that_is_none(stage: Stage, operation: Operation, asked: Asked) -> httpx.Response:
    path = {name: f"{value}s" for name, value in asked.path_parameters.items()}
    query = dict(asked.query) | ({"metrics": "total_revenu"} if "metrics" in asked.query else {})
    body = asked.body | {"metrics": ["total_revenu"]} if isinstance(asked.body, dict) else asked.body
    return await operation.ask(stage.admin, replace(asked, path_parameters=path, query=query, body=body))


async def _row_by_row(stage: Stage, operation: Operation, asked: Asked) -> httpx.Response:
    return await operation.ask(stage.frugal, await _of_one_row(stage, asked))


async def _row_by_row_with_its_etag(stage: Stage, operation: Operation, asked: Asked) -> httpx.Response:
    small = await _of_one_row(stage, asked)
    first = await operation.ask(stage.frugal, small)
    return await operation.ask(stage.frugal, small, headers={"If-None-Match": first.headers.get("etag", "none")})


async def _of_one_row(stage: Stage, asked: Asked) -> Asked:
    if "query_id" in asked.path_parameters:
        months = {"metrics": ["total_revenue"], "group_by": ["metric_time__month"], "limit": 1}
        submitted = await stage.frugal.post("/v1/queries", json=months)
        await finished(stage.frugal, submitted)
        return replace(asked, path_parameters={"query_id": submitted.json()["query_id"]})
    return replace(asked, body=asked.body | {"limit": 1}) if isinstance(asked.body, dict) else asked


async def _as_a_picture(stage: Stage, operation: Operation, asked: Asked) -> httpx.Response:
    return await operation.ask(stage.admin, asked, headers={"Accept": "image/png"})


async def _with_half_a_body(stage: Stage, operation: Operation, asked: Asked) -> httpx.Response:
    more = {"content": b'{"metrics": ['} if operation.takes_a_body else {}
    return await operation.ask(stage.admin, asked, **more)


async def _with_a_cursor_of_its_own(stage: Stage, operation: Operation, asked: Asked) -> httpx.Response:
    takes_one = any(item["name"] == "cursor" for item in operation.parameters("query"))
    query = dict(asked.query) | ({"cursor": "2"} if takes_one else {})
    return await operation.ask(stage.admin, replace(asked, query=query))


async def _with_a_large_body(stage: Stage, operation: Operation, asked: Asked) -> httpx.Response:
    more = {"content": b" " * 2_000_000} if operation.takes_a_body else {}
    return await operation.ask(stage.admin, asked, **more)


async def _with_a_body_that_does_not_come(stage: Stage, operation: Operation, asked: Asked) -> httpx.Response:
    async def halting() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(60)

    more = {"content": halting()} if operation.takes_a_body else {}
    return await operation.ask(stage.hurried, asked, **more)


async def _too_often(stage: Stage, operation: Operation, asked: Asked) -> httpx.Response:
    response = await operation.ask(stage.hasty, asked)
    for _ in range(2):  # the second may fall into the next minute
        if response.status_code != 429:
            response = await operation.ask(stage.hasty, asked)
    return response


async def _before_it_has_finished(stage: Stage, operation: Operation, asked: Asked) -> httpx.Response:
    if "query_id" not in asked.path_parameters:
        return await operation.ask(stage.admin, asked)
    submitted = await stage.hurried.post("/v1/queries", json={"metrics": ["total_revenue"]})
    return await operation.ask(
        stage.hurried, replace(asked, path_parameters={"query_id": submitted.json()["query_id"]})
    )


async def _without_its_state(stage: Stage, operation: Operation, asked: Asked) -> httpx.Response:
    return await operation.ask(stage.forgetful, asked)


async def _with_a_text(stage: Stage, operation: Operation, asked: Asked) -> httpx.Response:
    more = {"headers": {"Content-Type": "text/plain"}} if operation.takes_a_body else {}
    return await operation.ask(stage.admin, asked, **more)


async def _with_a_parameter_too_many(stage: Stage, operation: Operation, asked: Asked) -> httpx.Response:
    return await operation.ask(stage.admin, replace(asked, query=dict(asked.query) | {"verbose": "1"}))


async def _before_anything_is_published(stage: Stage, operation: Operation, asked: Asked) -> httpx.Response:
    return await operation.ask(stage.unpublished, asked)


async def _without_time(stage: Stage, operation: Operation, asked: Asked) -> httpx.Response:
    response = await operation.ask(stage.hurried, asked)
    for limit in range(1, 20):  # a busy machine may look at its clock too late, and the result would be kept
        if response.status_code != 200:
            break
        query = dict(asked.query) | ({"limit": limit} if "limit" in asked.query else {})
        body = asked.body | {"limit": limit} if isinstance(asked.body, dict) else asked.body
        again = replace(asked, query=query, body=body)
        response = await operation.ask(stage.hurried, again, headers={"Cache-Control": "no-cache"})
    return response


WAYS: tuple[Way, ...] = (
    _plainly,
    _with_its_etag,
    _without_a_key,
    _by_nobody,
    _by_a_viewer,
    _by_who_sees_no_dimensions,
    _for_a_name_that_is_none,
    _for_a_number_that_is_none,
    _row_by_row,
    _row_by_row_with_its_etag,
    _as_a_picture,
    _with_half_a_body,
    _with_a_cursor_of_its_own,
    _with_a_large_body,
    _with_a_body_that_does_not_come,
    _with_a_text,
    _with_a_parameter_too_many,
    _too_often,
    _before_it_has_finished,
    _before_anything_is_published,
    _without_its_state,
    _without_time,
)


async def first_requests(contract: Contract, client: httpx.AsyncClient) -> dict[str, Asked]:
    """A request that is answered for every operation: from its examples, or from where another's answer leads."""
    found: dict[str, Asked] = {item.name: item.example for item in contract.operations if item.example is not None}
    waiting = list(found)
    while waiting:
        operation = contract.operation(waiting.pop(0))
        if operation.leads_nowhere:
            continue
        response = await operation.ask(client, found[operation.name])
        await finished(client, response)
        for link in operation.links(response.status_code):
            target = contract.operation(link["operationId"])
            made = follow(link, found[operation.name], response, to=target)
            if target.name not in found and made is not None:
                found[target.name] = made
                waiting.append(target.name)
    return found


async def finished(client: httpx.AsyncClient, response: httpx.Response) -> None:
    """Wait until what the answer began has ended, if it began anything."""
    if response.status_code != 202:
        return
    progress = response
    async with asyncio.timeout(60):
        while "retry-after" in progress.headers:
            await asyncio.sleep(0.05)
            progress = await client.get(response.headers["location"])


async def provoke(contract: Contract, stage: Stage) -> dict[str, list[httpx.Response]]:
    """What each operation answers, asked in every way; in the order of the description."""
    requests = await first_requests(contract, stage.admin)
    return {
        operation.name: [await way(stage, operation, requests[operation.name]) for way in WAYS]
        for operation in contract.operations
        if operation.name in requests
    }


def problems(responses: dict[str, list[httpx.Response]]) -> dict[str, httpx.Response]:
    """The first problem of each status."""
    found: dict[str, httpx.Response] = {}
    for response in (response for answered in responses.values() for response in answered):
        if response.headers.get("content-type") == PROBLEM:
            found.setdefault(str(response.status_code), response)
    return dict(sorted(found.items()))
