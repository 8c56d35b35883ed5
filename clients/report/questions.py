"""What a report asks: the requests behind its sections, as far as the caller may ask them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from clients.report.periods import Period
from clients.sdk import Metric

_TOP = 5
_DAY = "metric_time__day"


class Shape(StrEnum):
    """How an answer is laid out."""

    FIGURES = "figures"  # a line for each metric
    GROUPS = "groups"  # a line for each group
    DAYS = "days"  # a curve, and the days that stand out


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A section to be: metrics that the caller may see, one request."""

    title: str
    shape: Shape
    request: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    title: str
    shape: Shape
    metrics: tuple[str, ...]
    group_by: str | None = None


_WANTED = (
    _Wanted(
        title="Revenue and growth",
        shape=Shape.FIGURES,
        metrics=(
            "total_revenue",
            "net_revenue",
            "order_count",
            "average_order_value",
            "customer_count",
            "discount_rate",
        ),
    ),
    _Wanted(
        title="Spend and return",
        shape=Shape.FIGURES,
        metrics=(
            "marketing_spend",
            "online_spend",
            "offline_spend",
            "return_on_ad_spend",
            "new_customers",
            "customer_acquisition_cost",
        ),
    ),
    _Wanted(title="Unusual days", shape=Shape.DAYS, metrics=("total_revenue", "order_count"), group_by=_DAY),
    _Wanted(
        title="Segments",
        shape=Shape.GROUPS,
        metrics=("total_revenue", "customer_count", "average_order_value"),
        group_by="customer__segment_name",
    ),
    _Wanted(
        title="Categories with the highest revenue",
        shape=Shape.GROUPS,
        metrics=("total_revenue", "units_sold"),
        group_by="product__category",
    ),
    _Wanted(
        title="Locations with the highest revenue",
        shape=Shape.GROUPS,
        metrics=("total_revenue", "customer_count"),
        group_by="customer__location",
    ),
)


def questions_about(period: Period, metrics: Mapping[str, Metric]) -> tuple[tuple[Question, ...], tuple[str, ...]]:
    """The questions that these metrics answer, and the titles of sections for which there are none."""
    questions, missing = [], []
    for wanted in _WANTED:
        if known := _known(wanted, metrics):
            questions.append(Question(title=wanted.title, shape=wanted.shape, request=_request(wanted, known, period)))
        else:
            missing.append(wanted.title)
    return tuple(questions), tuple(missing)


def _known(wanted: _Wanted, metrics: Mapping[str, Metric]) -> list[str]:
    """Those of its metrics that there are, and that join to what it groups by."""
    dimension = wanted.group_by.removesuffix("__day") if wanted.group_by else None
    return [
        name
        for name in wanted.metrics
        if name in metrics and (dimension is None or dimension in metrics[name]["dimensions"])
    ]


def _request(wanted: _Wanted, metrics: Sequence[str], period: Period) -> Mapping[str, Any]:
    request: dict[str, Any] = {"metrics": list(metrics), "time_range": dict(period.time_range)}
    if wanted.group_by is not None:
        request["group_by"] = [wanted.group_by]
    match wanted.shape:
        case Shape.FIGURES:
            request["compare_to"] = "previous_period"
        case Shape.GROUPS:
            order = [{"field": metrics[0], "descending": True}]
            request |= {"compare_to": "previous_period", "order_by": order, "limit": _TOP}
        case Shape.DAYS:
            request["order_by"] = [{"field": _DAY, "descending": False}]
    return request
