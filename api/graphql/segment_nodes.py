"""Customer segments over GraphQL; not in dbt's schema."""

from __future__ import annotations

from datetime import date
from typing import cast

import strawberry

from api.errors import InvalidQuery
from api.graphql.asking import Info
from api.graphql.vocabulary import BigInteger, JsonValue
from api.scored_rows import MAX_ROWS, RowFault, ScoredRow
from api.segment_model import Segment, Standing
from api.segments import CustomerStanding, Member, Segments, SegmentSummary

_MAX_MEMBERS = 500


@strawberry.type(name="FeatureValue")
class FeatureValueNode:
    """A number of a customer, by the name of its feature."""

    name: str
    value: float


@strawberry.type(name="SegmentCustomer")
class MemberNode:
    """A customer of a segment; a text stands for it where the role sees customers hashed."""

    customer_id: str
    transaction_count: int | None
    total_revenue: float | None

    @classmethod
    def of(cls, member: Member) -> MemberNode:
        """The customer as answered."""
        revenue = member.total_revenue
        return cls(
            customer_id=str(member.customer_id),
            transaction_count=member.transaction_count,
            total_revenue=None if revenue is None else float(revenue),
        )


@strawberry.type(name="SegmentCustomerPage")
class MembersNode:
    """A page of a segment's customers, by id."""

    items: list[MemberNode]
    total_items: int
    next_cursor: str | None


@strawberry.type(name="Segment")
class SegmentNode:
    """A group of customers."""

    segment_id: int
    name: str
    description: str
    customer_count: int | None
    share: float | None
    total_revenue: float | None
    revenue_share: float | None
    centroid: list[FeatureValueNode]

    @strawberry.field
    async def customers(self, info: Info, limit: int = 100, cursor: str | None = None) -> MembersNode:
        """The customers of the segment who count for the caller, 500 on a page at most."""
        if not 1 <= limit <= _MAX_MEMBERS:
            raise InvalidQuery(f"A page has 1 to {_MAX_MEMBERS} customers", hint="Correct limit.", code="invalid_limit")
        asking = info.context
        found = await Segments(asking.layer).members(asking.principal, self.segment_id, limit=limit, cursor=cursor)
        return MembersNode(
            items=[MemberNode.of(each) for each in found.members],
            total_items=found.total,
            next_cursor=found.next_cursor,
        )

    @classmethod
    def of(cls, summary: SegmentSummary) -> SegmentNode:
        """The segment as answered."""
        revenue = summary.total_revenue
        return cls(
            segment_id=summary.segment.segment_id,
            name=summary.segment.name,
            description=summary.segment.description,
            customer_count=summary.customer_count,
            share=summary.share,
            total_revenue=None if revenue is None else float(revenue),
            revenue_share=summary.revenue_share,
            centroid=[FeatureValueNode(name=name, value=value) for name, value in summary.segment.centroid.items()],
        )


@strawberry.type(name="SegmentDistance")
class SegmentDistanceNode:
    """A segment, and how far its center is from the customer, in standard deviations of the features."""

    segment_id: int
    name: str
    distance: float

    @classmethod
    def of(cls, segment: Segment, distance: float) -> SegmentDistanceNode:
        """The segment and distance as answered."""
        return cls(segment_id=segment.segment_id, name=segment.name, distance=distance)


@strawberry.type(name="CustomerSegment")
class CustomerSegmentNode:
    """A customer's segment, the features that put it there, and the nearest of the other segments."""

    customer_id: str
    segment: SegmentDistanceNode
    next_segment: SegmentDistanceNode
    features: list[FeatureValueNode]
    publication: str
    as_of: date
    model: str

    @classmethod
    def of(cls, found: CustomerStanding) -> CustomerSegmentNode:
        """The customer's segment as answered."""
        segment, next_segment = _distances(found.standing)
        return cls(
            customer_id=str(found.customer_id),
            segment=segment,
            next_segment=next_segment,
            features=[FeatureValueNode(name=name, value=value) for name, value in found.features.items()],
            publication=found.publication,
            as_of=found.as_of,
            model=found.model,
        )


@strawberry.type(name="SegmentRowFault")
class RowFaultNode:
    """What is wrong with a row, and where in it."""

    field: str
    message: str


@strawberry.type(name="SegmentScore")
class ScoreNode:
    """What became of one row: a segment, or errors."""

    row: int
    segment: SegmentDistanceNode | None
    next_segment: SegmentDistanceNode | None
    errors: list[RowFaultNode]

    @classmethod
    def of(cls, row: ScoredRow | RowFault) -> ScoreNode:
        """The row as answered."""
        match row:
            case ScoredRow():
                segment, next_segment = _distances(row.standing)
                return cls(row=row.row, segment=segment, next_segment=next_segment, errors=[])
            case RowFault():
                errors = [RowFaultNode(field=field, message=message) for field, message in row.faults]
                return cls(row=row.row, segment=None, next_segment=None, errors=errors)


@strawberry.type
class SegmentQueries:
    """What can be read of segments."""

    @strawberry.field
    async def segments(self, info: Info) -> list[SegmentNode]:
        """The customer segments, by id. Not in dbt's schema."""
        found = await Segments(info.context.layer).list(info.context.principal)
        return [SegmentNode.of(summary) for summary in found.segments]

    @strawberry.field
    async def segment(self, info: Info, segment_id: int) -> SegmentNode | None:
        """The segment of that id. Not in dbt's schema."""
        return SegmentNode.of(await Segments(info.context.layer).one(info.context.principal, segment_id))

    @strawberry.field
    async def customer_segment(self, info: Info, customer_id: BigInteger) -> CustomerSegmentNode | None:
        """A customer's segment. Not in dbt's schema."""
        found = await Segments(info.context.layer).of_customer(info.context.principal, customer_id)
        return CustomerSegmentNode.of(found)

    @strawberry.field
    def segment_scores(self, info: Info, rows: list[JsonValue]) -> list[ScoreNode]:
        """The segments that customers would be in: rows as POST /v1/segments/score takes them, 1,000 at most."""
        if not 1 <= len(rows) <= MAX_ROWS or not all(isinstance(row, dict) for row in rows):
            raise InvalidQuery(f"Give 1 to {MAX_ROWS:,} objects", hint="Correct rows.", code="invalid_value")
        given = cast("list[dict[str, object]]", rows)
        return [ScoreNode.of(row) for row in Segments(info.context.layer).score(info.context.principal, given).rows]


def _distances(standing: Standing) -> tuple[SegmentDistanceNode, SegmentDistanceNode]:
    return (
        SegmentDistanceNode.of(standing.segment, standing.distance),
        SegmentDistanceNode.of(standing.next_segment, standing.next_distance),
    )
