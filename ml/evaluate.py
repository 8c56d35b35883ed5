"""How good a segmentation is, whether it may take the place of another, and whether its customers have moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.base import clone
from sklearn.metrics import adjusted_rand_score, silhouette_score

from ml.features import FeatureTable, Floats
from ml.model import Model, shares_between
from ml.segmentation import SEGMENTS, Labels, Segmenter

# Silhouettes take the distances of all pairs; a few thousand customers say as much as a million.
SILHOUETTE_CUSTOMERS = 5_000
STABILITY_CUSTOMERS = 20_000

MIN_SHARE = 0.01  # a segment below it is a list of names, not a group
_RESAMPLE_STARTS = 10  # of the model of a resample; more change its agreement by less than the draw does
_INERTIA_SLACK = 1.01  # another cut of the same customers within 1 % is no worse
_STABILITY_SLACK = 0.05  # as far as two estimates of it from ten resamples differ by chance

# Population stability index: below 0.1 nothing has moved, beyond 0.25 the population is another one.
# Siddiqi, Credit Risk Scorecards (2006), chapter 9.
DRIFT_LIMIT = 0.25
_EMPTY_SHARE = 1e-4  # stands for an empty band, whose logarithm would be infinite


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How good a partition is.

    `inertia` in the prepared space; `silhouette` in [-1, 1]; `stability`: mean adjusted Rand index between the model
    and models of bootstrap resamples, in [-0.5, 1]; `smallest_share` of the customers in the smallest segment.
    """

    inertia: float
    silhouette: float
    stability: float
    smallest_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One condition of the gate, and how it went."""

    name: str
    value: float
    limit: float
    is_passed: bool

    def __str__(self) -> str:
        return f"{self.name}: {self.value:.4g} (limit {self.limit:.4g})"


def judge(model: Model, table: FeatureTable, *, resamples: int = 10) -> Quality:
    """How good the model is for the customers of the table."""
    X = table.of(*model.configuration.features)
    Z = model.segmenter.prepare(X)
    labels = model.segmenter.predict(X)
    return Quality(
        inertia=float(((Z - model.segmenter.cluster_centers_[labels]) ** 2).sum()),
        silhouette=silhouette(Z, labels),
        stability=stability(model.segmenter, X, labels, resamples=resamples),
        smallest_share=smallest_share(labels),
    )


def silhouette(Z: Floats, labels: Labels) -> float:
    """The mean silhouette, of a sample where there are many customers."""
    if len(np.unique(labels)) < 2:  # noqa: PLR2004 - it is defined from two clusters on
        return 0.0
    rows = _sample(len(Z), SILHOUETTE_CUSTOMERS)
    if len(np.unique(labels[rows])) < 2:  # noqa: PLR2004 - likewise
        return 0.0
    return float(silhouette_score(Z[rows], labels[rows]))


def stability(segmenter: Segmenter, X: Floats, labels: Labels, *, resamples: int) -> float:
    """The mean agreement of the labels with those of models that are trained on resamples.

    References
    ----------
    Hennig, Cluster-wise assessment of cluster stability, Computational Statistics & Data Analysis 52 (2007): bootstrap.
    Hubert and Arabie, Comparing partitions, Journal of Classification 2 (1985): the adjusted Rand index.
    """
    rows = _sample(len(X), STABILITY_CUSTOMERS)
    X, labels = X[rows], labels[rows]
    drawn = np.random.default_rng(segmenter.random_state)
    agreements = []
    for _ in range(resamples):
        again = clone(segmenter).set_params(n_init=_RESAMPLE_STARTS).fit(X[drawn.integers(0, len(X), len(X))])
        agreements.append(adjusted_rand_score(labels, again.predict(X)))
    return float(np.mean(agreements))


def smallest_share(labels: Labels, *, clusters: int = len(SEGMENTS)) -> float:
    """The share of the customers in the smallest cluster."""
    return float(np.bincount(labels, minlength=clusters).min() / len(labels))


def gate(
    challenger: Model,
    quality: Quality,
    *,
    incumbent: Model | None,
    incumbent_stability: float | None,
    table: FeatureTable,
) -> tuple[Check, ...]:
    """What the challenger has to satisfy in order to take the incumbent's place, each with how it went.

    Inertias are compared over the same customers in the challenger's space: each partition around its own means.
    """
    checks = [_check("smallest share of a segment", quality.smallest_share, at_least=MIN_SHARE)]
    if incumbent is not None:
        Z = challenger.segmenter.prepare(table.of(*challenger.configuration.features))
        allowed = _INERTIA_SLACK * _within(Z, incumbent.assign(table))
        checks.append(_check("inertia", _within(Z, challenger.assign(table)), at_most=allowed))
    if incumbent_stability is not None:
        checks.append(_check("stability", quality.stability, at_least=incumbent_stability - _STABILITY_SLACK))
    return tuple(checks)


def drift(model: Model, table: FeatureTable) -> Mapping[str, float]:
    """The population stability index of each feature, between the model's training and the table."""
    found = {}
    for name, band in model.bands.items():
        then = np.maximum(band.shares, _EMPTY_SHARE)
        now = np.maximum(shares_between(table.of(name)[:, 0], np.array(band.edges)), _EMPTY_SHARE)
        found[name] = float(((now - then) * np.log(now / then)).sum())
    return found


def _within(Z: Floats, labels: Labels) -> float:
    parts = (Z[labels == label] for label in np.unique(labels))
    return float(sum(((part - part.mean(axis=0)) ** 2).sum() for part in parts))


def _check(name: str, value: float, *, at_least: float | None = None, at_most: float | None = None) -> Check:
    limit = at_least if at_least is not None else at_most
    assert limit is not None  # noqa: S101 - one of the two is given
    return Check(name=name, value=value, limit=limit, is_passed=value >= limit if at_most is None else value <= limit)


def _sample(size: int, most: int) -> Labels:
    return np.arange(size) if size <= most else np.random.default_rng(0).choice(size, most, replace=False)
