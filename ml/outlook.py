"""The outlook: what is expected of customers and metrics, with its back-tests, as it is published.

`document()` is `outlook.json` of a publication, `customers()` its `customer_outlook.arrow`; `api.outlook_model` reads
both. They are of all the data: who sees a part of it is told none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from ml.anomalies import LIMIT, Anomalies, find_anomalies
from ml.backtest import Backtest
from ml.errors import TooShortHistoryError
from ml.expectation import HORIZON_DAYS, Expectations, expect
from ml.forecast import LEVEL, METRICS, Forecast, forecast
from ml.history import DAILY, History

FORMAT = 1

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What there is to say; `notes` name what there is not, and why."""

    history: History
    customers: Expectations | None
    forecasts: tuple[Forecast, ...]
    anomalies: tuple[Anomalies, ...]
    notes: tuple[str, ...]

    def backtests(self) -> Iterator[tuple[str, Backtest]]:
        """Each back-test, under what it is about."""
        if self.customers is not None:
            yield f"churn within {HORIZON_DAYS} days", self.customers.churn_backtest
            yield f"value of {HORIZON_DAYS} days", self.customers.value_backtest
        for each in self.forecasts:
            yield f"forecast of {each.metric}", each.backtest
        for found in self.anomalies:
            yield f"anomalies of {found.metric}", found.backtest

    def document(self) -> dict[str, Any]:
        """It as plain data, but for the customers."""
        return {
            "format": FORMAT,
            "as_of": self.history.as_of.isoformat(),
            "data_from": self.history.first.isoformat(),
            "customers": None if self.customers is None else _customers(self.customers),
            "forecasts": [self._forecast(each) for each in self.forecasts],
            "anomalies": [self._anomalies(each) for each in self.anomalies],
        }

    def customer_table(self) -> pa.Table | None:
        """What is expected of each customer, by ascending id."""
        if self.customers is None:
            return None
        found = self.customers
        return pa.table(
            {
                "customer_id": pa.array(found.customer_ids, pa.int64()),
                "churn_probability": pa.array(np.round(found.churn, 4), pa.float64()),
                "alive_probability": pa.array(np.round(found.alive, 4), pa.float64()),
                "expected_net_revenue": pa.array(np.round(found.value, 2), pa.float64()),
            }
        )

    def _forecast(self, found: Forecast) -> dict[str, Any]:
        first = self.history.as_of + timedelta(days=1)
        ranges = zip(*(column.tolist() for column in found.paths.days()), strict=True)
        return _judged(found.backtest) | {
            "metric": found.metric,
            "level": LEVEL,
            "coverage": round(found.coverage, 4),
            "days": [
                {"date": (first + timedelta(days=place)).isoformat(), **_range(*numbers)}
                for place, numbers in enumerate(ranges)
            ],
            "total": _range(*found.paths.total()),
        }

    def _anomalies(self, found: Anomalies) -> dict[str, Any]:
        judged, series = found.judged, self.history.daily[found.metric]
        return _judged(found.backtest) | {
            "metric": found.metric,
            "limit": LIMIT,
            "days": [
                {
                    "date": self.history.date_of(int(judged.day[place])).isoformat(),
                    "value": round(float(series[int(judged.day[place])]), 2),
                    "expected": round(float(judged.expected[place]), 2),
                    "low": round(float(judged.low[place]), 2),
                    "high": round(float(judged.high[place]), 2),
                    "score": round(float(judged.score[place]), 2),
                }
                for place in found.flagged
            ],
        }


def look_ahead(history: History) -> Outlook:
    """The outlook of the history. What it has too few days for is left out, and noted."""
    notes: list[str] = []

    def tried(what: str, work: Callable[[], T]) -> T | None:
        try:
            return work()
        except TooShortHistoryError as error:
            notes.append(f"No {what}: {error.message}")
            return None

    customers = tried("outlook of customers", lambda: expect(history))
    forecasts = [
        tried(f"forecast of {name}", lambda name=name: forecast(history, name))  # type: ignore[misc] # its default
        for name in METRICS
        if name in history.daily
    ]
    anomalies = [
        tried(f"anomalies of {name}", lambda name=name: find_anomalies(history, name))  # type: ignore[misc] # likewise
        for name in DAILY
        if name in history.daily
    ]
    return Outlook(
        history=history,
        customers=customers,
        forecasts=tuple(each for each in forecasts if each is not None),
        anomalies=tuple(each for each in anomalies if each is not None),
        notes=tuple(notes),
    )


def _customers(found: Expectations) -> dict[str, Any]:
    return {
        "horizon_days": HORIZON_DAYS,
        "churn": _judged(found.churn_backtest),
        "value": _judged(found.value_backtest),
        "parameters": {name: float(f"{value:.6g}") for name, value in found.parameters.items()},
    }


def _judged(backtest: Backtest) -> dict[str, Any]:
    return {"is_proven": backtest.is_proven, "backtest": backtest.document()}


def _range(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": round(value, 2), "low": round(low, 2), "high": round(high, 2)}
