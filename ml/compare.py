"""Other ways to cut the same customers: other numbers of segments, other features, other algorithms, side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from kneed import KneeLocator
from sklearn.cluster import HDBSCAN
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from ml.evaluate import silhouette, smallest_share, stability
from ml.features import FEATURES, FeatureTable, Floats
from ml.model import DEFAULT, PLAIN, Configuration
from ml.segmentation import SEGMENTS, Labels

CLUSTER_COUNTS = range(2, 11)

_CUSTOMERS = 5_000  # of a large table; a comparison of ways needs no more, and HDBSCAN takes them in pairs
_RESAMPLES = 10
_NOISE = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """One way to cut: its clusters, how separate and how stable they are, the share of the smallest and of nobody's.

    `inertia` is there for K-means, in the space of its configuration; `stability` where a way assigns new customers.
    """

    name: str
    clusters: int
    silhouette: float
    smallest_share: float
    unassigned_share: float = 0.0
    inertia: float | None = None
    stability: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """K-means for each number of clusters, what statistics would choose, and the other ways at the chosen number."""

    counts: tuple[Cut, ...]
    knee: int | None
    ways: tuple[Cut, ...]

    @property
    def most_separate(self) -> int:
        """The number of clusters with the best silhouette."""
        return max(self.counts, key=lambda cut: cut.silhouette).clusters

    @property
    def most_stable(self) -> int:
        """The number of clusters whose resamples agree best."""
        return max(self.counts, key=lambda cut: cut.stability or 0).clusters

    def count(self, clusters: int) -> Cut:
        """K-means with that many clusters."""
        return next(cut for cut in self.counts if cut.clusters == clusters)


def compare(table: FeatureTable, configuration: Configuration) -> Comparison:
    """The comparison for these customers, or for some of many."""
    with threadpool_limits(limits=1):  # as in `Segmenter.fit`: thousands of small fits, in which threads only wait
        return _compared(_some(table), configuration)


def _compared(table: FeatureTable, configuration: Configuration) -> Comparison:
    counts = tuple(_kmeans(table, configuration, clusters=clusters) for clusters in CLUSTER_COUNTS)
    # Satopää et al., Finding a "Kneedle" in a Haystack, ICDCS workshops (2011).
    knee = KneeLocator(
        [cut.clusters for cut in counts], [cut.inertia for cut in counts], curve="convex", direction="decreasing"
    ).knee
    return Comparison(counts=counts, knee=None if knee is None else int(knee), ways=_ways(table))


def _ways(table: FeatureTable) -> tuple[Cut, ...]:
    every = replace(DEFAULT, features=tuple(feature.name for feature in FEATURES))
    prepared = DEFAULT.segmenter().fit(table.of(*DEFAULT.features)).prepare(table.of(*DEFAULT.features))
    return (
        _kmeans(table, DEFAULT, name="K-means, skewed features logged"),
        _kmeans(table, PLAIN, name="K-means, scaled only"),
        _kmeans(table, every, name="K-means, all seven features"),
        _mixture(prepared),
        _density(prepared),
    )


def _kmeans(
    table: FeatureTable, configuration: Configuration, *, clusters: int = len(SEGMENTS), name: str = "K-means"
) -> Cut:
    X = table.of(*configuration.features)
    segmenter = configuration.segmenter(clusters=clusters).fit(X)
    labels = segmenter.labels_
    return Cut(
        name=name,
        clusters=clusters,
        inertia=segmenter.inertia_,
        silhouette=silhouette(segmenter.prepare(X), labels),
        stability=stability(segmenter, X, labels, resamples=_RESAMPLES),
        smallest_share=smallest_share(labels, clusters=clusters),
    )


def _mixture(Z: Floats) -> Cut:
    def fitted(rows: Floats) -> GaussianMixture:
        return GaussianMixture(len(SEGMENTS), n_init=5, random_state=DEFAULT.seed).fit(rows)

    labels = fitted(Z).predict(Z)
    return Cut(
        name="Gaussian mixture, full covariance",
        clusters=len(SEGMENTS),
        silhouette=silhouette(Z, labels),
        stability=_agreement(Z, labels, lambda rows: fitted(rows).predict(Z)),
        smallest_share=smallest_share(labels),
    )


def _density(Z: Floats) -> Cut:
    labels = HDBSCAN(min_cluster_size=max(5, len(Z) // 50), copy=True).fit_predict(Z)
    inside = labels != _NOISE
    clusters = len(np.unique(labels[inside]))
    return Cut(
        name="HDBSCAN, clusters of 2 % at least",
        clusters=clusters,
        silhouette=silhouette(Z[inside], labels[inside]) if clusters else 0.0,
        smallest_share=float(np.bincount(labels[inside]).min() / len(Z)) if clusters else 0.0,
        unassigned_share=float(1 - inside.mean()),
    )


def _agreement(Z: Floats, labels: Labels, again: Callable[[Floats], Labels]) -> float:
    drawn = np.random.default_rng(DEFAULT.seed)
    resamples = (Z[drawn.integers(0, len(Z), len(Z))] for _ in range(_RESAMPLES))
    return float(np.mean([adjusted_rand_score(labels, again(rows)) for rows in resamples]))


def _some(table: FeatureTable) -> FeatureTable:
    if len(table.customer_ids) <= _CUSTOMERS:
        return table
    rows = np.sort(np.random.default_rng(0).choice(len(table.customer_ids), _CUSTOMERS, replace=False))
    return replace(table, customer_ids=table.customer_ids[rows], values=table.values[rows])
