"""What is kept of models, which may score, and what happens when customers move."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ml.errors import NotPromotedError, UnknownModelError
from ml.evaluate import MIN_SHARE, drift, judge
from ml.model import DEFAULT, PLAIN, train
from ml.registry import Registry
from ml.train import segment, train_and_register
from tests.ml.customers import shop, table


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "models")


def test_a_model_comes_back_as_it_was_kept(registry: Registry) -> None:
    customers, others = shop(), shop(seed=9)
    model = train_and_register(customers, registry).model

    again = registry.load(model.version)

    assert again.seed(others) == model.seed(others)
    assert again.document() == model.document()
    assert again.facts() == model.facts()


def test_what_is_kept_is_no_pickle_and_a_file_that_names_other_types_is_refused(registry: Registry) -> None:
    version = train_and_register(shop(), registry).model.version
    file = registry.folder(version) / "model.skops"
    with zipfile.ZipFile(file) as archive:
        schema = archive.read("schema.json").decode()
        names = archive.namelist()
    assert not [name for name in names if name.endswith((".pkl", ".pickle"))]

    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("schema.json", schema.replace('"ml.segmentation"', '"os"').replace('"Segmenter"', '"system"'))

    with pytest.raises(UnknownModelError, match="cannot be read"):
        registry.load(version)


def test_going_back_takes_one_step_at_a_time(registry: Registry) -> None:
    customers = shop()
    versions = [train_and_register(customers, registry, replace(DEFAULT, seed=seed)).model.version for seed in range(3)]
    for version in versions:
        registry.promote(version)

    assert registry.promoted() == versions[2]
    assert registry.rollback() == versions[1]
    assert registry.rollback() == versions[0]
    with pytest.raises(UnknownModelError, match="no older model"):
        registry.rollback()
    assert registry.promoted() == versions[0]


def test_only_what_was_promoted_can_be_gone_back_to(registry: Registry) -> None:
    customers = shop()
    first, second = (train_and_register(customers, registry, replace(DEFAULT, seed=seed)) for seed in (0, 1))
    registry.promote(first.model.version)

    with pytest.raises(UnknownModelError, match="no promoted model"):
        registry.rollback(second.model.version)
    with pytest.raises(UnknownModelError, match="no model invented"):
        registry.promote("invented")


def test_a_model_with_a_segment_below_one_percent_is_not_promoted(registry: Registry) -> None:
    rfm = shop().of("recency_days", "frequency", "monetary")
    rfm[:3] = [[1, 900, 500_000], [2, 950, 510_000], [1, 920, 505_000]]  # plain scaling gives them a segment

    trained = train_and_register(table(rfm), registry, PLAIN)

    assert trained.quality.smallest_share < MIN_SHARE
    with pytest.raises(NotPromotedError, match="smallest share"):
        registry.promote(trained.model.version)
    assert registry.promoted() is None


def test_a_worse_cut_does_not_take_the_place_of_a_better_one(registry: Registry) -> None:
    customers = shop()
    registry.promote(train_and_register(customers, registry).model.version)

    worse = train_and_register(customers, registry, replace(DEFAULT, skew_limit=None, starts=1, seed=3))

    inertia = next(check for check in worse.checks if check.name == "inertia")
    assert {check.name for check in worse.checks} == {"smallest share of a segment", "inertia", "stability"}
    assert inertia.is_passed == (inertia.value <= inertia.limit)
    assert worse.is_fit == all(check.is_passed for check in worse.checks)


def test_the_first_segmentation_trains_and_the_next_one_only_scores(registry: Registry) -> None:
    first = segment(shop(), registry)
    second = segment(shop(seed=8), registry)

    assert registry.versions() == (registry.promoted(),)
    assert first.notes == second.notes == ()
    assert first.document == second.document
    assert first.seed is not None
    assert first.seed.startswith(b"customer_id,segment_id,segment_name\n1,")


def test_customers_who_have_moved_are_segmented_by_a_new_model(registry: Registry) -> None:
    segment(shop(), registry)
    before = registry.promoted()

    moved = segment(shop(recency_shift=200), registry)

    assert registry.promoted() != before
    assert len(moved.notes) == 1
    assert "recency_days" in moved.notes[0]
    assert registry.rollback() == before


def test_too_few_customers_give_no_segments_and_say_so(registry: Registry) -> None:
    found = segment(table(shop().of("recency_days", "frequency", "monetary")[:20]), registry)

    assert (found.seed, found.document) == (None, None)
    assert found.notes == ("No segments: 20 customers with a purchase are too few for 5 segments, which take 50",)
    assert registry.versions() == ()


def test_a_population_that_has_not_moved_has_no_drift() -> None:
    model = train(shop(2_000))

    assert max(drift(model, shop(2_000)).values()) == pytest.approx(0)
    assert max(drift(model, shop(2_000, seed=17)).values()) < 0.1
    assert drift(model, shop(2_000, recency_shift=200))["recency_days"] > 0.25


def test_a_partition_by_chance_is_neither_stable_nor_separate() -> None:
    clear = shop(400)
    noise = table(np.random.default_rng(1).uniform(1, 2, (400, 3)))

    told, chance = judge(train(clear), clear), judge(train(noise), noise)

    assert told.stability > chance.stability
    assert told.silhouette > chance.silhouette


def test_a_damaged_card_or_pointer_says_what_to_do(registry: Registry) -> None:
    version = train_and_register(shop(), registry).model.version
    (registry.folder(version) / "card.json").write_text("{")
    with pytest.raises(UnknownModelError, match="card") as raised:
        registry.promote(version)
    assert "insight ml train" in raised.value.hint

    registry.folder("promoted.json").write_text(json.dumps([version])[:-3])
    with pytest.raises(UnknownModelError, match="damaged"):
        registry.promoted()
