"""A trained segmentation as one value: what it was trained on, whom it puts where, and what is published of it."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, cast

import numpy as np
from sklearn.preprocessing import StandardScaler

from ml.errors import TooFewCustomersError
from ml.features import FEATURES, RFM, Feature, FeatureTable, Floats
from ml.segmentation import SEGMENTS, SKEW_LIMIT, Labels, LogWhereSkewed, Segment, Segmenter, name_clusters, segment_ids

FORMAT = 1
SEED_COLUMNS = ("customer_id", "segment_id", "segment_name")

# Ten for each segment: with fewer, a segment is a handful of people and moves with each of them.
MIN_CUSTOMERS = 50

_BANDS = 10  # of each feature's distribution, for telling whether it has moved


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """How to train: the features by name, what is logged, the seed."""

    name: str
    skew_limit: float | None
    features: tuple[str, ...] = RFM
    starts: int = 50
    seed: int = 42

    def segmenter(self, *, clusters: int = len(SEGMENTS)) -> Segmenter:
        """An estimator that is not fitted yet."""
        return Segmenter(clusters, skew_limit=self.skew_limit, n_init=self.starts, random_state=self.seed)


PLAIN = Configuration(name="plain", skew_limit=None, starts=10)  # as anybody would begin, to compare with
DEFAULT = Configuration(name="default", skew_limit=SKEW_LIMIT)
CONFIGURATIONS: Mapping[str, Configuration] = {each.name: each for each in (DEFAULT, PLAIN)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """How a feature was distributed in training: `edges` between bands, and the share of customers in each."""

    edges: tuple[float, ...]
    shares: tuple[float, ...]

    @classmethod
    def of(cls, values: Floats) -> Band:
        """The distribution in tenths; fewer where many customers have the same value."""
        edges = np.unique(np.quantile(values, np.linspace(0, 1, _BANDS + 1)[1:-1]))
        return cls(edges=tuple(edges.tolist()), shares=tuple(shares_between(values, edges).tolist()))


def shares_between(values: Floats, edges: Floats) -> Floats:
    """The share of the values in each of the bands between the edges, (n_edges + 1,)."""
    counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
    shares: Floats = counts / max(1, len(values))
    return shares


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A trained segmentation. `names` says which segment each cluster is, in the order of the estimator's labels."""

    version: str
    configuration: Configuration
    segmenter: Segmenter
    names: tuple[Segment, ...]
    customers: int
    data_from: date
    as_of: date
    feature_digest: str
    bands: Mapping[str, Band]

    def assign(self, table: FeatureTable) -> Labels:
        """The segment id of each customer of the table, (n_customers,)."""
        return segment_ids(self.segmenter.predict(table.of(*self.configuration.features)), self.names)

    def seed(self, table: FeatureTable) -> bytes:
        """The rows of dbt's seed `customer_segments`, as CSV; equal models and features give equal bytes."""
        names = {segment.segment_id: segment.name for segment in SEGMENTS}
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(SEED_COLUMNS)
        ids = self.assign(table).tolist()
        writer.writerows(
            (customer, segment, names[segment])
            for customer, segment in zip(table.customer_ids.tolist(), ids, strict=True)
        )
        return text.getvalue().encode()

    def facts(self) -> dict[str, Any]:
        """What it was trained on, as plain data."""
        return {
            "version": self.version,
            "configuration": asdict(self.configuration),
            "customers": self.customers,
            "data_from": self.data_from.isoformat(),
            "as_of": self.as_of.isoformat(),
            "feature_digest": self.feature_digest,
            "names": [segment.segment_id for segment in self.names],
            "bands": {name: asdict(band) for name, band in self.bands.items()},
        }

    def document(self) -> dict[str, Any]:
        """What a service needs in order to score, as plain data: `segments.json` of a publication."""
        logs, scaler = self._preparation()
        mean, scale = cast("Floats", scaler.mean_), cast("Floats", scaler.scale_)
        clusters = sorted(range(len(self.names)), key=lambda cluster: self.names[cluster].segment_id)
        return {
            "format": FORMAT,
            "model": self.version,
            "trained_as_of": self.as_of.isoformat(),
            "features": [
                {
                    "name": feature.name,
                    "label": feature.label,
                    "unit": feature.unit,
                    "column": feature.column,
                    "least": feature.least,
                    "is_logged": bool(logs.is_logged_[place]),
                    "mean": float(mean[place]),
                    "scale": float(scale[place]),
                }
                for place, feature in enumerate(self.features)
            ],
            "segments": [self._segment(cluster) for cluster in clusters],
        }

    @property
    def features(self) -> tuple[Feature, ...]:
        """What it clusters by."""
        known = {feature.name: feature for feature in FEATURES}
        return tuple(known[name] for name in self.configuration.features)

    def centroids(self) -> Floats:
        """The clusters' centres in the features' own units, (n_clusters, n_features)."""
        logs, scaler = self._preparation()
        centers = scaler.inverse_transform(self.segmenter.cluster_centers_)
        logged = logs.is_logged_
        centers[:, logged] = np.sign(centers[:, logged]) * np.expm1(np.abs(centers[:, logged]))
        return cast("Floats", centers)

    def _segment(self, cluster: int) -> dict[str, Any]:
        centroid = self.centroids()[cluster]
        names = self.configuration.features
        return asdict(self.names[cluster]) | {
            "center": self.segmenter.cluster_centers_[cluster].tolist(),
            "centroid": dict(zip(names, (round(float(value), 2) for value in centroid), strict=True)),
        }

    def _preparation(self) -> tuple[LogWhereSkewed, StandardScaler]:
        (_, logs), (_, scaler) = self.segmenter.preparation_.steps
        return logs, scaler


def train(table: FeatureTable, configuration: Configuration = DEFAULT) -> Model:
    """The model of these customers; the same table, configuration and seed give the same model.

    Raises
    ------
    TooFewCustomersError
        There are fewer than a segmentation can be told from.
    """
    if len(table.customer_ids) < MIN_CUSTOMERS:
        raise TooFewCustomersError(
            f"{len(table.customer_ids)} customers with a purchase are too few for {len(SEGMENTS)} segments, "
            f"which take {MIN_CUSTOMERS}",
            hint="Load more sales",
        )
    segmenter = configuration.segmenter().fit(table.of(*configuration.features))
    places = [configuration.features.index(name) for name in RFM]
    bands = {name: Band.of(table.of(name)[:, 0]) for name in configuration.features}
    return Model(
        version=f"{table.as_of:%Y%m%d}-{configuration.name}-{_short(table, configuration)}",
        configuration=configuration,
        segmenter=segmenter,
        names=name_clusters(segmenter.cluster_centers_[:, places]),
        customers=len(table.customer_ids),
        data_from=table.data_from,
        as_of=table.as_of,
        feature_digest=table.digest,
        bands=bands,
    )


def _short(table: FeatureTable, configuration: Configuration) -> str:
    """A few digits that tell trainings apart; the same training has the same ones."""
    return hashlib.sha256(f"{table.digest} {configuration!r}".encode()).hexdigest()[:10]
