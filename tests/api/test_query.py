"""Asking over REST: what is answered, and what is refused and how."""

from __future__ import annotations

import httpx

from tests.conftest import Published


async def test_a_metric_without_a_group_by_is_one_row(api: httpx.AsyncClient, synthetic: Published) -> None:
    answer = await api.post("/v1/query", json={"metrics": ["line_count"]})

    assert answer.status_code == 200
    lines = len((synthetic.data / "Online_Sales.csv").read_text().splitlines()) - 1
    assert answer.json()["data"] == [{"line_count": lines}]
