"""Arrow's JDBC driver for Flight SQL, as BI tools use it: they look around, and then send plain SQL."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.api.clients.proxies import proxying
from tests.conftest import REPOSITORY
from tests.installed import java_archive
from tests.server import Server
from tests.services import required_binary

WALK = Path(__file__).parent / "jdbc" / "Walk.java"
PAGE = (REPOSITORY / "docs" / "clients" / "jdbc.md").read_text(encoding="utf-8")
DRIVER = re.search(r"`([\w.]+):(flight-sql-jdbc-driver):([\d.]+)`", PAGE)
PLAIN, ENCRYPTED, WITH_PASSWORD = re.findall(r"^jdbc:.*$", PAGE, re.MULTILINE)
STATEMENTS = {
    "grouped": "SELECT customer_location, SUM(total_revenue) AS revenue FROM METRICS.ALL"
    " GROUP BY customer_location ORDER BY 2 DESC",
    # As Tableau and its like write it.
    "quoted": 'SELECT "ALL"."customer__location" AS "c1", SUM("ALL"."total_revenue") AS "sum:total_revenue:ok"'
    ' FROM "insight"."METRICS"."ALL" "ALL" WHERE ("ALL"."customer__gender" = \'F\')'
    ' GROUP BY "ALL"."customer__location"',
    "saved": "SELECT * FROM METRICS.revenue_by_month",
    "called": '{{ semantic_layer.query(metrics=["total_revenue"], group_by=["metric_time__month"]) }}',
    "validation": "SELECT 1",
    "misspelt": "SELECT total_revehue FROM ALL",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """What one connection was told, as lines of cells: when it looked around, and for each statement."""

    browsed: list[list[str]]
    answered: dict[str, list[list[str]]]

    def browse(self, kind: str) -> list[list[str]]:
        return [cells for first, *cells in self.browsed if first == kind]

    def told(self, statement: str, kind: str) -> list[list[str]]:
        return [cells for first, *cells in self.answered[statement] if first == kind]


@pytest.fixture(scope="module")
def visits(server: Server, key: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Visit]:
    """What each way of connecting was told, all of them in one Java."""
    assert DRIVER is not None
    folder = tmp_path_factory.mktemp("jdbc")
    asked = {"plain": STATEMENTS, "encrypted": {"saved": STATEMENTS["saved"]}}
    with proxying("nginx", folder, http_port=server.port, flight_port=server.flight_port) as proxy:
        own = {
            "localhost:31337": f"127.0.0.1:{server.flight_port}",
            "metrics.example.org:443": f"127.0.0.1:{proxy.port}",
            "FILE": str(proxy.authority),
        }
        urls = {
            "plain": written(PLAIN, own, key),
            "password": written(WITH_PASSWORD, own, key),
            "encrypted": written(ENCRYPTED, own, key),
            "untrusting": written(ENCRYPTED.replace("&tlsRootCerts=FILE", ""), own, key),
            "stranger": written(PLAIN, own, "wrong"),
        }
        walk = folder / "walk.txt"
        walk.write_text("\n".join(line for name, url in urls.items() for line in (url, *asked.get(name, {}).values())))
        connections = parts(run(walk, java_archive(*DRIVER.groups())), "connection")
    found = {}
    for name, lines in zip(urls, connections, strict=True):
        browsed, *answers = parts([["statement"], *lines], "statement")
        found[name] = Visit(browsed=browsed, answered=dict(zip(asked.get(name, {}), answers, strict=False)))
    return found


def written(url: str, own: dict[str, str], key: str) -> str:
    for shown, meant in own.items():
        url = url.replace(shown, meant)
    return url.replace("KEY", key)


def parts(lines: list[list[str]], marker: str) -> list[list[list[str]]]:
    """The lines after each marker."""
    found: list[list[list[str]]] = []
    for line in lines:
        if line == [marker]:
            found.append([])
        else:
            found[-1].append(line)
    return found


def run(walk: Path, driver: Path) -> list[list[str]]:
    # The driver reaches into java.nio, which its documentation says to open.
    command = [
        required_binary("java"),
        "--add-opens=java.base/java.nio=ALL-UNNAMED",
        "-Xmx512m",
        "-cp",
        driver,
        WALK,
        walk,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3_000:]
    return [line.split("\t") for line in done.stdout.splitlines()]


def rest_rows(server: Server, key: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    with server.client(key) as client:
        found: list[dict[str, Any]] = client.post("/v1/query", json=body).json(parse_float=Decimal)["data"]
    return found


def test_a_tool_finds_the_catalog_its_schema_and_tables(visits: dict[str, Visit]) -> None:
    plain = visits["plain"]

    assert plain.browse("product") == [["Marketing Insight", '"', "true"]]
    assert plain.browse("valid") == [["true"]]
    assert plain.browse("catalog") == [["insight"]]
    assert plain.browse("schema") == [["insight", "METRICS"]]
    assert plain.browse("type") == [["TABLE"]]
    saved = ["marketing_performance", "revenue_by_category", "revenue_by_month", "segment_overview"]
    assert plain.browse("table") == [["insight", "METRICS", name, "TABLE"] for name in ("ALL", *saved)]
    assert plain.browse("found") == [["revenue_by_category"], ["revenue_by_month"]]
    assert plain.browse("key") == []


def test_a_tool_finds_the_columns_with_types_and_descriptions(
    visits: dict[str, Visit], server: Server, key: str
) -> None:
    with server.client(key) as client:
        metrics = {item["name"]: item for item in client.get("/v1/metrics", params={"limit": 500}).json()["data"]}
    columns = {
        (table, name): (type_, remarks) for table, name, type_, _, _, remarks in visits["plain"].browse("column")
    }

    assert {name for table, name in columns if table == "ALL"} >= {*metrics, "customer__location", "metric_time__week"}
    assert columns["ALL", "total_revenue"] == ("DECIMAL", metrics["total_revenue"]["description"])
    assert columns["ALL", "metric_time__month"][0] == "DATE"
    assert columns["ALL", "calendar_date__is_weekend"][0] == "BOOLEAN"
    assert columns["ALL", "transaction_count"][0] == "BIGINT"
    month = [name for table, name in columns if table == "revenue_by_month"]
    assert month == ["metric_time__month", "total_revenue", "net_revenue", "transaction_count", "average_order_value"]


@pytest.mark.parametrize("kind", ["row", "prepared row"])
def test_grouped_sql_equals_the_answer_over_rest(visits: dict[str, Visit], server: Server, key: str, kind: str) -> None:
    plain = visits["plain"]
    body = {"metrics": ["total_revenue"], "group_by": ["customer__location"]}
    by_place = rest_rows(server, key, body | {"order_by": [{"field": "total_revenue", "descending": True}]})
    women = rest_rows(server, key, body | {"where": [{"field": "customer__gender", "op": "eq", "values": ["F"]}]})

    expected = [(row["customer__location"], row["total_revenue"]) for row in by_place]
    times = 2 if kind == "prepared row" else 1  # a prepared statement is run twice
    assert [(place, Decimal(revenue)) for place, revenue in plain.told("grouped", kind)] == expected * times
    quoted = [(place, Decimal(revenue)) for place, revenue in plain.told("quoted", kind)]
    assert quoted == [(row["customer__location"], row["total_revenue"]) for row in women] * times
    assert plain.told("quoted", "names") == [["c1", "sum:total_revenue:ok"]]
    assert plain.told("grouped", "types") == [["VARCHAR", "DECIMAL"]]


def test_saved_queries_and_calls_are_answered(visits: dict[str, Visit], server: Server, key: str) -> None:
    by_month = rest_rows(server, key, {"metrics": ["total_revenue"], "group_by": ["metric_time__month"]})
    expected = [(row["metric_time__month"], row["total_revenue"]) for row in by_month]

    for statement in ("saved", "called"):
        rows = visits["plain"].told(statement, "row")
        assert [(month, Decimal(revenue)) for month, revenue, *_ in rows] == expected
    assert visits["plain"].told("validation", "row") == [["1"]]


def test_what_is_wrong_is_told_with_what_to_do(visits: dict[str, Visit]) -> None:
    for kind in ("error", "prepared error"):
        ((message,),) = visits["plain"].told("misspelt", kind)
        assert "Did you mean total_revenue" in message


def test_a_key_may_be_the_password_and_a_wrong_one_is_refused(visits: dict[str, Visit]) -> None:
    assert visits["password"].browse("column") == visits["plain"].browse("column")
    ((message,),) = visits["stranger"].browse("refused")
    assert "UNAUTHENTICATED" in message


def test_over_tls_everything_is_there_for_whoever_trusts_the_certificate(visits: dict[str, Visit]) -> None:
    assert visits["encrypted"].browsed == visits["plain"].browsed
    assert visits["encrypted"].told("saved", "row") == visits["plain"].told("saved", "row")
    assert visits["untrusting"].browse("refused")
