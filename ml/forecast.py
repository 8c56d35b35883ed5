"""Daily metrics in the coming 30 days, with intervals: exponential smoothing with a season of a week.

The model is statsmodels'; its paths are drawn many times, so the days and their sum have intervals of one kind, and
a forecast of logarithms is turned back path by path, without a bias.

References
----------
Hyndman, Koehler, Ord and Snyder, Forecasting with Exponential Smoothing (2008): the models ANA, additive errors and
season, no trend, and its likelihood.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ml.backtest import Backtest, Window
from ml.errors import TooShortHistoryError
from ml.features import Floats
from ml.history import History

HORIZON_DAYS = 30
LEVEL = 0.8  # of the intervals: what is outside is worth a look, but no alarm
METRICS = ("total_revenue", "transaction_count", "units_sold")

_WINDOWS = 6
_WEEK = 7
_BASELINE_WEEKS = 4
_MIN_DAYS = 8 * _WEEK  # before the first held-out month
_PATHS = 500
_LARGEST_LOG = 100.0  # its exponential is a number yet

LEVELS, LOGARITHMS = "exponential smoothing", "exponential smoothing of logarithms"
SAME_WEEKDAY = "the mean of the same weekday in the last four weeks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """What may come, (n_days, n_paths), in the metric's unit."""

    drawn: Floats

    def days(self) -> tuple[Floats, Floats, Floats]:
        """Of each day the mean and the interval's ends, (n_days,)."""
        low, high = np.quantile(self.drawn, _ENDS, axis=1)
        return self.drawn.mean(axis=1), low, high

    def total(self) -> tuple[float, float, float]:
        """The same of the sum of all days."""
        sums = self.drawn.sum(axis=0)
        low, high = np.quantile(sums, _ENDS)
        return float(sums.mean()), float(low), float(high)


_ENDS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """A metric's coming days, by the model that did best; `coverage` : the held-out share within the intervals."""

    metric: str
    paths: Paths
    backtest: Backtest
    coverage: float


def forecast(history: History, metric: str, *, seed: int = 42) -> Forecast:
    """The forecast of a daily metric, and how well such forecasts would have done before.

    Raises
    ------
    TooShortHistoryError
        There are too few days to hold months out.
    """
    series = history.daily[metric]
    count = min(_WINDOWS, (len(series) - _MIN_DAYS) // HORIZON_DAYS)
    if count < 1:
        raise TooShortHistoryError(
            f"{len(series)} days of {metric} are too few to forecast from", hint="Load half a year of sales"
        )
    windows, within = [], []
    for number in range(count, 0, -1):
        cut = len(series) - HORIZON_DAYS * number
        past, came = series[:cut], series[cut : cut + HORIZON_DAYS]
        said = {name: model(past, seed) for name, model in _MODELS.items()}
        errors = {name: _error(paths.days()[0], came) for name, paths in said.items()}
        errors[SAME_WEEKDAY] = _error(same_weekday(past), came)
        first, last = history.date_of(cut), history.date_of(cut + HORIZON_DAYS - 1)
        windows.append(Window(first=first, last=last, errors=errors))
        within.append({name: _share_within(paths, came) for name, paths in said.items()})
    backtest = Backtest(
        subject=metric, measure="mean absolute error of a day", baseline=SAME_WEEKDAY, windows=tuple(windows)
    )
    best = backtest.best
    return Forecast(
        metric=metric,
        paths=_MODELS[best](series, seed),
        backtest=backtest,
        coverage=float(np.mean([shares[best] for shares in within])),
    )


def same_weekday(past: Floats) -> Floats:
    """The baseline's days, (HORIZON_DAYS,)."""
    weeks = past[-_BASELINE_WEEKS * _WEEK :].reshape(_BASELINE_WEEKS, _WEEK)
    said: Floats = np.resize(weeks.mean(axis=0), HORIZON_DAYS)
    return said


def _smoothed(past: Floats, seed: int) -> Paths:
    return _within_reason(_draw(past, seed), past)


def _smoothed_logarithms(past: Floats, seed: int) -> Paths:
    # Path by path, then the mean: the other way round, a sum of days would be too small by the half of the variance.
    logs = _draw(np.log1p(np.maximum(past, 0)), seed)
    return _within_reason(np.expm1(np.minimum(logs, _LARGEST_LOG)), past)


def _within_reason(drawn: Floats, past: Floats) -> Paths:
    """The paths, none below 0, nor running away: beyond ten times what ever was, only the model is to be seen."""
    return Paths(drawn=np.clip(np.nan_to_num(drawn), 0, 10 * max(float(past.max()), 1.0)))


def _draw(past: Floats, seed: int) -> Floats:
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged yet; what it is worth is seen in the back-test
        model = ETSModel(
            past, error="add", seasonal="add", seasonal_periods=_WEEK, initialization_method="heuristic"
        ).fit(disp=False)
        drawn: Floats = np.asarray(
            model.simulate(HORIZON_DAYS, anchor="end", repetitions=_PATHS, rng=np.random.default_rng(seed))
        )
    return drawn


_MODELS: Mapping[str, Callable[[Floats, int], Paths]] = {LEVELS: _smoothed, LOGARITHMS: _smoothed_logarithms}


def _error(said: Floats, came: Floats) -> float:
    return float(np.mean(np.abs(said - came)))


def _share_within(paths: Paths, came: Floats) -> float:
    _, low, high = paths.days()
    return float(np.mean((low <= came) & (came <= high)))
