"""What to expect: of a customer, of a metric's coming days, and which days were odd; with the back-tests.

Forecasts and odd days are of all the data: a role that sees a part of it is refused, as what is said of the whole
would be wrong for the part, and tell of the rest. A customer is asked for as a question of the caller's, so that row
filters, masks, floors, quotas and the audit hold. What did not beat its baseline on held-out months is not shown,
unless it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from api.errors import Forbidden, Unavailable, UnknownName
from api.filters import Comparison, Operator
from api.outlook_model import (
    Backtest,
    Expected,
    Judged,
    MetricAnomalies,
    MetricForecast,
    OutlookModel,
    PublishedOutlook,
)
from api.policy import Principal
from api.query import MetricQuery
from api.segments import CUSTOMER, require_whole_customers
from api.service import PublishedModels, SemanticLayer

CHURN, VALUE, FORECAST, ANOMALIES = "churn", "customer_value", "forecast", "anomalies"

_COUNT = "customer_count"
_NEEDED = (CUSTOMER, _COUNT, "churn_rate", "net_revenue")  # by whoever is told how these will be
_RETRY = timedelta(seconds=1)
_ATTEMPTS = 3  # at an answer and an outlook of one publication, while others come


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerOutlook:
    """What is expected of a customer in the days after `as_of`; None for what did not beat its baseline.

    `churn_probability` : of no purchase at all; `net_revenue` : USD; `alive_probability` : of not having left for good.
    """

    customer_id: int
    horizon_days: int
    churn: Judged
    churn_probability: float | None
    alive_probability: float | None
    value: Judged
    net_revenue: float | None
    publication: str
    as_of: date


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedSubject:
    """Something that is foreseen, and how well: `subject` is one of the four, `metric` which one it is of."""

    subject: str
    metric: str | None
    is_proven: bool
    backtest: Backtest


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreseen:
    """Where what was found comes from."""

    publication: str
    as_of: date


@dataclass(frozen=True, slots=True, kw_only=True)
class Backtests(Foreseen):
    """Every back-test that concerns what the caller sees."""

    subjects: tuple[JudgedSubject, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastOfMetric(Foreseen):
    """The forecast of one metric, in its unit."""

    unit: str | None
    forecast: MetricForecast


@dataclass(frozen=True, slots=True, kw_only=True)
class OddDays(Foreseen):
    """The odd days of some metrics, metric by metric."""

    metrics: tuple[MetricAnomalies, ...]


class Outlooks:
    """The outlook of the current publication, for callers of the semantic layer.

    Where it has none, each method but `backtests` raises `UnknownName` with the code `no_outlook`.
    """

    def __init__(self, layer: SemanticLayer) -> None:
        self._layer = layer

    def backtests(self, principal: Principal) -> Backtests:
        """How well customers and metrics are foreseen, whether that is shown or not; none without an outlook.

        Raises
        ------
        Forbidden
            As `forecast`.
        """
        published = self._layer.models()
        if published.outlook is None:
            return Backtests(publication=published.publication, as_of=published.as_of, subjects=())
        found, metrics = self._whole(principal), self._layer.catalog(principal).metrics
        judged: list[tuple[str, str | None, Judged]] = [
            (FORECAST, each.metric, each) for each in found.model.forecasts if each.metric in metrics
        ]
        judged += [(ANOMALIES, each.metric, each) for each in found.model.anomalies if each.metric in metrics]
        if (customers := found.model.customers) is not None and all(self._sees(principal, name) for name in _NEEDED):
            judged += [(CHURN, None, customers.churn), (VALUE, None, customers.value)]
        return Backtests(
            publication=found.publication,
            as_of=found.model.as_of,
            subjects=tuple(
                JudgedSubject(subject=subject, metric=metric, is_proven=each.is_proven, backtest=each.backtest)
                for subject, metric, each in judged
            ),
        )

    def forecast(self, principal: Principal, metric: str, *, unproven: bool) -> ForecastOfMetric:
        """The coming days of the metric.

        Raises
        ------
        UnknownName
            There is no such metric, no forecast of it, or none that is proven and `unproven` is false.
        Forbidden
            The role sees a part of the data, or has a floor.
        """
        described = self._layer.catalog(principal).metric(metric)
        found = self._whole(principal)
        forecast = found.model.forecast(metric)
        if forecast is None:
            raise UnknownName(
                f"There is no forecast of {metric}",
                hint="List what is foreseen with GET /v1/backtests.",
                code="no_forecast",
            )
        if not (forecast.is_proven or unproven):
            raise UnknownName(
                f"The forecast of {metric} is no better than its naive baseline was on held-out months",
                hint="See GET /v1/backtests; to have it nonetheless, ask with unproven=true.",
                code="unproven",
            )
        return ForecastOfMetric(
            publication=found.publication, as_of=found.model.as_of, unit=described.unit, forecast=forecast
        )

    def anomalies(self, principal: Principal, metrics: Sequence[str], *, unproven: bool) -> OddDays:
        """The odd days of the metrics, or of all that are watched and that the caller sees.

        Raises
        ------
        UnknownName
            There is no such metric.
        Forbidden
            As `forecast`.
        """
        known = self._layer.catalog(principal)
        asked = {known.metric(name).name for name in metrics}
        found = self._whole(principal)
        watched = [each for each in found.model.anomalies if each.metric in (asked or known.metrics.keys())]
        return OddDays(
            publication=found.publication,
            as_of=found.model.as_of,
            metrics=tuple(each for each in watched if each.is_proven or unproven),
        )

    async def of_customer(self, principal: Principal, customer_id: int, *, unproven: bool) -> CustomerOutlook:
        """What to expect of the customer.

        Raises
        ------
        UnknownName
            There is no such customer among those that count for the caller, or it had not bought yet.
        Forbidden
            The role sees customers hashed, has a floor, or sees some of a customer's sales only.
        """
        require_whole_customers(self._layer, principal, hint="Ask for metrics by customer: POST /v1/query.")
        where = Comparison(field=CUSTOMER, operator=Operator.EQ, values=(customer_id,))
        for _ in range(_ATTEMPTS):
            found = self._published(principal, *_NEEDED)
            answer = await self._layer.query(principal, MetricQuery(metrics=(_COUNT,), where=where))
            if answer.publication == found.publication:
                is_known = bool(answer.table.column(0)[0].as_py()) if answer.table.num_rows else False
                return _of_customer(found, customer_id, is_known=is_known, unproven=unproven)
        raise Unavailable("The data are published anew all the while", hint="Ask again.", retry_after=_RETRY)

    def _whole(self, principal: Principal) -> _Found:
        """The outlook, for a role that sees all of the data."""
        found, role = self._published(principal), self._layer.role(principal)
        if role.rows:
            raise Forbidden(
                "Your role sees a part of the data, and what is foreseen is of all of it",
                hint="Ask for the metric itself, by day: POST /v1/query.",
                code="partial_data",
            )
        if role.min_customers is not None:
            raise Forbidden(
                "Forecasts and odd days are not for a role that may not see small groups of customers",
                hint="Ask for the metric itself, by month: POST /v1/query.",
                code="anonymity_floor",
            )
        return found

    def _published(self, principal: Principal, *needed: str) -> _Found:
        published = self._layer.models()
        if published.outlook is None or not all(self._sees(principal, name) for name in needed):
            raise UnknownName(
                "There is no outlook here",
                hint="Whoever publishes finds the reason in the pipeline's output, or in your role's policy.",
                code="no_outlook",
            )
        return _Found(published, published.outlook)

    def _sees(self, principal: Principal, name: str) -> bool:
        known = self._layer.catalog(principal)
        return name in known.metrics or name in known.dimensions


class _Found:
    """The outlook that there is, and of which publication."""

    def __init__(self, published: PublishedModels, outlook: PublishedOutlook) -> None:
        self.publication = published.publication
        self.model: OutlookModel = outlook.model
        self._customers = outlook.customers

    def expected(self, customer_id: int) -> Expected | None:
        return self._customers.find(customer_id) if self._customers else None


def _of_customer(found: _Found, customer_id: int, *, is_known: bool, unproven: bool) -> CustomerOutlook:
    judged = found.model.customers
    # Whoever is elsewhere, or has only just bought, is as unknown as who does not exist.
    expected = found.expected(customer_id) if is_known else None
    if judged is None or expected is None:
        raise UnknownName(
            f"There is no outlook of a customer {customer_id}",
            hint="List the customers of a segment with GET /v1/segments/{segment_id}/customers.",
            code="unknown_customer",
        )
    shows_churn, shows_value = judged.churn.is_proven or unproven, judged.value.is_proven or unproven
    return CustomerOutlook(
        customer_id=customer_id,
        horizon_days=judged.horizon_days,
        churn=judged.churn,
        churn_probability=expected.churn_probability if shows_churn else None,
        alive_probability=expected.alive_probability if shows_churn else None,
        value=judged.value,
        net_revenue=expected.net_revenue if shows_value else None,
        publication=found.publication,
        as_of=found.model.as_of,
    )
