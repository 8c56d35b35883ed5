"""Days on which a metric was not as its weekdays and the last two weeks let expect.

A day is judged by the eight weeks before it alone, in logarithms, by medians: what was odd once does not make the
next odd day look usual.

References
----------
Iglewicz and Hoaglin, How to Detect and Handle Outliers (1993): the modified z-score and its limit of 3.5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml.backtest import Backtest, Window
from ml.errors import TooShortHistoryError
from ml.features import Floats
from ml.history import History, Places

Flags = npt.NDArray[np.bool_]

LIMIT = 3.5
PAST_DAYS = 56

_WEEK = 7
_LATELY_DAYS = 14
_TO_DEVIATION = 1.4826  # from a median absolute deviation to a standard deviation, of normal numbers
_LEAST_SPREAD = 1e-3  # a series that never varied: a thousandth is then no anomaly yet
_NAIVE_LIMIT = 3.0
_WINDOWS, _WINDOW_DAYS = 4, 30
_CHANGES = (0.5, 2.0)  # what a day is multiplied with, to see whether that is noticed

ROBUST = "robust seasonal residual"
NAIVE = "three standard deviations around the mean of the same days"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Each day with enough past, (n_days,) each.

    `day` : its place in the series; `expected` with the ends of what is usual, in the metric's unit; `score` : the
    deviation in robust standard deviations.
    """

    day: Places
    expected: Floats
    low: Floats
    high: Floats
    score: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Anomalies:
    """The days of a metric whose score is beyond the limit, as places in `judged`, and how well that would do."""

    metric: str
    judged: Judged
    flagged: tuple[int, ...]
    backtest: Backtest


def find_anomalies(history: History, metric: str) -> Anomalies:
    """The metric's odd days, and how well halved and doubled days would have been told from others.

    Raises
    ------
    TooShortHistoryError
        There are too few days.
    """
    series = history.daily[metric]
    if len(series) < PAST_DAYS + _WINDOWS * _WINDOW_DAYS:
        raise TooShortHistoryError(
            f"{len(series)} days of {metric} are too few to tell odd ones", hint="Load half a year of sales"
        )
    judged = judge(series)
    windows = []
    for number in range(_WINDOWS, 0, -1):
        start = len(series) - PAST_DAYS - number * _WINDOW_DAYS
        held_out = slice(start, start + _WINDOW_DAYS)
        errors = {name: _error(series, held_out, scores) for name, scores in _DETECTORS.items()}
        first = PAST_DAYS + start
        last = history.date_of(first + _WINDOW_DAYS - 1)
        windows.append(Window(first=history.date_of(first), last=last, errors=errors))
    return Anomalies(
        metric=metric,
        judged=judged,
        flagged=tuple(np.flatnonzero(np.abs(judged.score) > LIMIT).tolist()),
        backtest=Backtest(
            subject=metric,
            measure="1 - (share of halved and doubled days that are flagged - share of days as they were)",
            baseline=NAIVE,
            windows=tuple(windows),
        ),
    )


def judge(series: Floats) -> Judged:
    """Every day from the 57th on, by the 56 before it."""
    expected, spread = _usual(np.log1p(np.maximum(series, 0)))
    days = np.arange(PAST_DAYS, len(series))
    return Judged(
        day=days,
        expected=np.expm1(expected),
        low=np.maximum(np.expm1(expected - LIMIT * spread), 0),
        high=np.expm1(expected + LIMIT * spread),
        score=(np.log1p(np.maximum(series[days], 0)) - expected) / spread,
    )


def _usual(logs: Floats) -> tuple[Floats, Floats]:
    """What is expected of each day from the 57th on, and the spread around it, in logarithms."""
    past = np.lib.stride_tricks.sliding_window_view(logs, PAST_DAYS)[:-1]
    weeks = past.reshape(len(past), -1, _WEEK)
    weekdays = np.median(weeks, axis=1)  # the first is that of the day itself, as 56 are whole weeks
    residuals = (weeks - weekdays[:, None, :]).reshape(len(past), -1)
    expected = weekdays[:, 0] + np.median(residuals[:, -_LATELY_DAYS:], axis=1)
    deviations = np.abs(residuals - np.median(residuals, axis=1, keepdims=True))
    return expected, np.maximum(_TO_DEVIATION * np.median(deviations, axis=1), _LEAST_SPREAD)


def _robust_flags(series: Floats, days: Floats) -> Flags:
    expected, spread = _usual(np.log1p(np.maximum(series, 0)))
    flags: Flags = np.abs(np.log1p(np.maximum(days, 0)) - expected) / spread > LIMIT
    return flags


def _naive_flags(series: Floats, days: Floats) -> Flags:
    past = np.lib.stride_tricks.sliding_window_view(series, PAST_DAYS)[:-1]
    spread = np.maximum(past.std(axis=1), _LEAST_SPREAD)
    flags: Flags = np.abs(days - past.mean(axis=1)) / spread > _NAIVE_LIMIT
    return flags


# Whether each day would be flagged if it were as `days` has it, its past being as it was.
_DETECTORS: Mapping[str, Callable[[Floats, Floats], Flags]] = {
    ROBUST: _robust_flags,
    NAIVE: _naive_flags,
}


def _error(series: Floats, held_out: slice, flags: Callable[[Floats, Floats], Flags]) -> float:
    days = series[PAST_DAYS:]
    noticed = float(np.mean([flags(series, days * change)[held_out].mean() for change in _CHANGES]))
    return 1 - (noticed - float(flags(series, days)[held_out].mean()))
