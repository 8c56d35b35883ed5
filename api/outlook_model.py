"""The published outlook: what is expected of customers and metrics, and how such expectations did on held-out months.

`outlook.json` and `customer_outlook.arrow` of a publication are the contract with `ml.outlook`, which writes them.
Nothing is computed here but the place of a customer, and nothing is loaded that could run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from api.errors import Unavailable

OUTLOOK_FILE = "outlook.json"
CUSTOMERS_FILE = "customer_outlook.arrow"

_COLUMNS = ("customer_id", "churn_probability", "alive_probability", "expected_net_revenue")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OtherMethod(_Part):
    """A method that was tried and did worse."""

    method: str
    error: FiniteFloat


class HeldOut(_Part):
    """Days that were held out, and the errors over them."""

    first: date
    last: date
    error: FiniteFloat
    baseline_error: FiniteFloat


class Backtest(_Part):
    """How a method did on held-out months, beside a naive baseline; less error is better."""

    measure: str
    method: str
    error: FiniteFloat
    baseline: str
    baseline_error: FiniteFloat
    others: tuple[OtherMethod, ...]
    windows: tuple[HeldOut, ...]


class Judged(_Part):
    """Something that was tried on held-out months; proven if it beat its baseline."""

    is_proven: bool
    backtest: Backtest


class Range(_Part):
    """A number with the ends of its interval, in the metric's unit."""

    value: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat


class ForecastDay(Range):
    """One coming day."""

    date: date


class MetricForecast(Judged):
    """A metric's coming days and their sum; `level` of an interval, and the held-out share that lay in them."""

    metric: str
    level: FiniteFloat
    coverage: FiniteFloat
    days: tuple[ForecastDay, ...] = Field(min_length=1)
    total: Range


class OddDay(_Part):
    """A day that was not as expected; `score` in robust standard deviations, above 0 for more than expected."""

    date: date
    value: FiniteFloat
    expected: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat
    score: FiniteFloat


class MetricAnomalies(Judged):
    """The odd days of a metric: those whose score is beyond the limit."""

    metric: str
    limit: FiniteFloat
    days: tuple[OddDay, ...]


class CustomersJudged(_Part):
    """How well customers can be foreseen."""

    horizon_days: int
    churn: Judged
    value: Judged
    parameters: Mapping[str, FiniteFloat]


class OutlookModel(_Part):
    """What is expected after `as_of`, learned from the days since `data_from`."""

    format: Literal[1]
    as_of: date
    data_from: date
    customers: CustomersJudged | None
    forecasts: tuple[MetricForecast, ...]
    anomalies: tuple[MetricAnomalies, ...]

    def forecast(self, metric: str) -> MetricForecast | None:
        """The forecast of the metric, if there is one."""
        return next((each for each in self.forecasts if each.metric == metric), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What is expected of one customer; money in USD."""

    churn_probability: float
    alive_probability: float
    net_revenue: float


class CustomerTable:
    """What is expected of each customer, by ascending id; mapped from its file, so a million take no memory."""

    def __init__(self, rows: pa.Table) -> None:
        self._ids: npt.NDArray[np.int64] = rows.column(_COLUMNS[0]).to_numpy()
        self._columns = [rows.column(name).to_numpy() for name in _COLUMNS[1:]]

    def find(self, customer_id: int) -> Expected | None:
        """What is expected of the customer; None of one who had not bought when the outlook was made."""
        place = int(np.searchsorted(self._ids, customer_id))
        if place == len(self._ids) or self._ids[place] != customer_id:
            return None
        churn, alive, revenue = (float(column[place]) for column in self._columns)
        return Expected(churn_probability=churn, alive_probability=alive, net_revenue=revenue)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedOutlook:
    """The outlook of a publication: the model, and the customers where they are foreseen."""

    model: OutlookModel
    customers: CustomerTable | None


def read_outlook(folder: Path) -> PublishedOutlook | None:
    """The outlook in the publication's folder; None where it has none.

    Raises
    ------
    Unavailable
        A file is damaged.
    """
    try:
        model = OutlookModel.model_validate_json((folder / OUTLOOK_FILE).read_text(encoding="utf-8"))
        customers = _customers(folder / CUSTOMERS_FILE) if model.customers else None
    except FileNotFoundError:
        return None
    except (OSError, UnicodeError, ValidationError, pa.ArrowInvalid, KeyError) as error:
        raise Unavailable(
            f"The outlook of publication {folder.name:.100} is damaged: {error!r:.200}",
            hint="Publish again, or go back: insight pipeline rollback",
        ) from error
    return PublishedOutlook(model=model, customers=customers)


def _customers(file: Path) -> CustomerTable:
    # In one piece, so that it stays where it is mapped.
    return CustomerTable(pa.ipc.open_file(pa.memory_map(str(file))).read_all())
