"""What REST answers of what is foreseen, ready for the encoder."""

from __future__ import annotations

from datetime import date
from typing import Self

from pydantic import Field

from api.outlook import Backtests, CustomerOutlook, ForecastOfMetric, JudgedSubject, OddDays
from api.outlook_model import Backtest, MetricAnomalies, MetricForecast, OddDay, Range
from api.rest.resources import ListMeta, Resource

_PROVEN = "Whether it did better than the naive baseline on held-out months."


class OutlookMeta(Resource):
    """Where it comes from."""

    publication: str
    as_of: date = Field(description="The last day that was learned from.")


class OutlookListMeta(ListMeta):
    """Where the list comes from."""

    publication: str
    as_of: date = Field(description="The last day that was learned from.")


class HeldOutResource(Resource):
    """Days that were held out, and the errors over them."""

    first: date
    last: date
    error: float
    baseline_error: float


class OtherMethodResource(Resource):
    """A method that was tried and did worse."""

    method: str
    error: float


class BacktestResource(Resource):
    """How a method did on held-out months beside a naive baseline."""

    measure: str = Field(description="What the errors are; less is better.")
    method: str
    error: float = Field(description="The mean over the windows.")
    baseline: str
    baseline_error: float
    others: list[OtherMethodResource]
    windows: list[HeldOutResource]

    @classmethod
    def of(cls, backtest: Backtest) -> Self:
        """The back-test as answered."""
        return cls.model_validate(backtest.model_dump())


class JudgedResource(Resource):
    """Something that is foreseen, and how well."""

    subject: str = Field(description="`churn`, `customer_value`, `forecast` or `anomalies`.")
    metric: str | None = Field(description="Of which metric, for the latter two.")
    is_proven: bool = Field(description=f"{_PROVEN} If not, it is shown with `unproven=true` alone.")
    backtest: BacktestResource

    @classmethod
    def of(cls, judged: JudgedSubject) -> Self:
        """The subject as answered."""
        return cls(
            subject=judged.subject,
            metric=judged.metric,
            is_proven=judged.is_proven,
            backtest=BacktestResource.of(judged.backtest),
        )


class BacktestsResource(Resource):
    """Every back-test."""

    data: list[JudgedResource]
    meta: OutlookListMeta

    @classmethod
    def of(cls, found: Backtests) -> Self:
        """The list as answered."""
        data = [JudgedResource.of(each) for each in found.subjects]
        meta = OutlookListMeta(total=len(data), next_cursor=None, publication=found.publication, as_of=found.as_of)
        return cls(data=data, meta=meta)


class RangeResource(Resource):
    """A number to expect, and the interval around it, in the metric's unit."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, found: Range) -> RangeResource:
        """The range as answered."""
        return RangeResource(value=found.value, low=found.low, high=found.high)


class ForecastDayResource(RangeResource):
    """A coming day."""

    date: date


class ForecastResource(Resource):
    """What to expect of a metric's coming days."""

    metric: str
    unit: str | None
    is_proven: bool = Field(description=_PROVEN)
    level: float = Field(description="The share of days that should lie within their intervals.")
    coverage: float = Field(description="The share that did, on held-out months.")
    days: list[ForecastDayResource]
    total: RangeResource = Field(description="The sum of the days, with an interval of its own.")
    backtest: BacktestResource
    meta: OutlookMeta

    @classmethod
    def of(cls, found: ForecastOfMetric) -> Self:
        """The forecast as answered."""
        forecast: MetricForecast = found.forecast
        return cls(
            metric=forecast.metric,
            unit=found.unit,
            is_proven=forecast.is_proven,
            level=forecast.level,
            coverage=forecast.coverage,
            days=[ForecastDayResource.model_validate(day.model_dump()) for day in forecast.days],
            total=RangeResource.of(forecast.total),
            backtest=BacktestResource.of(forecast.backtest),
            meta=OutlookMeta(publication=found.publication, as_of=found.as_of),
        )


class OddDayResource(Resource):
    """A day on which a metric was not as the weeks before it let expect."""

    metric: str
    date: date
    value: float
    expected: float
    low: float = Field(description="From here on a day is usual.")
    high: float = Field(description="Up to here.")
    score: float = Field(description="In robust standard deviations; above 0 for more than expected.")
    is_proven: bool = Field(description=_PROVEN)

    @classmethod
    def of(cls, watched: MetricAnomalies, day: OddDay) -> Self:
        """The day as answered."""
        return cls(metric=watched.metric, is_proven=watched.is_proven, **day.model_dump())


class OddDaysResource(Resource):
    """The odd days, metric by metric."""

    data: list[OddDayResource]
    meta: OutlookListMeta

    @classmethod
    def of(cls, found: OddDays) -> Self:
        """The list as answered."""
        data = [OddDayResource.of(watched, day) for watched in found.metrics for day in watched.days]
        meta = OutlookListMeta(total=len(data), next_cursor=None, publication=found.publication, as_of=found.as_of)
        return cls(data=data, meta=meta)


class ChurnResource(Resource):
    """Whether a customer will buy at all."""

    probability: float | None = Field(description="That it buys nothing within the horizon; null if not proven.")
    alive_probability: float | None = Field(description="That it has not left for good; null if not proven.")
    is_proven: bool = Field(description=_PROVEN)
    method: str


class ValueResource(Resource):
    """For how much a customer will buy."""

    net_revenue: float | None = Field(description="To expect within the horizon, in USD; null if not proven.")
    is_proven: bool = Field(description=_PROVEN)
    method: str


class CustomerOutlookResource(Resource):
    """What to expect of a customer in the days after `meta.as_of`."""

    customer_id: int
    horizon_days: int
    churn: ChurnResource
    value: ValueResource
    meta: OutlookMeta

    @classmethod
    def of(cls, found: CustomerOutlook) -> Self:
        """The outlook as answered."""
        return cls(
            customer_id=found.customer_id,
            horizon_days=found.horizon_days,
            churn=ChurnResource(
                probability=found.churn_probability,
                alive_probability=found.alive_probability,
                is_proven=found.churn.is_proven,
                method=found.churn.backtest.method,
            ),
            value=ValueResource(
                net_revenue=found.net_revenue, is_proven=found.value.is_proven, method=found.value.backtest.method
            ),
            meta=OutlookMeta(publication=found.publication, as_of=found.as_of),
        )
