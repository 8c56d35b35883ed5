"""The plots of a model card, as PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.metrics import silhouette_samples

from ml.compare import Comparison
from ml.evaluate import SILHOUETTE_CUSTOMERS
from ml.features import RFM, FeatureTable
from ml.model import Model
from ml.segmentation import SEGMENTS

# Told apart by whoever sees few colours: Okabe and Ito, Color Universal Design (2008).
_COLOURS = ("#0072B2", "#009E73", "#E69F00", "#999999", "#D55E00")
_DOTS = 4_000
_DPI = 110


def draw(model: Model, table: FeatureTable, comparison: Comparison, folder: Path) -> None:
    """Write `elbow.png`, `silhouette.png`, `profile.png` and `scatter.png` into the folder."""
    _elbow(comparison, folder / "elbow.png")
    _silhouettes(model, table, comparison, folder / "silhouette.png")
    _profile(model, folder / "profile.png")
    _scatter(model, table, folder / "scatter.png")


def _elbow(comparison: Comparison, file: Path) -> None:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([cut.clusters for cut in comparison.counts], [cut.inertia or 0 for cut in comparison.counts], "o-")
    if comparison.knee:
        axes.axvline(comparison.knee, color="#999999", linestyle="--", label=f"knee: {comparison.knee}")
    axes.axvline(len(SEGMENTS), color="#D55E00", linestyle=":", label=f"chosen: {len(SEGMENTS)}")
    axes.set(xlabel="segments", ylabel="inertia", title="Inertia by number of segments")
    axes.set_ylim(bottom=0)
    axes.legend()
    _save(figure, file)


def _silhouettes(model: Model, table: FeatureTable, comparison: Comparison, file: Path) -> None:
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    by_count, by_customer = figure.subplots(1, 2)
    by_count.plot([cut.clusters for cut in comparison.counts], [cut.silhouette for cut in comparison.counts], "o-")
    by_count.plot([cut.clusters for cut in comparison.counts], [cut.stability or 0 for cut in comparison.counts], "s--")
    by_count.axvline(len(SEGMENTS), color="#D55E00", linestyle=":")
    by_count.legend(["mean silhouette", "stability", "chosen"])
    by_count.set(xlabel="segments", title="By number of segments")
    by_count.set_ylim(0, 1)
    assigned = model.assign(table)
    rows = np.random.default_rng(0).permutation(len(assigned))[:SILHOUETTE_CUSTOMERS]
    values = silhouette_samples(model.segmenter.prepare(table.of(*model.configuration.features)[rows]), assigned[rows])
    start = 0
    for segment in SEGMENTS:
        own = np.sort(values[assigned[rows] == segment.segment_id])
        by_customer.fill_betweenx(
            np.arange(start, start + len(own)), 0, own, color=_COLOURS[segment.segment_id], label=segment.name
        )
        start += len(own) + max(1, len(rows) // 100)
    by_customer.axvline(values.mean(), color="black", linestyle="--", linewidth=1)
    by_customer.set(xlabel="silhouette of each customer", yticks=[], title="Within the segments")
    by_customer.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    _save(figure, file)


def _profile(model: Model, file: Path) -> None:
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(SEGMENTS)
    for center, segment in zip(model.segmenter.cluster_centers_, model.names, strict=True):
        places = np.arange(len(center)) + (segment.segment_id - 2) * width
        axes.bar(places, center, width, color=_COLOURS[segment.segment_id])
    for segment in SEGMENTS:
        axes.bar(0, 0, color=_COLOURS[segment.segment_id], label=segment.name)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(model.features)), [feature.label for feature in model.features])
    axes.set(ylabel="center, in standard deviations", title="Profile of the segments")
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    _save(figure, file)


def _scatter(model: Model, table: FeatureTable, file: Path) -> None:
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    rows = np.random.default_rng(0).permutation(len(table.customer_ids))[:_DOTS]
    recency, frequency, monetary = table.of(*RFM)[rows].T
    assigned = model.assign(table)[rows]
    left, right = figure.subplots(1, 2)
    for segment in SEGMENTS:
        own = assigned == segment.segment_id
        dots = {"s": 9, "alpha": 0.6, "color": _COLOURS[segment.segment_id], "linewidths": 0}
        left.scatter(recency[own], np.maximum(monetary[own], 1), label=segment.name, **dots)
        right.scatter(frequency[own], np.maximum(monetary[own], 1), **dots)
    left.set(xlabel="days since the last purchase", ylabel="net revenue, USD", yscale="log", title="Recency and money")
    right.set(xlabel="transactions", xscale="log", yscale="log", title="Frequency and money")
    figure.legend(*left.get_legend_handles_labels(), loc="outside right upper", fontsize=8, markerscale=2)
    _save(figure, file)


def _save(figure: Figure, file: Path) -> None:
    figure.set_dpi(_DPI)
    FigureCanvasAgg(figure).print_png(file)  # type: ignore[no-untyped-call] # matplotlib's, untyped
