"""Exports: the rows of an answer, all of them, as the caller may see them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet
import pytest
from fastapi import FastAPI

from api.keys import ApiKeys
from api.main import create_app
from api.state import open_state
from tests.api.test_formats import ARROW, CSV, NDJSON, PARQUET, as_json
from tests.api.test_refusals import problem
from tests.conftest import Published, connect, service_settings

Client = httpx.AsyncClient

# More rows than a batch has, of a day, texts, an integer and a decimal.
QUERY: dict[str, Any] = {
    "metrics": ["line_count", "total_revenue"],
    "group_by": ["sale", "metric_time__day", "customer__location"],
}
POLICY = """
version: 1
roles:
  admin: {metrics: ["*"], dimensions: ["*"]}
  regional: {metrics: ["*"], dimensions: ["*"], rows: [{field: customer__location, op: in, claim: regions}]}
  masked: {metrics: ["*"], dimensions: ["*"], hashed: [customer]}
  small: {metrics: ["*"], dimensions: ["*"], max_rows: 100}
  blind: {metrics: [line_count], dimensions: [customer__gender]}
"""


@asynccontextmanager
async def serving(published: Published, folder: Path, **settings: Any) -> AsyncIterator[dict[str, Client]]:
    """A service of its own, with a client for each role; the regional one is of Chicago."""
    (folder / "policy.yml").write_text(POLICY)
    url = f"sqlite:///{folder / 'state.db'}"
    app = create_app(service_settings(published, state_url=url, policy_file=folder / "policy.yml", **settings))
    state = open_state(url)
    keys = ApiKeys(state)
    made = {role: keys.create(role, role=role) for role in ("admin", "masked", "small", "blind")}
    made["regional"] = keys.create("regional", role="regional", claims={"regions": ("Chicago",)})
    state.dispose()
    async with app.router.lifespan_context(app):
        clients = {role: connect(app, key=key) for role, key in made.items()}
        yield clients
        for client in clients.values():
            await client.aclose()


async def export(client: Client, query: dict[str, Any], accept: str | None = None) -> httpx.Response:
    return await client.post("/v1/export", json=query, headers={"Accept": accept} if accept else {})


async def exported(client: Client, query: dict[str, Any] = QUERY) -> list[dict[str, Any]]:
    response = await export(client, query)
    assert response.status_code == 200, response.text
    return [json.loads(line, parse_float=Decimal) for line in response.content.splitlines()]


async def paged(client: Client, query: dict[str, Any] = QUERY) -> list[dict[str, Any]]:
    """The rows as queries answer them, a page at a time."""
    rows: list[dict[str, Any]] = []
    while True:
        response = await client.post("/v1/query", json=query | {"limit": 7_000, "offset": len(rows)})
        assert response.status_code == 200, response.text
        page = json.loads(response.content, parse_float=Decimal)
        rows += page["data"]
        if not page["meta"]["truncated"]:
            return rows


async def test_an_export_has_the_rows_of_all_pages_in_their_order(api: Client) -> None:
    rows = await exported(api)

    assert rows == await paged(api)
    assert len(rows) > 8_192


@pytest.mark.parametrize("media_type", [CSV, ARROW, PARQUET])
async def test_an_export_has_the_same_rows_in_every_format(api: Client, media_type: str) -> None:
    response = await export(api, QUERY, media_type)

    assert response.headers["content-type"].partition(";")[0] == media_type
    match media_type:
        case "text/csv":
            rows: list[dict[str, Any]] = [
                row | {"line_count": int(row["line_count"]), "total_revenue": Decimal(row["total_revenue"])}
                for row in csv.DictReader(io.StringIO(response.text, newline=""))
            ]
        case "application/vnd.apache.arrow.stream":
            rows = pa.ipc.open_stream(response.content).read_all().to_pylist()
        case _:
            rows = pyarrow.parquet.read_table(io.BytesIO(response.content)).to_pylist()
    assert [{name: as_json(value) for name, value in row.items()} for row in rows] == [
        {name: as_json(value) for name, value in row.items()} for row in await exported(api)
    ]


async def test_types_and_columns_are_those_of_the_answer(api: Client) -> None:
    small = QUERY | {"limit": 10}
    answer = pa.ipc.open_stream((await api.post("/v1/query", json=small, headers={"Accept": ARROW})).content).read_all()
    stream = pa.ipc.open_stream((await export(api, small, ARROW)).content).read_all()

    assert stream == answer


async def test_an_export_says_where_it_comes_from(api: Client) -> None:
    freshness = (await api.get("/v1/freshness")).json()
    response = await export(api, QUERY | {"limit": 1})

    assert response.headers["content-type"] == NDJSON
    assert response.headers["insight-publication"] == freshness["publication"]
    assert response.headers["insight-as-of"] == freshness["as_of"]
    assert response.headers["content-disposition"] == (
        f'attachment; filename="{response.headers["insight-query-id"]}.ndjson"'
    )
    assert "content-length" not in response.headers


@pytest.mark.parametrize("limit", [1, 8_191, 8_192, 8_193])
async def test_a_limit_is_kept_to_the_row(api: Client, limit: int) -> None:
    assert len(await exported(api, QUERY | {"limit": limit})) == limit


@pytest.mark.parametrize("media_type", [NDJSON, CSV, ARROW, PARQUET])
async def test_an_export_without_rows_is_one_in_every_format(api: Client, media_type: str) -> None:
    response = await export(api, QUERY | {"time_range": {"start": "2001-01-01", "end": "2001-01-02"}}, media_type)

    assert response.status_code == 200
    match media_type:
        case "application/x-ndjson":
            assert response.content == b""
        case "text/csv":
            assert response.text == "sale,metric_time__day,customer__location,line_count,total_revenue\r\n"
        case "application/vnd.apache.arrow.stream":
            assert pa.ipc.open_stream(response.content).read_all().num_rows == 0
        case _:
            assert pyarrow.parquet.read_table(io.BytesIO(response.content)).num_rows == 0


@pytest.mark.parametrize(
    ("query", "accept", "status", "code"),
    [
        (QUERY | {"offset": 1}, None, 422, "malformed_request"),
        (QUERY | {"limit": 0}, None, 422, "malformed_request"),
        (QUERY | {"limit": 5_000_001}, None, 422, "invalid_limit"),
        (QUERY | {"metrics": ["total_revenu"]}, None, 404, "unknown_metric"),
        (QUERY, "application/json", 406, "not_acceptable"),
        ({}, None, 422, "invalid_query"),
    ],
)
async def test_an_export_that_is_wrong_is_refused_before_it_begins(
    api: Client, query: dict[str, Any], accept: str | None, status: int, code: str
) -> None:
    problem(await export(api, query, accept), status, code)


async def test_an_export_needs_a_key(service: FastAPI) -> None:
    async with connect(service) as client:
        problem(await export(client, QUERY), 401, "missing_key")


async def test_more_rows_than_an_export_may_have_are_none_for_whole(synthetic: Published, tmp_path: Path) -> None:
    async with serving(synthetic, tmp_path, max_export_rows=1_000) as clients:
        refused = await export(clients["admin"], QUERY)
        limited = await exported(clients["admin"], QUERY | {"limit": 1_000})

    problem(refused, 422, "export_too_large")
    assert len(limited) == 1_000


async def test_policy_holds_for_exports_as_for_answers(synthetic: Published, tmp_path: Path) -> None:
    by_customer = {"metrics": ["line_count"], "group_by": ["customer", "customer__location"]}
    async with serving(synthetic, tmp_path) as clients:
        for role in ("admin", "regional", "masked"):
            assert await exported(clients[role], by_customer) == await paged(clients[role], by_customer), role
        regional = await exported(clients["regional"], by_customer)
        masked, plain = [await exported(clients[role], by_customer) for role in ("masked", "admin")]

        assert {row["customer__location"] for row in regional} == {"Chicago"}
        assert {type(row["customer"]) for row in masked} == {str}
        assert len({row["customer"] for row in masked}) == len(plain)
        problem(await export(clients["small"], by_customer), 422, "export_too_large")
        problem(await export(clients["small"], by_customer | {"limit": 101}), 422, "invalid_limit")
        assert len(await exported(clients["small"], by_customer | {"limit": 100})) == 100
        problem(await export(clients["blind"], by_customer), 404, "unknown_dimension")
        problem(
            await export(clients["masked"], by_customer | {"order_by": [{"field": "customer"}]}),
            403,
            "hashed_dimension",
        )


async def test_an_export_keeps_nothing(synthetic: Published, tmp_path: Path) -> None:
    query = {"metrics": ["line_count"], "group_by": ["customer__location"], "limit": 3}
    async with serving(synthetic, tmp_path) as clients:
        await exported(clients["admin"], query)
        answer = await clients["admin"].post("/v1/query", json=query)

    assert answer.json()["meta"]["cache"]["result"] == "miss"


async def test_an_export_gives_its_places_back_however_it_ends(synthetic: Published, tmp_path: Path) -> None:
    async with serving(synthetic, tmp_path, pool_size=1, queue_size=0) as clients:
        for _ in range(3):
            await exported(clients["admin"], QUERY | {"limit": 10})
            problem(await export(clients["small"], QUERY), 422, "export_too_large")

        assert (await clients["admin"].post("/v1/query", json=QUERY | {"limit": 9})).status_code == 200
