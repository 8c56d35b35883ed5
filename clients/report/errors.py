"""Why there is no report, each with what to do next.

ReportError
├── UnreadablePeriod   what was asked for is no period
├── NothingToReport    the data, or the caller's rights, have nothing for it
└── Unsettled          versions were published faster than they could be read
"""

from __future__ import annotations


class ReportError(Exception):
    """There is no report."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class UnreadablePeriod(ReportError):
    """What was asked for is no period."""


class NothingToReport(ReportError):
    """The data, or the caller's rights, have nothing for it."""


class Unsettled(ReportError):
    """The answers were of several versions."""
