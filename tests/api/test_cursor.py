"""Walking an answer by its cursor: the whole, once, of one version and one question; and nothing by a forged one."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import httpx
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.main import create_app
from tests.api.served import Body, Served, answer
from tests.conftest import Published, connect, service_settings

LATER = "20991231T000000Z-000000"
BODY: Body = {
    "metrics": ["line_count", "total_revenue"],
    "group_by": ["product__category", "customer__location"],
    "order_by": [{"field": "line_count", "descending": True}],
}


async def walked(served: Served, body: Body, *, limits: list[int]) -> list[Body]:
    """The pages, each as long as the next of the limits says; the last of them for all others."""
    pages = [await answer(served, body | {"limit": limits[0]})]
    while (cursor := pages[-1]["meta"]["next_cursor"]) is not None:
        limit = limits[min(len(pages), len(limits) - 1)]
        pages.append(await answer(served, body | {"limit": limit, "cursor": cursor}))
    return pages


def rows(pages: list[Body]) -> list[Body]:
    return [row for page in pages for row in page["data"]]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    limits=st.lists(st.integers(3, 60), min_size=1, max_size=4),
    group_by=st.lists(
        st.sampled_from(["product__category", "customer__location", "sale__coupon_code", "metric_time__month"]),
        min_size=1,
        max_size=2,
        unique=True,
    ),
    order=st.none() | st.tuples(st.sampled_from(["line_count", "total_revenue"]), st.booleans()),
)
async def test_the_pages_of_a_walk_are_the_whole_in_its_order(
    two: Served, limits: list[int], group_by: list[str], order: tuple[str, bool] | None
) -> None:
    body = {"metrics": ["line_count", "total_revenue"], "group_by": group_by}
    if order:
        body |= {"order_by": [{"field": order[0], "descending": order[1]}]}

    pages = await walked(two, body, limits=limits)

    assert rows(pages) == (await answer(two, body))["data"]
    assert [page["meta"]["truncated"] for page in pages] == [True] * (len(pages) - 1) + [False]
    assert len({page["meta"]["publication"] for page in pages}) == 1


async def test_every_kind_of_question_can_be_walked(two: Served) -> None:
    leap = {"start": "2020-02-01", "end": "2020-02-29"}
    for body in (
        {"group_by": ["customer"]},
        {
            "metrics": ["total_revenue"],
            "group_by": ["metric_time__day"],
            "time_range": leap,
            "compare_to": "previous_period",
        },
        {"metrics": ["line_count"], "group_by": ["metric_time__extract_day", "metric_time__extract_dow"]},
        {
            "metrics": ["line_count"],
            "group_by": ["customer"],
            "where": [{"metric": "line_count", "per": ["customer"], "op": "gt", "values": [2.5]}],
            "having": [{"field": "line_count", "op": "lt", "values": [50]}],
        },
        BODY | {"time_range": {"preset": "this_year"}},
    ):
        pages = await walked(two, body, limits=[11])
        assert rows(pages) == (await answer(two, body))["data"]
        assert len(pages) > 2


async def test_a_full_last_page_has_no_cursor(two: Served) -> None:
    whole = await answer(two, BODY)

    exact = await answer(two, BODY | {"limit": len(whole["data"])})

    assert whole["meta"]["next_cursor"] is None
    assert exact["meta"]["next_cursor"] is None
    assert (await answer(two, BODY | {"limit": len(whole["data"]) - 1}))["meta"]["next_cursor"]


async def test_a_walk_may_begin_behind_an_offset(two: Served) -> None:
    whole = (await answer(two, BODY))["data"]
    first = await answer(two, BODY | {"limit": 5, "offset": 7})
    second = await answer(two, BODY | {"limit": 5, "cursor": first["meta"]["next_cursor"]})

    assert second["data"] == whole[12:17]
    assert second["meta"]["offset"] == 12


async def test_every_format_names_the_cursor_in_a_header(two: Served) -> None:
    first = await answer(two, BODY | {"limit": 5})
    for media_type in ("text/csv", "application/vnd.apache.arrow.stream", "application/vnd.apache.parquet"):
        response = await two.api.post("/v1/query", json=BODY | {"limit": 5}, headers={"Accept": media_type})
        assert response.headers["x-next-cursor"] == first["meta"]["next_cursor"]
    arrow = await two.api.post(
        "/v1/query",
        json=BODY | {"limit": 5, "cursor": first["meta"]["next_cursor"]},
        headers={"Accept": "application/vnd.apache.arrow.stream"},
    )
    second = (await answer(two, BODY | {"limit": 5, "offset": 5}))["data"]
    table = pa.ipc.open_stream(io.BytesIO(arrow.content)).read_all()
    assert table.column("line_count").to_pylist() == [row["line_count"] for row in second]
    last = await two.api.post("/v1/query", json=BODY, headers={"Accept": "text/csv"})
    assert "x-next-cursor" not in last.headers


async def test_a_saved_query_is_walked_too(two: Served) -> None:
    """It answers no page shorter than the default; so a cursor of the same question is put in its place."""
    path = "/v1/saved-queries/revenue_by_month/results"
    whole = (await two.api.get(path)).json()
    named = next(
        item for item in (await two.api.get("/v1/saved-queries")).json()["data"] if item["name"] == "revenue_by_month"
    )
    question = {"metrics": named["metrics"], "group_by": named["group_by"]}
    first = await answer(two, question | {"limit": 3})

    rest = (await two.api.get(path, params={"cursor": first["meta"]["next_cursor"]})).json()

    assert rest["data"] == whole["data"][3:]
    assert rest["data"]


# Another question, another version


OTHERS: dict[str, Body] = {
    "another metric": {"metrics": ["line_count"]},
    "metrics in another order": {"metrics": ["total_revenue", "line_count"]},
    "another group-by": {"group_by": ["product__category", "customer__gender"]},
    "a filter": {"where": [{"field": "customer__gender", "op": "eq", "values": ["F"]}]},
    "a condition after aggregation": {"having": [{"field": "line_count", "op": "gt", "values": [1]}]},
    "another order": {"order_by": [{"field": "line_count", "descending": False}]},
    "no order": {"order_by": []},
    "a range": {"time_range": {"start": "2019-01-01", "end": "2019-12-31"}},
}


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS)
async def test_the_cursor_of_another_question_is_refused(two: Served, change: Body) -> None:
    cursor = (await answer(two, BODY | {"limit": 5}))["meta"]["next_cursor"]

    response = await two.api.post("/v1/query", json=BODY | change | {"cursor": cursor})

    assert (response.status_code, response.json()["code"]) == (422, "cursor_mismatch")


async def test_another_value_and_another_comparison_are_other_questions(two: Served) -> None:
    body = BODY | {
        "where": [{"field": "product__category", "op": "ne", "values": ["Apparel"]}],
        "time_range": {"start": "2020-03-01", "end": "2020-03-31"},
        "compare_to": "previous_period",
    }
    cursor = (await answer(two, body | {"limit": 5}))["meta"]["next_cursor"]
    for change in (
        {"where": [{"field": "product__category", "op": "ne", "values": ["apparel"]}]},
        {"where": [{"field": "product__category", "op": "eq", "values": ["Apparel"]}]},
        {"compare_to": "same_period_last_year"},
        {"compare_to": None},
        {"time_range": {"start": "2020-03-01", "end": "2020-03-30"}},
    ):
        response = await two.api.post("/v1/query", json=body | change | {"cursor": cursor})
        assert (response.status_code, response.json()["code"]) == (422, "cursor_mismatch"), change


async def test_ways_to_write_one_question_share_its_cursor(two: Served) -> None:
    typed = {
        "where": [{"field": "customer__gender", "op": "eq", "values": ["F"]}],
        "time_range": {"preset": "this_month"},
    }
    cursor = (await answer(two, BODY | typed | {"limit": 5}))["meta"]["next_cursor"]
    text = {
        "where": ["{{ Dimension('customer__gender') }} = 'F'"],
        "time_range": {"start": "2020-05-01", "end": "2020-05-20"},
    }

    found = await answer(two, BODY | text | {"limit": 5, "cursor": cursor})

    assert found["data"] == (await answer(two, BODY | typed | {"limit": 5, "offset": 5}))["data"]


def forged(cursor: str, **changes: object) -> str:
    version, question, offset = base64.urlsafe_b64decode(cursor).decode().split(" ")
    parts = {"version": version, "question": question, "offset": offset} | changes
    return base64.urlsafe_b64encode(" ".join(map(str, parts.values())).encode()).decode()


async def test_a_forged_offset_is_a_page_that_could_be_asked_for_openly(two: Served) -> None:
    cursor = (await answer(two, BODY | {"limit": 5}))["meta"]["next_cursor"]
    for offset in (0, 3, 10**6):
        found = await answer(two, BODY | {"limit": 5, "cursor": forged(cursor, offset=offset)})
        assert found["data"] == (await answer(two, BODY | {"limit": 5, "offset": offset}))["data"]


async def test_a_cursor_that_names_another_version_is_expired(two: Served) -> None:
    cursor = (await answer(two, BODY | {"limit": 5}))["meta"]["next_cursor"]

    response = await two.api.post(
        "/v1/query", json=BODY | {"cursor": forged(cursor, version="20190101T000000Z-000000")}
    )

    assert (response.status_code, response.json()["code"]) == (422, "cursor_expired")
    assert "Begin again" in response.json()["hint"]


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "☃", "' OR 1=1", "=" * 500, base64.urlsafe_b64encode(b"a b c").decode(), "AAAA\n"]
    + [
        base64.urlsafe_b64encode(f"v {'0' * 32} {offset}".encode()).decode()
        for offset in ("-1", "1e3", "9" * 17, "٣", "")
    ],
    ids=ascii,
)
async def test_a_cursor_that_is_none_of_ours_cannot_be_read(two: Served, cursor: str) -> None:
    response = await two.api.post("/v1/query", json=BODY | {"cursor": cursor})

    assert (response.status_code, response.json()["code"]) == (400, "invalid_cursor"), response.text


async def test_a_cursor_goes_with_no_offset_and_is_a_short_text(two: Served) -> None:
    cursor = (await answer(two, BODY | {"limit": 5}))["meta"]["next_cursor"]
    both = await two.api.post("/v1/query", json=BODY | {"cursor": cursor, "offset": 5})
    long = await two.api.post("/v1/query", json=BODY | {"cursor": "A" * 501})
    number = await two.api.post("/v1/query", json=BODY | {"cursor": 5})

    assert (both.status_code, both.json()["code"]) == (422, "cursor_with_offset")
    assert [response.json()["code"] for response in (long, number)] == ["malformed_request"] * 2


# Roles


POLICY = """
version: 1
roles:
  admin: {metrics: ["*"], dimensions: ["*"], see_sql: true}
  chicago:
    metrics: ["*"]
    dimensions: ["*"]
    rows: [{field: customer__location, op: eq, values: [Chicago]}]
"""


async def test_a_cursor_opens_no_rows_of_another_role(roles: Mapping[str, Served]) -> None:
    admin, chicago = roles["admin"], roles["chicago"]
    body = {"metrics": ["line_count"], "group_by": ["customer__location", "product__category"]}
    cursor = (await answer(admin, body | {"limit": 5}))["meta"]["next_cursor"]

    response = await chicago.api.post("/v1/query", json=body | {"cursor": cursor})

    assert (response.status_code, response.json()["code"]) == (422, "cursor_mismatch")
    own = await walked(chicago, body, limits=[4])
    assert rows(own) == (await answer(chicago, body))["data"]
    assert {row["customer__location"] for row in rows(own)} == {"Chicago"}
    assert len(own) > 1


# A publication in the middle of a walk


@pytest.fixture
def folder(synthetic: Published, tmp_path: Path) -> Path:
    """Two versions, the synthetic one and the same under the name `LATER`; the first is current."""
    root = Path(shutil.copytree(synthetic.settings.publication_dir, tmp_path / "publications"))
    shutil.copytree(root / synthetic.version, root / LATER)
    described = root / LATER / "publication.json"
    described.write_text(described.read_text().replace(synthetic.version, LATER))
    return root


def point(root: Path, version: str) -> None:
    (root / "fresh").write_text(version)
    (root / "fresh").replace(root / "current")


async def test_a_publication_ends_the_walk_and_the_next_one_is_whole(synthetic: Published, folder: Path) -> None:
    body = {"metrics": ["churned_customers"], "group_by": ["customer__location"], "limit": 2}
    app = create_app(service_settings(synthetic, publication_dir=folder, auth="off", publication_poll_s=0.1))
    async with app.router.lifespan_context(app), connect(app) as client:
        first = (await client.post("/v1/query", json=body)).json()
        assert (await client.post("/v1/query", json=body | {"cursor": first["meta"]["next_cursor"]})).status_code == 200

        point(folder, LATER)
        await until(client, LATER)
        stale = await client.post("/v1/query", json=body | {"cursor": first["meta"]["next_cursor"]})
        again = (await client.post("/v1/query", json=body)).json()
        rest = await client.post("/v1/query", json=body | {"cursor": again["meta"]["next_cursor"]})

        point(folder, synthetic.version)
        await until(client, synthetic.version)
        back = await client.post("/v1/query", json=body | {"cursor": first["meta"]["next_cursor"]})

    assert (stale.status_code, stale.json()["code"]) == (422, "cursor_expired")
    assert rest.json()["meta"]["publication"] == LATER
    assert back.status_code == 200


async def until(client: httpx.AsyncClient, version: str) -> None:
    for _ in range(500):
        if json.loads((await client.get("/readyz")).content).get("publication") == version:
            return
        await asyncio.sleep(0.02)
    pytest.fail(f"{version} is not served")
