"""A role with `min_customers`: what it sees, what is withheld from it, and what it may not ask at all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import httpx
import pytest

from tests.api.principals import Client, Join, names, refusal, rows, values

FLOOR = 10
POLICY = f"""
version: 1
roles:
  admin: {{metrics: ["*"], dimensions: ["*"], see_sql: true}}
  floored: {{metrics: ["*"], dimensions: ["*"], see_sql: true, min_customers: {FLOOR}}}
"""

TOTAL: dict[str, Any] = {"metrics": ["total_revenue"]}
BY_MONTH = {**TOTAL, "group_by": ["metric_time__month", "customer__location"]}
BY_LOCATION = {**TOTAL, "group_by": ["customer__location"]}
MARCH = {"start": "2019-03-01", "end": "2019-03-31"}
BIG = {"metric": "total_revenue", "per": ["customer"], "op": "gt", "values": [1000]}
ONE_DAY = {"field": "metric_time__day", "op": "ne", "values": ["2019-03-01"]}
IN_MARCH = {"field": "metric_time__extract_month", "op": "eq", "values": [3]}


@pytest.fixture(scope="module")
def floored(join: Join) -> Client:
    return join("floored")


async def answer(client: Client, query: dict[str, Any]) -> dict[str, Any]:
    response = await client.post("/v1/query", json=query)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def keyed(found: Iterable[dict[str, Any]], columns: list[str]) -> dict[tuple[Any, ...], Any]:
    return {tuple(row[column] for column in columns): row["total_revenue"] for row in found}


async def customers(client: Client, query: dict[str, Any]) -> dict[tuple[Any, ...], set[str]]:
    """Who is in each group, as somebody sees who has no floor."""
    found: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    for row in await rows(client, {**query, "group_by": [*query["group_by"], "customer"], "limit": 10_000}):
        found[tuple(row[column] for column in query["group_by"])].add(row["customer"])
    return found


# What it sees


async def test_groups_of_too_few_customers_are_withheld_and_counted(admin: Client, floored: Client) -> None:
    query = {**BY_MONTH, "limit": 1_000}
    everybody = await customers(admin, query)
    whole = keyed((await answer(admin, query))["data"], query["group_by"])
    found = await answer(floored, query)
    shown = keyed(found["data"], query["group_by"])

    small = {group for group in everybody if len(everybody[group]) < FLOOR}
    assert small, "the test needs groups of few"
    assert shown, "the test needs groups of many"
    assert not small & shown.keys()
    assert all(whole[group] == value for group, value in shown.items())
    assert found["meta"]["withheld_groups"] == len(whole) - len(shown)


async def test_an_answer_from_the_cache_withholds_the_same(floored: Client) -> None:
    query = {**BY_MONTH, "limit": 999}
    first, second = await answer(floored, query), await answer(floored, query)

    assert second["meta"]["cache"]["result"] != "miss"
    assert second["data"] == first["data"]
    assert second["meta"]["withheld_groups"] == first["meta"]["withheld_groups"] > 0


async def test_a_role_without_a_floor_does_not_get_its_answer_nor_it_theirs(admin: Client, floored: Client) -> None:
    query = {**BY_MONTH, "limit": 998}
    one = await floored.post("/v1/query", json=query)
    other = await admin.post("/v1/query", json=query)

    assert one.headers["ETag"] != other.headers["ETag"]
    assert other.json()["meta"]["withheld_groups"] is None
    assert len(other.json()["data"]) > len(one.json()["data"])
    assert (await floored.post("/v1/query", json=query)).json()["data"] == one.json()["data"]


async def test_what_tells_of_nobody_is_shown_whole(admin: Client, floored: Client) -> None:
    query = {"metrics": ["marketing_spend"], "group_by": ["metric_time__day"], "time_range": MARCH}
    found = await answer(floored, query)

    assert found["data"] == (await answer(admin, query))["data"] != []
    assert found["meta"]["withheld_groups"] is None


async def test_pages_by_offset_are_the_whole_answer_and_none_has_a_cursor(floored: Client) -> None:
    query = {**BY_LOCATION, "order_by": [{"field": "customer__location"}]}
    whole = await answer(floored, query)
    pages = [await answer(floored, {**query, "limit": 2, "offset": offset}) for offset in range(0, 6, 2)]

    assert pages[0]["meta"]["truncated"]
    assert all(page["meta"]["next_cursor"] is None for page in pages)
    assert [row for page in pages for row in page["data"]] == whole["data"]


async def test_values_are_those_that_enough_customers_share(admin: Client, floored: Client) -> None:
    everybody = await customers(admin, BY_LOCATION)
    locations = await values(floored, "customer__location", metrics="total_revenue")

    assert locations == sorted(name for (name,) in everybody if len(everybody[name,]) >= FLOOR)
    assert await values(floored, "customer__location", metrics="total_revenue", search="Chi") == ["Chicago"]


async def test_running_totals_do_not_exist_for_it(admin: Client, floored: Client) -> None:
    hidden = await names(admin, "/v1/metrics") - await names(floored, "/v1/metrics")

    assert hidden
    for name in hidden:
        assert refusal(await floored.post("/v1/query", json={"metrics": [name]})) == (404, "unknown_metric")


# What it may not ask


def assert_refused(response: httpx.Response) -> None:
    assert refusal(response) == (403, "anonymity_floor"), response.text
    assert response.json()["hint"]


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"group_by": ["customer"]}, id="single customers"),
        pytest.param({"where": [{"field": "customer", "op": "eq", "values": [17850]}]}, id="one customer"),
        pytest.param({"group_by": ["metric_time__day"], "time_range": MARCH}, id="nothing is left"),
        pytest.param({"where": [ONE_DAY]}, id="a condition on few"),
    ],
)
async def test_what_tells_of_few_customers_is_refused(admin: Client, floored: Client, more: dict[str, Any]) -> None:
    await answer(admin, {**TOTAL, **more})

    assert_refused(await floored.post("/v1/query", json={**TOTAL, **more}))


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"time_range": MARCH, "compare_to": "previous_period"}, id="an earlier range"),
        pytest.param({"where": [BIG]}, id="a filter on a metric"),
        pytest.param({"group_by": ["metric_time__extract_month"]}, id="groups by a part of dates"),
        pytest.param({"where": [IN_MARCH]}, id="a filter on a part of dates"),
    ],
)
async def test_what_the_floor_does_not_count_is_refused_to_it_alone(
    admin: Client, floored: Client, more: dict[str, Any]
) -> None:
    await answer(admin, {**TOTAL, **more})

    assert_refused(await floored.post("/v1/query", json={**TOTAL, **more}))


async def test_a_cursor_is_refused_to_it_alone(admin: Client, floored: Client) -> None:
    cursor = (await answer(admin, {**BY_LOCATION, "limit": 2}))["meta"]["next_cursor"]
    await answer(admin, {**BY_LOCATION, "limit": 2, "cursor": cursor})

    assert_refused(await floored.post("/v1/query", json={**BY_LOCATION, "limit": 2, "cursor": cursor}))
    assert_refused(await floored.post("/v1/query", json={**BY_LOCATION, "limit": 2, "cursor": "anything"}))


@pytest.mark.parametrize("path", ["/v1/export", "/v1/queries", "/v1/query/compile"])
async def test_a_way_of_asking_is_refused_to_it_alone(admin: Client, floored: Client, path: str) -> None:
    assert (await admin.post(path, json=BY_LOCATION)).is_success

    assert_refused(await floored.post(path, json=BY_LOCATION))
