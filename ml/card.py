"""The model card: what was trained on what, how good it is, and why it is as it is; text made of the figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ml import plots
from ml.compare import Comparison, Cut, compare
from ml.evaluate import DRIFT_LIMIT, MIN_SHARE
from ml.features import FEATURES, FeatureTable
from ml.outlook import Outlook
from ml.outlook_card import section
from ml.segmentation import SEGMENTS
from ml.train import Trained

_LIBRARIES = ("scikit-learn", "numpy", "scipy", "skops")
_CLEARLY = 0.02  # by which a silhouette or a stability has to differ for one to say so


def illustrate(trained: Trained, table: FeatureTable, outlook: Outlook, folder: Path) -> None:
    """Write `card.md` and its plots into the folder. Takes some seconds."""
    comparison = compare(table, trained.model.configuration)
    plots.draw(trained.model, table, comparison, folder)
    lines = (*_lines(trained, table, comparison), *section(outlook))
    (folder / "card.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _lines(trained: Trained, table: FeatureTable, comparison: Comparison) -> Iterator[str]:
    yield from _origin(trained)
    yield from _features(trained)
    yield from _judgement(trained)
    yield from _number(trained, comparison)
    yield from _ways(trained, comparison)
    yield from _segments(trained, table)
    yield from _use()


def _origin(trained: Trained) -> Iterator[str]:
    model, configuration = trained.model, trained.model.configuration
    libraries = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    yield f"# Customer segments: model {model.version}"
    yield ""
    yield from _table(
        ("", ""),
        (
            ("customers", f"{model.customers:,}"),
            ("data window", f"{model.data_from} to {model.as_of}, the as-of date"),
            ("features, hashed", f"`{model.feature_digest}`"),
            ("configuration", f"{configuration.name}: {_preparation(trained)}, K-means, {configuration.starts} starts"),
            ("seed", str(configuration.seed)),
            ("made with", libraries),
        ),
    )


def _preparation(trained: Trained) -> str:
    limit = trained.model.configuration.skew_limit
    return "scaled" if limit is None else f"log1p where skewness is beyond {limit:g}, scaled"


def _features(trained: Trained) -> Iterator[str]:
    logged = {feature["name"] for feature in trained.model.document()["features"] if feature["is_logged"]}
    clustering = set(trained.model.configuration.features)
    yield from ("", "## Features", "", "All are asked of the API, as metrics and dimensions.", "")
    yield from _table(
        ("feature", "asked as", "unit", "null", "role"),
        (
            (
                feature.label,
                f"`{feature.column}`",
                feature.unit,
                feature.null,
                ("clusters, logged" if feature.name in logged else "clusters")
                if feature.name in clustering
                else "profiles",
            )
            for feature in FEATURES
        ),
    )


def _judgement(trained: Trained) -> Iterator[str]:
    quality = trained.quality
    yield from ("", "## How good it is", "")
    yield from _table(
        ("measure", "value", "what it says"),
        (
            ("inertia", f"{quality.inertia:,.1f}", "sum of squared distances to the centers, in the prepared space"),
            ("silhouette", f"{quality.silhouette:.3f}", "from -1 to 1: how much nearer the own segment is"),
            ("stability", f"{quality.stability:.3f}", "mean adjusted Rand index of ten bootstrap models with this one"),
            ("smallest segment", f"{quality.smallest_share:.1%}", "of the customers"),
        ),
    )
    yield from ("", "The gate, which a model has to pass in order to score:", "")
    yield from (f"* {'passed' if check.is_passed else '**failed**'}: {check}" for check in trained.checks)


def _number(trained: Trained, comparison: Comparison) -> Iterator[str]:
    chosen = len(SEGMENTS)
    yield from ("", "## Why five segments", "", "![elbow](elbow.png)", "", "![silhouette](silhouette.png)", "")
    yield from _cuts(comparison.counts, with_name=False)
    yield ""
    knee = f"at {comparison.knee}" if comparison.knee else "nowhere"
    yield (
        f"The knee of the elbow lies {knee}; the silhouette is best at {comparison.most_separate}, the stability at "
        f"{comparison.most_stable}. Five is a decision of the business: five groups that marketing has a campaign "
        "for, with names that stay."
    )
    best = comparison.count(comparison.most_separate)
    now = comparison.count(chosen)
    if best.clusters != chosen and best.silhouette - now.silhouette > _CLEARLY:
        yield (
            f"**Statistics prefer {best.clusters}**: a silhouette of {best.silhouette:.3f}, not {now.silhouette:.3f}. "
            "Neighbouring segments overlap, so customers near a border say little; "
            "`GET /v1/customers/{customer_id}/segment` tells how near the next one is."
        )
    else:
        yield "Five is as good by the silhouette as any other number."
    del trained


def _ways(trained: Trained, comparison: Comparison) -> Iterator[str]:
    yield from ("", "## Other ways to cut", "")
    yield from _cuts(comparison.ways, with_name=True)
    default, plain = comparison.ways[:2]
    yield ""
    yield (
        f"Scaled only, a few customers with extreme values take segments for themselves: the smallest has "
        f"{plain.smallest_share:.2%} of the customers, where the gate asks for {MIN_SHARE:.0%}, and resamples agree "
        f"to {plain.stability:.2f}. With the skewed features logged, the smallest has {default.smallest_share:.1%} and "
        f"they agree to {default.stability:.2f}; a silhouette in another space does not compare. "
        + _verdict(default, comparison.ways[2:])
    )
    del trained


def _verdict(default: Cut, others: Sequence[Cut]) -> str:
    """Which of the others is better at what matters: even segments that stay."""
    better = [
        cut.name
        for cut in others
        if cut.clusters == default.clusters
        and (cut.stability or 0) - (default.stability or 0) > _CLEARLY
        and cut.smallest_share >= MIN_SHARE
    ]
    if not better:
        return "No other way gives five segments that are more stable, so logged K-means is the default."
    return (
        f"More stable are: {', '.join(better)}. The default remains K-means over recency, frequency and money, as a "
        "service can score by it from three numbers, and its centers can be told to anybody."
    )


def _segments(trained: Trained, table: FeatureTable) -> Iterator[str]:
    assigned = trained.model.assign(table)
    yield from ("", "## The segments", "", "![profile](profile.png)", "", "![scatter](scatter.png)", "")
    medians = [[np.median(table.values[assigned == each.segment_id], axis=0)] for each in SEGMENTS]
    yield from _table(
        ("id", "segment", "customers", *(f"{feature.label.lower()}, median" for feature in FEATURES)),
        (
            (
                str(each.segment_id),
                each.name,
                f"{(assigned == each.segment_id).sum():,}",
                *(f"{value:,.2f}".rstrip("0").rstrip(".") for value in values),
            )
            for each, (values,) in zip(SEGMENTS, medians, strict=True)
        ),
    )
    yield ""
    yield from (f"* **{each.name}**: {each.description}" for each in SEGMENTS)


def _use() -> Iterator[str]:
    yield from (
        "",
        "## Use, and what to beware of",
        "",
        "* Names are relative, by rule from the centers: the champions of a weak year are champions still.",
        "* The segments describe what customers did. They do not say what a campaign would change.",
        "* Customers without a purchase are in no segment (`Unassigned`).",
        f"* The pipeline scores with this model until a feature has a population stability index above {DRIFT_LIMIT}.",
        "  Then it trains anew, and keeps this one if the new one does not pass the gate.",
    )


def _cuts(cuts: Iterable[Cut], *, with_name: bool) -> Iterator[str]:
    return _table(
        (*(("way",) if with_name else ()), "clusters", "inertia", "silhouette", "stability", "smallest", "in none"),
        (
            (
                *((cut.name,) if with_name else ()),
                str(cut.clusters),
                "-" if cut.inertia is None else f"{cut.inertia:,.1f}",
                f"{cut.silhouette:.3f}",
                "-" if cut.stability is None else f"{cut.stability:.3f}",
                f"{cut.smallest_share:.2%}",
                f"{cut.unassigned_share:.0%}",
            )
            for cut in cuts
        ),
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)
