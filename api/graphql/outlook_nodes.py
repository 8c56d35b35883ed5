"""What is foreseen, over GraphQL; not in dbt's schema."""

from __future__ import annotations

from datetime import date

import strawberry

from api.graphql.asking import Info
from api.graphql.vocabulary import BigInteger
from api.outlook import CustomerOutlook, ForecastOfMetric, JudgedSubject, Outlooks
from api.outlook_model import Backtest, ForecastDay, MetricAnomalies, OddDay, Range


@strawberry.type(name="HeldOutWindow")
class HeldOutNode:
    """Days that were held out, and the errors over them."""

    first: date
    last: date
    error: float
    baseline_error: float


@strawberry.type(name="Backtest")
class BacktestNode:
    """How a method did on held-out months beside a naive baseline; less error is better."""

    measure: str
    method: str
    error: float
    baseline: str
    baseline_error: float
    windows: list[HeldOutNode]

    @classmethod
    def of(cls, backtest: Backtest) -> BacktestNode:
        """The back-test as answered."""
        return cls(
            measure=backtest.measure,
            method=backtest.method,
            error=backtest.error,
            baseline=backtest.baseline,
            baseline_error=backtest.baseline_error,
            windows=[
                HeldOutNode(first=each.first, last=each.last, error=each.error, baseline_error=each.baseline_error)
                for each in backtest.windows
            ],
        )


@strawberry.type(name="ForeseenSubject")
class SubjectNode:
    """Something that is foreseen (churn, customer_value, forecast or anomalies of a metric), and how well."""

    subject: str
    metric: str | None
    is_proven: bool
    backtest: BacktestNode

    @classmethod
    def of(cls, judged: JudgedSubject) -> SubjectNode:
        """The subject as answered."""
        return cls(
            subject=judged.subject,
            metric=judged.metric,
            is_proven=judged.is_proven,
            backtest=BacktestNode.of(judged.backtest),
        )


@strawberry.type(name="ForecastRange")
class RangeNode:
    """A number to expect and the interval around it; `date` is null for the sum of the days."""

    date: date | None
    value: float
    low: float
    high: float

    @classmethod
    def of(cls, found: Range) -> RangeNode:
        """The range as answered."""
        day = found.date if isinstance(found, ForecastDay) else None
        return cls(date=day, value=found.value, low=found.low, high=found.high)


@strawberry.type(name="Forecast")
class ForecastNode:
    """What to expect of a metric's coming days, with intervals of `level`."""

    metric: str
    unit: str | None
    is_proven: bool
    level: float
    coverage: float
    days: list[RangeNode]
    total: RangeNode
    backtest: BacktestNode
    publication: str
    as_of: date

    @classmethod
    def of(cls, found: ForecastOfMetric) -> ForecastNode:
        """The forecast as answered."""
        forecast = found.forecast
        return cls(
            metric=forecast.metric,
            unit=found.unit,
            is_proven=forecast.is_proven,
            level=forecast.level,
            coverage=forecast.coverage,
            days=[RangeNode.of(day) for day in forecast.days],
            total=RangeNode.of(forecast.total),
            backtest=BacktestNode.of(forecast.backtest),
            publication=found.publication,
            as_of=found.as_of,
        )


@strawberry.type(name="Anomaly")
class OddDayNode:
    """A day on which a metric was not as the weeks before it let expect; `score` in robust standard deviations."""

    metric: str
    date: date
    value: float
    expected: float
    low: float
    high: float
    score: float
    is_proven: bool

    @classmethod
    def of(cls, watched: MetricAnomalies, day: OddDay) -> OddDayNode:
        """The day as answered."""
        return cls(metric=watched.metric, is_proven=watched.is_proven, **day.model_dump())


@strawberry.type(name="CustomerOutlook")
class CustomerOutlookNode:
    """What to expect of a customer within the horizon; null for what did no better than its baseline."""

    customer_id: str
    horizon_days: int
    churn_probability: float | None
    alive_probability: float | None
    is_churn_proven: bool
    net_revenue: float | None
    is_value_proven: bool
    publication: str
    as_of: date

    @classmethod
    def of(cls, found: CustomerOutlook) -> CustomerOutlookNode:
        """The outlook as answered."""
        return cls(
            customer_id=str(found.customer_id),
            horizon_days=found.horizon_days,
            churn_probability=found.churn_probability,
            alive_probability=found.alive_probability,
            is_churn_proven=found.churn.is_proven,
            net_revenue=found.net_revenue,
            is_value_proven=found.value.is_proven,
            publication=found.publication,
            as_of=found.as_of,
        )


@strawberry.type
class OutlookQueries:
    """What can be read of what is foreseen."""

    @strawberry.field
    def backtests(self, info: Info) -> list[SubjectNode]:
        """How well customers and metrics are foreseen, by held-out months. Not in dbt's schema."""
        asking = info.context
        return [SubjectNode.of(each) for each in Outlooks(asking.layer).backtests(asking.principal).subjects]

    @strawberry.field
    def forecast(self, info: Info, metric: str, unproven: bool = False) -> ForecastNode | None:  # noqa: FBT001, FBT002 - an argument of the schema
        """What to expect of a metric's next 30 days; unproven ones, too, if asked for. Not in dbt's schema."""
        asking = info.context
        return ForecastNode.of(Outlooks(asking.layer).forecast(asking.principal, metric, unproven=unproven))

    @strawberry.field
    def anomalies(
        self,
        info: Info,
        metrics: list[str] | None = None,
        unproven: bool = False,  # noqa: FBT001, FBT002 - likewise
    ) -> list[OddDayNode]:
        """The odd days of the metrics, or of all that are watched. Not in dbt's schema."""
        asking = info.context
        found = Outlooks(asking.layer).anomalies(asking.principal, metrics or (), unproven=unproven)
        return [OddDayNode.of(watched, day) for watched in found.metrics for day in watched.days]

    @strawberry.field
    async def customer_outlook(
        self,
        info: Info,
        customer_id: BigInteger,
        unproven: bool = False,  # noqa: FBT001, FBT002 - likewise
    ) -> CustomerOutlookNode | None:
        """Whether a customer will buy in the next 90 days, and for how much. Not in dbt's schema."""
        asking = info.context
        found = await Outlooks(asking.layer).of_customer(asking.principal, customer_id, unproven=unproven)
        return CustomerOutlookNode.of(found)
