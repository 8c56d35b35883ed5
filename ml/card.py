"""The model card: what was trained on what, how good it is, and why it is as it is; with plots."""

from __future__ import annotations

from pathlib import Path

from ml.features import FeatureTable
from ml.train import Trained


def illustrate(trained: Trained, table: FeatureTable, folder: Path) -> None:
    """Write `card.md` and its plots into the folder."""
    del table
    (folder / "card.md").write_text(f"# {trained.model.version}\n", encoding="utf-8")
