"""What a query asks for, as the schema shows it."""

from __future__ import annotations

import strawberry

from api.graphql.filter_text import filter_text
from api.graphql.handles import Handle
from api.graphql.vocabulary import DatePart, QueryType, TimeGranularity
from api.query import MetricQuery, OrderBy


@strawberry.type(name="MetricInputSpec")
class MetricSpecNode:
    """A metric as it was asked for."""

    name: str
    alias: str | None


@strawberry.type(name="GroupByInputSpec")
class GroupBySpecNode:
    """A group-by as it was asked for; its name has the grain."""

    name: str
    grain: TimeGranularity | None = None
    time_granularity: str | None = None
    date_part: DatePart | None = None


@strawberry.type(name="WhereInputSpec")
class WhereSpecNode:
    """A filter as it was understood."""

    sql: str


@strawberry.type(name="OrderByInputSpec")
class OrderBySpecNode:
    """An order as it was asked for."""

    metric: MetricSpecNode | None
    group_by: GroupBySpecNode | None
    descending: bool


@strawberry.interface(name="QueryParams")
class QueryParamsNode:
    """What a query asks for."""

    type: QueryType


@strawberry.type(name="MetricQueryParams")
class MetricQueryParamsNode(QueryParamsNode):
    """What a query for metrics asks for."""

    metrics: list[MetricSpecNode]
    group_by: list[GroupBySpecNode] | None
    limit: int | None
    where: list[WhereSpecNode] | None
    order_by: list[OrderBySpecNode] | None
    saved_query: str | None
    read_cache: bool


@strawberry.type(name="DimensionValuesQueryParams")
class ValuesQueryParamsNode(QueryParamsNode):
    """What a query for the values of dimensions asks for."""

    metrics: list[MetricSpecNode] | None
    group_by: list[GroupBySpecNode]


def params(question: MetricQuery, handle: Handle) -> MetricQueryParamsNode | ValuesQueryParamsNode:
    """What a query asks for."""
    metrics = [MetricSpecNode(name=name, alias=handle.aliases.get(name)) for name in question.metrics]
    group_by = [GroupBySpecNode(name=name) for name in question.group_by]
    if handle.kind is QueryType.DIMENSION_VALUES:
        return ValuesQueryParamsNode(type=handle.kind, metrics=metrics or None, group_by=group_by)
    return MetricQueryParamsNode(
        type=handle.kind,
        metrics=metrics,
        group_by=group_by or None,
        limit=question.limit,
        where=_where(question) or None,
        order_by=[_order(item, question) for item in question.order_by] or None,
        saved_query=handle.saved_query,
        read_cache=handle.reads_cache,
    )


def _where(question: MetricQuery) -> list[WhereSpecNode]:
    texts = []
    if question.where is not None:
        texts.append(filter_text(question.where))
    if question.having is not None:
        texts.append(filter_text(question.having, is_on_metrics=True))
    return [WhereSpecNode(sql=text) for text in texts]


def _order(item: OrderBy, question: MetricQuery) -> OrderBySpecNode:
    is_metric = item.field in question.metrics
    return OrderBySpecNode(
        metric=MetricSpecNode(name=item.field, alias=None) if is_metric else None,
        group_by=None if is_metric else GroupBySpecNode(name=item.field),
        descending=item.is_descending,
    )
