"""What holds for every model, column and metric of the project."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from dbt.contracts.graph.manifest import Manifest

from tests.dbt.conftest import ROOT, Project

_UNITS = {
    "USD",
    "USD per transaction",
    "USD per customer",
    "customers",
    "transactions",
    "lines",
    "units",
    "units per transaction",
    "products",
    "categories",
    "articles",
    "ratio",
    "ratio squared",
}
_MARTS = {
    "fct_sales",
    "dim_customer",
    "dim_products",
    "dim_datetime",
    "fct_customer_segments",
    "fct_marketing_spend",
    "fct_bitcoin_prices",
    "fct_news_events",
    "publication_facts",
}

Node = Mapping[str, Any]


@pytest.fixture(scope="session")
def manifest(built: Project) -> Node:
    return _read(built, "manifest.json")


@pytest.fixture(scope="session")
def semantic_manifest(built: Project) -> Node:
    return _read(built, "semantic_manifest.json")


def _read(project: Project, artifact: str) -> Node:
    content: Node = json.loads((project.home / "dbt" / "target" / artifact).read_text())
    return content


def _models(manifest: Node) -> list[Node]:
    return [node for node in manifest["nodes"].values() if node["resource_type"] == "model"]


def test_a_build_takes_up_what_the_one_before_has_parsed(built: Project) -> None:
    """That takes seconds of each build, and fails without a word where a key of the definitions is no text."""
    kept = (built.home / "dbt" / "target" / "partial_parse.msgpack").read_bytes()

    assert Manifest.from_msgpack(kept).nodes


def test_every_model_says_its_grain_first(manifest: Node) -> None:
    assert not [
        node["name"]
        for node in manifest["nodes"].values()
        if node["resource_type"] in {"model", "seed", "snapshot"} and not node["description"].startswith("One row")
    ]


def test_every_column_is_described_and_exists(manifest: Node, built: Project) -> None:
    for node in _models(manifest):
        described = {name for name, column in node["columns"].items() if column["description"]}
        actual = built.query(
            f"select column_name from duckdb_columns() where schema_name = '{node['schema']}' "
            f"and table_name = '{node['name']}'"
        )
        assert described == {name for (name,) in actual}, node["name"]


def test_staging_is_twelve_views_and_the_only_reader_of_sources(manifest: Node) -> None:
    staging = [node for node in _models(manifest) if node["name"].startswith("stg_")]
    assert len(staging) == 12
    assert {node["config"]["materialized"] for node in staging} == {"view"}
    assert {node["schema"] for node in staging} == {"staging"}
    readers = {
        node["name"] for node in _models(manifest) if any(n.startswith("source.") for n in node["depends_on"]["nodes"])
    }
    assert readers <= {node["name"] for node in staging}


def test_the_marts_are_tables_with_contracts(manifest: Node) -> None:
    marts = [node for node in _models(manifest) if node["schema"] == "marts"]
    assert {node["name"] for node in marts} == _MARTS
    assert all(node["config"]["contract"]["enforced"] for node in marts)
    incremental = {node["name"]: node["config"]["unique_key"] for node in marts if node["config"]["unique_key"]}
    assert incremental == {"fct_bitcoin_prices": "price_event_id", "fct_news_events": "url"}
    assert {node["config"]["materialized"] for node in marts if node["name"] not in incremental} == {"table"}


def test_there_are_more_than_sixty_data_tests_and_every_model_has_one(manifest: Node) -> None:
    tests = [node for node in manifest["nodes"].values() if node["resource_type"] == "test"]
    assert len(tests) > 60
    tested = {parent for test in tests for parent in test["depends_on"]["nodes"]}
    assert not [node["name"] for node in _models(manifest) if node["unique_id"] not in tested]


def test_source_freshness_warns_and_never_fails(manifest: Node) -> None:
    for source in manifest["sources"].values():
        freshness = source["freshness"]
        assert freshness["warn_after"]["count"]
        assert not (freshness["error_after"] or {}).get("count")
        assert source["loaded_at_field"] == "loaded_at"


def test_nothing_reads_the_wall_clock(manifest: Node) -> None:
    clocks = ("current_date", "current_timestamp", "now()", "getdate", "sysdate", "run_started_at")
    assert not [node["name"] for node in _models(manifest) if any(c in node["raw_code"].lower() for c in clocks)]


def test_every_metric_and_dimension_is_labelled_described_and_has_a_unit_and_an_owner(semantic_manifest: Node) -> None:
    dimensions = [d for model in semantic_manifest["semantic_models"] for d in model["dimensions"]]
    for part in (*semantic_manifest["metrics"], *dimensions):
        meta = part["config"]["meta"]
        assert part["label"], part["name"]
        assert part["description"], part["name"]
        assert "{{" not in part["description"]
        assert meta["unit"], part["name"]
        assert meta["owner"], part["name"]
    assert {metric["config"]["meta"]["unit"] for metric in semantic_manifest["metrics"]} <= _UNITS


def test_no_two_metrics_share_a_label_or_a_synonym(semantic_manifest: Node) -> None:
    names = [
        name.casefold()
        for metric in semantic_manifest["metrics"]
        for name in (metric["label"], *metric["config"]["meta"].get("synonyms", ()))
    ]
    assert sorted(names) == sorted(set(names))


def test_the_saved_queries_are_the_four_of_the_contract(semantic_manifest: Node) -> None:
    assert {query["name"] for query in semantic_manifest["saved_queries"]} == {
        "revenue_by_month",
        "revenue_by_category",
        "marketing_performance",
        "segment_overview",
    }


def test_the_segments_seed_is_shipped_empty() -> None:
    assert (ROOT / "dbt" / "seeds" / "customer_segments.csv").read_text() == "customer_id,segment_id,segment_name\n"
