"""The service over marts on Snowflake: the real connector against the emulated account."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, closing
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
import sqlalchemy as sa

from api.errors import InvalidQuery, QueryTimeout, Unavailable
from api.main import create_app
from api.opened import open_publication
from api.settings import AuthMode
from api.snowflake_account import SnowflakeAccount, SnowflakeSettings
from api.snowflake_engine import SnowflakeEngine, SnowflakeSessions
from api.warehouse import EngineLimits, Warehouse
from tests.conftest import Published, connect, service_settings
from tests.snowflake import SnowflakeEmulator
from tests.snowflake_published import published_on_snowflake

LIMITS = EngineLimits(memory_mb=256, threads=1, connections=2, query_timeout=timedelta(seconds=30))
DATABASE = "SERVICE"
NUMBERS = "(SELECT seq4() AS i FROM TABLE(generator(rowcount => 1000000)))"
RUNAWAY = f"SELECT sum(a.i * b.i) AS n FROM {NUMBERS} AS a, {NUMBERS} AS b"


@pytest.fixture(scope="module")
def published(
    snowflake: SnowflakeEmulator, synthetic: Published, tmp_path_factory: pytest.TempPathFactory
) -> Published:
    """The synthetic marts, published on the emulated account."""
    return published_on_snowflake(snowflake, synthetic, tmp_path_factory, database=DATABASE)


@pytest.fixture(scope="module")
async def services(published: Published, synthetic: Published) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    """The same marts, asked in the account and in a file."""
    async with AsyncExitStack() as stack:
        clients = {}
        for name, where in (("snowflake", published), ("duckdb", synthetic)):
            app = create_app(service_settings(where, auth=AuthMode.OFF))
            await stack.enter_async_context(app.router.lifespan_context(app))
            clients[name] = await stack.enter_async_context(connect(app))
        yield clients


@pytest.fixture(scope="module")
def sessions(published: Published) -> Iterator[SnowflakeSessions]:
    account = SnowflakeAccount.of(sa.make_url(published.settings.warehouse_url))
    with closing(SnowflakeSessions(account, limits=LIMITS)) as opened:
        yield opened


@pytest.fixture
def warehouse(sessions: SnowflakeSessions) -> Iterator[Warehouse]:
    with closing(Warehouse(SnowflakeEngine(sessions, schema="marts", table_rows={}), limits=LIMITS)) as opened:
        yield opened


QUESTIONS: dict[str, dict[str, Any]] = {
    "two metrics by month": {"metrics": ["total_revenue", "transaction_count"], "group_by": ["metric_time__month"]},
    "filters on text, number and metric": {
        "metrics": ["total_revenue"],
        "group_by": ["product__category"],
        "where": [
            {"field": "product__category", "op": "contains", "values": ["e"]},
            {"field": "customer__tenure_months", "op": "between", "values": [2, 40]},
            {"field": "customer__gender", "op": "in", "values": ["F", "it's", "%s"]},
        ],
        "having": [{"field": "total_revenue", "op": "gt", "values": [10.5]}],
    },
    "a range of days": {
        "metrics": ["net_revenue"],
        "group_by": ["metric_time__week"],
        "time_range": {"start": "2019-03-01", "end": "2019-05-31"},
    },
    "compared with the month before": {
        "metrics": ["total_revenue"],
        "group_by": ["metric_time__month"],
        "time_range": {"start": "2019-03-01", "end": "2019-05-31"},
        "compare_to": "previous_period",
    },
    "parts of dates": {"metrics": ["line_count"], "group_by": ["metric_time__extract_dow"]},
    "the second page": {
        "metrics": ["units_sold"],
        "group_by": ["product"],
        "order_by": [{"field": "units_sold", "descending": True}],
        "limit": 5,
        "offset": 5,
    },
    "nothing": {"metrics": ["bitcoin_price_avg"], "group_by": ["metric_time__day"]},
}


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
async def test_the_answer_is_the_same_as_over_duckdb(
    services: dict[str, httpx.AsyncClient], question: dict[str, Any]
) -> None:
    here, there = [(await client.post("/v1/query", json=question)).json() for client in services.values()]

    assert here["data"] == there["data"]
    assert here["columns"] == there["columns"]
    assert bool(here["data"]) is (question is not QUESTIONS["nothing"])


async def test_no_value_is_in_the_text_and_the_tag_tells_who_asked(
    services: dict[str, httpx.AsyncClient], snowflake: SnowflakeEmulator
) -> None:
    question = {
        "metrics": ["total_revenue"],
        "where": [{"field": "product__category", "op": "eq", "values": ["o'hara; drop schema marts"]}],
    }
    response = await services["snowflake"].post("/v1/query", json=question)

    sent = snowflake.statements(database=DATABASE)[-1]
    assert "hara" not in sent["sql"]
    assert [bound["value"] for bound in sent["bindings"].values()] == ["o'hara; drop schema marts"]
    tag = json.loads(sent["parameters"]["QUERY_TAG"])
    assert tag["metrics"] == ["total_revenue"]
    assert tag["request_id"] == response.headers["X-Request-ID"]
    assert tag["principal"]


async def test_an_export_streams_the_rows_of_the_query(services: dict[str, httpx.AsyncClient]) -> None:
    question = {"metrics": ["total_revenue"], "group_by": ["customer", "product"]}
    csv = {"Accept": "text/csv"}
    exported = [(await client.post("/v1/export", json=question, headers=csv)).text for client in services.values()]

    assert exported[0] == exported[1]
    assert exported[0].count("\n") > 1_000


async def test_types_come_from_the_columns_not_from_the_rows(warehouse: Warehouse) -> None:
    sql = (
        "SELECT 1.50::number(18, 2) AS money, 3::int AS whole, 0.25::float AS ratio, NULL::date AS day,"
        " NULL::timestamp AS moment, NULL::number(18, 2) AS nothing, %(day)s AS bound, %(price)s AS price"
    )
    rows = await warehouse.query(sql, {"day": date(2019, 1, 31), "price": Decimal("1E+2")})

    assert rows.to_pylist() == [
        {"money": Decimal("1.50"), "whole": 3, "ratio": 0.25, "day": None, "moment": None, "nothing": None}
        | {"bound": date(2019, 1, 31), "price": 100}
    ]
    empty = await warehouse.query(f"SELECT * FROM ({sql}) AS t WHERE 1 = 0", {"day": date(2019, 1, 31), "price": 1})
    assert empty.schema.field("money").type == rows.schema.field("money").type == pa.decimal128(38, 2)
    assert empty.schema.names == rows.schema.names


async def test_a_query_that_takes_too_long_is_cancelled_in_the_account(warehouse: Warehouse) -> None:
    begun = time.monotonic()
    with pytest.raises(QueryTimeout):
        await warehouse.query(RUNAWAY, {}, within=timedelta(seconds=0.5))
    assert time.monotonic() - begun < 10
    assert (await warehouse.query("SELECT 1 AS n", {})).to_pylist() == [{"n": 1}]


async def test_a_query_whose_caller_goes_away_is_cancelled_in_the_account(warehouse: Warehouse) -> None:
    asking = [asyncio.create_task(warehouse.query(RUNAWAY, {})) for _ in range(LIMITS.connections)]
    await asyncio.sleep(0.5)
    for each in asking:
        each.cancel()
    await asyncio.wait_for(asyncio.gather(*asking, return_exceptions=True), timeout=10)
    # Both connections are free again.
    again = await asyncio.gather(*(warehouse.query("SELECT 1 AS n", {}) for _ in asking))
    assert [rows.to_pylist() for rows in again] == [[{"n": 1}]] * len(asking)


async def test_a_value_out_of_range_is_the_callers(warehouse: Warehouse) -> None:
    with pytest.raises(InvalidQuery):
        await warehouse.query("SELECT CAST(%(text)s AS date) AS day", {"text": "no day"})


async def test_the_cost_is_the_rows_of_the_partitions_that_are_read(sessions: SnowflakeSessions) -> None:
    engine = SnowflakeEngine(sessions, schema="marts", table_rows={"fct_sales": 1000, "dim_customer": 10})
    with closing(Warehouse(engine, limits=LIMITS)) as opened:
        sales = "SELECT 1 FROM marts.fct_sales WHERE quantity > %(least)s"
        assert await opened.estimate(sales, {"least": 1}) == 1000
        both = "SELECT 1 FROM marts.fct_sales JOIN marts.dim_customer USING (customer_id)"
        assert await opened.estimate(both, {}) == 1010


def test_a_version_whose_clone_is_gone_is_not_served(
    published: Published, sessions: SnowflakeSessions, tmp_path: Path
) -> None:
    folder = tmp_path / published.version
    folder.mkdir()
    for file in (published.settings.publication_dir / published.version).iterdir():
        text = file.read_text(encoding="utf-8")
        (folder / file.name).write_text(text.replace("marts__", "marts__gone_"), encoding="utf-8")
    with pytest.raises(Unavailable, match="gone or incomplete"):
        open_publication(folder, LIMITS, sessions=sessions)
    with pytest.raises(Unavailable, match="no account is configured"):
        open_publication(folder, LIMITS)


async def test_an_account_that_cannot_be_reached_is_a_503_without_secrets(published: Published) -> None:
    url = "snowflake://someone:very-secret@127.0.0.1:1/DB/PUBLIC?account=x&protocol=http&login_timeout=1"
    account = SnowflakeAccount.of(sa.make_url(url))
    with (
        closing(SnowflakeSessions(account, limits=LIMITS)) as nowhere,
        closing(Warehouse(SnowflakeEngine(nowhere, schema="marts", table_rows={}), limits=LIMITS)) as opened,
        pytest.raises(Unavailable) as caught,
    ):
        await opened.query("SELECT 1", {})
    assert "very-secret" not in f"{caught.value.detail}{caught.value.hint}{caught.value.__cause__}{account!r}"


def _arguments(monkeypatch: pytest.MonkeyPatch, **environment: str) -> dict[str, Any]:
    """What the connector is called with."""
    for name, value in environment.items():
        monkeypatch.setenv(f"INSIGHT_SNOWFLAKE_{name}", value)
    account = SnowflakeAccount.of(sa.make_url("snowflake://someone@org-name/DB?warehouse=W&role=R"))
    engine = account.engine(longest=timedelta(seconds=60), autocommit=True, session={"LOCK_TIMEOUT": 5})
    seen: dict[str, Any] = {}

    def connecting(*_: object, **arguments: Any) -> None:
        seen.update(arguments)
        raise InterruptedError

    monkeypatch.setattr("snowflake.connector.connect", connecting)
    monkeypatch.setattr("snowflake.connector.Connect", connecting)
    with pytest.raises(InterruptedError):
        engine.connect()
    return seen


def test_a_key_pair_signs_in(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _arguments(monkeypatch, PRIVATE_KEY_FILE="/keys/insight.p8", PRIVATE_KEY_PASSPHRASE="opens-it")
    assert seen["authenticator"] == "SNOWFLAKE_JWT"
    assert (seen["private_key_file"], seen["private_key_file_pwd"]) == ("/keys/insight.p8", "opens-it")
    assert (seen["user"], seen["account"], seen["warehouse"], seen["role"]) == ("someone", "org-name", "W", "R")
    assert seen["session_parameters"]["TIMEZONE"] == "UTC"
    assert seen["session_parameters"]["LOCK_TIMEOUT"] == 5


def test_a_token_is_read_anew_at_every_sign_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    token = tmp_path / "token"
    for text in ("first", "second"):
        token.write_text(f"{text}\n")
        seen = _arguments(monkeypatch, TOKEN_FILE=str(token))
        assert (seen["authenticator"], seen["token"]) == ("oauth", text)


def test_two_ways_in_are_refused_and_no_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSIGHT_SNOWFLAKE_PRIVATE_KEY_FILE", "/keys/insight.p8")
    monkeypatch.setenv("INSIGHT_SNOWFLAKE_PRIVATE_KEY_PASSPHRASE", "opens-it")
    assert "opens-it" not in repr(SnowflakeSettings(_env_file=None))
    monkeypatch.setenv("INSIGHT_SNOWFLAKE_TOKEN_FILE", "/keys/token")
    with pytest.raises(ValueError, match="one of PRIVATE_KEY_FILE and TOKEN_FILE"):
        SnowflakeSettings(_env_file=None)
