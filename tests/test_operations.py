"""What the dashboard and the alerts name is what the service serves, and every alert has its page."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import REPOSITORY

OPERATIONS = REPOSITORY / "docs" / "operations"
DASHBOARD = json.loads((OPERATIONS / "grafana-dashboard.json").read_text(encoding="utf-8"))
RULES = [
    rule
    for group in yaml.safe_load((OPERATIONS / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

SERIES = re.compile(r"\b(?:insight|process)_\w+|\bup\b")
SELECTOR = re.compile(r"(\w+)\{([^}]*)\}")
GROUPING = re.compile(r"\bby \(([^)]*)\)")
# What Prometheus adds to every series, and the series that it makes itself.
ITS_LABELS, ITS_SERIES = {"job", "instance"}, {"up"}


def expressions() -> Iterator[tuple[str, str]]:
    for panel in PANELS:
        for target in panel["targets"]:
            yield f"panel {panel['title']}", target["expr"]
    for rule in RULES:
        yield f"alert {rule['alert']}", rule["expr"]


@pytest.fixture(scope="module")
async def served(api: httpx.AsyncClient) -> dict[str, set[str]]:
    """Every series that the service serves once something has happened, with its labels."""
    await api.post("/v1/query", json={"metrics": ["total_revenue"]})
    await api.get("/v1/metrics/nonsense")
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families((await api.get("/metrics")).text):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    return {name: found for name, found in labels.items() if not name.endswith("_created")}


async def test_every_series_that_is_named_is_served(served: dict[str, set[str]]) -> None:
    named = {(place, name) for place, expression in expressions() for name in SERIES.findall(expression)}

    assert len(named) > 40
    assert {(place, name) for place, name in named if name not in served.keys() | ITS_SERIES} == set()


async def test_every_label_that_is_named_is_there(served: dict[str, set[str]]) -> None:
    for place, expression in expressions():
        for name, matchers in SELECTOR.findall(expression):
            asked = set(re.findall(r"(\w+)\s*=", matchers))
            assert asked <= served.get(name, set()) | ITS_LABELS, f"{place}: {name}"
        known = ITS_LABELS.union(*(served.get(name, set()) for name in SERIES.findall(expression)))
        for group in GROUPING.findall(expression):
            assert {label.strip() for label in group.split(",")} <= known, place


async def test_every_series_that_is_served_is_on_the_dashboard(served: dict[str, set[str]]) -> None:
    shown = {
        name for place, expression in expressions() if place.startswith("panel") for name in SERIES.findall(expression)
    }

    assert served.keys() - shown == set()


def test_brackets_are_closed() -> None:
    for place, expression in expressions():
        for opening, closing in ("()", "[]", "{}"):
            assert expression.count(opening) == expression.count(closing), place


def test_the_dashboard_is_one_that_grafana_reads() -> None:
    assert DASHBOARD["schemaVersion"] >= 36
    assert {variable["name"] for variable in DASHBOARD["templating"]["list"]} == {"datasource", "job", "instance"}
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    for panel in PANELS:
        assert [target["refId"] for target in panel["targets"]] == list("ABC"[: len(panel["targets"])])


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"]
    file, _, anchor = rule["annotations"]["runbook"].partition("#")
    page = (REPOSITORY / file).read_text(encoding="utf-8")
    (section,) = re.findall(rf"^### {rule['alert']}\n(.*?)(?=^##|\Z)", page, flags=re.MULTILINE | re.DOTALL)
    assert anchor == rule["alert"].lower()
    assert "*Do:*" in section


def test_the_page_explains_no_alert_that_there_is_not() -> None:
    page = (OPERATIONS / "README.md").read_text(encoding="utf-8")

    assert re.findall(r"^### (\w+)$", page, flags=re.MULTILINE) == [rule["alert"] for rule in RULES]


@pytest.mark.parametrize("file", sorted(OPERATIONS.iterdir()), ids=lambda file: file.name)
def test_links_lead_somewhere(file: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)", file.read_text(encoding="utf-8")) if file.suffix == ".md" else ():
        assert (OPERATIONS / link).exists(), link
