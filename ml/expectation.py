"""What to expect of each customer in the coming 90 days: whether it buys at all, and for how much.

Two ways are tried over held-out months: buying as a process (`ml.buying`), and gradient-boosted trees over what each
customer did lately. The one with less error speaks, beside a naive baseline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from ml.backtest import Backtest, Window
from ml.buying import Frequency, Repeats, Value
from ml.errors import TooShortHistoryError
from ml.features import Floats
from ml.history import History, Places, Purchases

HORIZON_DAYS = 90  # after which a silent customer counts as churned, as `churn_rate` has it
MIN_CUSTOMERS = 100  # who had bought by the first day that trees look back from; with fewer, errors are chance

_STEP_DAYS = 30  # from one held-out window to the next: they overlap, as each has 90 days
_WINDOWS, _LEAST_WINDOWS = 4, 2
_WEEK = 7.0
_FITTED = 20_000  # customers that parameters are found from; more change their second digit
_LATELY_DAYS = (30, 90)
_TENTHS = 10

PROCESS, TREES = "BG/NBD", "gradient-boosted trees"
VALUED = f"{PROCESS} and Gamma-Gamma"
SILENT = "the share that stayed away before, of customers last seen as long ago"
EVERYBODY = "the share that stayed away before, of all customers"
AVERAGE = "what the average customer spent before"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conduct:
    """What each customer had done by a day: of those who had bought by then. Arrays are (n_customers,)."""

    who: Places
    seen: Repeats
    features: Floats

    @property
    def recency(self) -> Floats:
        """Days since the last purchase."""
        recency: Floats = self.features[:, 0]
        return recency


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectations:
    """What is expected of each customer after the as-of date, (n_customers,) in the order of `customer_ids`.

    `churn` : the probability of no purchase within the horizon; `value` : USD, net; `alive` : the probability that it
    has not left for good.
    """

    customer_ids: Places
    churn: Floats
    value: Floats
    alive: Floats
    churn_backtest: Backtest
    value_backtest: Backtest
    parameters: Mapping[str, float]


def expect(history: History, *, seed: int = 42) -> Expectations:
    """What is expected of every customer, and how well such expectations would have done before.

    Raises
    ------
    TooShortHistoryError
        There are too few customers or days to hold months out.
    """
    bought, today = history.purchases, history.days - 1
    cuts = _cuts(history)
    with threadpool_limits(limits=1):  # as in the clustering: equal runs give equal numbers
        tries = [_Try(bought, cut, seed=seed) for cut in cuts]
        churn = _backtest(
            history, "churn", "Brier score", (SILENT, EVERYBODY), [each.churn_errors() for each in tries], cuts
        )
        value = _backtest(history, "value", "RMSE, USD", (AVERAGE,), [each.value_errors() for each in tries], cuts)
        now = _Models(bought, today, seed=seed)
        said = {PROCESS: now.process_churn, TREES: now.trees_churn}[churn.best]()
        worth = {VALUED: now.process_value, TREES: now.trees_value}[value.best]()
    return Expectations(
        customer_ids=bought.customer_ids[now.known.who],
        churn=np.clip(said, 0, 1),
        value=np.maximum(worth, 0),
        alive=now.frequency.alive(now.known.seen),
        churn_backtest=churn,
        value_backtest=value,
        parameters=now.parameters(),
    )


def conduct(bought: Purchases, cut: int) -> Conduct:
    """What each customer had done by the day `cut`."""
    past = bought.until(cut)
    count = past.days()
    who = np.flatnonzero(count)
    first = np.full(len(count), cut)
    np.minimum.at(first, past.owner, past.day)
    last = np.full(len(count), -1)
    np.maximum.at(last, past.owner, past.day)
    spent = past.spent()
    opening = np.bincount(past.owner, weights=past.net * (past.day == first[past.owner]), minlength=len(count))
    again = np.maximum(count - 1, 0)
    seen = Repeats(
        count=again[who].astype(float),
        last=(last - first)[who] / _WEEK,
        age=(cut - first)[who] / _WEEK,
        value=np.maximum((spent - opening)[who] / np.maximum(again[who], 1), 0.0) * (again[who] > 0),
    )
    columns = [cut - last, cut - first, count, spent, spent / np.maximum(count, 1)]
    for days in _LATELY_DAYS:
        lately = past.between(cut - days, cut)
        columns += [lately.days(), lately.spent()]
    return Conduct(who=who, seen=seen, features=np.column_stack(columns)[who].astype(float))


class _Models:
    """Both ways, trained on what was known by the day `cut`; each says something of the customers known then."""

    def __init__(self, bought: Purchases, cut: int, *, seed: int) -> None:
        self.known = conduct(bought, cut)
        # Trees learn from days whose following 90 are past; two such days, so that they see more than one season.
        self.before = [conduct(bought, cut - HORIZON_DAYS - step) for step in (0, _STEP_DAYS)]
        self.came = [
            _outcome(bought, each, cut - HORIZON_DAYS - step)
            for each, step in zip(self.before, (0, _STEP_DAYS), strict=True)
        ]
        self._seed = seed
        some = _some(self.known.seen, seed)
        self.frequency, self.worth = Frequency.fit(some), Value.fit(some)

    def process_churn(self) -> Floats:
        return self.frequency.none_within(HORIZON_DAYS / _WEEK, self.known.seen)

    def process_value(self) -> Floats:
        purchases = self.frequency.purchases_within(HORIZON_DAYS / _WEEK, self.known.seen)
        return purchases * self.worth.expected(self.known.seen)

    def trees_churn(self) -> Floats:
        features, stayed_away = self._learned(place=0)
        trees = HistGradientBoostingClassifier(**_TREES, random_state=self._seed).fit(features, stayed_away)
        probabilities: Floats = trees.predict_proba(self.known.features)
        return probabilities[:, -1] if len(trees.classes_) > 1 else np.full(len(self.known.who), trees.classes_[0])

    def trees_value(self) -> Floats:
        features, spent = self._learned(place=1)
        trees = HistGradientBoostingRegressor(**_TREES, random_state=self._seed).fit(features, spent)
        value: Floats = trees.predict(self.known.features)
        return value

    def parameters(self) -> Mapping[str, float]:
        frequency, worth = self.frequency, self.worth
        return {
            **{name: getattr(frequency, name) for name in ("r", "alpha", "a", "b")},
            **{name: getattr(worth, name) for name in ("p", "q", "v")},
        }

    def _learned(self, *, place: int) -> tuple[Floats, Floats]:
        features = np.vstack([each.features for each in self.before])
        outcomes = np.concatenate([each[place] for each in self.came])
        rows = np.arange(len(features))
        if len(rows) > _FITTED:
            rows = np.random.default_rng(self._seed).choice(len(rows), _FITTED, replace=False)
        return features[rows], outcomes[rows]


# Small trees, slowly: a thousand customers teach no more.
_TREES: Mapping[str, Any] = {"max_iter": 60, "learning_rate": 0.05, "max_leaf_nodes": 8, "min_samples_leaf": 40}


class _Try:
    """What would have been said on the day `cut`, beside what came in the 90 days after it."""

    def __init__(self, bought: Purchases, cut: int, *, seed: int) -> None:
        self._models = _Models(bought, cut, seed=seed)
        self._stayed_away, self._spent = _outcome(bought, self._models.known, cut)

    def churn_errors(self) -> Mapping[str, float]:
        models = self._models
        everybody = np.full(len(self._stayed_away), models.came[0][0].mean())
        naive = {SILENT: self._silent_shares(), EVERYBODY: everybody}
        said = {PROCESS: models.process_churn(), TREES: models.trees_churn()} | naive
        return {name: float(np.mean((each - self._stayed_away) ** 2)) for name, each in said.items()}

    def value_errors(self) -> Mapping[str, float]:
        models = self._models
        average = np.full(len(self._spent), models.came[0][1].mean())
        said = {VALUED: models.process_value(), TREES: models.trees_value(), AVERAGE: average}
        return {name: float(np.sqrt(np.mean((each - self._spent) ** 2))) for name, each in said.items()}

    def _silent_shares(self) -> Floats:
        """For each customer, the share that stayed away before, of the tenth by recency that it would have been in."""
        before, (stayed_away, _) = self._models.before[0], self._models.came[0]
        edges = np.unique(np.quantile(before.recency, np.linspace(0, 1, _TENTHS + 1)[1:-1]))
        tenth = np.searchsorted(edges, before.recency)
        counts = np.maximum(np.bincount(tenth, minlength=len(edges) + 1), 1)
        shares = np.bincount(tenth, weights=stayed_away, minlength=len(edges) + 1) / counts
        found: Floats = shares[np.searchsorted(edges, self._models.known.recency)]
        return found


def _outcome(bought: Purchases, known: Conduct, cut: int) -> tuple[Floats, Floats]:
    """Whether each known customer bought nothing in the 90 days after the cut (1 or 0), and for how much in USD."""
    after = bought.between(cut, cut + HORIZON_DAYS)
    return (after.days()[known.who] == 0).astype(float), after.spent()[known.who]


def _cuts(history: History) -> Sequence[int]:
    """The days before the held-out windows, the earliest first."""
    last = history.days - 1 - HORIZON_DAYS
    learned = HORIZON_DAYS + _STEP_DAYS  # before a cut, the trees have to look back so far, and then some
    cuts = [cut for number in range(_WINDOWS) if (cut := last - _STEP_DAYS * number) >= learned + _STEP_DAYS]
    if len(cuts) < _LEAST_WINDOWS or _buyers(history.purchases, cuts[-1] - learned) < MIN_CUSTOMERS:
        raise TooShortHistoryError(
            f"{history.days} days of sales are too few, or too few customers bought in them, to hold months out",
            hint="Load a year of sales",
        )
    return cuts[::-1]


def _buyers(bought: Purchases, cut: int) -> int:
    return int(np.count_nonzero(bought.until(cut).days()))


def _backtest(
    history: History,
    subject: str,
    measure: str,
    baselines: Sequence[str],
    errors: Sequence[Mapping[str, float]],
    cuts: Sequence[int],
) -> Backtest:
    """The back-test beside the better one of the baselines."""
    baseline = min(baselines, key=lambda name: float(np.mean([each[name] for each in errors])))
    others = set(baselines) - {baseline}
    windows = tuple(
        Window(
            first=history.date_of(cut + 1),
            last=history.date_of(cut + HORIZON_DAYS),
            errors={name: error for name, error in each.items() if name not in others},
        )
        for cut, each in zip(cuts, errors, strict=True)
    )
    return Backtest(subject=subject, measure=measure, baseline=baseline, windows=windows)


def _some(seen: Repeats, seed: int) -> Repeats:
    if len(seen.count) <= _FITTED:
        return seen
    rows = np.random.default_rng(seed).choice(len(seen.count), _FITTED, replace=False)
    return Repeats(count=seen.count[rows], last=seen.last[rows], age=seen.age[rows], value=seen.value[rows])
