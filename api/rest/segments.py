"""Customer segments: list, one, its customers, a customer's, and scoring."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response
from pydantic import ConfigDict, Field, WithJsonSchema
from starlette.convertors import Convertor, register_url_convertor

from api.errors import UnknownName
from api.policy import HASH_CHARACTERS
from api.rest import formats, problems
from api.rest.access import Caller, Layer
from api.rest.contract import leads_to, links
from api.rest.paging import MAX_PAGE, Cursor
from api.rest.requests import Body, Items
from api.rest.segment_resources import (
    CustomerSegmentResource,
    MembersResource,
    ScoresResource,
    SegmentResource,
    SegmentsResource,
)
from api.scored_rows import MAX_ROWS
from api.segments import Segments


class _SegmentNumber(Convertor[int]):
    """A few digits in a path, so that `/v1/segments/score` is not taken for a segment; spelt in one way alone."""

    regex = "0|[1-9][0-9]{0,8}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("segment_number", _SegmentNumber())

router = APIRouter(prefix="/v1", tags=["segments"])

SegmentId = Annotated[
    int, Path(ge=0, le=999_999_999, description="Stable: the same in each publication.", examples=[0])
]
_Hash = Annotated[str, Field(pattern=f"^[0-9a-f]{{{HASH_CHARACTERS}}}$")]
# A hash, too: whoever sees customers hashed has no other, and is told that it leads nowhere, not that it is malformed.
CustomerId = Annotated[
    Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | _Hash,
    Field(union_mode="left_to_right"),
    Path(description="As the dimension `customer` has it."),
]


def number_of(customer_id: int | str) -> int:
    """The customer's own number.

    Raises
    ------
    UnknownName
        It is a text that stands for one, from which nobody gets back.
    """
    if isinstance(customer_id, str):
        raise UnknownName(
            "What stands for a hashed customer is not the customer's id",
            hint="Ask for metrics by customer: POST /v1/query.",
            code="unknown_customer",
        )
    return customer_id


_ROWS: tuple[dict[str, Any], ...] = (
    {"id": "a", "features": {"recency_days": 12, "frequency": 30, "monetary": 5400.5}},
    {"id": "b", "transactions": [{"transaction_id": "T1", "date": "2019-11-30", "net_revenue": 120.0}]},
)
_ROW = {
    "type": "object",
    "title": "ScoreRow",
    "description": (
        "A customer: `features` (a number for each feature of `centroid`, as segments have it) or `transactions` "
        "(a list of `transaction_id`, `date` as `2019-01-31`, and `net_revenue` in USD), and an `id` of the caller's "
        "own, if it wants one back. What is wrong with a row is said in its place; the others are scored."
    ),
}


class ScoreBody(Body):
    """The customers to score."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"rows": [*_ROWS, {"features": {"frequency": 3}}]}]})

    rows: Items[Annotated[dict[str, Any], WithJsonSchema(_ROW)]] = Field(min_length=1, max_length=MAX_ROWS)


@router.get(
    "/segments",
    response_model=SegmentsResource,
    responses=links(
        leads_to("get_segment", "The first one", segment_id="$response.body#/data/0/segment_id"),
        leads_to("list_segment_customers", "Its customers", segment_id="$response.body#/data/0/segment_id"),
    )
    | problems.describe(404, 504),
)
async def list_segments(layer: Layer, caller: Caller) -> Response:
    """The customer segments, by id."""
    return _sent(SegmentsResource.of(await Segments(layer).list(caller)))


@router.get(
    "/segments/{segment_id:segment_number}", response_model=SegmentResource, responses=problems.describe(404, 504)
)
async def get_segment(layer: Layer, caller: Caller, segment_id: SegmentId) -> Response:
    """A segment: how many customers it has, what they are worth, and what its typical customer is like."""
    return _sent(SegmentResource.of(await Segments(layer).one(caller, segment_id)))


@router.get(
    "/segments/{segment_id:segment_number}/customers",
    response_model=MembersResource,
    responses=problems.describe(404, 504)
    | links(
        leads_to(
            "get_customer_segment", "Where the first one stands", customer_id="$response.body#/data/0/customer_id"
        ),
        leads_to(
            "get_customer_outlook", "What to expect of the first one", customer_id="$response.body#/data/0/customer_id"
        ),
        leads_to(
            "list_segment_customers",
            "The next page",
            segment_id="$request.path.segment_id",
            cursor="$response.body#/meta/next_cursor",
        ),
    ),
)
async def list_segment_customers(
    layer: Layer,
    caller: Caller,
    segment_id: SegmentId,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="Customers on this page.", examples=[2])] = 100,
    cursor: Cursor = None,
) -> Response:
    """The customers of a segment who count for the caller, by id."""
    return _sent(MembersResource.of(await Segments(layer).members(caller, segment_id, limit=limit, cursor=cursor)))


@router.get(
    "/customers/{customer_id}/segment", response_model=CustomerSegmentResource, responses=problems.describe(404, 504)
)
async def get_customer_segment(layer: Layer, caller: Caller, customer_id: CustomerId) -> Response:
    """A customer's segment, the features that put it there, and how far the next segment is."""
    return _sent(CustomerSegmentResource.of(await Segments(layer).of_customer(caller, number_of(customer_id))))


@router.post("/segments/score", response_model=ScoresResource, responses=problems.describe(404))
async def score_customers(layer: Layer, caller: Caller, body: ScoreBody) -> Response:
    """The segments that customers would be in, of whom features or transactions are given; nothing is kept."""
    return _sent(ScoresResource.of(Segments(layer).score(caller, body.rows)))


def _sent(resource: Any) -> Response:  # noqa: ANN401 - any of the resources
    return Response(formats.encode(resource), media_type=formats.JSON)
