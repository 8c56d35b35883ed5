"""The card's part on what is foreseen: every back-test beside its baseline, whichever way it went."""

from __future__ import annotations

from collections.abc import Iterator

from ml.backtest import MARGIN, Backtest
from ml.outlook import Outlook


def summary(outlook: Outlook) -> Iterator[str]:
    """A line for each back-test: who won, by how much, and whether it is served."""
    for about, backtest in outlook.backtests():
        best, baseline = backtest.error(backtest.best), backtest.error(backtest.baseline)
        verdict = "served" if backtest.is_proven else "NOT served: no better than its baseline"
        yield (
            f"{about:<32} {best:>10.4g}  {baseline:>10.4g}  {verdict} ({backtest.best}; {backtest.measure}; "
            f"baseline: {backtest.baseline})"
        )
    yield from outlook.notes


def section(outlook: Outlook) -> Iterator[str]:
    """The part of the card, as Markdown."""
    history = outlook.history
    yield from ("", "## Beyond segments: what is foreseen", "")
    yield (
        f"From {history.days} days of sales, {history.first} to {history.as_of}. Each model says what it would have "
        "said before days that were held out, and never sees them; a naive baseline stands beside it. It is served "
        f"where its mean error is less than the baseline's by {MARGIN:.0%}, and less in most windows. The best of "
        "several models is chosen by the same windows, so its lead is a little flattered."
    )
    for about, backtest in outlook.backtests():
        yield from _backtest(about, backtest)
    yield from ("", *(f"* {note}" for note in outlook.notes))
    if outlook.customers is not None:
        told = ", ".join(f"{name} = {value:.4g}" for name, value in outlook.customers.parameters.items())
        yield from ("", f"Buying as a process, in weeks and USD: {told}.")
    yield from _limits()


def _backtest(about: str, backtest: Backtest) -> Iterator[str]:
    verdict = "beats its baseline: served" if backtest.is_proven else "**does not beat its baseline: not served**"
    names = (*backtest.models, backtest.baseline)
    yield from ("", f"### {about[0].upper()}{about[1:]}: {backtest.best} {verdict}", "")
    yield f"Error: {backtest.measure}."
    yield from ("", f"| held out | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}")
    for window in backtest.windows:
        yield f"| {window.first} to {window.last} | {' | '.join(f'{window.errors[name]:,.4g}' for name in names)} |"
    yield f"| mean | {' | '.join(f'{backtest.error(name):,.4g}' for name in names)} |"


def _limits() -> Iterator[str]:
    yield from (
        "",
        "* Windows of 90 days overlap, so they are fewer than they look.",
        "* Who bought before the first day of the data looks new; a year holds no season that was seen twice.",
        "* An expectation is of what customers do if nothing changes; it does not say what a campaign would do.",
    )
