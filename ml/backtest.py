"""Back-tests: what models would have said, beside what came, over held-out months; a naive baseline beside each.

A model is *proven* where it beats its baseline; what is not is told as such, and not served unless it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np

MARGIN = 0.02  # less than that is no better: it would depend on which months were held out


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Days that were held out, and the error of each model and of the baseline over them, by name."""

    first: date
    last: date
    errors: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backtest:
    """How models did beside a baseline. Errors are those of `measure`: less is better."""

    subject: str
    measure: str
    baseline: str
    windows: tuple[Window, ...]

    def error(self, name: str) -> float:
        """The mean error over the windows, of a model or the baseline."""
        return float(np.mean([window.errors[name] for window in self.windows]))

    @property
    def models(self) -> tuple[str, ...]:
        """Those that were tried, the best first; the baseline is none of them."""
        names = (name for name in self.windows[0].errors if name != self.baseline)
        return tuple(sorted(names, key=self.error))

    @property
    def best(self) -> str:
        """The model with the least error."""
        return self.models[0]

    @property
    def is_proven(self) -> bool:
        """Whether the best model's error is less than the baseline's by the margin, and so in most windows."""
        wins = sum(window.errors[self.best] < window.errors[self.baseline] for window in self.windows)
        return self.error(self.best) < (1 - MARGIN) * self.error(self.baseline) and 2 * wins > len(self.windows)

    def document(self) -> dict[str, Any]:
        """It as plain data."""
        return {
            "measure": self.measure,
            "method": self.best,
            "error": _digits(self.error(self.best)),
            "baseline": self.baseline,
            "baseline_error": _digits(self.error(self.baseline)),
            "others": [{"method": name, "error": _digits(self.error(name))} for name in self.models[1:]],
            "windows": [
                {
                    "first": window.first.isoformat(),
                    "last": window.last.isoformat(),
                    "error": _digits(window.errors[self.best]),
                    "baseline_error": _digits(window.errors[self.baseline]),
                }
                for window in self.windows
            ],
        }


def _digits(value: float) -> float:
    """Six of them: the last ones depend on the processor."""
    return float(f"{value:.6g}")
