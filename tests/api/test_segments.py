"""Customer segments as other services fetch them: sizes, members, a customer's place, live scores."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest

from api.errors import Unavailable
from api.keys import ApiKeys
from api.main import create_app
from api.segment_model import read_segment_model
from api.state import open_state
from tests.api.flight.flown import fly
from tests.api.graphql.asked import data as graphql
from tests.api.served import Served, serve
from tests.conftest import Published, connect, service_settings

NAMES = ["Champions", "Loyal Customers", "Big Spenders", "Occasional Shoppers", "At-Risk"]
BY_SEGMENT = {"metrics": ["total_revenue"], "group_by": ["customer__segment_name"]}

# Counted by hand, over the raw tables, by the names of the seed.
REVENUES = "select segment, sum(total) from line group by segment"
CUSTOMERS = """
select customer_id, segment, count(distinct transaction_id) as frequency, sum(net) as monetary,
    (select today from as_of) - max(day) as recency_days
from line group by all order by customer_id
"""
PURCHASES = """
select customer_id, transaction_id, cast(day as varchar) as date, cast(sum(net) as double) as net_revenue
from line group by all order by customer_id, transaction_id
"""


@pytest.fixture(scope="module")
async def shop(synthetic: Published) -> AsyncIterator[Served]:
    async with AsyncExitStack() as stack:
        yield await serve(synthetic, stack)


@pytest.fixture(scope="module")
async def unsegmented(
    synthetic: Published, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[httpx.AsyncClient]:
    """The service over the same publication, whose customers are in no segments."""
    root: Path = tmp_path_factory.mktemp("unsegmented")
    shutil.copytree(synthetic.settings.publication_dir, root / "publications", symlinks=True)
    (root / "publications" / synthetic.version / "segments.json").unlink()
    url = f"sqlite:///{root / 'state.db'}"
    state = open_state(url)
    key = ApiKeys(state).create("unsegmented", role="admin")
    state.dispose()
    app = create_app(service_settings(synthetic, publication_dir=root / "publications", state_url=url))
    async with app.router.lifespan_context(app), connect(app, key=key) as client:
        yield client


async def got(client: httpx.AsyncClient, path: str, **params: Any) -> dict[str, Any]:
    response = await client.get(path, params=params)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = json.loads(response.content, parse_float=Decimal)
    return found


async def scored(client: httpx.AsyncClient, *rows: Any) -> dict[str, Any]:
    response = await client.post("/v1/segments/score", json={"rows": rows})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def counted(shop: Served, sql: str) -> list[dict[str, Any]]:
    cursor = shop.raw.execute(sql)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


# As a dimension


async def test_revenue_by_segment_adds_up_to_the_revenue_and_is_what_was_counted_by_hand(shop: Served) -> None:
    response = await shop.api.post("/v1/query", json=BY_SEGMENT)
    rows = json.loads(response.content, parse_float=Decimal)["data"]
    (total,) = (await got_query(shop.api, {"metrics": ["total_revenue"]}))["data"]

    by_name = {row["customer__segment_name"]: row["total_revenue"] for row in rows}
    assert sum(by_name.values()) == total["total_revenue"]
    assert by_name == dict(shop.raw.execute(REVENUES).fetchall())
    assert set(by_name) == set(NAMES)


async def got_query(client: httpx.AsyncClient, body: Mapping[str, Any]) -> dict[str, Any]:
    response = await client.post("/v1/query", json=body)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = json.loads(response.content, parse_float=Decimal)
    return found


def revenue_by_segment(data: Path, seed: Path) -> dict[str, Decimal]:
    """What the files say, counted with pandas in whole hundred-millionths of a dollar; nothing of ours counts here."""
    sales = pd.read_csv(data / "Online_Sales.csv", dtype={"Avg_Price": str, "Delivery_Charges": str})
    sales["price"], sales["charge"] = (
        sales[name].map(lambda text: int(Decimal(text) * 100)) for name in ("Avg_Price", "Delivery_Charges")
    )
    coupons = pd.read_csv(data / "Discount_Coupon.csv")
    taxes = pd.read_csv(data / "Tax_amount.csv", dtype={"GST": str})
    sales["Month"] = pd.to_datetime(sales["Transaction_Date"], format="%m/%d/%Y").dt.strftime("%b")
    sales = sales.merge(coupons, on=["Month", "Product_Category"], how="left").merge(taxes, on="Product_Category")
    percent = sales["Discount_pct"].where(sales["Coupon_Status"] == "Used").fillna(0).astype(int)
    net = sales["Quantity"] * sales["price"] * (100 - percent)
    tax = net * sales["GST"].map(lambda text: int(Decimal(text) * 10_000))
    lines = sales.groupby("Transaction_ID")["Product_SKU"].transform("count")
    place = sales.groupby("Transaction_ID").cumcount() + 1
    delivery = (sales["charge"] + lines - place) // lines  # the cents that are left over go to the first lines
    sales["total"] = net * 10_000 + tax + delivery * 1_000_000
    placed = pd.read_csv(seed)
    sums = sales.merge(placed, left_on="CustomerID", right_on="customer_id").groupby("segment_name")["total"].sum()
    return {name: Decimal(int(total)) / 10**8 for name, total in sums.items()}


@pytest.fixture
def published(request: pytest.FixtureRequest) -> Published:
    """The data set that the test names. No async test may ask for it itself: it may have to be published, in a loop."""
    named: Published = request.getfixturevalue(request.param)
    return named


@pytest.mark.parametrize(
    "published", ["synthetic", pytest.param("real", marks=pytest.mark.slow)], indirect=True, ids=["synthetic", "real"]
)
async def test_revenue_by_segment_is_what_pandas_makes_of_the_files_over_every_transport(published: Published) -> None:
    expected = revenue_by_segment(published.data, published.segments)
    asked = 'metrics: [{name: "total_revenue"}], groupBy: [{name: "customer__segment_name"}]'
    async with AsyncExitStack() as stack:
        served = await serve(published, stack)
        rest = (await got_query(served.api, BY_SEGMENT))["data"]
        answered = await graphql(served.api, f"mutation {{ createSynchronousQuery({asked}) {{ rows }} }}")
        (total,) = (await got_query(served.api, {"metrics": ["total_revenue"]}))["data"]
        flown = await (await fly(published, stack)).table(
            "select * from {{ semantic_layer.query(metrics=['total_revenue'], "
            "group_by=[Dimension('customer__segment_name')]) }}"
        )

    for rows in (rest, answered["createSynchronousQuery"]["rows"]):
        assert {row["customer__segment_name"]: row["total_revenue"] for row in rows} == expected
    names, revenues = (column.to_pylist() for column in flown.columns)
    assert dict(zip(names, revenues, strict=True)) == expected
    assert sum(expected.values()) == total["total_revenue"]
    assert set(expected) == set(NAMES)


# List and one


async def test_the_segments_are_listed_by_their_stable_ids_and_add_up(shop: Served) -> None:
    found = await got(shop.api, "/v1/segments")
    (total,) = (await got_query(shop.api, {"metrics": ["total_revenue", "customer_count"]}))["data"]

    segments = found["data"]
    assert [(segment["segment_id"], segment["name"]) for segment in segments] == list(enumerate(NAMES))
    assert sum(segment["customer_count"] for segment in segments) == total["customer_count"]
    assert sum(segment["total_revenue"] for segment in segments) == total["total_revenue"]
    assert float(sum(segment["share"] for segment in segments)) == pytest.approx(1)
    assert float(sum(segment["revenue_share"] for segment in segments)) == pytest.approx(1)
    assert all(segment["description"] for segment in segments)
    assert segments[0]["centroid"].keys() == {"recency_days", "frequency", "monetary"}
    assert found["meta"]["as_of"] == "2019-12-31"
    assert found["meta"]["model"].startswith("20191231-default-")


async def test_one_segment_is_as_it_is_listed(shop: Served) -> None:
    listed = (await got(shop.api, "/v1/segments"))["data"]

    assert [await got(shop.api, f"/v1/segments/{number}") for number in range(5)] == listed


@pytest.mark.parametrize("path", ["/v1/segments/5", "/v1/segments/5/customers"])
async def test_an_unknown_segment_is_a_404(shop: Served, path: str) -> None:
    response = await shop.api.get(path)

    assert (response.status_code, response.json()["code"]) == (404, "unknown_segment")


# Members


async def test_walking_the_pages_of_each_segment_meets_every_customer_once(shop: Served) -> None:
    expected = {row["customer_id"]: row["segment"] for row in counted(shop, CUSTOMERS)}
    met: dict[int, str] = {}
    for number, name in enumerate(NAMES):
        cursor, total = None, None
        while True:
            page = await got(
                shop.api, f"/v1/segments/{number}/customers", limit=37, **({"cursor": cursor} if cursor else {})
            )
            ids = [row["customer_id"] for row in page["data"]]
            assert not met.keys() & set(ids)
            assert ids == sorted(ids)
            met |= dict.fromkeys(ids, name)
            total, cursor = page["meta"]["total"], page["meta"]["next_cursor"]
            if cursor is None:
                break
        assert list(met.values()).count(name) == total
    assert met == expected


async def test_members_come_with_what_they_bought(shop: Served) -> None:
    page = await got(shop.api, "/v1/segments/0/customers", limit=500)
    transactions = {row["customer_id"]: row["frequency"] for row in counted(shop, CUSTOMERS)}

    assert all(row["transaction_count"] == transactions[row["customer_id"]] for row in page["data"])
    (segment,) = [each for each in (await got(shop.api, "/v1/segments"))["data"] if each["segment_id"] == 0]
    assert sum(row["total_revenue"] for row in page["data"]) == segment["total_revenue"]


async def test_a_cursor_of_another_segment_is_refused(shop: Served) -> None:
    cursor = (await got(shop.api, "/v1/segments/0/customers", limit=1))["meta"]["next_cursor"]

    response = await shop.api.get("/v1/segments/1/customers", params={"limit": 1, "cursor": cursor})

    assert (response.status_code, response.json()["code"]) == (422, "cursor_mismatch")


# A customer's


async def test_a_customers_segment_has_the_features_that_were_counted_by_hand(shop: Served) -> None:
    for row in counted(shop, CUSTOMERS)[::40]:
        found = await got(shop.api, f"/v1/customers/{row['customer_id']}/segment")

        assert found["segment"]["name"] == row["segment"]
        assert found["next_segment"]["name"] != row["segment"]
        assert found["segment"]["distance"] <= found["next_segment"]["distance"]
        expected = {name: float(row[name]) for name in ("recency_days", "frequency", "monetary")}
        assert {name: float(value) for name, value in found["features"].items()} == pytest.approx(expected)


async def test_an_unknown_customer_is_a_404(shop: Served) -> None:
    response = await shop.api.get("/v1/customers/999999/segment")

    assert (response.status_code, response.json()["code"]) == (404, "unknown_customer")


# Scores


async def test_every_customer_scores_into_the_own_segment_by_features_and_by_transactions(shop: Served) -> None:
    customers = counted(shop, CUSTOMERS)
    bought: dict[int, list[dict[str, Any]]] = {}
    for purchase in counted(shop, PURCHASES):
        bought.setdefault(purchase.pop("customer_id"), []).append(purchase)
    features = [
        {
            "id": row["customer_id"],
            "features": {name: float(row[name]) for name in ("recency_days", "frequency", "monetary")},
        }
        for row in customers
    ]
    transactions = [{"id": row["customer_id"], "transactions": bought[row["customer_id"]]} for row in customers]

    by_features = await scored(shop.api, *features)
    by_transactions = await scored(shop.api, *transactions)

    for found in (by_features, by_transactions):
        assert [row["id"] for row in found["data"]] == [row["customer_id"] for row in customers]
        assert [row["result"]["segment"]["name"] for row in found["data"]] == [row["segment"] for row in customers]
        assert (found["meta"]["scored"], found["meta"]["refused"]) == (len(customers), 0)


GOOD = {"features": {"recency_days": 12, "frequency": 30, "monetary": 5400.5}}
BOUGHT = {"transaction_id": "T1", "date": "2019-11-30", "net_revenue": 120.0}


def with_feature(**features: object) -> dict[str, Any]:
    return {"features": GOOD["features"] | features}


@pytest.mark.parametrize(
    ("row", "field", "message"),
    [
        ({}, "", "features or transactions"),
        (GOOD | {"transactions": [BOUGHT]}, "", "one of the two"),
        ({"features": {"recency_days": 1, "frequency": 2}}, "features.monetary", "needed"),
        (with_feature(recency_days=-1), "features.recency_days", "0 at least"),
        (with_feature(frequency=0), "features.frequency", "1 at least"),
        (with_feature(monetary="5"), "features.monetary", "valid number"),
        (with_feature(monetary=None), "features.monetary", "valid number"),
        (with_feature(luck=7), "features.luck", "does not know it"),
        (GOOD | {"name": "x"}, "name", "no such key"),
        ({"transactions": []}, "transactions", "at least 1"),
        ({"transactions": [BOUGHT | {"date": "30.11.2019"}]}, "transactions.0.date", "2019-01-31"),
        ({"transactions": [BOUGHT, BOUGHT | {"date": "2020-01-01"}]}, "transactions.1.date", "after the as-of date"),
        ({"transactions": [{"transaction_id": "T1"}]}, "transactions.0.date", "needed"),
    ],
)
async def test_a_bad_row_is_explained_in_its_place_and_the_others_are_scored(
    shop: Served, row: dict[str, Any], field: str, message: str
) -> None:
    found = await scored(shop.api, GOOD, row | {"id": "bad"}, GOOD)

    first, bad, last = found["data"]
    assert first["result"] == last["result"]
    assert (first["errors"], last["errors"]) == ([], [])
    assert (bad["row"], bad["id"], bad["result"]) == (1, "bad", None)
    assert bad["errors"][0]["field"] == field
    assert message in bad["errors"][0]["message"]
    assert (found["meta"]["scored"], found["meta"]["refused"]) == (2, 1)


@pytest.mark.parametrize("rows", [[], [GOOD] * 1_001, ["x"], [None], "x"])
async def test_what_is_no_list_of_up_to_a_thousand_rows_is_refused(shop: Served, rows: object) -> None:
    response = await shop.api.post("/v1/segments/score", json={"rows": rows})

    assert (response.status_code, response.json()["code"]) == (422, "malformed_request")


async def test_a_number_beyond_all_bounds_is_no_crash(shop: Served) -> None:
    found = await scored(shop.api, with_feature(monetary=1e300), with_feature(recency_days=1e15))

    beyond, largest = found["data"]
    assert "less than or equal" in beyond["errors"][0]["message"]
    assert largest["result"]["segment"]["segment_id"] in range(5)


# Over GraphQL


async def test_graphql_tells_of_segments_what_rest_does(shop: Served) -> None:
    rest = (await got(shop.api, "/v1/segments"))["data"]
    (row, *_) = counted(shop, CUSTOMERS)
    member = await got(shop.api, f"/v1/customers/{row['customer_id']}/segment")
    document = """query($customer: BigInt!, $rows: [JSON!]!) {
      segments { segmentId name customerCount share totalRevenue centroid { name value }
        customers(limit: 1) { totalItems nextCursor items { customerId } } }
      segment(segmentId: 3) { name }
      customerSegment(customerId: $customer) { segment { name distance } nextSegment { name } features { name value } }
      segmentScores(rows: $rows) { row segment { name } errors { field message } } }"""

    found = await graphql(shop.api, document, customer=row["customer_id"], rows=[GOOD, {}])

    assert [(each["segmentId"], each["name"], each["customerCount"]) for each in found["segments"]] == [
        (each["segment_id"], each["name"], each["customer_count"]) for each in rest
    ]
    assert [each["customers"]["totalItems"] for each in found["segments"]] == [each["customer_count"] for each in rest]
    assert found["segment"]["name"] == NAMES[3]
    assert found["customerSegment"]["segment"]["name"] == member["segment"]["name"]
    assert {each["name"] for each in found["customerSegment"]["features"]} == member["features"].keys()
    good, bad = found["segmentScores"]
    assert (good["segment"]["name"], good["errors"]) == ("Champions", [])
    assert bad["segment"] is None
    assert "features or transactions" in bad["errors"][0]["message"]


# Without segments


async def test_a_publication_without_segments_says_so_everywhere(unsegmented: httpx.AsyncClient) -> None:
    refused = [
        await unsegmented.get("/v1/segments"),
        await unsegmented.get("/v1/segments/0"),
        await unsegmented.get("/v1/segments/0/customers"),
        await unsegmented.get("/v1/customers/12346/segment"),
        await unsegmented.post("/v1/segments/score", json={"rows": [GOOD]}),
    ]

    assert {(each.status_code, each.json()["code"]) for each in refused} == {(404, "no_segments")}
    assert "pipeline" in refused[0].json()["hint"]


@pytest.mark.parametrize("damage", ["{", "{}", '{"format": 2}'])
def test_a_damaged_model_makes_the_publication_a_damaged_one(tmp_path: Path, damage: str) -> None:
    (tmp_path / "segments.json").write_text(damage)

    with pytest.raises(Unavailable, match="damaged"):
        read_segment_model(tmp_path / "segments.json")
