"""Training, and keeping the promoted model fit for the customers of today."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml.errors import TooFewCustomersError
from ml.evaluate import DRIFT_LIMIT, Check, Quality, drift, gate, judge
from ml.features import FeatureTable
from ml.model import DEFAULT, Configuration, Model, train
from ml.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A model that the registry has, and what was found out about it."""

    model: Model
    quality: Quality
    checks: tuple[Check, ...]

    @property
    def is_fit(self) -> bool:
        """Whether it passes the gate."""
        return all(check.is_passed for check in self.checks)


def train_and_register(
    table: FeatureTable,
    registry: Registry,
    configuration: Configuration = DEFAULT,
    *,
    illustrate: Callable[[Trained, Path], None] = lambda *_: None,
) -> Trained:
    """A new model, judged beside the promoted one and kept; it is not promoted.

    Raises
    ------
    TooFewCustomersError
        As `ml.model.train`.
    UnknownModelError
        The promoted model cannot be read.
    """
    model = train(table, configuration)
    promoted = registry.promoted()
    # A model is no worse than itself.
    incumbent = registry.load(promoted) if promoted is not None and promoted != model.version else None
    quality = judge(model, table)
    checks = gate(
        model,
        quality,
        incumbent=incumbent,
        incumbent_stability=registry.quality(incumbent.version).stability if incumbent else None,
        table=table,
    )
    trained = Trained(model=model, quality=quality, checks=checks)
    registry.add(model, quality=quality, checks=checks, illustrate=lambda folder: illustrate(trained, folder))
    return trained


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmented:
    """The customers in their segments: dbt's seed, and what the service needs to score; without a model, neither."""

    seed: bytes | None
    document: dict[str, Any] | None
    notes: tuple[str, ...]


def segment(table: FeatureTable, registry: Registry) -> Segmented:
    """All customers, put into segments by the promoted model; by a new one where there is none, or they have moved.

    What keeps customers from being segmented, or a moved model from being replaced, is in the notes.
    """
    try:
        promoted = registry.promoted()
        if promoted is None:
            return _first(table, registry)
        model = registry.load(promoted)
        moved = {name: value for name, value in drift(model, table).items() if value > DRIFT_LIMIT}
        if not moved:
            return _segmented(model, table)
        told = ", ".join(f"{name} ({value:.2f})" for name, value in moved.items())
        return _renewed(model, table, registry, told=told)
    except TooFewCustomersError as error:
        return Segmented(seed=None, document=None, notes=(f"No segments: {error.message}",))


def _first(table: FeatureTable, registry: Registry) -> Segmented:
    trained = train_and_register(table, registry)
    if not trained.is_fit:
        failed = "; ".join(str(check) for check in trained.checks if not check.is_passed)
        return Segmented(seed=None, document=None, notes=(f"No segments: the model does not pass the gate: {failed}",))
    registry.promote(trained.model.version)
    return _segmented(trained.model, table)


def _renewed(model: Model, table: FeatureTable, registry: Registry, *, told: str) -> Segmented:
    trained = train_and_register(table, registry, model.configuration)
    if trained.is_fit:
        registry.promote(trained.model.version)
        note = f"The customers have moved since model {model.version}, in {told}: {trained.model.version} replaces it"
        return _segmented(trained.model, table, note)
    failed = "; ".join(str(check) for check in trained.checks if not check.is_passed)
    note = f"The customers have moved since model {model.version}, in {told}; a new one fails the gate: {failed}"
    return _segmented(model, table, note)


def _segmented(model: Model, table: FeatureTable, *notes: str) -> Segmented:
    return Segmented(seed=model.seed(table), document=model.document(), notes=notes)
