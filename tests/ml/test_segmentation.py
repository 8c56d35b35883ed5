"""The clustering and its names: as scikit-learn expects of an estimator, stable, and right on the real customers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from api.segment_model import SegmentModel
from ml.errors import TooFewCustomersError
from ml.features import RFM
from ml.model import DEFAULT, MIN_CUSTOMERS, PLAIN, SEGMENTS, train
from ml.segmentation import LogWhereSkewed, Segmenter, name_clusters
from tests.ml.customers import real_table, shop, table


@pytest.mark.filterwarnings("ignore")  # the checks provoke warnings, and look for them themselves
@parametrize_with_checks([Segmenter(), LogWhereSkewed()])
def test_the_estimators_pass_scikit_learns_own_checks(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


def test_the_plain_configuration_reaches_the_known_inertia_and_segments_on_the_real_customers(real_data: Path) -> None:
    customers = real_table(real_data)
    scaled = StandardScaler().fit_transform(customers.of(*RFM))
    reference = KMeans(n_clusters=5, n_init=10, random_state=42).fit(scaled)

    model = train(customers, PLAIN)

    assert len(customers.customer_ids) == 1468
    assert float(customers.of("monetary").sum()) == pytest.approx(4_360_022.162)
    assert model.segmenter.inertia_ == pytest.approx(941.1, rel=0.005)
    assert adjusted_rand_score(reference.labels_, model.assign(customers)) >= 0.98


def test_the_default_configuration_leaves_no_segment_of_the_real_customers_below_one_percent(real_data: Path) -> None:
    customers = real_table(real_data)
    shares = {each.name: np.bincount(train(customers, each).assign(customers)) / 1468 for each in (DEFAULT, PLAIN)}

    assert shares["default"].min() > 0.1
    assert shares["plain"].min() < 0.01  # five customers: why plain is not the default


def test_two_trainings_with_one_seed_give_byte_identical_seeds() -> None:
    customers = shop()

    assert train(customers).seed(customers) == train(customers).seed(customers)
    assert train(customers).version == train(customers).version
    assert train(customers).document() == train(customers).document()


def test_another_seed_of_the_starts_names_the_customers_alike() -> None:
    from dataclasses import replace

    customers = shop()
    first, second = (train(customers, replace(DEFAULT, seed=seed)) for seed in (1, 2))

    assert (first.assign(customers) == second.assign(customers)).mean() > 0.98


def test_permuting_the_cluster_numbers_changes_no_name() -> None:
    centers = train(shop()).segmenter.cluster_centers_
    named = {tuple(center): segment for center, segment in zip(centers, name_clusters(centers), strict=True)}

    for order in itertools.permutations(range(5)):
        permuted = centers[list(order)]
        assert [named[tuple(center)] for center in permuted] == list(name_clusters(permuted))


@given(st.lists(st.tuples(*[st.floats(-5, 5)] * 3), min_size=5, max_size=5, unique=True), st.permutations(range(5)))
@settings(deadline=None)
def test_any_five_centers_get_the_five_names_whatever_their_order(
    centers: list[tuple[float, float, float]], order: list[int]
) -> None:
    found = np.array(centers)
    names = name_clusters(found)

    assert {segment.segment_id for segment in names} == set(range(5))
    assert [names[place] for place in order] == list(name_clusters(found[order]))


def test_the_names_mean_what_they_say() -> None:
    customers = shop()
    model = train(customers)
    centroid = {
        segment.name: dict(zip(RFM, values, strict=True))
        for segment, values in zip(model.names, model.centroids(), strict=True)
    }

    assert centroid["At-Risk"]["recency_days"] == max(each["recency_days"] for each in centroid.values())
    assert centroid["Champions"]["frequency"] == max(each["frequency"] for each in centroid.values())
    assert centroid["Occasional Shoppers"]["frequency"] < centroid["Loyal Customers"]["frequency"]
    assert centroid["Big Spenders"]["monetary"] > centroid["Loyal Customers"]["monetary"]
    assert [segment.segment_id for segment in SEGMENTS] == [0, 1, 2, 3, 4]


def test_what_is_published_scores_as_scikit_learn_predicts() -> None:
    customers, others = shop(), shop(5_000, seed=6)
    model = train(customers)
    published = SegmentModel.model_validate(model.document())

    assert (published.nearest(others.of(*RFM)) == model.assign(others)).all()


def test_too_few_customers_are_refused() -> None:
    with pytest.raises(TooFewCustomersError, match="49 customers"):
        train(table(shop().of(*RFM)[: MIN_CUSTOMERS - 1]))


def test_a_customer_with_a_negative_value_is_scored_too() -> None:
    customers = shop()
    returned = table(np.array([[3.0, 2.0, -250.0]]))

    assert train(customers).assign(returned)[0] in range(5)
