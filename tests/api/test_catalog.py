"""What may be asked: lists and their pages, values, entities, saved queries, lineage, freshness, health."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime
from typing import Any

import duckdb
import httpx
import pytest
from fastapi import FastAPI

from tests.conftest import Published, connect

# As api_contract.md and product.md name them; other software relies on them.
ENTITIES = {"sale", "transaction", "customer", "product", "calendar_date", "news", "bitcoin"}
DIMENSIONS = {
    "customer__gender", "customer__location", "customer__tenure_months", "customer__tenure_band", "product",
    "customer__segment_name", "customer__activity_status", "product__category", "product__product_group",
    "product__description", "sale__coupon_status", "sale__sale_size", "calendar_date__day_name",
    "calendar_date__is_weekend", "calendar_date__month_name", "news__category", "news__source_name",
    "bitcoin__volatility_category", "metric_time",
}  # fmt: skip
METRICS = {
    "gross_revenue", "discount_amount", "net_revenue", "tax_amount", "delivery_charges", "total_revenue", "units_sold",
    "line_count", "transaction_count", "order_count", "customer_count", "product_count", "average_order_value",
    "units_per_transaction", "revenue_per_customer", "discount_rate", "coupon_usage_rate", "new_customers",
    "returning_customers", "repeat_purchase_rate", "churn_rate", "marketing_spend", "online_spend", "offline_spend",
    "return_on_ad_spend", "customer_acquisition_cost", "cumulative_revenue", "revenue_mtd", "revenue_trailing_7d",
    "revenue_growth_mom", "revenue_growth_yoy", "coupon_conversion_rate", "bitcoin_price_avg", "bitcoin_price_min",
    "bitcoin_price_max", "bitcoin_price_latest", "bitcoin_volatility", "news_count", "crypto_news_share",
}  # fmt: skip
SAVED_QUERIES = {"revenue_by_month", "revenue_by_category", "marketing_performance", "segment_overview"}

Items = list[dict[str, Any]]


async def listed(api: httpx.AsyncClient, path: str, **params: str | int) -> Items:
    answer = await api.get(path, params=params)
    assert answer.status_code == 200, answer.text
    items: Items = answer.json()["data"]
    return items


def names(items: Items) -> list[str]:
    return [item["name"] for item in items]


@pytest.mark.parametrize(
    ("path", "promised"),
    [
        ("/v1/metrics", METRICS),
        ("/v1/dimensions", DIMENSIONS),
        ("/v1/entities", ENTITIES),
        ("/v1/saved-queries", SAVED_QUERIES),
    ],
)
async def test_every_name_of_the_contract_exists(api: httpx.AsyncClient, path: str, promised: set[str]) -> None:
    assert promised - set(names(await listed(api, path))) == set()


async def test_every_metric_says_what_it_is_in_which_unit_and_whose(api: httpx.AsyncClient) -> None:
    for metric in await listed(api, "/v1/metrics", limit=500):
        for field in ("label", "description", "unit", "owner", "type", "dimensions"):
            assert metric[field], (metric["name"], field)


async def test_every_dimension_says_what_it_is(api: httpx.AsyncClient) -> None:
    for dimension in await listed(api, "/v1/dimensions", limit=500):
        for field in ("label", "description", "kind", "type"):
            assert dimension[field], (dimension["name"], field)
        assert bool(dimension["grains"]) == (dimension["kind"] == "time")


async def test_metric_time_has_the_promised_grains(api: httpx.AsyncClient) -> None:
    dimensions = {item["name"]: item for item in await listed(api, "/v1/dimensions", metrics="total_revenue")}

    assert dimensions["metric_time"]["grains"] == ["day", "week", "month", "quarter", "year"]


async def test_a_metric_is_described_as_in_the_list(api: httpx.AsyncClient) -> None:
    for metric in await listed(api, "/v1/metrics"):
        assert (await api.get(f"/v1/metrics/{metric['name']}")).json() == metric


@pytest.mark.parametrize("search", ["churn", "CHURN", "lost customers", "AOV", "falls in the period"])
async def test_a_search_looks_into_names_labels_descriptions_and_synonyms(api: httpx.AsyncClient, search: str) -> None:
    found = await listed(api, "/v1/metrics", search=search)

    def text(metric: dict[str, Any]) -> str:
        return "\n".join((metric["name"], metric["label"], metric["description"], *metric["synonyms"])).casefold()

    everything = await listed(api, "/v1/metrics", limit=500)
    assert found == [metric for metric in everything if search.casefold() in text(metric)]
    assert 0 < len(found) < len(everything)


async def test_a_search_for_nothing_known_is_an_empty_list(api: httpx.AsyncClient) -> None:
    answer = await api.get("/v1/metrics", params={"search": "§"})

    assert answer.json() == {"data": [], "meta": {"total": 0, "next_cursor": None}}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 39, 40, 500])
@pytest.mark.parametrize(("path", "params"), [("/v1/metrics", {}), ("/v1/dimensions", {"metrics": "line_count"})])
async def test_cursor_pages_of_any_size_concatenate_to_the_whole(
    api: httpx.AsyncClient, path: str, params: dict[str, str], size: int
) -> None:
    whole = await listed(api, path, limit=500, **params)
    paged: Items = []
    cursor: dict[str, str] = {}
    while True:
        page = (await api.get(path, params={"limit": size, **params, **cursor})).json()
        assert page["meta"]["total"] == len(whole)
        assert len(page["data"]) == min(size, len(whole) - len(paged))
        paged += page["data"]
        if page["meta"]["next_cursor"] is None:
            break
        cursor = {"cursor": page["meta"]["next_cursor"]}

    assert paged == whole
    assert names(whole) == sorted(names(whole))


async def test_the_dimensions_of_several_metrics_are_those_that_all_of_them_have(api: httpx.AsyncClient) -> None:
    metrics = {metric["name"]: metric for metric in await listed(api, "/v1/metrics", limit=500)}
    for pair in itertools.islice(itertools.combinations(metrics, 2), 0, None, 9):
        common = await listed(api, "/v1/dimensions", metrics=", ".join(pair), limit=500)
        assert set(names(common)) == set.intersection(*(set(metrics[name]["dimensions"]) for name in pair))


async def test_the_grains_of_several_metrics_are_those_that_all_of_them_have(api: httpx.AsyncClient) -> None:
    common = await listed(api, "/v1/dimensions", metrics="revenue_growth_mom,line_count")

    assert {item["name"]: item["grains"] for item in common}["metric_time"] == ["day", "month"]


async def values(api: httpx.AsyncClient, dimension: str, **params: str | int) -> list[Any]:
    return list(await listed(api, f"/v1/dimensions/{dimension}/values", **params))


async def test_the_values_of_a_dimension_come_in_order_and_in_their_type(
    api: httpx.AsyncClient, synthetic: Published
) -> None:
    with duckdb.connect(synthetic.warehouse, read_only=True) as raw:
        categories = raw.sql("SELECT DISTINCT product_category FROM raw.online_sales ORDER BY 1").fetchall()
    assert await values(api, "product__category", metrics="line_count") == [name for (name,) in categories]
    assert await values(api, "calendar_date__is_weekend") == [False, True]
    assert await values(api, "metric_time__quarter", metrics="line_count") == [
        "2019-01-01", "2019-04-01", "2019-07-01", "2019-10-01",
    ]  # fmt: skip
    assert all(isinstance(value, int) for value in await values(api, "customer__tenure_months"))


async def test_the_values_of_a_dimension_leave_nulls_out(api: httpx.AsyncClient) -> None:
    codes = await values(api, "sale__coupon_code", limit=1_000)

    assert codes
    assert None not in codes


async def test_more_values_than_asked_for_are_said_to_follow(api: httpx.AsyncClient) -> None:
    for limit, truncated in ((1, True), (2, False)):
        answer = (await api.get("/v1/dimensions/customer__gender/values", params={"limit": limit})).json()
        assert (len(answer["data"]), answer["meta"]["truncated"]) == (limit, truncated)


@pytest.mark.parametrize("search", ["%", "_", "-", "Nest", "nest", "!", "e"])
async def test_a_search_in_values_is_literal(api: httpx.AsyncClient, search: str) -> None:
    everything = await values(api, "product__description", limit=1_000)

    assert await values(api, "product__description", search=search, limit=1_000) == [
        text for text in everything if search in text
    ]


async def test_the_values_with_metrics_are_those_that_have_rows_of_them(
    api: httpx.AsyncClient, synthetic: Published
) -> None:
    with duckdb.connect(synthetic.warehouse, read_only=True) as raw:
        sold = raw.sql("SELECT DISTINCT product_sku FROM raw.online_sales ORDER BY 1").fetchall()

    assert await values(api, "product", metrics="line_count", limit=1_000) == [sku for (sku,) in sold][:1_000]


@pytest.mark.parametrize("name", sorted(SAVED_QUERIES))
async def test_a_saved_query_answers_as_its_parts_do(api: httpx.AsyncClient, name: str) -> None:
    saved = {item["name"]: item for item in await listed(api, "/v1/saved-queries")}[name]
    parts = await api.post("/v1/query", json={"metrics": saved["metrics"], "group_by": saved["group_by"]})

    whole = await api.get(f"/v1/saved-queries/{name}/results")

    assert whole.json()["data"] == parts.json()["data"]
    assert whole.json()["columns"] == parts.json()["columns"]
    assert whole.json()["data"]


async def test_the_lineage_of_a_metric_reaches_the_raw_sources(api: httpx.AsyncClient) -> None:
    for metric in await listed(api, "/v1/metrics", limit=500):
        lineage = (await api.get(f"/v1/lineage/{metric['name']}")).json()
        nodes = {edge["reads"] for edge in lineage["edges"]}
        assert lineage["metric"] == metric["name"]
        assert any(node.startswith("source.") for node in nodes), metric["name"]
        assert lineage["semantic_models"], metric["name"]


async def test_the_lineage_of_a_derived_metric_names_what_it_is_computed_from(api: httpx.AsyncClient) -> None:
    lineage = (await api.get("/v1/lineage/return_on_ad_spend")).json()

    sources = {edge["reads"] for edge in lineage["edges"] if edge["reads"].startswith("source.")}
    assert set(lineage["metrics"]) == {"total_revenue", "marketing_spend"}
    assert {"marketing_spend", "online_sales", "tax_amounts", "discount_coupons"} <= {
        source.rpartition(".")[2] for source in sources
    }


async def test_freshness_tells_of_every_source(api: httpx.AsyncClient, synthetic: Published) -> None:
    fresh = (await api.get("/v1/freshness")).json()

    sources = {source["name"]: source for source in fresh["sources"]}
    with duckdb.connect(synthetic.warehouse, read_only=True) as raw:
        facts = raw.sql("SELECT count(*), max(transaction_date)::varchar FROM raw.online_sales").fetchall()[0]
    assert (sources["online_sales"]["rows"], sources["online_sales"]["data_through"]) == facts
    assert fresh["publication"] == synthetic.version
    assert fresh["as_of"] == fresh["data_through"] == facts[1]
    assert datetime.fromisoformat(sources["online_sales"]["loaded_at"]).tzinfo == UTC
    assert sources["bitcoin"] == {"name": "bitcoin", "rows": 0, "loaded_at": None, "data_through": None}


async def test_the_publications_name_the_current_one(api: httpx.AsyncClient, synthetic: Published) -> None:
    kept = (await api.get("/v1/publications")).json()["data"]

    assert [item["version"] for item in kept if item["current"]] == [synthetic.version]
    assert kept[0]["tables"]["fct_sales"] > 1_000
    assert kept[0]["tests_passed"] > 60


async def test_health_needs_no_key(service: FastAPI, synthetic: Published) -> None:
    async with connect(service) as stranger:
        alive, ready = await stranger.get("/healthz"), await stranger.get("/readyz")

    assert (alive.status_code, alive.json()["status"]) == (200, "ok")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "publication": synthetic.version})


async def test_the_description_of_the_api_is_served_without_a_key(service: FastAPI) -> None:
    async with connect(service) as stranger:
        described = await stranger.get("/openapi.json")
        assert (await stranger.get("/docs")).status_code == 200

    assert described.json()["openapi"].startswith("3.1")
    assert json.dumps(described.json()) == json.dumps(service.openapi())
