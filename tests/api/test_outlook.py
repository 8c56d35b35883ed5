"""What is foreseen, as other services fetch it: what is published, for whom it is meant, and no more than is proven."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from api.keys import ApiKeys
from api.main import create_app
from api.outlook_model import CUSTOMERS_FILE, OUTLOOK_FILE
from api.state import open_state
from tests.api.graphql.asked import data as graphql
from tests.api.principals import Client, Join, refusal, rows
from tests.conftest import Published, connect, service_settings

POLICY = """
version: 1
roles:
  admin: {metrics: ["*"], dimensions: ["*"], see_sql: true}
  masked: {metrics: ["*"], dimensions: ["*"], hashed: [customer]}
  regional:
    metrics: ["*"]
    dimensions: ["*"]
    rows: [{field: customer__location, op: eq, claim: region}]
  buyer:
    metrics: ["*"]
    dimensions: ["*"]
    rows: [{field: product__category, op: eq, values: [Apparel]}]
  floored: {metrics: ["*"], dimensions: ["*"], min_customers: 20}
  unpriced: {metrics: [customer_count, transaction_count], dimensions: ["*"]}
"""
FORECASTS = {"total_revenue", "transaction_count", "units_sold"}
WATCHED = {*FORECASTS, "marketing_spend"}


@pytest.fixture(scope="module")
def published(synthetic: Published) -> Path:
    """The folder of what is served."""
    return synthetic.settings.publication_dir / synthetic.version


@pytest.fixture(scope="module")
def document(published: Path) -> dict[str, Any]:
    """The outlook that is published."""
    found: dict[str, Any] = json.loads((published / OUTLOOK_FILE).read_text())
    return found


@pytest.fixture(scope="module")
def customers(published: Path) -> list[dict[str, Any]]:
    """What is published of each customer."""
    found: list[dict[str, Any]] = pa.ipc.open_file(published / CUSTOMERS_FILE).read_all().to_pylist()
    return found


async def got(client: Client, path: str, **params: Any) -> dict[str, Any]:
    response = await client.get(path, params=params)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


# Back-tests


async def test_every_back_test_is_listed_whether_it_was_won_or_lost(admin: Client, document: dict[str, Any]) -> None:
    found = await got(admin, "/v1/backtests")

    subjects = {(each["subject"], each["metric"]): each for each in found["data"]}
    assert subjects.keys() == {
        ("churn", None),
        ("customer_value", None),
        *(("forecast", name) for name in FORECASTS),
        *(("anomalies", name) for name in WATCHED),
    }
    assert {each["is_proven"] for each in found["data"]} == {True, False}
    for each in found["data"]:
        test = each["backtest"]
        mean = sum(window["error"] for window in test["windows"]) / len(test["windows"])
        assert test["error"] == pytest.approx(mean, rel=1e-4)
        if each["is_proven"]:
            assert test["error"] < 0.98 * test["baseline_error"]
    assert subjects["churn", None]["backtest"] == document["customers"]["churn"]["backtest"]
    assert found["meta"]["as_of"] == "2019-12-31"


async def test_a_role_finds_the_back_tests_of_what_it_sees_alone(join: Join) -> None:
    found = await got(join("unpriced"), "/v1/backtests")

    assert {(each["subject"], each["metric"]) for each in found["data"]} == {
        ("forecast", "transaction_count"),
        ("anomalies", "transaction_count"),
    }


# Forecasts


async def test_a_forecast_has_the_coming_days_with_intervals_and_their_sum(admin: Client) -> None:
    found = await got(admin, "/v1/forecasts/total_revenue")

    days = [date.fromisoformat(day["date"]) for day in found["days"]]
    assert days == [date(2020, 1, 1) + timedelta(days=number) for number in range(30)]
    assert all(0 <= day["low"] < day["value"] < day["high"] for day in found["days"])
    assert found["total"]["value"] == pytest.approx(sum(day["value"] for day in found["days"]), abs=1)
    assert found["total"]["low"] < found["total"]["value"] < found["total"]["high"]
    assert (found["metric"], found["unit"], found["level"], found["is_proven"]) == ("total_revenue", "USD", 0.8, True)
    assert found["meta"]["as_of"] == "2019-12-31"


async def test_what_is_not_foreseen_and_what_does_not_exist_are_told_apart(admin: Client) -> None:
    assert refusal(await admin.get("/v1/forecasts/discount_rate")) == (404, "no_forecast")
    assert refusal(await admin.get("/v1/forecasts/total_nonsense")) == (404, "unknown_metric")


# Odd days


async def test_odd_days_that_are_not_proven_are_shown_to_whoever_asks_for_them_alone(
    admin: Client, document: dict[str, Any]
) -> None:
    proven = {each["metric"] for each in document["anomalies"] if each["is_proven"]}
    assert proven < WATCHED  # else the test says nothing

    usual, all_of_them = await got(admin, "/v1/anomalies"), await got(admin, "/v1/anomalies", unproven=True)

    assert {each["metric"] for each in usual["data"]} == proven
    assert {each["metric"] for each in all_of_them["data"]} == {
        each["metric"] for each in document["anomalies"] if each["days"]
    }
    assert usual["meta"]["total"] == len(usual["data"])


async def test_an_odd_day_has_the_value_that_a_query_answers(admin: Client) -> None:
    found = await got(admin, "/v1/anomalies", metrics="total_revenue", unproven=True)
    query = {"metrics": ["total_revenue"], "group_by": ["metric_time__day"]}
    revenue = {row["metric_time__day"]: float(row["total_revenue"]) for row in await rows(admin, query)}

    assert found["data"]
    for day in found["data"]:
        assert day["value"] == pytest.approx(revenue[day["date"]], abs=0.01)
        assert (day["value"] > day["high"]) == (day["score"] > 3.5)
        assert (day["value"] < day["low"]) == (day["score"] < -3.5)


async def test_an_unknown_metric_has_no_odd_days(admin: Client) -> None:
    assert refusal(await admin.get("/v1/anomalies", params={"metrics": "nonsense"})) == (404, "unknown_metric")


# Customers


async def test_a_customers_outlook_is_what_was_published(admin: Client, customers: list[dict[str, Any]]) -> None:
    for row in customers[::100]:
        found = await got(admin, f"/v1/customers/{row['customer_id']}/outlook")

        assert found["churn"]["probability"] == row["churn_probability"]
        assert found["churn"]["alive_probability"] == row["alive_probability"]
        assert found["value"]["net_revenue"] == row["expected_net_revenue"]
        assert (found["horizon_days"], found["churn"]["is_proven"]) == (90, True)


async def test_every_customer_with_a_purchase_has_an_outlook(admin: Client, customers: list[dict[str, Any]]) -> None:
    (row,) = await rows(admin, {"metrics": ["customer_count"]})

    assert len(customers) == row["customer_count"]
    assert all(0 <= each["churn_probability"] <= 1 <= 1 + each["expected_net_revenue"] for each in customers)


async def test_an_unknown_customer_is_a_404(admin: Client) -> None:
    assert refusal(await admin.get("/v1/customers/999999/outlook")) == (404, "unknown_customer")


# Who sees what


async def test_forecasts_and_odd_days_are_not_for_a_role_that_sees_a_part(join: Join) -> None:
    for path in ("/v1/forecasts/total_revenue", "/v1/anomalies", "/v1/backtests"):
        assert refusal(await join("regional", region=("Chicago",)).get(path)) == (403, "partial_data")
        assert refusal(await join("buyer").get(path)) == (403, "partial_data")
        assert refusal(await join("floored").get(path)) == (403, "anonymity_floor")


async def test_a_metric_that_the_role_does_not_see_is_not_foreseen_for_it(join: Join) -> None:
    unpriced = join("unpriced")

    assert refusal(await unpriced.get("/v1/forecasts/total_revenue")) == (404, "unknown_metric")
    assert (await unpriced.get("/v1/forecasts/transaction_count")).status_code == 200
    shown = await got(unpriced, "/v1/anomalies", unproven=True)
    assert {each["metric"] for each in shown["data"]} <= {"transaction_count"}


async def test_a_customers_outlook_is_for_who_sees_the_customer_whole_and_by_id(
    join: Join, admin: Client, customers: list[dict[str, Any]]
) -> None:
    chicago = join("regional", region=("Chicago",))
    where = [{"field": "customer__location", "op": "eq", "values": ["Chicago"]}]
    inside = await rows(admin, {"metrics": ["customer_count"], "group_by": ["customer"], "where": where})
    ids = {row["customer"] for row in inside}
    elsewhere = next(row["customer_id"] for row in customers if row["customer_id"] not in ids)
    one = min(ids)

    assert (await chicago.get(f"/v1/customers/{one}/outlook")).status_code == 200
    # Whoever is elsewhere is as unknown as who does not exist.
    assert refusal(await chicago.get(f"/v1/customers/{elsewhere}/outlook")) == (404, "unknown_customer")
    assert refusal(await join("masked").get(f"/v1/customers/{one}/outlook")) == (403, "hashed_dimension")
    assert refusal(await join("buyer").get(f"/v1/customers/{one}/outlook")) == (403, "partial_customer")
    assert refusal(await join("floored").get(f"/v1/customers/{one}/outlook")) == (403, "anonymity_floor")
    assert refusal(await join("unpriced").get(f"/v1/customers/{one}/outlook")) == (404, "no_outlook")


# What is not proven, and nothing at all


@asynccontextmanager
async def altered(synthetic: Published, home: Path, change: Callable[[Path], None]) -> AsyncIterator[Client]:
    """The service over a copy of the publication, changed."""
    shutil.copytree(synthetic.settings.publication_dir, home / "publications", symlinks=True)
    change(home / "publications" / synthetic.version)
    url = f"sqlite:///{home / 'state.db'}"
    state = open_state(url)
    key = ApiKeys(state).create("altered", role="admin")
    state.dispose()
    app = create_app(service_settings(synthetic, publication_dir=home / "publications", state_url=url))
    async with app.router.lifespan_context(app), connect(app, key=key) as client:
        yield client


def unprove(folder: Path) -> None:
    document = json.loads((folder / OUTLOOK_FILE).read_text())
    document["customers"]["churn"]["is_proven"] = document["forecasts"][0]["is_proven"] = False
    (folder / OUTLOOK_FILE).write_text(json.dumps(document))


async def test_what_is_not_proven_is_shown_to_whoever_asks_for_it_alone(
    synthetic: Published, tmp_path: Path, customers: list[dict[str, Any]]
) -> None:
    path = f"/v1/customers/{customers[0]['customer_id']}/outlook"
    async with altered(synthetic, tmp_path, unprove) as client:
        refused = await client.get("/v1/forecasts/total_revenue")
        shown = await got(client, "/v1/forecasts/total_revenue", unproven=True)
        hidden, told = await got(client, path), await got(client, path, unproven=True)

    assert refusal(refused) == (404, "unproven")
    assert "unproven=true" in refused.json()["hint"]
    assert (shown["is_proven"], len(shown["days"])) == (False, 30)
    assert (hidden["churn"]["probability"], hidden["churn"]["alive_probability"]) == (None, None)
    assert hidden["value"]["net_revenue"] == told["value"]["net_revenue"] == customers[0]["expected_net_revenue"]
    assert told["churn"]["probability"] == customers[0]["churn_probability"]


async def test_a_publication_without_an_outlook_says_so(synthetic: Published, tmp_path: Path) -> None:
    async with altered(synthetic, tmp_path, lambda folder: (folder / OUTLOOK_FILE).unlink()) as client:
        refused = [
            await client.get("/v1/forecasts/total_revenue"),
            await client.get("/v1/anomalies"),
            await client.get("/v1/customers/12346/outlook"),
        ]
        tests = await got(client, "/v1/backtests")

    assert {refusal(each) for each in refused} == {(404, "no_outlook")}
    assert tests["data"] == []


# Over GraphQL


async def test_graphql_tells_what_rest_does(admin: Client, customers: list[dict[str, Any]]) -> None:
    one = customers[0]["customer_id"]
    document = """query($customer: BigInt!) {
      backtests { subject metric isProven backtest { error baselineError windows { first } } }
      forecast(metric: "total_revenue") { unit isProven days { date value low } total { value } asOf }
      anomalies(metrics: ["total_revenue"], unproven: true) { metric date score isProven }
      customerOutlook(customerId: $customer) { churnProbability netRevenue isChurnProven horizonDays } }"""

    found = await graphql(admin, document, customer=one)

    rest = await got(admin, "/v1/forecasts/total_revenue")
    assert [float(day["value"]) for day in found["forecast"]["days"]] == [day["value"] for day in rest["days"]]
    assert float(found["forecast"]["total"]["value"]) == rest["total"]["value"]
    assert len(found["backtests"]) == len((await got(admin, "/v1/backtests"))["data"])
    odd = await got(admin, "/v1/anomalies", metrics="total_revenue", unproven=True)
    assert [day["date"] for day in found["anomalies"]] == [day["date"] for day in odd["data"]]
    assert float(found["customerOutlook"]["churnProbability"]) == customers[0]["churn_probability"]
