"""Customer segments: who is in which, how near to the next, and where somebody else would be.

Who is in a segment is asked of the semantic layer, as a question of the caller's: so policy, row filters, masks,
floors, quotas and the audit are those of every other answer. Scoring is arithmetic on the published model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import numpy as np

from api.answer import Answer
from api.errors import Forbidden, Unavailable, UnknownName
from api.filters import Comparison, Operator
from api.policy import Principal
from api.query import MetricQuery
from api.scored_rows import RowFault, ScoredRow, parse_row
from api.segment_model import Segment, SegmentModel, Standing
from api.service import SemanticLayer

SEGMENT = "customer__segment_name"
CUSTOMER = "customer"

_COUNT, _REVENUE, _TRANSACTIONS = "customer_count", "total_revenue", "transaction_count"
_RETRY = timedelta(seconds=1)
_ATTEMPTS = 3  # at an answer and a model of one publication, while others come


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentSummary:
    """A segment, its customers among those that the caller may count, and their revenue in USD if it may see that.

    The numbers are None where the caller's role has a floor and too few customers are concerned.
    """

    segment: Segment
    customer_count: int | None
    share: float | None
    total_revenue: Decimal | None
    revenue_share: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentList:
    """All segments, by id, of one publication."""

    segments: tuple[SegmentSummary, ...]
    publication: str
    as_of: date
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A customer of a segment; its id as a hash where the caller sees it so."""

    customer_id: int | str
    transaction_count: int | None
    total_revenue: Decimal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """A page of a segment's customers, by id, and how many there are in all."""

    segment: Segment
    members: tuple[Member, ...]
    total: int
    next_cursor: str | None
    publication: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerStanding:
    """A customer's segment, the features that put it there, and how far the next segment is."""

    customer_id: int
    standing: Standing
    features: Mapping[str, float]
    publication: str
    as_of: date
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What became of each row, in order: a segment, or what is wrong with it."""

    rows: tuple[ScoredRow | RowFault, ...]
    publication: str
    as_of: date
    model: str


class Segments:
    """The segments of the current publication, for callers of the semantic layer.

    Where its customers are in none, and for a role that does not see what an answer is made of, each method raises
    `UnknownName` with the code `no_segments`: nothing tells the two apart. `SemanticLayer.query` has the other errors.
    """

    def __init__(self, layer: SemanticLayer) -> None:
        self._layer = layer

    async def list(self, principal: Principal) -> SegmentList:
        """Every segment with its size; those without customers that count for the caller, too."""
        shown = (_COUNT, *self._visible(principal, _REVENUE))
        published, answer = await self._asked(principal, MetricQuery(metrics=shown, group_by=(SEGMENT,)))
        return SegmentList(
            segments=_summaries(published.model.segments, answer, has_revenue=_REVENUE in shown),
            publication=published.publication,
            as_of=published.as_of,
            model=published.model.model,
        )

    async def one(self, principal: Principal, segment_id: int) -> SegmentSummary:
        """The segment of that id; `UnknownName` if there is none."""
        for summary in (await self.list(principal)).segments:
            if summary.segment.segment_id == segment_id:
                return summary
        raise _unknown_segment(segment_id)

    async def members(self, principal: Principal, segment_id: int, *, limit: int, cursor: str | None) -> Members:
        """A page of the segment's customers.

        Raises
        ------
        UnknownName
            There is no such segment.
        Forbidden
            The role has a floor, so that it sees no single customers.
        InvalidQuery, UnreadableRequest
            The cursor is of another publication, or none of ours.
        """
        segment = self._published(principal, _COUNT, CUSTOMER).model.segment(segment_id)
        if segment is None:
            raise _unknown_segment(segment_id)
        where = Comparison(field=SEGMENT, operator=Operator.EQ, values=(segment.name,))
        shown = (_COUNT, *self._visible(principal, _TRANSACTIONS, _REVENUE))
        question = MetricQuery(metrics=shown, group_by=(CUSTOMER,), where=where, limit=limit, cursor=cursor)
        answer = await self._layer.query(principal, question)
        whole = await self._layer.query(principal, MetricQuery(metrics=(_COUNT,), where=where))
        return Members(
            segment=segment,
            members=tuple(
                Member(
                    customer_id=row[CUSTOMER],
                    transaction_count=row.get(_TRANSACTIONS),
                    total_revenue=row.get(_REVENUE),
                )
                for row in answer.table.to_pylist()
            ),
            total=int(whole.table.column(0)[0].as_py() or 0),
            next_cursor=answer.next_cursor,
            publication=answer.publication,
        )

    async def of_customer(self, principal: Principal, customer_id: int) -> CustomerStanding:
        """The customer's segment.

        Raises
        ------
        UnknownName
            There is no such customer among those that count for the caller, or it is in no segment.
        Forbidden
            The role sees customers hashed, has a floor, or sees some of a customer's sales only.
        """
        require_whole_customers(self._layer, principal, hint="Ask for the sizes of segments: GET /v1/segments.")
        columns = [feature.column for feature in self._published(principal).model.features]
        question = MetricQuery(
            metrics=tuple(column for column in columns if not _is_dimension(column)) or (_COUNT,),
            group_by=(SEGMENT, *filter(_is_dimension, columns)),
            where=Comparison(field=CUSTOMER, operator=Operator.EQ, values=(customer_id,)),
        )
        published, answer = await self._asked(principal, question, CUSTOMER)
        model, rows = published.model, answer.table.to_pylist()
        segment = model.named(rows[0][SEGMENT]) if rows else None
        if segment is None:
            raise UnknownName(
                f"There is no customer {customer_id} in a segment",
                hint="List the customers of a segment with GET /v1/segments/{segment_id}/customers.",
                code="unknown_customer",
            )
        features = {each.name: _number(rows[0][each.column], published.as_of) for each in model.features}
        (standing,) = model.standings(np.array([list(features.values())]), known=segment)
        return CustomerStanding(
            customer_id=customer_id,
            standing=standing,
            features=features,
            publication=published.publication,
            as_of=published.as_of,
            model=model.model,
        )

    def score(self, principal: Principal, rows: Sequence[Mapping[str, Any]]) -> Scores:
        """The segment that each row would be in: a row has the features themselves, or transactions."""
        published = self._published(principal)
        model = published.model
        parsed = [parse_row(row, place, model=model, as_of=published.as_of) for place, row in enumerate(rows)]
        good = [row for row in parsed if not isinstance(row, RowFault)]
        standings = model.standings(np.array([row.values for row in good])) if good else ()
        scored = (
            ScoredRow(row=row.row, label=row.label, features=row.features, standing=standing)
            for row, standing in zip(good, standings, strict=True)
        )
        return Scores(
            rows=tuple(row if isinstance(row, RowFault) else next(scored) for row in parsed),
            publication=published.publication,
            as_of=published.as_of,
            model=model.model,
        )

    async def _asked(self, principal: Principal, question: MetricQuery, *needed: str) -> tuple[_Published, Answer]:
        """The model and the answer, of one publication."""
        for _ in range(_ATTEMPTS):
            published = self._published(principal, *question.metrics, *question.group_by, *needed)
            answer = await self._layer.query(principal, question)
            if answer.publication == published.publication:
                return published, answer
        raise Unavailable("The data are published anew all the while", hint="Ask again.", retry_after=_RETRY)

    def _published(self, principal: Principal, *needed: str) -> _Published:
        """The model, for a role that sees segments and all that is needed besides."""
        published, catalog = self._layer.models(), self._layer.catalog(principal)
        known = catalog.metrics.keys() | catalog.dimensions.keys()
        names = {name.removesuffix("__day") for name in (SEGMENT, *needed)}
        if published.segments is None or names - known:
            raise UnknownName(
                "There are no segments here",
                hint="Whoever publishes finds the reason in the pipeline's output, or in your role's policy.",
                code="no_segments",
            )
        return _Published(publication=published.publication, as_of=published.as_of, model=published.segments)

    def _visible(self, principal: Principal, *metrics: str) -> tuple[str, ...]:
        known = self._layer.catalog(principal).metrics
        return tuple(name for name in metrics if name in known)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Published:
    """The model that there is, and of which publication."""

    publication: str
    as_of: date
    model: SegmentModel


def require_whole_customers(layer: SemanticLayer, principal: Principal, *, hint: str) -> None:
    """Refuse whose rows are not whole customers: of some of the sales, a place or an outlook would be a wrong one."""
    fields = {row.field for row in layer.role(principal).rows}
    if any(field != CUSTOMER and not _is_dimension(field) for field in fields):
        raise Forbidden(
            "Your role sees some of a customer's sales only, and what is told of one is of all of them",
            hint=hint,
            code="partial_customer",
        )


def _is_dimension(column: str) -> bool:
    return column.startswith(f"{CUSTOMER}__")


def _summaries(segments: Sequence[Segment], answer: Answer, *, has_revenue: bool) -> tuple[SegmentSummary, ...]:
    """The segments by id, from an answer with a row for each that has customers who count."""
    rows = {row[SEGMENT]: row for row in answer.table.to_pylist()}
    # A segment without a row has nobody in it, unless a floor withheld it.
    nobody = {_COUNT: 0, _REVENUE: Decimal()} if answer.withheld is None else {_COUNT: None, _REVENUE: None}
    found = [
        (segment, rows.get(segment.name, nobody)) for segment in sorted(segments, key=lambda each: each.segment_id)
    ]
    customers = sum(row[_COUNT] or 0 for _, row in found)
    revenue = sum((row[_REVENUE] or Decimal() for _, row in found), Decimal()) if has_revenue else None
    return tuple(
        SegmentSummary(
            segment=segment,
            customer_count=row[_COUNT],
            share=_share(row[_COUNT], customers),
            total_revenue=row[_REVENUE] if has_revenue else None,
            revenue_share=_share(row[_REVENUE], revenue) if has_revenue else None,
        )
        for segment, row in found
    )


def _number(cell: object, as_of: date) -> float:
    if isinstance(cell, date):
        return float((as_of - cell).days)
    return float(cell or 0)  # type: ignore[arg-type] # a number of the engine


def _share(part: Decimal | int | None, whole: Decimal | int | None) -> float | None:
    return None if part is None else float(part / whole) if whole else 0.0


def _unknown_segment(segment_id: int) -> UnknownName:
    return UnknownName(
        f"There is no segment {segment_id}", hint="List them with GET /v1/segments.", code="unknown_segment"
    )
