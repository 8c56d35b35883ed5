"""What REST answers of customer segments, ready for the encoder, which knows decimals and days."""

from __future__ import annotations

from datetime import date
from typing import Any

from pydantic import Field

from api.rest.resources import ListMeta, Resource
from api.scored_rows import RowFault, ScoredRow
from api.segment_model import Segment, Standing
from api.segments import CustomerStanding, Member, Members, Scores, SegmentList, SegmentSummary


class SegmentResource(Resource):
    """A group of customers."""

    segment_id: int = Field(description="Stable: the same in each publication.")
    name: str
    description: str
    customer_count: int | None = Field(
        description="Its customers among those that count for the caller; null where they are too few for its role."
    )
    share: float | None = Field(description="Of the customers in segments, as a fraction.")
    total_revenue: float | None = Field(description="Of its customers, in USD; null where the role does not see it.")
    revenue_share: float | None = Field(description="Of the revenue of all segments, as a fraction.")
    centroid: dict[str, float] = Field(description="What its typical customer is like, feature by feature.")

    @classmethod
    def of(cls, summary: SegmentSummary) -> SegmentResource:
        """The segment as answered."""
        revenue: Any = summary.total_revenue  # for the encoder, which writes all digits of a decimal
        return cls.model_construct(
            segment_id=summary.segment.segment_id,
            name=summary.segment.name,
            description=summary.segment.description,
            customer_count=summary.customer_count,
            share=summary.share,
            total_revenue=revenue,
            revenue_share=summary.revenue_share,
            centroid=dict(summary.segment.centroid),
        )


class SegmentsMeta(ListMeta):
    """Of which publication they are, and which model made them."""

    publication: str
    as_of: date
    model: str = Field(description="The version of the model.")


class SegmentsResource(Resource):
    """All segments, by id."""

    data: list[SegmentResource]
    meta: SegmentsMeta

    @classmethod
    def of(cls, found: SegmentList) -> SegmentsResource:
        """The list as answered."""
        return cls.model_construct(
            data=[SegmentResource.of(summary) for summary in found.segments],
            meta=SegmentsMeta(
                total=len(found.segments),
                next_cursor=None,
                publication=found.publication,
                as_of=found.as_of,
                model=found.model,
            ),
        )


class MemberResource(Resource):
    """A customer of a segment."""

    customer_id: int | str = Field(description="A text that stands for it, where the role sees customers hashed.")
    transaction_count: int | None = Field(description="Null where the role does not see it.")
    total_revenue: float | None = Field(description="In USD; null where the role does not see it.")

    @classmethod
    def of(cls, member: Member) -> MemberResource:
        """The customer as answered."""
        revenue: Any = member.total_revenue  # likewise
        return cls.model_construct(
            customer_id=member.customer_id, transaction_count=member.transaction_count, total_revenue=revenue
        )


class MembersMeta(ListMeta):
    """Which segment, of which publication."""

    segment_id: int
    name: str
    publication: str


class MembersResource(Resource):
    """A page of a segment's customers."""

    data: list[MemberResource]
    meta: MembersMeta

    @classmethod
    def of(cls, members: Members) -> MembersResource:
        """The page as answered."""
        return cls.model_construct(
            data=[MemberResource.of(each) for each in members.members],
            meta=MembersMeta(
                total=members.total,
                next_cursor=members.next_cursor,
                segment_id=members.segment.segment_id,
                name=members.segment.name,
                publication=members.publication,
            ),
        )


class SegmentDistanceResource(Resource):
    """A segment, and how far its center is from the customer."""

    segment_id: int
    name: str
    distance: float = Field(description="In standard deviations of the features, as the model scales them.")

    @classmethod
    def of(cls, segment: Segment, distance: float) -> SegmentDistanceResource:
        """The segment and distance as answered."""
        return cls(segment_id=segment.segment_id, name=segment.name, distance=distance)


class StandingResource(Resource):
    """Where a customer stands."""

    segment: SegmentDistanceResource
    next_segment: SegmentDistanceResource = Field(description="The nearest of the others.")
    features: dict[str, float]


class ScoreMeta(Resource):
    """What the answer is made of."""

    publication: str
    as_of: date = Field(description="The day that recency counts to.")
    model: str


class CustomerSegmentResource(StandingResource):
    """A customer's segment."""

    customer_id: int
    meta: ScoreMeta

    @classmethod
    def of(cls, found: CustomerStanding) -> CustomerSegmentResource:
        """The customer's segment as answered."""
        return cls(
            customer_id=found.customer_id,
            **_standing(found.standing),
            features=dict(found.features),
            meta=ScoreMeta(publication=found.publication, as_of=found.as_of, model=found.model),
        )


class RowFaultResource(Resource):
    """What is wrong with a row."""

    field: str = Field(description="The place in the row; empty for the row as a whole.")
    message: str


class ScoreResource(Resource):
    """What became of one row: `result`, or `errors`."""

    row: int = Field(description="Its place among the rows, from 0.")
    id: int | str | None = Field(description="As the caller gave it.")
    result: StandingResource | None
    errors: list[RowFaultResource]

    @classmethod
    def of(cls, row: ScoredRow | RowFault) -> ScoreResource:
        """The row as answered."""
        match row:
            case ScoredRow():
                result = StandingResource(**_standing(row.standing), features=dict(row.features))
                return cls(row=row.row, id=row.label, result=result, errors=[])
            case RowFault():
                errors = [RowFaultResource(field=field, message=message) for field, message in row.faults]
                return cls(row=row.row, id=row.label, result=None, errors=errors)


class ScoresMeta(ScoreMeta):
    """How many rows were good."""

    scored: int
    refused: int


class ScoresResource(Resource):
    """What became of each row, in order."""

    data: list[ScoreResource]
    meta: ScoresMeta

    @classmethod
    def of(cls, scores: Scores) -> ScoresResource:
        """The scores as answered."""
        data = [ScoreResource.of(row) for row in scores.rows]
        refused = sum(each.result is None for each in data)
        meta = ScoresMeta(
            publication=scores.publication,
            as_of=scores.as_of,
            model=scores.model,
            scored=len(data) - refused,
            refused=refused,
        )
        return cls(data=data, meta=meta)


def _standing(standing: Standing) -> dict[str, SegmentDistanceResource]:
    return {
        "segment": SegmentDistanceResource.of(standing.segment, standing.distance),
        "next_segment": SegmentDistanceResource.of(standing.next_segment, standing.next_distance),
    }
