"""Questions to the running service that nobody has asked before, so that each has to run."""

from __future__ import annotations

import itertools
from typing import Any

_floors = itertools.count(1)


def sales() -> dict[str, Any]:
    """Of the sales, which a test may have made slow or hungry."""
    return _unasked("line_count", "customer__location")


def marketing() -> dict[str, Any]:
    """Of the marketing spend, which is always as it was."""
    return _unasked("marketing_spend", "metric_time__month")


def _unasked(metric: str, group_by: str) -> dict[str, Any]:
    # Its filter lets every row pass.
    having = {"field": metric, "op": "gt", "values": [-next(_floors)]}
    return {"metrics": [metric], "group_by": [group_by], "having": [having]}
