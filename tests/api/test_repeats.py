"""The very same request once more: new in what belongs to a request, the same in its rows, and decided anew."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.rest.envelope import Envelope
from api.rest.repeats import Repeats
from tests.api.principals import Client, Join, rows

POLICY = """
version: 1
roles:
  admin: {metrics: ["*"], dimensions: ["*"], see_sql: true}
  few_rows: {metrics: ["*"], dimensions: ["*"], rows_per_day: 30}
  few_requests: {metrics: ["*"], dimensions: ["*"], requests_per_minute: 3}
  california:
    metrics: ["*"]
    dimensions: ["*"]
    rows: [{field: customer__location, op: eq, values: [California]}]
  changing: {metrics: ["*"], dimensions: ["*"]}
"""
QUERY = {"metrics": ["total_revenue"], "group_by": ["metric_time__month"]}


async def ask(client: Client, query: Mapping[str, Any] = QUERY, **headers: str) -> httpx.Response:
    response = await client.post("/v1/query", json=query, headers=headers)
    assert response.status_code == 200, response.text
    return response


def hide_the_metric(policy: Path) -> None:
    policy.write_text(POLICY.replace("changing: {", "changing: {hidden: [total_revenue], "))


async def test_a_repeat_has_the_same_rows_and_an_id_and_times_of_its_own(admin: Client) -> None:
    first, again = await ask(admin), await ask(admin)

    before, after = first.json(), again.json()
    assert (after["data"], after["columns"]) == (before["data"], before["columns"])
    assert after["meta"]["cache"] == {"plan": "hit", "result": "hit", "reason": "kept"}
    assert after["meta"]["query_id"] != before["meta"]["query_id"]
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    same = {"cache", "query_id", "timings"}
    assert {k: v for k, v in after["meta"].items() if k not in same} == {
        k: v for k, v in before["meta"].items() if k not in same
    }
    own = {"x-request-id", "server-timing", "content-length"}
    assert {k: v for k, v in again.headers.items() if k not in own} == {
        k: v for k, v in first.headers.items() if k not in own
    }


@pytest.mark.parametrize("accept", ["text/csv", "application/vnd.apache.arrow.stream", "application/x-ndjson"])
async def test_a_repeat_comes_in_the_format_that_it_asks_for(admin: Client, accept: str) -> None:
    await ask(admin)

    first, again = await ask(admin, QUERY, Accept=accept), await ask(admin, QUERY, Accept=accept)

    assert again.headers["content-type"].startswith(accept)
    assert again.content == first.content


async def test_no_cache_is_no_repeat(admin: Client) -> None:
    await ask(admin)

    anew = await ask(admin, QUERY, **{"Cache-Control": "no-cache"})

    assert anew.json()["meta"]["cache"]["result"] == "bypass"


async def test_the_same_words_of_another_caller_are_another_request(admin: Client, join: Join) -> None:
    everywhere = (await ask(admin)).json()["data"]
    narrow = join("california")

    assert await rows(narrow, QUERY) == await rows(narrow, QUERY) != everywhere


async def test_repeats_count_for_the_rows_of_the_day(join: Join) -> None:
    client = join("few_rows")

    statuses = [(await client.post("/v1/query", json=QUERY)).status_code for _ in range(5)]

    assert statuses == [200, 200, 200, 429, 429]  # 12 rows each, and the answer that passes the quota is whole


async def test_repeats_count_for_the_requests_of_the_minute_once_each(join: Join) -> None:
    client = join("few_requests")

    answers = [await client.post("/v1/query", json=QUERY) for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["ratelimit-remaining"] for answer in answers[:3]] == ["2", "1", "0"]


async def test_what_the_policy_takes_away_is_not_repeated(join: Join, policy: Path) -> None:
    client = join("changing")
    await ask(client)
    await ask(client)

    hide_the_metric(policy)
    await asyncio.sleep(1.1)  # for the file to be looked at

    assert (await client.post("/v1/query", json=QUERY)).status_code == 404


async def test_a_request_that_was_kept_as_json_is_refused_as_anything_else(admin: Client) -> None:
    body = json.dumps(QUERY).encode()
    headers = {"Content-Type": "application/json"}
    assert (await admin.post("/v1/query", content=body, headers=headers)).status_code == 200

    assert (await admin.post("/v1/query", content=body, headers={"Content-Type": "text/plain"})).status_code == 415
    assert (await admin.post("/v1/query?limit=1", content=body, headers=headers)).status_code == 422


async def test_what_is_kept_has_a_budget(admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = _of_application(admin)._kept  # noqa: SLF001
    monkeypatch.setattr(kept, "_budget_bytes", 20_000)
    for limit in range(1, 40):
        await ask(admin, QUERY | {"limit": limit})

    assert 1 < len(kept) < 12
    assert kept.held_bytes <= 20_000
    assert kept.held_bytes == sum(size_bytes for _, size_bytes in kept._kept.values())  # noqa: SLF001


def _of_application(client: Client) -> Repeats:
    """What the client's application keeps, found along its middleware."""
    layer = client._transport.app.middleware_stack  # type: ignore[attr-defined]  # noqa: SLF001
    while not isinstance(layer, Envelope):
        layer = layer.app
    return layer._repeats  # noqa: SLF001


_BODIES = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=20).map(str.encode),
    st.sampled_from(
        [
            b"",
            b"[]",
            b"null",
            b"NaN",
            b"{}",
            b'{"metrics": ["total_revenue"], "metrics": []}',
            b'{"metrics": ["total_revenue"], "limit": 1.5}',
            b'{"metrics": ["total_revenue"], "limit": NaN}',
            b'{"metrics": ["nothing"]}',
            b'{"metrics": "total_revenue"}',
            b'{"metrics": ["total_revenue"], "surplus": 1}',
            b'{"metrics": ["total_revenue"]',
            b"[" * 5_000,
        ]
    ),
)
_TYPES = st.sampled_from(
    ["application/json", "application/json; charset=utf-8", "application/merge+json", "text/plain", "APPLICATION/JSON"]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=_BODIES, content_type=_TYPES)
async def test_the_lean_route_refuses_what_every_other_route_refuses_in_the_same_words(
    admin: Client, body: bytes, content_type: str
) -> None:
    headers = {"Content-Type": content_type}

    lean = await admin.post("/v1/query", content=body, headers=headers)
    thorough = await admin.post("/v1/query/compile", content=body, headers=headers)

    volatile = {"request_id", "instance"}
    assert lean.status_code == thorough.status_code
    if lean.status_code != 200:
        assert {k: v for k, v in lean.json().items() if k not in volatile} == {
            k: v for k, v in thorough.json().items() if k not in volatile
        }
