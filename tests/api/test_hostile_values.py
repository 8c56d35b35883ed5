"""S1: fuzzed filter values through every route that takes filters.

A value keeps the rows that it says and no other, as an oracle over the files knows them; it is never in the SQL text,
never evaluated, and never a crash. Routes are found in the contract, so a new one is fuzzed without a word here.
"""

from __future__ import annotations

import csv
import random
import re
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.hostile import texts
from tests.conftest import served_contract
from tests.contract.served import JSON, Asked, Operation

Body = dict[str, Any]

FIELD = "product__description"
SEED = 1
PER_QUESTION = 10

# In SQLite's words. Its comparison of texts is by bytes, as the engine's; instr and substr know no wildcards.
KEEPS: Mapping[str, str] = {
    "eq": "text = ?",
    "in": "text = ?",
    "contains": "instr(text, ?) > 0",
    "starts_with": "substr(text, 1, length(?1)) = ?1",
    "ends_with": "substr(text, -length(?1)) = ?1 or ?1 = ''",
    "ne": "text <> ?",
    "not_in": "text <> ?",
    "lt": "text < ?",
    "lte": "text <= ?",
    "gt": "text > ?",
    "gte": "text >= ?",
}
NARROW = ("eq", "in", "contains", "starts_with", "ends_with")
WIDE = ("ne", "not_in", "lt", "lte", "gt", "gte")


class Oracle:
    """The lines of each description, counted by SQLite over the file itself."""

    def __init__(self, file: Path) -> None:
        self._connection = sqlite3.connect(":memory:")
        self._connection.execute("create table lines (key text primary key, text text)")
        with file.open(encoding="utf-8", newline="") as lines:
            rows = (
                (f"{row['Transaction_ID']}-{row['Product_SKU'].strip()}", _spaced(row)) for row in csv.DictReader(lines)
            )
            self._connection.executemany("insert or replace into lines values (?, ?)", rows)
        self._connection.execute("create table described as select text, count(*) as lines from lines group by text")

    def kept(self, operator: str, value: str) -> dict[str, int]:
        """Descriptions that the comparison keeps, with their lines."""
        return dict(self._connection.execute(f"select text, lines from described where {KEEPS[operator]}", (value,)))

    def everything(self) -> dict[str, int]:
        """All descriptions."""
        return dict(self._connection.execute("select text, lines from described"))


def _spaced(row: Mapping[str, str]) -> str:
    return re.sub(r"\s+", " ", row["Product_Description"].strip())


@pytest.fixture(scope="module")
def oracle(synthetic_data: Path) -> Oracle:
    return Oracle(synthetic_data / "Online_Sales.csv")


def taking_filters() -> list[Operation]:
    """The operations whose body has a where."""
    return [
        operation
        for operation in served_contract().operations
        if operation.takes_a_body and "where" in operation.body_schema.get("properties", {})
    ]


def taking_a_search() -> list[Operation]:
    """The operations with a parameter that values are searched by."""
    return [
        operation
        for operation in served_contract().operations
        if any(parameter["name"] == "search" for parameter in operation.parameters("query"))
    ]


def question(*parts: Body, all_of: bool = False) -> Body:
    where = list(parts) if all_of else [{"any_of": list(parts)}]
    return {"metrics": ["line_count"], "group_by": [FIELD], "where": where}


def comparison(operator: str, value: str) -> Body:
    return {"field": FIELD, "op": operator, "values": [value]}


def rows(response: httpx.Response) -> dict[str, int]:
    return {row[FIELD]: row["line_count"] for row in response.json()["data"]}


async def asked(api: httpx.AsyncClient, operation: Operation, body: Body) -> httpx.Response:
    response = await operation.ask(api, Asked(body=body))
    assert response.status_code < 300, f"{operation.name}: {response.text[:300]}\n{body}"
    return response


def answers_rows(operation: Operation) -> bool:
    """Whether the operation answers rows at once, as an object per row."""
    schema = operation.described["responses"].get("200", {}).get("content", {}).get(JSON, {}).get("schema", {})
    return {"data", "columns"} <= set(served_contract().resolved(schema).get("properties", {}))


def answers_sql(operation: Operation) -> bool:
    """Whether the operation answers the SQL."""
    schema = operation.described["responses"].get("200", {}).get("content", {}).get(JSON, {}).get("schema", {})
    return "sql" in served_contract().resolved(schema).get("properties", {})


async def keep_just_what_they_say(api: httpx.AsyncClient, operation: Operation, oracle: Oracle, count: int) -> None:
    """Ask for the values, some at once: what any of the narrow comparisons keeps, what all of the wide ones keep."""
    draw = random.Random(SEED)
    everything = oracle.everything()
    drawn = list(texts(count, seed=SEED, pieces=sorted(everything)))
    for start in range(0, count, PER_QUESTION):
        values = drawn[start : start + PER_QUESTION]
        narrow = [(draw.choice(NARROW), value) for value in values]
        kept: dict[str, int] = {}
        for operator, value in narrow:
            kept |= oracle.kept(operator, value)
        response = await asked(api, operation, question(*[comparison(*each) for each in narrow]))
        assert rows(response) == kept, narrow

        wide = [(draw.choice(WIDE), value) for value in values]
        kept = dict(everything)
        for operator, value in wide:
            found = oracle.kept(operator, value)
            kept = {text: lines for text, lines in kept.items() if text in found}
        response = await asked(api, operation, question(*[comparison(*each) for each in wide], all_of=True))
        assert rows(response) == kept, wide


async def never_change_the_sql(api: httpx.AsyncClient, operation: Operation, oracle: Oracle, count: int) -> None:
    draw = random.Random(SEED)
    harmless = {
        operator: (await asked(api, operation, question(comparison(operator, "x")))).json()["sql"] for operator in KEEPS
    }
    for value in texts(count, seed=SEED + 1, pieces=sorted(oracle.everything())):
        operator = draw.choice(list(KEEPS))
        made = (await asked(api, operation, question(comparison(operator, value)))).json()
        assert made["sql"] == harmless[operator], (operator, value)
        bound = made["parameters"]["p0"]
        if operator in ("contains", "starts_with", "ends_with"):
            bound = re.sub("!(.)", r"\1", bound, flags=re.DOTALL)
            assert bound in (value, f"%{value}", f"{value}%", f"%{value}%"), (operator, value)
        else:
            assert bound == value, (operator, value)


async def every_route_holds(api: httpx.AsyncClient, oracle: Oracle, *, count: int) -> set[str]:
    """Take the values through every route; returns the routes."""
    for operation in taking_filters():
        if answers_rows(operation):
            await keep_just_what_they_say(api, operation, oracle, count)
        elif answers_sql(operation):
            await never_change_the_sql(api, operation, oracle, count)
        else:  # it starts something, or streams: the values are read the same way, so a few will do
            for value in texts(20, seed=SEED):
                response = await operation.ask(api, Asked(body=question(comparison("eq", value))))
                assert response.status_code < 500, (operation.name, value, response.text[:300])
                assert response.status_code != 422, (operation.name, value, response.text[:300])
    return {operation.name for operation in taking_filters()}


def test_the_oracle_sees_what_the_service_sees(oracle: Oracle) -> None:
    assert len(oracle.everything()) > 30


async def test_without_a_filter_the_oracle_and_the_service_agree(api: httpx.AsyncClient, oracle: Oracle) -> None:
    response = await api.post("/v1/query", json={"metrics": ["line_count"], "group_by": [FIELD]})

    assert rows(response) == oracle.everything()


async def test_two_thousand_values_through_every_route(api: httpx.AsyncClient, oracle: Oracle) -> None:
    assert await every_route_holds(api, oracle, count=2_000) >= {"run_query", "compile_query"}


@pytest.mark.full
@pytest.mark.timeout(7_200)
async def test_a_hundred_thousand_values_through_every_route(api: httpx.AsyncClient, oracle: Oracle) -> None:
    assert await every_route_holds(api, oracle, count=100_000) >= {"run_query", "compile_query"}


async def search_everywhere(api: httpx.AsyncClient, oracle: Oracle, *, count: int) -> None:
    everything = sorted(oracle.everything())
    for value in texts(count, seed=SEED + 2, pieces=everything):
        for operation in taking_a_search():
            if not 0 < len(value) <= 200:
                continue
            path = {"dimension": FIELD} if operation.parameters("path") else {}
            response = await operation.ask(api, Asked(path_parameters=path, query={"search": value, "limit": 500}))
            assert response.status_code == 200, (operation.name, value, response.text[:300])
            if operation.name == "list_dimension_values":
                assert response.json()["data"] == sorted(oracle.kept("contains", value)), value


async def test_three_hundred_values_through_every_search(api: httpx.AsyncClient, oracle: Oracle) -> None:
    await search_everywhere(api, oracle, count=300)


@pytest.mark.full
@pytest.mark.timeout(7_200)
async def test_ten_thousand_values_through_every_search(api: httpx.AsyncClient, oracle: Oracle) -> None:
    await search_everywhere(api, oracle, count=10_000)


@pytest.mark.parametrize("form", ["{{ Dimension('product__description') }} = '%s'", "product__description like '%s'"])
async def test_a_value_inside_a_text_filter_is_a_value_or_refused(
    api: httpx.AsyncClient, oracle: Oracle, form: str
) -> None:
    for value in texts(300, seed=SEED + 3, pieces=sorted(oracle.everything())):
        text = form % value.replace("'", "''")
        body = {"metrics": ["line_count"], "group_by": [FIELD], "where": [text]}
        response = await api.post("/v1/query", json=body)
        assert response.status_code in (200, 422), (value, response.text[:300])
        if response.status_code == 200 and "=" in form:
            assert rows(response) == oracle.kept("eq", value), value
