"""Who sees what of segments: masks, row filters, floors, and nothing for whoever is not meant to see them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.principals import Client, Join, refusal, rows

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
  floored: {metrics: ["*"], dimensions: ["*"], min_customers: 60}
  unpriced: {metrics: [customer_count], dimensions: ["customer*"]}
  blind: {metrics: ["*"], dimensions: [customer, customer__location]}
"""
SCORE = {"rows": [{"features": {"recency_days": 12, "frequency": 30, "monetary": 5400.5}}]}
PATHS = ("/v1/segments", "/v1/segments/0", "/v1/segments/0/customers", "/v1/customers/12346/segment")


async def segments(client: Client) -> list[dict[str, Any]]:
    response = await client.get("/v1/segments")
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["data"]
    return found


async def members(client: Client, segment: int) -> list[dict[str, Any]]:
    response = await client.get(f"/v1/segments/{segment}/customers", params={"limit": 500})
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["data"]
    return found


@pytest.mark.parametrize("path", PATHS)
async def test_a_role_that_does_not_see_segments_finds_none(join: Join, path: str) -> None:
    assert refusal(await join("blind").get(path)) == (404, "no_segments")


async def test_a_role_that_does_not_see_segments_may_not_score(join: Join) -> None:
    assert refusal(await join("blind").post("/v1/segments/score", json=SCORE)) == (404, "no_segments")


async def test_customers_are_hashed_in_a_list_and_cannot_be_looked_up(join: Join, admin: Client) -> None:
    masked = join("masked")
    plain, hidden = await members(admin, 0), await members(masked, 0)

    assert [row["total_revenue"] for row in hidden] == [row["total_revenue"] for row in plain]
    assert all(isinstance(row["customer_id"], str) and len(row["customer_id"]) == 16 for row in hidden)
    customer = plain[0]["customer_id"]
    assert refusal(await masked.get(f"/v1/customers/{customer}/segment")) == (403, "hashed_dimension")
    for what in ("segment", "outlook"):
        assert refusal(await masked.get(f"/v1/customers/{hidden[0]['customer_id']}/{what}")) == (
            404,
            "unknown_customer",
        )


async def test_row_filters_count_for_sizes_members_and_customers(join: Join, admin: Client) -> None:
    chicago = join("regional", region=("Chicago",))
    where = [{"field": "customer__location", "op": "eq", "values": ["Chicago"]}]
    query = {"metrics": ["customer_count", "total_revenue"], "group_by": ["customer__segment_name"], "where": where}
    expected = {row["customer__segment_name"]: row for row in await rows(admin, query)}

    for segment in await segments(chicago):
        row = expected[segment["name"]]
        assert segment["customer_count"] == row["customer_count"]
        assert segment["total_revenue"] == pytest.approx(float(row["total_revenue"]))
        assert len(await members(chicago, segment["segment_id"])) == row["customer_count"]
    inside = {row["customer_id"] for row in await members(chicago, 0)}
    outside = {row["customer_id"] for row in await members(admin, 0)} - inside
    assert (await chicago.get(f"/v1/customers/{min(inside)}/segment")).status_code == 200
    # Whoever is elsewhere is as unknown as who does not exist.
    assert refusal(await chicago.get(f"/v1/customers/{min(outside)}/segment")) == (404, "unknown_customer")


async def test_who_sees_some_sales_of_a_customer_is_not_told_a_place_that_is_wrong(join: Join, admin: Client) -> None:
    customer = (await members(admin, 0))[0]["customer_id"]

    assert refusal(await join("buyer").get(f"/v1/customers/{customer}/segment")) == (403, "partial_customer")


async def test_a_floor_withholds_small_segments_and_every_single_customer(join: Join, admin: Client) -> None:
    floored = join("floored")
    for whole, shown in zip(await segments(admin), await segments(floored), strict=True):
        if whole["customer_count"] >= 60:
            assert shown["customer_count"] == whole["customer_count"]
        else:
            assert (shown["customer_count"], shown["share"], shown["total_revenue"]) == (None, None, None)
    customer = (await members(admin, 0))[0]["customer_id"]
    for path in ("/v1/segments/0/customers", f"/v1/customers/{customer}/segment"):
        assert refusal(await floored.get(path)) == (403, "anonymity_floor")


async def test_a_metric_that_the_role_does_not_see_is_null(join: Join, admin: Client) -> None:
    unpriced = join("unpriced")

    assert [each["customer_count"] for each in await segments(unpriced)] == [
        each["customer_count"] for each in await segments(admin)
    ]
    assert {(each["total_revenue"], each["revenue_share"]) for each in await segments(unpriced)} == {(None, None)}
    assert {row["total_revenue"] for row in await members(unpriced, 0)} == {None}
