"""Values and names that want to be SQL: a value stays a value, a wrong name is refused, and nothing is evaluated."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

Body = dict[str, Any]

HOSTILE = (
    "'", "''", '"', "`", "\\", "\\'", "%", "_", "!", "!%", "!!", "%'", "';", "--", "/*", "*/", ";", "$1", "$p0",
    "$limit", "{{7*7}}", "{{ 7 * 7 }}", "{% for i in range(9) %}x{% endfor %}", "{# x #}", "}}", "{{", "{%",
    "{{ cycler.__init__.__globals__ }}", "{{ Dimension('customer__gender') }}", "${7*7}", "#{7*7}", "<%= 7*7 %>",
    "%(x)s", "%s", "{0}", "?", "' OR '1'='1", "' OR 1=1 --", "1=1) OR (1=1", "') OR ('1'='1",
    "' UNION SELECT table_name FROM information_schema.tables --", "'; DROP TABLE marts.fct_sales; --",
    "'; COPY marts.fct_sales TO '/tmp/x.csv'; --", "'; ATTACH '/tmp/x.db'; --", "read_csv('/etc/passwd')",
    "(SELECT secret FROM duckdb_secrets())", "' || (SELECT count(*) FROM marts.fct_sales) || '",
    "'||current_setting('memory_limit')||'", "\n", "\r\n", "\t", " ", "", "NULL", "null", "true", "NaN", "0x41",
    "\u202e", "\ufeff", "\u2028", "é", "e\u0301", "ﬁ", "İ", "ß", "\U0001d54a\U0001d53c", "💣", "\x01", "\x7f",
    "a" * 10_000,
)  # fmt: skip

TEXT_OPERATORS: Mapping[str, Callable[[str, str], bool]] = {
    "eq": lambda cell, value: cell == value,
    "ne": lambda cell, value: cell != value,
    "lt": lambda cell, value: cell.encode() < value.encode(),
    "lte": lambda cell, value: cell.encode() <= value.encode(),
    "gt": lambda cell, value: cell.encode() > value.encode(),
    "gte": lambda cell, value: cell.encode() >= value.encode(),
    "in": lambda cell, value: cell == value,
    "not_in": lambda cell, value: cell != value,
    "contains": lambda cell, value: value in cell,
    "starts_with": lambda cell, value: cell.startswith(value),
    "ends_with": lambda cell, value: cell.endswith(value),
}

# The service and its client live for the whole session, so it does not matter that Hypothesis runs a test often.
often = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

texts = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40),
    st.lists(st.sampled_from(HOSTILE[:40]), min_size=2, max_size=4).map("".join),
)


@pytest.fixture(scope="module")
async def descriptions(api: httpx.AsyncClient) -> dict[str, int]:
    """The lines of each product description, what an oracle filters."""
    answer = await api.post("/v1/query", json={"metrics": ["line_count"], "group_by": ["product__description"]})
    return {row["product__description"]: row["line_count"] for row in answer.json()["data"]}


def question(operator: str, value: str) -> Body:
    where = [{"field": "product__description", "op": operator, "values": [value]}]
    return {"metrics": ["line_count"], "group_by": ["product__description"], "where": where}


async def check(api: httpx.AsyncClient, descriptions: dict[str, int], *, operator: str, value: str) -> None:
    holds = TEXT_OPERATORS[operator]
    answer = await api.post("/v1/query", json=question(operator, value))

    assert answer.status_code == 200, answer.text
    got = {row["product__description"]: row["line_count"] for row in answer.json()["data"]}
    assert got == {text: lines for text, lines in descriptions.items() if holds(text, value)}


@pytest.mark.parametrize("operator", TEXT_OPERATORS)
async def test_a_hostile_value_keeps_just_what_it_says(
    api: httpx.AsyncClient, descriptions: dict[str, int], operator: str
) -> None:
    for value in HOSTILE:
        await check(api, descriptions, operator=operator, value=value)


@often
@given(operator=st.sampled_from(list(TEXT_OPERATORS)), value=texts)
async def test_any_value_keeps_just_what_it_says(
    api: httpx.AsyncClient, descriptions: dict[str, int], operator: str, value: str
) -> None:
    await check(api, descriptions, operator=operator, value=value)


@often
@given(data=st.data())
async def test_a_piece_of_a_description_finds_the_descriptions_that_hold_it(
    api: httpx.AsyncClient, descriptions: dict[str, int], data: st.DataObject
) -> None:
    text = data.draw(st.sampled_from(sorted(descriptions)))
    start = data.draw(st.integers(0, len(text) - 1))
    piece = text[start : data.draw(st.integers(start + 1, len(text)))]
    operator = data.draw(st.sampled_from(["contains", "starts_with", "ends_with", "eq"]))

    await check(api, descriptions, operator=operator, value=piece)


async def compiled(api: httpx.AsyncClient, body: Body) -> Body:
    answer = await api.post("/v1/query/compile", json=body)
    assert answer.status_code == 200, answer.text
    parsed: Body = answer.json()
    return parsed


@pytest.mark.parametrize("operator", TEXT_OPERATORS)
async def test_no_value_changes_the_sql_text(api: httpx.AsyncClient, operator: str) -> None:
    harmless = (await compiled(api, question(operator, "x")))["sql"]

    for value in HOSTILE:
        made = await compiled(api, question(operator, value))
        assert made["sql"] == harmless
        assert value in made["parameters"]["p0"] or operator in ("contains", "starts_with", "ends_with")


@often
@given(values=st.lists(texts, min_size=1, max_size=5), number=st.integers(-(2**63) + 1, 2**63 - 1))
async def test_a_shape_has_one_sql_text_whatever_its_values(
    api: httpx.AsyncClient, values: list[str], number: int
) -> None:
    def body(texts: list[str], key: int) -> Body:
        parts = [
            {"field": "product__description", "op": "in", "values": texts},
            {"not": {"field": "customer", "op": "eq", "values": [key]}},
        ]
        return {"metrics": ["line_count"], "where": [{"any_of": parts}]}

    made = await compiled(api, body(values, number))

    assert made["sql"] == (await compiled(api, body(["x"] * len(values), 0)))["sql"]
    assert list(made["parameters"].values())[: len(values) + 1] == [*values, number]


async def test_a_template_in_a_value_is_never_evaluated(api: httpx.AsyncClient) -> None:
    for value in ("{{7*7}}", "{{ 7*7 }}", "{% set x = 7*7 %}{{ x }}"):
        for operator in ("eq", "contains", "in"):
            made = await compiled(api, question(operator, value))
            assert "49" not in json.dumps(made["parameters"])
            assert "49" not in made["sql"]
        assert (await compiled(api, question("eq", value)))["parameters"]["p0"] == value


NAMED: Mapping[str, Callable[[str], Body]] = {
    "metric": lambda name: {"metrics": [name]},
    "dimension": lambda name: {"metrics": ["line_count"], "group_by": [name]},
    "grain": lambda name: {"metrics": ["line_count"], "group_by": [f"metric_time__{name}"]},
    "filter": lambda name: {"metrics": ["line_count"], "where": [{"field": name, "op": "is_null"}]},
    "operator": lambda name: {
        "metrics": ["line_count"],
        "where": [{"field": "customer__gender", "op": name, "values": ["F"]}],
    },
    "having": lambda name: {"metrics": ["line_count"], "having": [{"field": name, "op": "gt", "values": [1]}]},
    "order": lambda name: {"metrics": ["line_count"], "order_by": [{"field": name}]},
    "key": lambda name: {"metrics": ["line_count"], name: 1},
    "unit": lambda name: {"metrics": ["line_count"], "time_range": {"last": 1, "unit": name}},
    "preset": lambda name: {"metrics": ["line_count"], "time_range": {"preset": name}},
    "date part": lambda name: {"metrics": ["line_count"], "group_by": [f"metric_time__extract_{name}"]},
    "metric of a filter": lambda name: {"metrics": ["line_count"], "where": [per(name, "customer")]},
    "entity of a filter": lambda name: {"metrics": ["line_count"], "where": [per("line_count", name)]},
    "comparison": lambda name: {"metrics": ["line_count"], "time_range": {"preset": "today"}, "compare_to": name},
    "compared column": lambda name: {
        "metrics": ["line_count"],
        "time_range": {"preset": "today"},
        "compare_to": "previous_period",
        "order_by": [{"field": f"line_count__{name}"}],
    },
    "cursor": lambda name: {"metrics": ["line_count"], "cursor": name},
    "time zone": lambda name: {"metrics": ["line_count"], "time_zone": name},
}


def per(metric: str, entity: str) -> Body:
    return {"metric": metric, "per": [entity], "op": "gt", "values": [1]}


NAMES = (
    *HOSTILE,
    "line_count; DROP TABLE marts.fct_sales",
    "line_count AS x, *",
    "customer__gender') }} = 'F' OR {{ Dimension('customer__location",
    "metric_time__day__day",
    "__class__",
    "customer__gender ",
    "CUSTOMER__GENDER",
    "1",
    "*",
)


async def refused(api: httpx.AsyncClient, body: Body) -> None:
    for path in ("/v1/query", "/v1/query/compile"):
        # Not `json=`: httpx cannot write a lone surrogate.
        content = json.dumps(body).encode()
        answer = await api.post(path, content=content, headers={"Content-Type": "application/json"})
        assert 400 <= answer.status_code < 500, (body, answer.text)
        assert answer.json()["hint"]


@pytest.mark.parametrize("place", NAMED)
async def test_a_hostile_name_is_refused(api: httpx.AsyncClient, place: str) -> None:
    for name in NAMES:
        await refused(api, NAMED[place](name))


@often
@given(place=st.sampled_from(list(NAMED)), name=st.text(max_size=60).filter(lambda name: not name.isidentifier()))
@example(place="metric", name="\ud800")
@example(place="key", name="\ud800")
@example(place="order", name="\0")
async def test_any_name_that_is_none_is_refused(api: httpx.AsyncClient, place: str, name: str) -> None:
    await refused(api, NAMED[place](name))


@pytest.mark.parametrize("name", [name for name in NAMES if name and "/" not in name])
async def test_a_hostile_name_in_a_path_is_refused(api: httpx.AsyncClient, name: str) -> None:
    quoted = "".join(f"%{byte:02x}" for byte in name.encode())
    for path in (f"/v1/metrics/{quoted}", f"/v1/dimensions/{quoted}/values", f"/v1/lineage/{quoted}"):
        assert 400 <= (await api.get(path)).status_code < 500


async def test_a_hostile_search_finds_nothing_and_harms_nothing(api: httpx.AsyncClient) -> None:
    for value in HOSTILE:
        if 0 < len(value) <= 200:
            answer = await api.get(
                "/v1/dimensions/product__description/values", params={"search": value, "limit": 1_000}
            )
            assert answer.status_code == 200, value
            assert all(value in text for text in answer.json()["data"])
