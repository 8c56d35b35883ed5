"""Histories of made-up shops, drawn from processes that are known."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pyarrow as pa

from ml.buying import Frequency
from ml.history import DAILY, History, history

# As published for the customers of CDNOW: Fader, Hardie and Lee (2005), table 2.
CDNOW = Frequency(r=0.243, alpha=4.414, a=0.793, b=2.426)

FIRST = date(2019, 1, 1)


def drawn_purchases(process: Frequency, customers: int, *, days: int, seed: int) -> list[tuple[int, int]]:
    """Customer and day of each purchase: all come within the first half, and buy as the process has it."""
    generator = np.random.default_rng(seed)
    rates = generator.gamma(process.r, 1 / process.alpha, customers) / 7
    leaving = generator.beta(process.a, process.b, customers)
    bought = []
    for customer, (rate, leaves) in enumerate(zip(rates, leaving, strict=True)):
        day = float(generator.integers(0, days // 2))
        bought.append((customer, int(day)))
        # After each repeated purchase, some leave for good.
        while (day := day + generator.exponential(1 / max(rate, 1e-9))) < days:
            bought.append((customer, int(day)))
            if generator.random() < leaves:
                break
    return sorted(set(bought))


def made(
    bought: list[tuple[int, int]], *, days: int, spend: float = 50.0, daily: np.ndarray | None = None, seed: int = 1
) -> History:
    """The history of these purchases, each worth about `spend` times what its customer is worth."""
    generator = np.random.default_rng(seed)
    customers = np.array([customer for customer, _ in bought])
    worth = generator.gamma(2.0, 0.5, customers.max() + 1)[customers]
    net = np.round(spend * worth * generator.gamma(4.0, 0.25, len(bought)), 2)
    dates = [FIRST + timedelta(days=day) for _, day in bought]
    rows = pa.table({"customer": pa.array(customers + 100, pa.int64()), "metric_time__day": dates, "net_revenue": net})
    series = weekly(days, seed=seed) if daily is None else daily
    every = [FIRST + timedelta(days=day) for day in range(days)]
    metrics = pa.table({"metric_time__day": every} | dict.fromkeys(DAILY, series))
    return history(rows, metrics, as_of=FIRST + timedelta(days=days - 1), publication="made up")


def weekly(days: int, *, seed: int, noise: float = 0.15) -> np.ndarray:
    """A daily series with a strong week and a level that hardly moves."""
    generator = np.random.default_rng(seed)
    week = np.array([40.0, 45.0, 80.0, 85.0, 90.0, 70.0, 72.0])
    return np.resize(week, days) * generator.lognormal(0, noise, days)
