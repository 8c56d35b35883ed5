"""Buying as a process: BG/NBD says how often a customer buys again, and when it has gone; Gamma-Gamma for how much.

References
----------
Fader, Hardie and Lee, "Counting Your Customers" the Easy Way: An Alternative to the Pareto/NBD Model, Marketing Science
24 (2005): the likelihood (their equation 6), and the expected purchases (10).
Fader and Hardie, A Note on Deriving the Pareto/NBD Model and Related Expressions (2005), for the hypergeometric form;
The Gamma-Gamma Model of Monetary Value (2013): its likelihood and the expected value of a purchase (their 1 and 5).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import gammaln, hyp2f1

from ml.errors import TooShortHistoryError
from ml.features import Floats

MIN_REPEATS = 20

_LEAST, _MOST = -12.0, 12.0  # of a parameter's logarithm: beyond, likelihoods are flat


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeats:
    """What is known of each customer's buying, (n_customers,) each; times in weeks.

    `count` : days with a purchase after the first one; `last` : from the first purchase to the last; `age` : from the
    first purchase to now; `value` : mean USD of a day of the repeated ones, 0 where there is none.
    """

    count: Floats
    last: Floats
    age: Floats
    value: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Frequency:
    """BG/NBD: purchases come at random at a rate of Gamma(r, alpha) a week; after each, Beta(a, b) leave for good."""

    r: float
    alpha: float
    a: float
    b: float

    @classmethod
    def fit(cls, seen: Repeats) -> Frequency:
        """The parameters of the greatest likelihood."""
        found = _greatest(lambda logs: cls._of(logs).log_likelihood(seen), np.zeros(4))
        return cls._of(found)

    @classmethod
    def _of(cls, logs: Floats) -> Frequency:
        r, alpha, a, b = np.exp(logs).tolist()
        return cls(r=r, alpha=alpha, a=a, b=b)

    def log_likelihood(self, seen: Repeats) -> float:
        """The mean over the customers."""
        r, alpha, a, b, x = self.r, self.alpha, self.a, self.b, seen.count
        common = gammaln(r + x) - gammaln(r) + r * np.log(alpha)
        common += gammaln(a + b) + gammaln(b + x) - gammaln(b) - gammaln(a + b + x)
        stayed = -(r + x) * np.log(alpha + seen.age)
        left = np.log(a) - np.log(b + np.maximum(x, 1) - 1) - (r + x) * np.log(alpha + seen.last)
        return float(np.mean(common + np.where(x > 0, np.logaddexp(stayed, left), stayed)))

    def alive(self, seen: Repeats) -> Floats:
        """The probability that each customer has not left for good."""
        x = seen.count
        odds = self.a / (self.b + np.maximum(x, 1) - 1)
        odds = odds * ((self.alpha + seen.age) / (self.alpha + seen.last)) ** (self.r + x)
        alive: Floats = np.where(x > 0, 1 / (1 + odds), 1.0)  # who has bought once had no occasion to leave
        return alive

    def none_within(self, weeks: float, seen: Repeats) -> Floats:
        """The probability that each customer buys nothing in the coming weeks."""
        alive = self.alive(seen)
        idle = ((self.alpha + seen.age) / (self.alpha + seen.age + weeks)) ** (self.r + seen.count)
        none: Floats = 1 - alive + alive * idle
        return none

    def purchases_within(self, weeks: float, seen: Repeats) -> Floats:
        """The days with a purchase to expect of each customer in the coming weeks."""
        r, alpha, a, b, x = self.r, self.alpha, self.a, self.b, seen.count
        if abs(a - 1) < _POLE:
            a += 2 * _POLE
        shrunk = ((alpha + seen.age) / (alpha + seen.age + weeks)) ** (r + x)
        series = hyp2f1(r + x, b + x, a + b + x - 1, weeks / (alpha + seen.age + weeks))
        expected: Floats = (a + b + x - 1) / (a - 1) * (1 - shrunk * series) * self.alive(seen)
        # At the edge of the parameters the series does not converge; then there is nothing to expect, and the back-test
        # shows what that is worth.
        return np.maximum(np.nan_to_num(expected, nan=0.0, posinf=0.0), 0.0)


_POLE = 1e-6  # at a = 1 the expectation is a limit, which its formula does not reach


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """Gamma-Gamma: purchases of a customer vary around a mean of its own (shape p), these means over customers (q, v).

    It takes how often somebody buys, and for how much, as independent.
    """

    p: float
    q: float
    v: float

    @classmethod
    def fit(cls, seen: Repeats) -> Value:
        """The parameters of the greatest likelihood, from those who bought again.

        Raises
        ------
        TooShortHistoryError
            Hardly anybody did.
        """
        again = (seen.count > 0) & (seen.value > 0)
        if again.sum() < MIN_REPEATS:
            raise TooShortHistoryError(
                f"{int(again.sum())} customers who bought again are too few", hint="Load more sales"
            )
        count, value = seen.count[again], seen.value[again]
        found = _greatest(lambda logs: cls._of(logs).log_likelihood(count, value), np.log([1.0, 3.0, value.mean()]))
        return cls._of(found)

    @classmethod
    def _of(cls, logs: Floats) -> Value:
        p, q, v = np.exp(logs).tolist()
        return cls(p=p, q=q, v=v)

    def log_likelihood(self, count: Floats, value: Floats) -> float:
        """The mean over customers with `count` repeated purchases of a mean `value`."""
        p, q, v = self.p, self.q, self.v
        shape = p * count
        parts = gammaln(shape + q) - gammaln(shape) - gammaln(q) + q * np.log(v)
        parts += (shape - 1) * np.log(value) + shape * np.log(count) - (shape + q) * np.log(count * value + v)
        return float(np.mean(parts))

    def expected(self, seen: Repeats) -> Floats:
        """What a purchase of each customer is worth, in USD: between its own mean and that of all."""
        shape = self.p * np.where(seen.value > 0, seen.count, 0)
        spread = shape + max(self.q - 1, 1e-3)  # at q <= 1 the mean of all has no bound
        everybody = self.p * self.v / max(self.q - 1, 1e-3)
        expected: Floats = (spread - shape) / spread * everybody + shape / spread * seen.value
        return expected


def _greatest(log_likelihood: Callable[[Floats], float], start: Floats) -> Floats:
    """The logarithms of the parameters at which the likelihood is greatest.

    To eight digits: with one-sided differences and the usual tolerances only four are right, and the others depend on
    the order of the customers and on the processor.
    """
    found = minimize(
        lambda logs: -log_likelihood(logs),
        start,
        method="L-BFGS-B",
        jac="3-point",
        bounds=[(_LEAST, _MOST)] * len(start),
        options={"ftol": 1e-15, "gtol": 1e-8},
    )
    best: Floats = found.x
    return best
