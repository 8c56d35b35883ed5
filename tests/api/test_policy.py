"""Who sees what: hidden names are unknown ones, hashes tell apart and nothing else; the file, and what it may hold.

Row filters are in `test_row_filters.py`, floors in `test_floor.py`, slips in `test_policy_check.py`. Long, as one
policy and its principals stand behind every test.
"""

from __future__ import annotations

import asyncio
import io
import re
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from structlog.testing import capture_logs

from api.errors import InvalidQuery
from api.policy import Role
from tests.api.principals import Client, Join, listed, names, refusal, rows, serving, values
from tests.conftest import REPOSITORY, Published

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
  viewer: {metrics: ["*"], dimensions: ["*"], hashed: [customer]}
  discreet: {metrics: ["*"], dimensions: ["*"], hashed: [customer__first_purchase_date, customer__location]}
  masked: {metrics: ["*"], dimensions: ["*"], hashed: ["customer__*"]}
  narrow:
    metrics: [total_revenue, line_count, average_order_value]
    dimensions: [metric_time, "customer__*"]
    hidden: [customer__gender]
  blind:
    metrics: ["*"]
    dimensions: ["*"]
    hidden: [customer__location]
    rows: [{field: customer__location, op: eq, values: [Chicago]}]
  brief: {metrics: ["*"], dimensions: ["*"], max_rows: 3}
  empty: {}
"""

IN_CHICAGO = {"field": "customer__location", "op": "eq", "values": ["Chicago"]}
IN_TWO_REGIONS = {"field": "customer__location", "op": "in", "values": ["California", "Chicago"]}
TWO_REGIONS = {"regions": ("California", "Chicago")}
FRESH = {"Cache-Control": "no-cache"}
HEX = re.compile(r"[0-9a-f]{16}")


@pytest.fixture(scope="module")
def chicago(join: Join) -> Client:
    return join("chicago")


@pytest.fixture(scope="module")
def viewer(join: Join) -> Client:
    return join("viewer")


@pytest.fixture(scope="module")
def narrow(join: Join) -> Client:
    return join("narrow")


# Names


@pytest.mark.parametrize("dimension", ["customer__gender", "product__category", "customer", "customer__no_such"])
async def test_a_hidden_dimension_is_an_unknown_name_everywhere(narrow: Client, dimension: str) -> None:
    count = {"metrics": ["line_count"]}
    answers = [
        await narrow.post("/v1/query", json={"group_by": [dimension]}),
        await narrow.post("/v1/query", json=count | {"group_by": [dimension]}),
        await narrow.post("/v1/query", json=count | {"where": [{"field": dimension, "op": "is_null"}]}),
        await narrow.post("/v1/query", json=count | {"where": [{"not": {"field": dimension, "op": "is_null"}}]}),
        await narrow.get(f"/v1/dimensions/{dimension}/values"),
        await narrow.get(f"/v1/dimensions/{dimension}/values", params={"metrics": "line_count"}),
        await narrow.get(f"/v1/dimensions/{dimension}/values", params={"search": "a"}),
    ]
    if "__" in dimension:
        text = f"{{{{ Dimension('{dimension}') }}}} = 'F'"
        answers.append(await narrow.post("/v1/query", json=count | {"where": [text]}))

    visible = await names(narrow, "/v1/dimensions")
    assert [refusal(answer) for answer in answers] == [(404, "unknown_dimension")] * len(answers)
    assert all({*answer.json().get("nearest", ())} <= visible for answer in answers)
    order = await narrow.post("/v1/query", json=count | {"order_by": [{"field": dimension}]})
    assert refusal(order) == (422, "invalid_order")
    assert dimension not in order.json()["hint"]


@pytest.mark.parametrize("metric", ["units_sold", "net_revenue", "news_count", "no_such_metric"])
async def test_a_hidden_metric_is_an_unknown_name_everywhere(narrow: Client, metric: str) -> None:
    answers = [
        await narrow.post("/v1/query", json={"metrics": [metric]}),
        await narrow.post("/v1/query", json={"metrics": ["line_count", metric]}),
        await narrow.get(f"/v1/metrics/{metric}"),
        await narrow.get("/v1/dimensions", params={"metrics": metric}),
        await narrow.get("/v1/dimensions/customer__location/values", params={"metrics": metric}),
    ]

    visible = await names(narrow, "/v1/metrics")
    assert [refusal(answer) for answer in answers] == [(404, "unknown_metric")] * len(answers)
    assert all({*answer.json().get("nearest", ())} <= visible for answer in answers)
    as_dimension = await narrow.post("/v1/query", json={"metrics": ["line_count"], "group_by": [metric]})
    assert refusal(as_dimension) == (404, "unknown_dimension")
    having = {"metrics": ["line_count"], "having": [{"field": metric, "op": "gt", "values": [1]}]}
    assert refusal(await narrow.post("/v1/query", json=having)) == (422, "invalid_having")
    order = await narrow.post("/v1/query", json={"metrics": ["line_count"], "order_by": [{"field": metric}]})
    assert refusal(order) == (422, "invalid_order")
    assert metric not in order.json()["hint"]


async def test_lists_hold_what_the_role_may_see_and_nothing_else(narrow: Client, admin: Client) -> None:
    every = await names(admin, "/v1/dimensions")
    visible = {name for name in every if name.startswith("customer__")} - {"customer__gender"} | {"metric_time"}

    assert await names(narrow, "/v1/metrics") == {"total_revenue", "line_count", "average_order_value"}
    assert await names(narrow, "/v1/dimensions") == visible
    assert await names(narrow, "/v1/saved-queries") == set()
    assert await names(narrow, "/v1/entities") == {"customer"}
    for metric in await listed(narrow, "/v1/metrics"):
        assert {*metric["dimensions"]} <= visible
        assert (await narrow.get(f"/v1/metrics/{metric['name']}")).json() == metric
    wrong = await narrow.post("/v1/query", json={"metrics": ["line_count"], "group_by": ["customer__gendre"]})
    assert "customer__gender" not in wrong.text


async def test_what_the_role_may_see_is_answered_as_to_everybody(narrow: Client, admin: Client) -> None:
    query = {
        "metrics": ["total_revenue", "line_count", "average_order_value"],
        "group_by": ["metric_time__month", "customer__location"],
        "where": [IN_CHICAGO],
        "time_range": {"start": "2019-01-01", "end": "2019-06-30"},
    }
    found = await rows(narrow, query)

    assert found
    assert found == await rows(admin, query)


async def test_a_role_that_names_nothing_sees_nothing(join: Join) -> None:
    role, empty = Role(), join("empty")

    assert not role.shows_metric("line_count")
    assert not role.shows_dimension("metric_time")
    assert not role.see_sql
    for path in ("/v1/metrics", "/v1/dimensions", "/v1/saved-queries", "/v1/entities"):
        assert await names(empty, path) == set(), path
    assert refusal(await empty.post("/v1/query", json={"metrics": ["line_count"]})) == (404, "unknown_metric")
    assert refusal(await empty.post("/v1/query", json={"group_by": ["customer"]})) == (404, "unknown_dimension")
    assert refusal(await empty.post("/v1/query/compile", json={"metrics": ["line_count"]}))[0] == 403


async def test_a_roles_page_is_no_longer_than_the_policy_says(join: Join) -> None:
    brief, query = join("brief"), {"metrics": ["line_count"], "group_by": ["customer"]}

    assert len(await rows(brief, query)) == 3
    assert refusal(await brief.post("/v1/query", json=query | {"limit": 4})) == (422, "invalid_limit")


# Masks


def is_hashed(found: list[Any]) -> bool:
    return bool(found) and all(isinstance(value, str) and HEX.fullmatch(value) for value in found)


async def test_a_hashed_customer_can_be_told_apart_and_not_known(viewer: Client, admin: Client) -> None:
    query = {"metrics": ["line_count"], "group_by": ["customer"]}
    clear = {str(row["customer"]): row["line_count"] for row in await rows(admin, query)}
    response = await viewer.post("/v1/query", json=query)
    shown = [row["customer"] for row in response.json()["data"]]

    assert is_hashed(shown)
    assert len(set(shown)) == len(shown) == len(clear) > 100
    assert not {*shown} & {*clear}
    assert sorted(row["line_count"] for row in response.json()["data"]) == sorted(clear.values())
    assert next(item["type"] for item in response.json()["columns"] if item["name"] == "customer") == "string"
    again = await viewer.post("/v1/query", json=query, headers=FRESH)
    assert [row["customer"] for row in again.json()["data"]] == shown


async def test_a_hash_is_the_same_in_every_question_and_format(viewer: Client) -> None:
    query = {"metrics": ["line_count"], "group_by": ["customer"], "limit": 50}
    shown = [row["customer"] for row in await rows(viewer, query)]

    csv = await viewer.post("/v1/query", json=query, headers={"Accept": "text/csv"})
    arrow = await viewer.post("/v1/query", json=query, headers={"Accept": "application/vnd.apache.arrow.stream"})
    table = pa.ipc.open_stream(io.BytesIO(arrow.content)).read_all()
    assert [line.split(",")[0] for line in csv.text.splitlines()[1:]] == shown
    assert table.column("customer").to_pylist() == shown
    assert {*await values(viewer, "customer")} >= {*shown}
    assert is_hashed(await values(viewer, "customer", metrics="line_count"))


async def test_a_hash_is_the_same_in_each_replica_and_another_in_each_installation(
    synthetic: Published, tmp_path: Path
) -> None:
    policy, seen = tmp_path / "policy.yml", []
    policy.write_text(POLICY)
    for state in ("one.db", "one.db", "other.db"):
        async with serving(synthetic, policy, tmp_path / state) as join:
            seen.append(await values(join("viewer"), "customer", limit=20))

    assert seen[0] == seen[1]
    assert not {*seen[0]} & {*seen[2]}


async def test_nothing_can_be_filtered_sorted_or_searched_by_what_is_hashed(
    join: Join, viewer: Client, admin: Client
) -> None:
    known = (await values(admin, "customer", limit=1))[0]
    query = {"metrics": ["line_count"], "group_by": ["customer"]}
    leaf = {"field": "customer", "op": "eq", "values": [known]}
    answers = [
        await viewer.post("/v1/query", json=query | {"where": [leaf]}),
        await viewer.post("/v1/query", json={"metrics": ["line_count"], "where": [leaf]}),
        await viewer.post("/v1/query", json=query | {"where": [{"any_of": [IN_CHICAGO, {"not": leaf}]}]}),
        await viewer.post("/v1/query", json=query | {"where": [{"field": "customer", "op": "is_not_null"}]}),
        await viewer.post(
            "/v1/query",
            json=query | {"where": [f"{{{{ Entity('customer') }}}} = {known}"]},
        ),
        await viewer.post("/v1/query", json=query | {"order_by": [{"field": "customer"}]}),
        await viewer.post("/v1/query", json=query | {"order_by": [{"field": "customer", "descending": True}]}),
        await join("discreet").get("/v1/dimensions/customer__location/values", params={"search": "Chi"}),
    ]

    assert [refusal(answer) for answer in answers] == [(403, "hashed_dimension")] * len(answers)
    assert await rows(viewer, query | {"order_by": [{"field": "line_count", "descending": True}], "limit": 3})


@pytest.mark.parametrize("role", ["discreet", "masked"])
@pytest.mark.parametrize("grain", ["", "__day", "__month", "__year"])
async def test_a_hashed_time_is_hashed_at_every_grain(join: Join, role: str, grain: str) -> None:
    name = f"customer__first_purchase_date{grain}"
    found = await rows(join(role), {"group_by": [name]})

    assert is_hashed([value for row in found for value in row.values()])


async def test_a_pattern_hashes_all_that_it_matches(join: Join) -> None:
    found = await rows(join("masked"), {"metrics": ["line_count"], "group_by": ["customer__location"]})

    assert is_hashed([row["customer__location"] for row in found])


async def test_a_role_that_sees_hashes_is_answered_from_what_others_asked_and_still_sees_hashes(
    viewer: Client, admin: Client
) -> None:
    query = {"metrics": ["total_revenue"], "group_by": ["customer"], "limit": 17}
    first = await admin.post("/v1/query", json=query)
    second = await viewer.post("/v1/query", json=query)

    assert second.json()["meta"]["cache"]["result"] == "hit"
    assert is_hashed([row["customer"] for row in second.json()["data"]])
    assert first.headers["etag"] != second.headers["etag"]


# Principals


async def test_a_role_that_the_policy_does_not_name_is_refused(join: Join) -> None:
    stranger = join("analyst")
    query = {"metrics": ["line_count"]}
    answers = [
        await stranger.get("/v1/metrics"),
        await stranger.get("/v1/dimensions"),
        await stranger.get("/v1/entities"),
        await stranger.get("/v1/saved-queries"),
        await stranger.get("/v1/saved-queries/revenue_by_month/results"),
        await stranger.get("/v1/dimensions/customer/values"),
        await stranger.get("/v1/lineage/line_count"),
        await stranger.post("/v1/query", json=query),
        await stranger.post("/v1/query/compile", json=query),
    ]

    assert [refusal(answer) for answer in answers] == [(403, "unknown_role")] * len(answers)


@pytest.mark.parametrize("claims", [{}, {"regions": ()}, {"region": ("Chicago",)}])
async def test_a_key_without_the_claim_of_its_row_filter_is_refused(
    join: Join, claims: dict[str, tuple[str, ...]]
) -> None:
    claimless = join("regional", **claims)

    for answer in (
        await claimless.post("/v1/query", json={"metrics": ["line_count"]}),
        await claimless.get("/v1/dimensions/customer__location/values"),
        await claimless.get("/v1/metrics"),
    ):
        assert refusal(answer) == (403, "missing_claim")


# The file


def replace(file: Path, text: str) -> None:
    fresh = file.with_name("fresh.yml")
    fresh.write_text(text)
    fresh.replace(file)


async def until(client: Client, expected: list[dict[str, Any]], query: dict[str, Any]) -> float:
    """The seconds until the query is answered so."""
    started = time.perf_counter()
    while await rows(client, query) != expected:
        assert time.perf_counter() - started < 5, "the policy is not in force"
        await asyncio.sleep(0.05)
    return time.perf_counter() - started


async def test_a_changed_file_is_in_force_within_two_seconds_and_a_bad_one_never(
    synthetic: Published, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.yml"
    policy.write_text(POLICY)
    query = {"metrics": ["line_count"], "group_by": ["customer__location"]}
    async with serving(synthetic, policy, tmp_path / "state.db") as join:
        chicago, admin = join("chicago"), join("admin")
        only = {row["customer__location"]: [row] for row in await rows(admin, query)}
        assert await rows(chicago, query) == only["Chicago"]

        replace(policy, POLICY.replace("values: [Chicago]", "values: [California]"))
        assert await until(chicago, only["California"], query) < 2

        with capture_logs() as logs:
            for bad in ("version: 1", "roles: [", POLICY.replace("op: eq", "op: equals"), "version: 2019-13-45"):
                replace(policy, bad)
                await asyncio.sleep(1.2)
                assert await rows(chicago, query) == only["California"]
            policy.unlink()
            await asyncio.sleep(1.2)
            assert await rows(chicago, query) == only["California"]
        refused = [line for line in logs if line["event"] == "policy_refused"]
        assert len(refused) == 5
        assert all(str(policy) in line["detail"] for line in refused)
        assert "roles.chicago.rows.0.op" in refused[2]["detail"]

        replace(policy, POLICY)
        assert await until(chicago, only["Chicago"], query) < 2


async def test_an_answer_under_another_mask_has_another_tag(synthetic: Published, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yml"
    policy.write_text(POLICY)
    query = {"metrics": ["line_count"], "group_by": ["customer__location"]}
    async with serving(synthetic, policy, tmp_path / "state.db") as join:
        viewer = join("viewer")
        before = await viewer.post("/v1/query", json=query)
        replace(policy, POLICY.replace("hashed: [customer]", "hashed: [customer, customer__location]"))
        await asyncio.sleep(1.2)
        after = await viewer.post("/v1/query", json=query, headers={"If-None-Match": before.headers["etag"]})

    assert after.status_code == 200
    assert is_hashed([row["customer__location"] for row in after.json()["data"]])


BAD = {
    "it is empty": ("", "policy.yml"),
    "it is no YAML": ("version: [", "policy.yml"),
    "it is a list": ("- version", "policy.yml"),
    "a day cannot be": ("version: 2019-13-45", "policy.yml"),
    "no version": ("roles: {admin: {}}", "version"),
    "a later version": ("version: 2\nroles: {admin: {}}", "version"),
    "no role": ("version: 1\nroles: {}", "roles"),
    "an unknown key": (POLICY.replace("see_sql", "sees_sql"), "roles.admin.sees_sql"),
    "an unknown operator": (POLICY.replace("op: eq", "op: equals"), "roles.chicago.rows.0.op"),
    "no values": (POLICY.replace("values: [Chicago]", "values: []"), "roles.chicago.rows.0"),
    "too many values": (POLICY.replace("values: [Chicago]", "values: [Chicago, Ohio]"), "roles.chicago.rows.0"),
    "values and a claim": (POLICY.replace("claim: regions", "claim: regions, values: [a]"), "roles.regional.rows.0"),
    "rows left blank": ("version: 1\nroles: {admin: {rows: }}", "roles.admin.rows"),
    "no rows allowed": (POLICY.replace("max_rows: 3", "max_rows: 0"), "roles.brief.max_rows"),
    "a pattern is no text": (POLICY.replace("metrics: [total_revenue,", "metrics: [1,"), "roles.narrow.metrics.0"),
}


@pytest.mark.parametrize(("text", "place"), BAD.values(), ids=[name.replace(" ", "_") for name in BAD])
async def test_a_bad_policy_stops_the_start_and_the_error_names_the_place(
    synthetic: Published, tmp_path: Path, text: str, place: str
) -> None:
    policy = tmp_path / "policy.yml"
    policy.write_text(text)

    with pytest.raises(InvalidQuery) as caught:
        async with serving(synthetic, policy, tmp_path / "state.db"):
            pass

    assert place in caught.value.detail
    assert caught.value.code == "invalid_policy"


async def test_a_policy_that_is_not_there_stops_the_start(synthetic: Published, tmp_path: Path) -> None:
    with pytest.raises(InvalidQuery, match="nowhere"):
        async with serving(synthetic, tmp_path / "nowhere.yml", tmp_path / "state.db"):
            pass


async def test_the_example_in_the_documentation_is_in_force_as_it_stands(synthetic: Published, tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "policy.md").read_text(encoding="utf-8")
    example = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert example is not None
    policy = tmp_path / "policy.yml"
    policy.write_text(example.group(1))
    query = {"metrics": ["line_count"], "group_by": ["customer__location"]}
    async with serving(synthetic, policy, tmp_path / "state.db") as join:
        everywhere = {row["customer__location"]: row for row in await rows(join("admin"), query)}
        assert len(everywhere) > 2
        assert (await join("admin").post("/v1/query/compile", json=query)).status_code == 200
        assert await rows(join("chicago"), query) == [everywhere["Chicago"]]
        two = await rows(join("regional", **TWO_REGIONS), query)
        assert two == [everywhere["California"], everywhere["Chicago"]]
        assert is_hashed(await values(join("viewer"), "customer"))
        narrow = join("narrow")
        assert await names(narrow, "/v1/metrics") == {"total_revenue", "line_count", "average_order_value"}
        assert "customer__gender" not in await names(narrow, "/v1/dimensions")
        assert refusal(await narrow.post("/v1/query", json=query | {"limit": 1_001})) == (422, "invalid_limit")
        assert refusal(await narrow.post("/v1/query/compile", json=query)) == (403, "sql_forbidden")
