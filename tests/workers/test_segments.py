"""The pipeline's segmentation: in one go, once trained only scored, never in the way of a publication without."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest

from api.candidate import serving
from clients.sdk import ApiError, Client
from ml.registry import Registry
from tests.conftest import SILENT, Published, worker_settings
from workers.errors import SegmentsError
from workers.generate import generate
from workers.pipeline import Pipeline
from workers.segments import ProjectCopy, model_dir
from workers.settings import WorkerSettings
from workers.transform import BuildResult


@pytest.fixture(scope="module")
def steps() -> list[str]:
    """What the watcher of the first run was told."""
    return []


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, steps: list[str]) -> Published:
    """A small shop of the module's own, published with segments."""
    home = tmp_path_factory.mktemp("shop")
    generate(home / "data", scale=0.04, seed=3)
    settings = worker_settings(home / "home", segments=True)
    watcher = replace(SILENT, building=lambda now: steps.append(now.node))
    return Published(data=home / "data", settings=settings, version=Pipeline(settings).run(home / "data", watcher))


def test_the_watcher_hears_of_the_steps(shop: Published, steps: list[str]) -> None:
    asked = [step for step in steps if step.endswith("of the customers")]

    assert asked == ["features of the customers", "segments of the customers"]
    assert any("fct_customer_segments" in step for step in steps[steps.index(asked[-1]) :])
    assert not any("fct_sales" in step and "model" in step for step in steps[steps.index(asked[-1]) :])


def marts(published: Published, sql: str) -> list[Any]:
    file = published.settings.publication_dir / published.version / "data.duckdb"
    with duckdb.connect(file, read_only=True) as connection:
        return connection.sql(sql).fetchall()


def test_one_run_puts_every_customer_with_a_purchase_into_a_segment(shop: Published) -> None:
    with shop.segments.open() as file:
        seed = {int(row["customer_id"]): row["segment_name"] for row in csv.DictReader(file)}

    assert marts(shop, "select count(distinct customer_id) from marts.fct_sales") == [(len(seed),)]
    assert dict(marts(shop, "select customer_id, segment_name from marts.fct_customer_segments")) == seed
    assigned = "select customer_id, segment_name from marts.dim_customer where segment_name <> 'Unassigned'"
    assert dict(marts(shop, assigned)) == seed
    assert len(Counter(seed.values())) == 5


def test_the_segments_mart_adds_up_and_spreads_revenue_over_the_days_since_the_first_purchase(shop: Published) -> None:
    by_hand = """
        select customer_id, sum(total_revenue), sum(total_revenue) / (date '2019-12-31' - min(transaction_date) + 1)
        from marts.fct_sales group by customer_id order by customer_id
    """
    mart = "select customer_id, total_revenue, daily_revenue_rate from marts.fct_customer_segments order by customer_id"

    expected, found = marts(shop, by_hand), marts(shop, mart)
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    assert [float(row[2]) for row in found] == pytest.approx([row[2] for row in expected])


def test_the_published_model_is_the_promoted_one(shop: Published) -> None:
    folder = shop.settings.publication_dir / shop.version
    registry = Registry(model_dir(shop.settings))

    document = json.loads((folder / "segments.json").read_text())
    assert document == registry.load(document["model"]).document()
    assert document["model"] == registry.promoted()


def test_the_artifacts_tell_of_the_whole_build_and_of_its_parts_as_they_went_last(shop: Published) -> None:
    folder = shop.settings.publication_dir / shop.version
    results = {
        result["unique_id"]: result["status"]
        for result in json.loads((folder / "run_results.json").read_text())["results"]
    }
    record = json.loads((folder / "publication.json").read_text())

    assert results["model.marketing_insight.fct_sales"] == "success"
    assert results["seed.marketing_insight.customer_segments"] == "success"
    assert sum(status == "pass" for status in results.values()) == record["tests_passed"] > 150


def test_the_projects_own_seed_stays_empty(shop: Published) -> None:
    own = shop.settings.dbt_project_dir / "seeds" / "customer_segments.csv"

    assert own.read_text() == "customer_id,segment_id,segment_name\n"
    assert shop.segments.read_text().startswith("customer_id,segment_id,segment_name\n1")


def test_the_next_run_builds_nothing(shop: Published) -> None:
    assert Pipeline(shop.settings).run_if_changed(shop.data, SILENT) == shop.version


@pytest.mark.full
def test_without_segments_the_same_data_are_another_publication(shop: Published) -> None:
    pipeline = Pipeline(shop.settings)
    without = Pipeline(shop.settings.model_copy(update={"segments": False}))
    assert without.run_if_changed(shop.data, SILENT) != shop.version
    folder = shop.settings.publication_dir / (pipeline.store.current() or "")
    assert not (folder / "segments.json").exists()
    pipeline.rollback(shop.version)


@pytest.mark.full
def test_a_model_that_cannot_be_read_fails_the_run_and_what_was_published_serves_on(
    shop: Published, tmp_path: Path
) -> None:
    broken = shop.settings.model_copy(update={"model_dir": tmp_path})
    (tmp_path / "promoted.json").write_text('["20191231-default-lost"]')
    pipeline = Pipeline(broken)
    before = pipeline.store.current()

    with pytest.raises(SegmentsError, match="could not be put into segments") as raised:
        pipeline.publish(SILENT)

    assert "INSIGHT_SEGMENTS=off" in raised.value.hint
    assert pipeline.store.current() == before
    assert [path.name for path in shop.settings.publication_dir.glob(".building-*")] == []


@pytest.mark.full
def test_too_few_customers_are_published_without_segments_and_with_a_warning(tmp_path: Path) -> None:
    generate(tmp_path / "data", scale=0.005, seed=3)
    heard: list[BuildResult] = []
    settings: WorkerSettings = worker_settings(tmp_path / "home", segments=True)

    version = Pipeline(settings).run(tmp_path / "data", replace(SILENT, built=heard.append))

    (built,) = heard
    assert any(warning.startswith("No segments: ") for warning in built.warnings)
    published = Published(data=tmp_path / "data", settings=settings, version=version)
    assert marts(published, "select distinct segment_name from marts.dim_customer") == [("Unassigned",)]
    assert not (settings.publication_dir / version / "segments.json").exists()


def test_a_candidate_answers_on_loopback_alone_and_only_to_its_own_key(shop: Published) -> None:
    with serving(shop.settings.publication_dir / shop.version) as access:
        with Client(access.url, key=access.key) as client:
            client.wait_until_ready(30)
            answer = client.query({"metrics": ["total_revenue"]})
        with Client(access.url) as stranger, pytest.raises(ApiError) as raised:
            stranger.query({"metrics": ["total_revenue"]})

    assert answer["meta"]["publication"] == shop.version
    assert raised.value.code == "missing_key"
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"{access.url}/readyz")


def test_the_candidate_is_not_led_astray_by_the_environment(
    shop: Published, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("INSIGHT_AUTH", "off")
    monkeypatch.setenv("INSIGHT_POLICY_FILE", str(tmp_path / "none.yml"))
    monkeypatch.setenv("INSIGHT_REDIS_URL", "redis://127.0.0.1:1")

    with serving(shop.settings.publication_dir / shop.version) as access, Client(access.url) as stranger:
        stranger.wait_until_ready(30)
        with pytest.raises(ApiError) as raised:
            stranger.metrics()

    assert raised.value.code == "missing_key"


def test_the_copy_of_the_project_is_whole_and_renewed(tmp_path: Path) -> None:
    original = tmp_path / "mine" / "dbt"
    for folder in (original / "seeds", original / "target", original.parent / "semantic_models"):
        folder.mkdir(parents=True)
        (folder / "customer_segments.csv").write_text("header\n")
    copy = ProjectCopy(original, tmp_path / "copy")

    copy.renew()
    copy.write_segments(b"header\n1\n")

    assert (copy.path / "seeds" / "customer_segments.csv").read_text() == "header\n1\n"
    assert (copy.path.parent / "semantic_models" / "customer_segments.csv").exists()
    assert not (copy.path / "target").exists()
    copy.renew()
    assert (copy.path / "seeds" / "customer_segments.csv").read_text() == "header\n"
