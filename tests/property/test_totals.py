"""Totals are the sum of their parts, and a filter is the slice: for drawn metrics, group-bys and filters."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Body = dict[str, Any]
Rows = list[dict[str, Any]]

# Sums and counts of lines; a distinct count does not add up, for a customer stands in several groups.
ADDITIVE = (
    "gross_revenue",
    "discount_amount",
    "net_revenue",
    "tax_amount",
    "delivery_charges",
    "total_revenue",
    "units_sold",
    "line_count",
)
GROUP_BYS = (
    "metric_time__month",
    "metric_time__week",
    "sale__transaction_date__quarter",
    "customer__gender",
    "customer__location",
    "customer__tenure_band",
    "customer__activity_status",
    "product__category",
    "product__product_group",
    "sale__coupon_status",
    "sale__coupon_code",
    "sale__sale_size",
    "calendar_date__day_name",
    "calendar_date__is_weekend",
    "customer",
)

# The service and its client live for the whole session, so it does not matter that Hypothesis runs a test often.
often = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

metrics = st.lists(st.sampled_from(ADDITIVE), min_size=1, max_size=3, unique=True)
group_bys = st.lists(st.sampled_from(GROUP_BYS), min_size=1, max_size=3, unique=True)


@pytest.fixture(scope="module")
async def known(api: httpx.AsyncClient) -> dict[str, list[Any]]:
    """The values of every group-by, from which filters are drawn."""
    values = {}
    for name in GROUP_BYS:
        answer = await api.get(f"/v1/dimensions/{name}/values", params={"metrics": "line_count", "limit": 1_000})
        values[name] = answer.json()["data"]
    return values


async def rows(api: httpx.AsyncClient, body: Body) -> Rows:
    response = await api.post("/v1/query", json={"limit": 50_000, **body})
    assert response.status_code == 200, response.text
    answer = json.loads(response.content, parse_float=Decimal)
    assert answer["meta"]["truncated"] is False
    found: Rows = answer["data"]
    return found


def total(groups: Rows, metric: str) -> Decimal | int:
    return sum((row[metric] or 0 for row in groups), start=Decimal(0))


def drawn_filter(data: st.DataObject, known: dict[str, list[Any]]) -> Body:
    field = data.draw(st.sampled_from(GROUP_BYS))
    values = data.draw(st.lists(st.sampled_from(known[field]), min_size=1, max_size=4, unique=True))
    leaf = {"field": field, "op": data.draw(st.sampled_from(["in", "not_in"])), "values": values}
    return data.draw(st.sampled_from([leaf, {"not": leaf}, {"any_of": [leaf, {"field": field, "op": "is_null"}]}]))


@often
@given(asked=metrics, groups=group_bys, data=st.data())
async def test_the_groups_of_an_additive_metric_sum_to_its_total(
    api: httpx.AsyncClient, known: dict[str, list[Any]], asked: list[str], groups: list[str], data: st.DataObject
) -> None:
    where = [drawn_filter(data, known) for _ in range(data.draw(st.integers(0, 2)))]

    grouped = await rows(api, {"metrics": asked, "group_by": groups, "where": where})
    whole = await rows(api, {"metrics": asked, "where": where})

    for metric in asked:
        assert total(grouped, metric) == (whole[0][metric] or 0)


@often
@given(asked=metrics, groups=group_bys, data=st.data())
async def test_a_filter_on_a_group_by_is_the_slice_of_the_unfiltered_answer(
    api: httpx.AsyncClient, known: dict[str, list[Any]], asked: list[str], groups: list[str], data: st.DataObject
) -> None:
    field = data.draw(st.sampled_from(groups))
    values = data.draw(st.lists(st.sampled_from(known[field]), min_size=1, max_size=4, unique=True))
    body = {"metrics": asked, "group_by": groups}

    sliced = await rows(api, body | {"where": [{"field": field, "op": "in", "values": values}]})

    assert sliced == [row for row in await rows(api, body) if row[field] in values]
    assert sliced


@often
@given(asked=metrics, groups=group_bys, data=st.data())
async def test_a_filter_and_its_opposite_and_the_nulls_make_up_the_whole(
    api: httpx.AsyncClient, known: dict[str, list[Any]], asked: list[str], groups: list[str], data: st.DataObject
) -> None:
    field = data.draw(st.sampled_from(GROUP_BYS))
    leaf = {"field": field, "op": "in", "values": data.draw(st.lists(st.sampled_from(known[field]), min_size=1))[:50]}
    body = {"metrics": asked, "group_by": groups}

    parts = [
        await rows(api, body | {"where": [where]}) for where in (leaf, {"not": leaf}, {"field": field, "op": "is_null"})
    ]

    for metric in asked:
        assert sum(total(part, metric) for part in parts) == total(await rows(api, body), metric)


@often
@given(groups=group_bys, size=st.integers(1, 400), data=st.data())
async def test_pages_of_any_size_are_the_whole_in_order(
    api: httpx.AsyncClient, groups: list[str], size: int, data: st.DataObject
) -> None:
    order = [{"field": data.draw(st.sampled_from([*groups, "line_count"])), "descending": data.draw(st.booleans())}]
    body = {"metrics": ["line_count"], "group_by": groups, "order_by": order}
    whole = await rows(api, body)
    offset = data.draw(st.integers(0, len(whole)))

    page = await api.post("/v1/query", json=body | {"limit": size, "offset": offset})

    assert json.loads(page.content, parse_float=Decimal)["data"] == whole[offset : offset + size]
