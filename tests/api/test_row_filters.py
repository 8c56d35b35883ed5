"""Row filters (S8): a restricted answer is the unrestricted one with the filter added, on every path."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.api.principals import Client, Join, listed, names, refusal, rows, values
from tests.conftest import Published

POLICY = """
version: 1
roles:
  admin: {metrics: ["*"], dimensions: ["*"], see_sql: true}
  chicago:
    metrics: ["*"]
    dimensions: ["*"]
    rows: [{field: customer__location, op: eq, values: [Chicago]}]
  regional:
    metrics: ["*"]
    dimensions: ["*"]
    see_sql: true
    rows: [{field: customer__location, op: in, claim: regions}]
  blind:
    metrics: ["*"]
    dimensions: ["*"]
    hidden: [customer__location]
    rows: [{field: customer__location, op: eq, values: [Chicago]}]
  masked: {metrics: ["*"], dimensions: ["*"], hashed: [product__category]}
  common: {metrics: ["*"], dimensions: ["*"], min_customers: 50}
"""

PLACES = ("California", "Chicago", "New Jersey", "New York", "Washington DC")
IN_CHICAGO = {"field": "customer__location", "op": "eq", "values": ["Chicago"]}
FRESH = {"Cache-Control": "no-cache"}
FORMATS = ("application/json", "text/csv", "application/vnd.apache.arrow.stream", "application/vnd.apache.parquet")

Query = dict[str, Any]


@pytest.fixture(scope="module")
def chicago(join: Join) -> Client:
    return join("chicago")


def sql(published: Published, folder: Path, statement: str) -> list[tuple[Any, ...]]:
    """The rows of a statement over a copy of what is served; the service has opened the file in its own way."""
    file = published.settings.publication_dir / published.version / "data.duckdb"
    with duckdb.connect(shutil.copy(file, folder / "copy.duckdb")) as connection:
        return connection.execute(statement).fetchall()


def only(place: str) -> Query:
    """A filter that an unrestricted caller would write; another text than the policy's, so that it is another plan."""
    return {"any_of": [{"field": "customer__location", "op": "eq", "values": [place]}]}


async def everything_askable(client: Client) -> list[Query]:
    """Every metric that the client sees by every dimension that joins to it, a time at each of its grains.

    Metrics that share their dimensions are asked for at once; what runs over time is asked for by month too.
    """
    grains = {item["name"]: item["grains"] for item in await listed(client, "/v1/dimensions")}
    alike: dict[tuple[Any, ...], list[str]] = {}
    for metric in await listed(client, "/v1/metrics"):
        alike.setdefault((metric["requires_metric_time"], *metric["dimensions"]), []).append(metric["name"])
    return [
        {"metrics": metrics[start : start + 10], "group_by": group_by}
        for (runs_over_time, *dimensions), metrics in alike.items()
        for start in range(0, len(metrics), 10)
        for group_by in groups_of(dimensions, grains, runs_over_time=runs_over_time)
    ]


def groups_of(dimensions: list[str], grains: dict[str, list[str]], *, runs_over_time: bool) -> Iterator[list[str]]:
    month = ["metric_time__month"] if runs_over_time else []
    if not runs_over_time:
        yield []  # the total
    for name in dimensions:
        for asked in [f"{name}__{grain}" for grain in grains[name]] or [name]:
            yield [*dict.fromkeys([*month, asked])]


async def differing(restricted: Client, admin: Client, questions: list[Query], place: str) -> list[Query]:
    """The questions of which the restricted answer is not the unrestricted one with the filter added."""
    wrong = []
    for query in questions:
        own = await restricted.post("/v1/query", json=query | {"limit": 50_000})
        same = await admin.post("/v1/query", json=query | {"limit": 50_000, "where": [only(place)]}, headers=FRESH)
        if own.status_code == same.status_code == 422:
            assert own.json()["code"] == same.json()["code"] == "invalid_grain", own.text
        elif own.status_code != 200 or own.json()["data"] != same.json()["data"]:
            wrong.append(query)
    return wrong


@pytest.mark.parametrize("role", ["chicago", "blind", "regional"])
async def test_a_sample_of_restricted_answers_is_the_unrestricted_ones_with_the_filter_added(
    join: Join, admin: Client, role: str
) -> None:
    restricted = join(role, regions=("Chicago",))
    questions = await everything_askable(restricted)
    assert len(questions) > 100
    assert len({metric for query in questions for metric in query["metrics"]}) > 25

    # Every eleventh: a prime, so that it meets each kind of metric with ever other dimensions.
    assert await differing(restricted, admin, questions[::11], "Chicago") == []
    for metric in ("total_revenue", "line_count", "customer_count", "churned_customers"):
        assert await rows(restricted, {"metrics": [metric]}) != await rows(admin, {"metrics": [metric]})


@pytest.mark.full
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("place", PLACES)
async def test_every_metric_by_every_dimension_is_restricted_in_every_place(
    join: Join, admin: Client, place: str
) -> None:
    restricted = join("regional", regions=(place,))

    assert await differing(restricted, admin, await everything_askable(restricted), place) == []


async def test_claims_of_two_places_are_the_answers_of_both(join: Join, admin: Client) -> None:
    two = join("regional", regions=("California", "Chicago"))
    query = {"metrics": ["total_revenue", "customer_count"], "group_by": ["metric_time__month", "customer__location"]}
    both = {"any_of": [only("California"), only("Chicago")]}

    assert await rows(two, query) == await rows(admin, query | {"where": [both]}, **FRESH)


async def test_a_restricted_total_is_the_number_of_the_regions_own_lines(
    synthetic: Published, tmp_path: Path, chicago: Client, admin: Client
) -> None:
    counts = sql(
        synthetic,
        tmp_path,
        "select count(*) filter (c.location = 'Chicago'), count(*) from marts.fct_sales as s "
        "join marts.dim_customer as c using (customer_id)",
    )
    own, everything = counts[0]

    assert 0 < own < everything
    assert await rows(chicago, {"metrics": ["line_count"]}) == [{"line_count": own}]
    assert await rows(admin, {"metrics": ["line_count"]}) == [{"line_count": everything}]


@pytest.mark.parametrize(
    "where",
    [
        [{"field": "customer__location", "op": "eq", "values": ["California"]}],
        [{"any_of": [IN_CHICAGO, {"field": "customer__location", "op": "is_not_null"}]}],
        [{"not": IN_CHICAGO}],
        ["{{ Dimension('customer__location') }} = 'California'"],
        ["{{ Dimension('customer__location') }} = 'Chicago' or {{ Dimension('customer__location') }} != 'Chicago'"],
    ],
)
async def test_no_filter_of_the_callers_own_widens_what_it_sees(chicago: Client, where: list[Any]) -> None:
    found = await rows(chicago, {"metrics": ["line_count"], "group_by": ["customer__location"], "where": where})

    assert {row["customer__location"] for row in found} <= {"Chicago"}


async def test_a_metric_that_cannot_be_filtered_does_not_exist_for_the_role(chicago: Client, admin: Client) -> None:
    every = await listed(admin, "/v1/metrics")
    joining = {metric["name"] for metric in every if "customer__location" in metric["dimensions"]}
    lacking = {metric["name"] for metric in every} - joining
    assert {"marketing_spend", "return_on_ad_spend", "news_count", "bitcoin_price_avg"} <= lacking

    assert await names(chicago, "/v1/metrics") == joining
    for name in lacking:
        answers = [
            await chicago.get(f"/v1/metrics/{name}"),
            await chicago.get("/v1/dimensions", params={"metrics": name}),
            await chicago.get("/v1/dimensions/metric_time/values", params={"metrics": name}),
            await chicago.post("/v1/query", json={"metrics": [name]}),
            await chicago.post("/v1/query", json={"metrics": ["line_count", name]}),
            await chicago.get(f"/v1/metrics/{name}s"),
        ]
        assert [refusal(answer) for answer in answers] == [(404, "unknown_metric")] * len(answers)
        for answer in answers:
            assert not lacking & {*answer.json().get("nearest", ())}
            assert not lacking & {*re.findall(r"\w+", answer.json()["hint"])}


async def test_dimension_values_are_those_of_the_callers_rows(chicago: Client, admin: Client) -> None:
    everywhere = await values(admin, "customer__location")
    assert len(everywhere) > 1
    for params in ({}, {"metrics": "line_count"}, {"search": "C"}, {"search": "C", "metrics": "line_count"}):
        assert await values(chicago, "customer__location", **params) == ["Chicago"]
    assert await values(chicago, "customer__location", search="Cali") == []

    own = await values(chicago, "customer")
    assert own == await values(chicago, "customer", metrics="customer_count")
    assert 0 < len(own) < len(await values(admin, "customer"))


async def test_values_that_have_no_rows_to_filter_need_a_metric(chicago: Client, admin: Client) -> None:
    hidden = await chicago.get("/v1/dimensions/product__category/values")
    asked = await chicago.post("/v1/query", json={"group_by": ["customer__location", "product__category"]})

    assert refusal(hidden) == (422, "metric_required")
    assert asked.status_code == 422
    query = {"metrics": ["line_count"], "group_by": ["product__category"], "where": [IN_CHICAGO]}
    sold = [row["product__category"] for row in await rows(admin, query)]
    assert await values(chicago, "product__category", metrics="line_count") == [name for name in sold if name]


async def test_saved_queries_are_restricted_or_do_not_exist(chicago: Client, admin: Client) -> None:
    assert await names(chicago, "/v1/saved-queries") == {
        item["name"]
        for item in await listed(admin, "/v1/saved-queries")
        if {*item["metrics"]} <= await names(chicago, "/v1/metrics")
    }
    assert "marketing_performance" not in await names(chicago, "/v1/saved-queries")
    gone = await chicago.get("/v1/saved-queries/marketing_performance/results")
    assert refusal(gone) == (404, "unknown_saved_query")
    assert "marketing_performance" not in gone.json().get("nearest", ())

    for saved in await listed(chicago, "/v1/saved-queries"):
        answer = await chicago.get(f"/v1/saved-queries/{saved['name']}/results")
        query = {"metrics": saved["metrics"], "group_by": saved["group_by"], "where": [IN_CHICAGO]}
        assert json.loads(answer.content, parse_float=Decimal)["data"] == await rows(admin, query, **FRESH)


async def test_how_an_answer_is_made_is_shown_to_those_who_may_see_sql_with_their_filter(
    join: Join, chicago: Client
) -> None:
    query = {"metrics": ["total_revenue"], "group_by": ["metric_time__month"]}
    assert refusal(await chicago.post("/v1/query/compile", json=query)) == (403, "sql_forbidden")
    assert refusal(await chicago.get("/v1/lineage/total_revenue")) == (403, "sql_forbidden")
    assert refusal(await chicago.get("/v1/lineage/marketing_spend")) == (403, "sql_forbidden")

    regional = join("regional", regions=("California", "Chicago"))
    compiled = (await regional.post("/v1/query/compile", json=query)).json()
    assert {"California", "Chicago"} <= {str(value) for value in compiled["parameters"].values()}
    assert "location" in compiled["sql"]
    assert refusal(await regional.post("/v1/query/compile", json={"metrics": ["news_count"]}))[0] == 404
    assert refusal(await regional.get("/v1/lineage/news_count"))[0] == 404
    assert (await regional.get("/v1/lineage/total_revenue")).status_code == 200


@pytest.mark.parametrize("accept", FORMATS)
async def test_exports_are_restricted(chicago: Client, admin: Client, accept: str) -> None:
    query = {"metrics": ["total_revenue", "line_count"], "group_by": ["customer__location", "customer"]}
    export = await chicago.post("/v1/query", json=query, headers={"Accept": accept})
    same = await admin.post("/v1/query", json=query | {"where": [only("Chicago")]}, headers={"Accept": accept})

    assert export.status_code == 200
    assert b"Chicago" in export.content
    if accept == "application/json":
        assert export.json()["data"] == same.json()["data"]
    else:
        assert export.content == same.content
    for place in set(await values(admin, "customer__location")) - {"Chicago"}:
        assert place.encode() not in export.content


async def test_the_tag_of_anothers_answer_never_stands_for_ones_own(join: Join, admin: Client) -> None:
    query = {"metrics": ["line_count"], "group_by": ["product__category"]}
    clients = {
        "admin": admin,
        "chicago": join("chicago"),
        "california": join("regional", regions=("California",)),
        "masked": join("masked"),
        "common": join("common"),
    }
    answers = {name: await client.post("/v1/query", json=query) for name, client in clients.items()}
    tags = {name: answer.headers["etag"] for name, answer in answers.items()}

    assert len(set(tags.values())) == len(tags)
    for name, client in clients.items():
        others = ", ".join(tag for other, tag in tags.items() if other != name)
        again = await client.post("/v1/query", json=query, headers={"If-None-Match": others})
        assert (again.status_code, again.json()["data"]) == (200, answers[name].json()["data"])
        own = await client.post("/v1/query", json=query, headers={"If-None-Match": tags[name]})
        assert (own.status_code, own.content) == (304, b"")


async def test_a_thousand_alternating_cached_calls_leak_nothing(join: Join, admin: Client) -> None:
    questions = [
        {"metrics": ["total_revenue", "line_count"], "group_by": group}
        for group in ([], ["customer__location"], ["metric_time__month"], ["product__category"])
    ]
    clients = [
        *(join("regional", regions=(place,)) for place in PLACES),
        join("chicago"),
        join("masked"),
        join("common"),
        admin,
    ]
    expected = [[await rows(client, question, **FRESH) for question in questions] for client in clients]
    for place, found in zip(PLACES, expected, strict=False):
        for question, own in zip(questions, found, strict=True):
            assert own == await rows(admin, question | {"where": [only(place)]}, **FRESH)
    assert len({json.dumps(found, default=str) for found in expected}) == len(clients) - 1  # Chicago is there twice

    async def ask(call: int) -> bool:
        who, what = call % len(clients), call // len(clients) % len(questions)
        return await rows(clients[who], questions[what]) == expected[who][what]

    assert all([await ask(call) for call in range(500)])
    assert all(await asyncio.gather(*(ask(call) for call in range(500))))
