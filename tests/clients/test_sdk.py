"""The SDK against a running service: what it returns, and what it does where the service refuses."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from datetime import date
from decimal import Decimal
from pathlib import Path

import httpx
import polars as pl
import pyarrow as pa
import pytest
from fastapi import FastAPI

from clients.sdk import ApiError, AsyncClient, Client, Retries
from tests.conftest import REPOSITORY, Published
from tests.server import Server

BY_MONTH = {"metrics": ["total_revenue", "units_sold"], "group_by": ["metric_time__month"]}
BY_CUSTOMER = {"metrics": ["line_count"], "group_by": ["customer"]}


@pytest.fixture
async def asynchronous(service: FastAPI, key: str) -> AsyncIterator[AsyncClient]:
    """The asynchronous client, of the application in this process."""
    async with AsyncClient("http://insight.test", key=key, transport=httpx.ASGITransport(app=service)) as made:
        yield made


def test_an_answer_has_exact_rows_columns_and_where_it_comes_from(client: Client) -> None:
    answer = client.query(BY_MONTH)

    assert len(answer.rows) == 12
    assert isinstance(answer.rows[0]["total_revenue"], Decimal)
    assert [column["name"] for column in answer.columns] == ["metric_time__month", "total_revenue", "units_sold"]
    assert answer.meta["as_of"] == "2019-12-31"
    assert answer["data"] == answer.rows  # as the contract has it


def test_the_same_numbers_come_as_arrow_pandas_and_polars(client: Client) -> None:
    answer = client.query(BY_MONTH)
    total = sum(row["total_revenue"] for row in answer.rows)  # type: ignore[misc]  # decimals, as asserted above

    arrow, frame, polars = answer.to_arrow(), answer.to_pandas(), answer.to_polars()

    assert pa.types.is_decimal(arrow.schema.field("total_revenue").type)
    assert arrow.column("metric_time__month")[0].as_py() == date(2019, 1, 1)
    assert sum(arrow.column("total_revenue").to_pylist()) == total
    assert sum(frame["total_revenue"]) == total
    assert isinstance(polars, pl.DataFrame)
    assert sum(polars["total_revenue"]) == total


def test_a_column_without_a_value_is_null_in_arrow(client: Client) -> None:
    nobody = client.query({"metrics": ["bitcoin_price_avg"]})

    assert nobody.to_arrow().column("bitcoin_price_avg").to_pylist() == [None]


def test_a_table_holds_every_page(client: Client) -> None:
    table = client.table(BY_CUSTOMER | {"limit": 100})
    pages = list(client.pages(BY_CUSTOMER | {"limit": 100}))

    assert table.num_rows == client.query(BY_CUSTOMER).meta["row_count"] > 100
    assert [len(page.rows) for page in pages[:-1]] == [100] * (len(pages) - 1)
    assert sum(len(page.rows) for page in pages) == table.num_rows


def test_the_catalog_comes_whole_and_typed(client: Client) -> None:
    metrics = {metric["name"]: metric for metric in client.metrics()}
    shared = {dimension["name"] for dimension in client.dimensions(["total_revenue", "marketing_spend"])}

    assert client.metric("total_revenue") == metrics["total_revenue"]
    assert "turnover" in metrics["total_revenue"]["synonyms"]
    assert {"metric_time"} <= shared < {dimension["name"] for dimension in client.dimensions()}
    assert client.values("customer__gender") == ["F", "M"]
    assert client.values("customer__location", search="New", metrics=["total_revenue"]) == ["New Jersey", "New York"]
    assert client.freshness()["as_of"] == "2019-12-31"
    assert [each["current"] for each in client.publications()] == [True]
    assert client.lineage("total_revenue")["metric"] == "total_revenue"


def test_a_saved_query_is_listed_and_answered(client: Client) -> None:
    (saved,) = (saved for saved in client.saved_queries() if saved["name"] == "revenue_by_month")

    assert saved["metrics"][0] in client.saved_query("revenue_by_month").rows[0]


def test_a_question_is_compiled_without_running(client: Client) -> None:
    compiled = client.compile({"metrics": ["line_count"], "where": [_is("customer__gender", "F")]})

    assert "F" in compiled["parameters"].values()


def test_a_submitted_question_is_waited_for_and_read_page_by_page(client: Client) -> None:
    query_id = client.submit(BY_CUSTOMER)
    finished = client.wait(query_id, seconds=60)

    pages = list(client.result_pages(query_id, rows=200))

    assert finished["row_count"] == sum(len(page.rows) for page in pages)
    client.cancel(query_id)
    with pytest.raises(ApiError) as gone:
        client.submitted(query_id)
    assert gone.value.status == 404


GOOD = {"id": "a", "features": {"recency_days": 12, "frequency": 30, "monetary": 5400.5}}


def test_segments_are_listed_with_exact_money_and_all_of_their_customers(client: Client) -> None:
    segments = client.segments()
    customers = [each for segment in segments for each in client.segment_customers(segment["segment_id"])]

    (total,) = client.query({"metrics": ["total_revenue", "customer_count"]}).rows
    assert sum(segment["total_revenue"] or 0 for segment in segments) == total["total_revenue"]
    assert sum(each["total_revenue"] or 0 for each in customers) == total["total_revenue"]
    assert len({each["customer_id"] for each in customers}) == total["customer_count"]
    assert client.segment(2) == segments[2]


def test_a_customer_is_placed_and_foreseen(client: Client) -> None:
    customer = int(client.segment_customers(0)[0]["customer_id"])

    assert client.customer_segment(customer)["segment"]["segment_id"] == 0
    assert 0 <= client.customer_outlook(customer)["churn"]["probability"] <= 1


def test_any_number_of_rows_is_scored_each_in_its_place(client: Client) -> None:
    scored = client.score([GOOD, {}] + [GOOD] * 1_500)

    assert [each["row"] for each in scored] == list(range(1_502))
    assert scored[0]["result"] == scored[-1]["result"]
    assert (scored[1]["result"], len(scored[1]["errors"])) == (None, 1)


def test_metrics_are_foreseen_and_what_is_not_proven_is_asked_for(client: Client) -> None:
    proven = {(each["subject"], each["metric"]): each["is_proven"] for each in client.backtests()}
    days = client.anomalies(["total_revenue"], unproven=True)

    assert client.forecast("total_revenue")["total"]["low"] > 0
    assert {day["metric"] for day in days} == {"total_revenue"}
    assert bool(client.anomalies(["total_revenue"])) == proven["anomalies", "total_revenue"]
    with pytest.raises(ApiError) as refused:
        client.forecast("discount_rate", unproven=True)
    assert refused.value.code == "no_forecast"


def test_a_refusal_carries_code_hint_nearest_names_and_the_request(client: Client) -> None:
    with pytest.raises(ApiError, match="total_revenu") as refused:
        client.query({"metrics": ["total_revenu"]})

    assert (refused.value.code, refused.value.status) == ("unknown_metric", 404)
    assert refused.value.nearest[0] == "total_revenue"
    assert refused.value.hint
    assert refused.value.request_id


def test_a_name_stays_one_part_of_the_path(client: Client) -> None:
    with pytest.raises(ApiError) as refused:
        client.metric("../publications?x=")

    assert refused.value.status == 404
    assert refused.value.code in ("unknown_metric", "unknown_path")


def test_nobody_at_the_address_is_an_error_with_a_hint() -> None:
    with Client("http://127.0.0.1:9", retries=Retries(count=0)) as client, pytest.raises(ApiError) as error:
        client.metrics()

    assert error.value.code == "unreachable"


def test_a_service_that_is_not_ready_yet_is_asked_again(synthetic: Published, tmp_path: Path) -> None:
    starting = Server(tmp_path / "publications", tmp_path, auth="off")
    starting.start(path="/healthz")

    def publish() -> None:
        time.sleep(0.5)
        shutil.copytree(synthetic.settings.publication_dir, tmp_path / "publications", dirs_exist_ok=True)

    publishing = threading.Thread(target=publish)
    publishing.start()
    try:
        with Client(starting.url, retries=Retries(count=20)) as client:
            assert len(client.query(BY_MONTH).rows) == 12
        with Client(starting.url, retries=Retries(count=0)) as hasty:
            assert hasty.query(BY_MONTH).rows
    finally:
        publishing.join()
        starting.kill()


def test_a_longer_wait_than_allowed_is_raised_at_once(running: Server) -> None:
    begun = time.monotonic()
    with Client(running.url, key=running.key(role="hasty"), retries=Retries(longest_s=1)) as client:
        client.metrics()
        with pytest.raises(ApiError) as refused:
            client.metrics()

    assert refused.value.status == 429
    assert time.monotonic() - begun < 45  # nowhere near the minute that the service asks for


async def test_the_asynchronous_client_answers_as_the_blocking_one(asynchronous: AsyncClient, client: Client) -> None:
    answer = await asynchronous.query(BY_MONTH)
    pages = [page async for page in asynchronous.pages(BY_CUSTOMER | {"limit": 100})]
    table = await asynchronous.table(BY_CUSTOMER | {"limit": 100})
    query_id = await asynchronous.submit(BY_MONTH)
    await asynchronous.wait(query_id, seconds=60)
    results = [page async for page in asynchronous.result_pages(query_id)]

    assert answer.rows == client.query(BY_MONTH).rows == results[0].rows
    assert sum(len(page.rows) for page in pages) == table.num_rows
    assert await asynchronous.metrics() == client.metrics()
    assert await asynchronous.dimensions(["total_revenue"]) == client.dimensions(["total_revenue"])
    assert await asynchronous.values("customer__gender") == ["F", "M"]


async def test_the_asynchronous_client_tells_the_same_of_customers_and_of_the_future(
    asynchronous: AsyncClient, client: Client
) -> None:
    customer = int((await asynchronous.segment_customers(0))[0]["customer_id"])

    assert await asynchronous.segments() == client.segments()
    assert await asynchronous.segment(1) == client.segment(1)
    assert await asynchronous.customer_segment(customer) == client.customer_segment(customer)
    assert await asynchronous.customer_outlook(customer) == client.customer_outlook(customer)
    assert await asynchronous.score([GOOD]) == client.score([GOOD])
    assert await asynchronous.forecast("units_sold") == client.forecast("units_sold")
    assert await asynchronous.anomalies(unproven=True) == client.anomalies(unproven=True)
    assert await asynchronous.backtests() == client.backtests()


async def test_the_asynchronous_client_raises_the_same(asynchronous: AsyncClient) -> None:
    with pytest.raises(ApiError) as refused:
        await asynchronous.query({"metrics": ["total_revenu"]})

    assert refused.value.nearest[0] == "total_revenue"


def test_both_clients_offer_the_same() -> None:
    def offered(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert offered(Client) == offered(AsyncClient)


def _is(field: str, value: str) -> dict[str, object]:
    return {"field": field, "op": "eq", "values": [value]}


def test_the_examples_of_the_page_run(running: Server, running_key: str) -> None:
    page = (REPOSITORY / "docs" / "sdk.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    code = "".join(examples).replace("http://127.0.0.1:8000", running.url)

    told = subprocess.run(
        [sys.executable, "-c", f"KEY = {running_key!r}\n{code}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert len(examples) == 5
    assert told.returncode == 0, told.stderr
    assert "unknown_metric" in told.stdout
