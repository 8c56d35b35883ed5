"""What to expect: of a customer, of a metric, which days were odd, and how well such expectations did."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response

from api.outlook import Outlooks
from api.rest import formats, problems
from api.rest.access import Caller, Layer
from api.rest.catalog import MetricName, Metrics, names
from api.rest.contract import leads_to, links
from api.rest.outlook_resources import BacktestsResource, CustomerOutlookResource, ForecastResource, OddDaysResource
from api.rest.segments import CustomerId, number_of

router = APIRouter(prefix="/v1", tags=["outlook"])

Unproven = Annotated[
    bool,
    Query(description="Show what did no better than its naive baseline on held-out months, too.", examples=[True]),
]


@router.get(
    "/backtests",
    response_model=BacktestsResource,
    responses=links(leads_to("get_forecast", "The first forecast", metric="$response.body#/data/0/metric")),
)
async def list_backtests(layer: Layer, caller: Caller) -> Response:
    """How well customers and metrics are foreseen, by held-out months, beside naive baselines."""
    return _sent(BacktestsResource.of(Outlooks(layer).backtests(caller)))


@router.get("/forecasts/{metric}", response_model=ForecastResource, responses=problems.describe(404))
async def get_forecast(layer: Layer, caller: Caller, metric: MetricName, unproven: Unproven = False) -> Response:  # noqa: FBT002 - of the URL
    """What to expect of a metric's next 30 days, with intervals; for roles that see all of the data."""
    return _sent(ForecastResource.of(Outlooks(layer).forecast(caller, metric, unproven=unproven)))


@router.get("/anomalies", response_model=OddDaysResource, responses=problems.describe(404))
async def list_anomalies(
    layer: Layer,
    caller: Caller,
    metrics: Metrics = None,
    unproven: Unproven = False,  # noqa: FBT002 - likewise
) -> Response:
    """The days on which a metric was not as the weeks before let expect; for roles that see all of the data."""
    return _sent(OddDaysResource.of(Outlooks(layer).anomalies(caller, names(metrics), unproven=unproven)))


@router.get(
    "/customers/{customer_id}/outlook", response_model=CustomerOutlookResource, responses=problems.describe(404, 504)
)
async def get_customer_outlook(
    layer: Layer,
    caller: Caller,
    customer_id: CustomerId,
    unproven: Unproven = False,  # noqa: FBT002 - likewise
) -> Response:
    """Whether a customer will buy in the next 90 days, and for how much."""
    found = await Outlooks(layer).of_customer(caller, number_of(customer_id), unproven=unproven)
    return _sent(CustomerOutlookResource.of(found))


def _sent(resource: Any) -> Response:  # noqa: ANN401 - any of the resources
    return Response(formats.encode(resource), media_type=formats.JSON)
