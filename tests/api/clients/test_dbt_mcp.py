"""dbt's own MCP server, unchanged, over stdio as an assistant drives it, in front of a running service."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.installed import program
from tests.server import Server
from tests.services import free_port

HERE = Path(__file__).parent
PAGE = (REPOSITORY / "docs" / "clients" / "dbt-mcp.md").read_text(encoding="utf-8")
BY_MONTH = [{"name": "metric_time", "type": "time_dimension", "grain": "month"}]
BY_PLACE = [{"name": "customer__location", "type": "dimension", "grain": None}]
MONTHS = {"metrics": ["total_revenue"], "group_by": BY_MONTH}
CHICAGO = "{{ Dimension('customer__location') }} = 'Chicago'"
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "all metrics": ("list_metrics", {}),
    "metrics of two words": ("list_metrics", {"search": ["bitcoin", "churn"]}),
    "second page": ("list_metrics", {"page_num": 2, "page_size": 10}),
    "saved queries": ("list_saved_queries", {}),
    "dimensions": ("get_dimensions", {"metrics": ["total_revenue", "marketing_spend"]}),
    "dimensions of a word": ("get_dimensions", {"metrics": ["total_revenue"], "search": "location"}),
    "entities": ("get_entities", {"metrics": ["total_revenue"]}),
    "values": ("get_dimension_values", {"dimension": "customer__location", "metrics": ["total_revenue"]}),
    "values of no metric": ("get_dimension_values", {"dimension": "product__category", "limit": 3}),
    "months": ("query_metrics", MONTHS),
    "ordered": (
        "query_metrics",
        {
            "metrics": ["total_revenue", "average_order_value"],
            "group_by": BY_PLACE,
            "order_by": [{"name": "total_revenue", "descending": True}],
            "where": "{{ Dimension('customer__gender') }} = 'F'",
            "limit": 2,
        },
    ),
    "chicago": ("query_metrics", {"metrics": ["total_revenue"], "where": CHICAGO}),
    "sql": ("get_metrics_compiled_sql", {"metrics": ["total_revenue"], "group_by": BY_MONTH, "where": CHICAGO}),
    "misspelt": ("query_metrics", {"metrics": ["revehue"]}),
    "misspelt, sql": ("get_metrics_compiled_sql", {"metrics": ["total_revehue"]}),
    "misspelt, values": ("get_dimension_values", {"dimension": "customer__locatoin"}),
    "no filter": ("query_metrics", {"metrics": ["total_revenue"], "where": "1=1) OR (1=1"}),
}
Answer = dict[str, Any]


def converse(calls: list[tuple[str, dict[str, Any]]], environment: dict[str, str], folder: Path) -> Answer:
    """The tools of dbt-mcp, and what it answers to the calls, in a folder where it finds no project."""
    installed = program("python", HERE / "dbt-mcp.lock", python=((3, 12), (3, 14)))
    done = subprocess.run(
        [installed, HERE / "mcp_session.py"],
        input=json.dumps(calls),
        env=os.environ | environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    found: Answer = json.loads(done.stdout)
    return found


def pointed_at(server: Server, key: str) -> dict[str, str]:
    """What the page tells its reader to set, the ports and the key apart."""
    (text,) = (block.partition("```")[0] for block in PAGE.split("```json\n")[1:])
    settings: dict[str, str] = json.loads(text)["mcpServers"]["metrics"]["env"]
    own = {"localhost:8000": f"localhost:{server.port}", ":31337": f":{server.flight_port}", "KEY": key}
    for shown, meant in own.items():
        assert any(shown in value for value in settings.values())
        settings = {name: value.replace(shown, meant) for name, value in settings.items()}
    return settings


@pytest.fixture(scope="module")
def answers(server: Server, key: str, tmp_path_factory: pytest.TempPathFactory) -> Answer:
    """What each call answered, and the tools that there are."""
    told = converse([*CALLS.values()], pointed_at(server, key), tmp_path_factory.mktemp("assistant"))
    return dict(zip(CALLS, told["results"], strict=True)) | {"tools": told["tools"]}


def rows(answer: Answer) -> list[dict[str, Any]]:
    assert not answer["failed"], answer["text"]
    found: list[dict[str, Any]] = json.loads(answer["text"], parse_float=Decimal)
    return found


def result(answer: Answer) -> Any:
    assert not answer["failed"], answer["text"]
    return json.loads(answer["text"])["result"]


def listed(answer: Answer) -> list[dict[str, str]]:
    """The rows of the table; above it dbt-mcp notes what it has left out of a long one."""
    lines = io.StringIO(result(answer)).readlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("# ")))


def asked(server: Server, key: str, **body: Any) -> list[dict[str, Any]]:
    with server.client(key) as client:
        found: list[dict[str, Any]] = client.post("/v1/query", json=body).json(parse_float=Decimal)["data"]
    return found


def test_it_offers_its_tools_for_metrics(answers: Answer) -> None:
    called = {tool for tool, _ in CALLS.values()}

    assert set(answers["tools"]) == called  # every one of them is called here
    assert len(called) == 7


def test_every_metric_is_listed_with_what_it_means(answers: Answer, server: Server, key: str) -> None:
    with server.client(key) as client:
        metrics = client.get("/v1/metrics", params={"limit": 500}).json()["data"]

    found = {item["name"]: item for item in listed(answers["all metrics"])}
    assert {name: item["label"] for name, item in found.items()} == {item["name"]: item["label"] for item in metrics}
    assert json.loads(found["total_revenue"]["metadata"])["unit"] == "USD"


def test_metrics_are_found_by_words_and_listed_in_pages(answers: Answer) -> None:
    everything = [item["name"] for item in listed(answers["all metrics"])]
    found = listed(answers["metrics of two words"])

    assert {"bitcoin_price_avg", "churn_rate"} <= {item["name"] for item in found}
    assert all("bitcoin" in str(item).lower() or "churn" in str(item).lower() for item in found)
    assert [item["name"] for item in listed(answers["second page"])] == everything[10:20]
    page = json.loads(answers["second page"]["text"])["pagination"]
    assert (page["next_page"], page["total_items"]) == (3, len(everything))


def test_a_short_list_tells_what_each_metric_is_asked_by(answers: Answer) -> None:
    found = {item["name"]: item for item in listed(answers["metrics of two words"])}

    assert "bitcoin__volatility_category" in found["bitcoin_price_avg"]["dimensions"]


def test_saved_queries_are_listed_with_what_they_ask(answers: Answer) -> None:
    found = {item["name"]: item for item in result(answers["saved queries"])}

    assert found["revenue_by_category"]["group_by"] == ["product__category"]
    assert "total_revenue" in found["revenue_by_category"]["metrics"]


def test_dimensions_and_entities_are_those_that_the_metrics_share(answers: Answer) -> None:
    shared = {item["name"]: item for item in result(answers["dimensions"])}

    assert "metric_time" in shared
    assert "customer__location" not in shared
    assert "month" in [grain.lower() for grain in shared["metric_time"]["granularities"]]
    assert [item["name"] for item in result(answers["dimensions of a word"])] == ["customer__location"]
    assert {"customer", "product"} <= {item["name"] for item in result(answers["entities"])}


def test_the_values_of_a_dimension_are_told(answers: Answer, server: Server, key: str) -> None:
    with server.client(key) as client:
        path = "/v1/dimensions/{}/values"
        places = client.get(path.format("customer__location"), params={"metrics": "total_revenue"}).json()["data"]
        categories = client.get(path.format("product__category")).json()["data"]

    assert json.loads(answers["values"]["text"]) == {"values": places, "truncated": False, "error": None}
    assert json.loads(answers["values of no metric"]["text"])["values"] == categories[:3]


def test_metrics_are_answered_as_over_rest(answers: Answer, server: Server, key: str) -> None:
    by_month = asked(server, key, metrics=["total_revenue"], group_by=["metric_time__month"])
    (chicago,) = asked(
        server,
        key,
        metrics=["total_revenue"],
        where=[{"field": "customer__location", "op": "eq", "values": ["Chicago"]}],
    )
    first_two = asked(
        server,
        key,
        metrics=["total_revenue", "average_order_value"],
        group_by=["customer__location"],
        where=[{"field": "customer__gender", "op": "eq", "values": ["F"]}],
        order_by=[{"field": "total_revenue", "descending": True}],
        limit=2,
    )

    # It writes decimals as floats, so what REST writes in full is compared as those.
    for name, exact in (("months", by_month), ("chicago", [chicago]), ("ordered", first_two)):
        assert [
            {column: float(value) if isinstance(value, Decimal) else value for column, value in row.items()}
            for row in rows(answers[name])
        ] == [
            {column: float(value) if isinstance(value, Decimal) else value for column, value in row.items()}
            for row in exact
        ]


def test_the_sql_of_metrics_is_told_without_the_values_of_their_filter(answers: Answer) -> None:
    assert "SELECT" in answers["sql"]["text"]
    assert "total_revenue" in answers["sql"]["text"]
    assert "Chicago" not in answers["sql"]["text"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("misspelt", "Did you mean"),
        ("misspelt, sql", "Did you mean total_revenue"),
        ("misspelt, values", "Did you mean customer__location"),
        ("no filter", "Filters know"),
    ],
)
def test_what_cannot_be_answered_is_explained_to_the_assistant(answers: Answer, name: str, told: str) -> None:
    assert told in answers[name]["text"]
    assert "Traceback" not in answers[name]["text"]


def test_without_flight_metrics_are_asked_over_graphql(server: Server, key: str, tmp_path: Path) -> None:
    nobody = {"DBT_SL_ADBC_URL_FORMAT": f"grpc://127.0.0.1:{free_port()}"}

    told = converse([("query_metrics", MONTHS)], pointed_at(server, key) | nobody, tmp_path)

    by_month = asked(server, key, metrics=["total_revenue"], group_by=["metric_time__month"])
    assert [row["metric_time__month"] for row in rows(told["results"][0])] == [
        row["metric_time__month"] for row in by_month
    ]


@pytest.mark.full
def test_a_wrong_environment_and_a_wrong_key_are_told(server: Server, key: str, tmp_path: Path) -> None:
    lost = pointed_at(server, key) | {"DBT_PROD_ENV_ID": "4711"}
    stranger = pointed_at(server, key) | {"DBT_TOKEN": "insight_wrong"}

    (elsewhere,) = converse([("list_metrics", {})], lost, tmp_path)["results"]
    (refused,) = converse([("list_metrics", {})], stranger, tmp_path)["results"]

    assert "4711" in elsewhere["text"]
    assert "not authorized" in refused["text"]
