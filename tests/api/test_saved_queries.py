"""A saved query's own filters, order and limit hold over every transport, and what a caller adds narrows them."""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from api.errors import InvalidQuery, UnknownName
from api.opened import open_publication
from api.warehouse import EngineLimits
from tests.altered import redefined_publication
from tests.api.flight.flown import Flown, fly
from tests.api.graphql.asked import data, polled, refusal
from tests.conftest import Published

Json = dict[str, Any]
Rows = list[Json]

WOMEN = "{{ Dimension('customer__gender') }} = 'F'"
WOMEN_TYPED = {"field": "customer__gender", "op": "eq", "values": ["F"]}
BIG_TYPED = {"field": "total_revenue", "op": "gt", "values": [6_000]}
SAVED: dict[str, Json] = {
    "best_places": {
        "metrics": ["total_revenue", "line_count"],
        "group_by": ["Dimension('customer__location')"],
        "where": {"where_filters": [{"where_sql_template": WOMEN}]},
        "order_by": ["Metric('total_revenue').descending(True)"],
        "limit": 3,
    },
    "big_months": {
        "metrics": ["total_revenue", "line_count"],
        "group_by": ["Dimension('metric_time').grain('month')"],
        "where": {
            "where_filters": [
                {"where_sql_template": WOMEN},
                {"where_sql_template": "{{ Metric('total_revenue') }} > 6000"},
            ]
        },
        "order_by": ["-metric_time__month"],
        "limit": None,
    },
}
MEANT: dict[str, Json] = {
    "best_places": {
        "metrics": ["total_revenue", "line_count"],
        "group_by": ["customer__location"],
        "where": [WOMEN_TYPED],
        "order_by": [{"field": "total_revenue", "descending": True}],
        "limit": 3,
    },
    "big_months": {
        "metrics": ["total_revenue", "line_count"],
        "group_by": ["metric_time__month"],
        "where": [WOMEN_TYPED],
        "having": [BIG_TYPED],
        "order_by": [{"field": "metric_time__month", "descending": True}],
    },
}
POLICY = """
version: 1
roles:
  admin: {metrics: ["*"], dimensions: ["*"], see_sql: true}
  blind: {metrics: ["*"], dimensions: ["*"], see_sql: false}
  without_gender: {metrics: ["*"], dimensions: [metric_time, customer__location]}
"""
ASK = """
mutation($s: String, $w: [WhereInput!], $o: [OrderByInput!], $l: Int) {
  createSynchronousQuery(savedQuery: $s, where: $w, orderBy: $o, limit: $l) { rows } }"""


def with_saved(manifest: Json) -> None:
    for name, params in SAVED.items():
        added = copy.deepcopy(manifest["saved_queries"][0]) | {"name": name, "label": name}
        manifest["saved_queries"].append(added | {"query_params": params})


@pytest.fixture(scope="module")
async def flown(synthetic: Published, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Flown]:
    """A service over a publication whose saved queries have filters, orders and a limit."""
    folder = tmp_path_factory.mktemp("saved")
    (folder / "policy.yml").write_text(POLICY)
    async with AsyncExitStack() as stack:
        yield await fly(
            synthetic,
            stack,
            publication_dir=redefined_publication(synthetic, folder / "publications", with_saved),
            policy_file=folder / "policy.yml",
            state_url=f"sqlite:///{folder / 'state.db'}",
        )


async def rest(flown: Flown, body: Json) -> Rows:
    async with flown.rest() as client:
        response = await client.post("/v1/query", json=body)
    found: Rows = json.loads(response.content, parse_float=Decimal)["data"]
    assert found
    return found


async def over_flight(flown: Flown, statement: str) -> Rows:
    rows = (await flown.table(statement)).to_pylist()
    return [
        {name: value.isoformat() if isinstance(value, date) else value for name, value in row.items()} for row in rows
    ]


@pytest.mark.parametrize("name", list(SAVED))
async def test_every_transport_answers_what_the_saved_query_says(flown: Flown, name: str) -> None:
    meant = await rest(flown, MEANT[name])

    async with flown.rest() as client:
        response = await client.get(f"/v1/saved-queries/{name}/results")
        assert json.loads(response.content, parse_float=Decimal)["data"] == meant
        assert (await data(client, ASK, s=name))["createSynchronousQuery"]["rows"] == meant
        created = await data(client, "mutation($s: String) { createQuery(savedQuery: $s) { queryId } }", s=name)
        later = "query($q: String!) { query(queryId: $q) { status rows } }"
        assert (await polled(client, later, created["createQuery"]["queryId"]))["rows"] == meant
    assert await over_flight(flown, f'{{{{ semantic_layer.query(saved_query="{name}") }}}}') == meant
    assert await over_flight(flown, f"SELECT * FROM METRICS.{name}") == meant
    assert await over_flight(flown, f"SELECT * FROM {name} LIMIT 2") == meant[:2]


async def test_a_caller_s_filters_narrow_it_and_its_order_and_limit_come_first(flown: Flown) -> None:
    body = MEANT["best_places"]
    elsewhere = {"field": "customer__location", "op": "ne", "values": ["Chicago"]}
    ordered = [{"field": "customer__location", "descending": False}]
    meant = await rest(flown, body | {"where": [WOMEN_TYPED, elsewhere], "order_by": ordered, "limit": 2})
    text = "{{ Dimension('customer__location') }} <> 'Chicago'"

    async with flown.rest() as client:
        given = {"w": [{"sql": text}], "o": [{"groupBy": {"name": "customer__location"}}], "l": 2}
        assert (await data(client, ASK, s="best_places", **given))["createSynchronousQuery"]["rows"] == meant
    call = f'saved_query="best_places",where=["{text}"],order_by=["customer__location"],limit=2'
    assert await over_flight(flown, f"{{{{ semantic_layer.query({call}) }}}}") == meant


async def test_sql_over_it_is_answered_among_its_rows(flown: Flown) -> None:
    by_revenue = [{"field": "total_revenue", "descending": False}]
    body = MEANT["big_months"] | {"metrics": ["total_revenue"], "order_by": by_revenue}

    rows = await over_flight(
        flown, "SELECT metric_time__month, SUM(total_revenue) AS r FROM big_months GROUP BY 1 ORDER BY 2"
    )

    assert [tuple(row.values()) for row in rows] == [tuple(row.values()) for row in await rest(flown, body)]
    lines = await over_flight(flown, "SELECT line_count FROM big_months GROUP BY metric_time__month")
    meant = await rest(flown, MEANT["big_months"])
    assert [row["line_count"] for row in lines] == [row["line_count"] for row in meant]


async def test_its_filter_is_told_to_roles_that_see_sql(flown: Flown) -> None:
    call = "SELECT NAME, WHERE_FILTER FROM {{ semantic_layer.saved_queries() }}"

    told = {row["NAME"]: row["WHERE_FILTER"] for row in await over_flight(flown, call)}
    hidden = (await flown.table(call, key=flown.key_of("blind"))).to_pylist()

    assert "customer__gender" in told["best_places"]
    assert told["revenue_by_month"] is None
    assert {row["WHERE_FILTER"] for row in hidden} == {None}


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM best_places WHERE customer__location <> 'Chicago'",
        "SELECT customer__location FROM best_places GROUP BY 1 ORDER BY 1",
        "SELECT SUM(total_revenue) FROM best_places",
        "SELECT SUM(total_revenue) FROM big_months",
    ],
)
async def test_sql_that_would_mean_other_rows_than_its_own_is_refused_with_a_way(flown: Flown, sql: str) -> None:
    assert "semantic_layer.query(saved_query=" in await flown.refusal(sql)


async def test_the_way_is_one(flown: Flown) -> None:
    call = '{{ semantic_layer.query(saved_query="best_places") }}'
    total = await over_flight(flown, f"SELECT SUM(total_revenue) AS total FROM {call}")

    assert Decimal(str(total[0]["total"])) == sum(
        row["total_revenue"] for row in await rest(flown, MEANT["best_places"])
    )


async def test_whoever_may_not_see_what_it_filters_by_does_not_see_it(flown: Flown) -> None:
    key = flown.key_of("without_gender")

    async with flown.rest(key) as client:
        listed = {item["name"] for item in (await client.get("/v1/saved-queries")).json()["data"]}
        assert (await client.get("/v1/saved-queries/best_places/results")).status_code == 404
        assert (await refusal(client, ASK, s="best_places"))["extensions"]["code"] == "unknown_saved_query"
    assert "revenue_by_month" in listed
    assert not listed & SAVED.keys()
    assert "unknown_table" in await flown.refusal("SELECT * FROM best_places", key=key)


def test_a_filter_that_is_not_understood_holds_the_publication_up(synthetic: Published, tmp_path: Path) -> None:
    def broken(manifest: Json) -> None:
        with_saved(manifest)
        manifest["saved_queries"][-1]["query_params"]["where"]["where_filters"][0]["where_sql_template"] = (
            "1=1) OR (1=1"
        )

    folder = redefined_publication(synthetic, tmp_path, broken) / synthetic.version
    limits = EngineLimits(memory_mb=64, threads=1, connections=1, query_timeout=timedelta(seconds=60))

    with pytest.raises(InvalidQuery) as refused:
        open_publication(folder, limits)
    assert "big_months" in refused.value.detail


async def test_saved_queries_are_rehearsed_with_their_filters(synthetic: Published, tmp_path: Path) -> None:
    def unknown(manifest: Json) -> None:
        with_saved(manifest)
        text = "{{ Dimension('customer__shoe_size') }} = '42'"
        manifest["saved_queries"][-1]["query_params"]["where"]["where_filters"][0]["where_sql_template"] = text

    folder = redefined_publication(synthetic, tmp_path, unknown) / synthetic.version
    limits = EngineLimits(memory_mb=512, threads=1, connections=1, query_timeout=timedelta(seconds=60))
    publication = open_publication(folder, limits)

    with pytest.raises(UnknownName) as refused:
        await publication.rehearse()
    assert refused.value.detail.startswith("big_months does not answer: ")
    publication.close()
