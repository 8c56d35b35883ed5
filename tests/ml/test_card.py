"""The card of a model says what was found, whichever way it went; its plots are pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ml.card import illustrate
from ml.compare import compare
from ml.model import DEFAULT
from ml.outlook import look_ahead
from ml.registry import Registry
from ml.train import train_and_register
from tests.ml.customers import shop
from tests.ml.histories import made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model with its card."""
    customers, registry = shop(250), Registry(tmp_path_factory.mktemp("models"))
    outlook = look_ahead(made([(customer, customer % 40) for customer in range(250)], days=180))
    trained = train_and_register(
        customers, registry, illustrate=lambda found, folder: illustrate(found, customers, outlook, folder)
    )
    return registry.folder(trained.model.version)


def test_a_card_tells_where_the_model_comes_from(folder: Path) -> None:
    card = (folder / "card.md").read_text()

    assert f"# Customer segments: model {folder.name}" in card
    for told in ("250", "2019-01-01 to 2019-12-31", "scikit-learn", "| seed | 42 |", "passed: smallest share"):
        assert told in card
    for name in ("Champions", "Loyal Customers", "Big Spenders", "Occasional Shoppers", "At-Risk"):
        assert f"| {name} |" in card


def test_a_card_compares_numbers_of_segments_and_other_ways(folder: Path) -> None:
    card = (folder / "card.md").read_text()

    for way in ("K-means, scaled only", "K-means, all seven features", "Gaussian mixture", "HDBSCAN"):
        assert f"| {way}" in card
    assert "The knee of the elbow lies" in card
    assert ("**Statistics prefer" in card) != ("Five is as good by the silhouette" in card)


def test_a_card_tells_what_is_foreseen_and_what_is_not(folder: Path) -> None:
    card = (folder / "card.md").read_text()

    assert "## Beyond segments" in card
    for subject in ("Forecast of total_revenue", "Anomalies of units_sold"):
        assert f"### {subject}" in card
    assert "No outlook of customers: 180 days of sales are too few" in card


@pytest.mark.parametrize("plot", ["elbow", "silhouette", "profile", "scatter"])
def test_every_plot_that_a_card_shows_is_a_picture_with_something_on_it(folder: Path, plot: str) -> None:
    assert f"]({plot}.png)" in (folder / "card.md").read_text()
    with Image.open(folder / f"{plot}.png") as picture:
        pixels = np.asarray(picture.convert("L"))

    assert min(pixels.shape) > 300
    assert len(np.unique(pixels)) > 20


def test_a_comparison_finds_the_number_of_groups_that_there_are() -> None:
    from dataclasses import replace

    drawn = np.random.default_rng(3)
    centers = np.array([[10, 5, 500], [200, 5, 500], [10, 60, 9_000]], dtype=float)
    customers = shop(240)
    rfm = np.abs(centers[drawn.integers(0, 3, 240)] * drawn.normal(1, 0.05, (240, 3)))
    values = customers.values.copy()
    values[:, :3] = rfm

    found = compare(replace(customers, values=values), DEFAULT)

    assert found.most_separate == 3
    assert found.knee == 3
    assert found.count(3).silhouette > found.count(5).silhouette + 0.1
