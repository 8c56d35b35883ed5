"""What can be read: the fields of `Query`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import TypeVar

import strawberry

from api.answer import Answer
from api.graphql.asking import Info, matches, paged, part, search_terms
from api.graphql.catalog_nodes import DimensionNode, EntityDimension, EntityNode, MetricNode, SavedQueryNode, upper
from api.graphql.definition_nodes import MeasureNode, grains
from api.graphql.handles import Handle
from api.graphql.inputs import GroupByInput, MetricInput, group_by_name, names
from api.graphql.result_nodes import PAGE_ROWS, QueryRecordNode, QueryResultNode, refused, stored
from api.graphql.segment_nodes import SegmentQueries
from api.graphql.vocabulary import BigInteger, SqlDialect, SqlEngine, TimeGranularity
from api.publication import PublicationInfo

PageNode = TypeVar("PageNode")


@strawberry.type(name="MetricResultPage")
class MetricPageNode:
    """A page of metrics."""

    items: list[MetricNode]
    page_num: int
    page_size: int | None
    total_items: int
    total_pages: int


@strawberry.type(name="DimensionResultPage")
class DimensionPageNode:
    """A page of dimensions."""

    items: list[DimensionNode]
    page_num: int
    page_size: int | None
    total_items: int
    total_pages: int


@strawberry.type(name="EntityResultPage")
class EntityPageNode:
    """A page of entities."""

    items: list[EntityNode]
    page_num: int
    page_size: int | None
    total_items: int
    total_pages: int


@strawberry.type(name="SavedQueryResultPage")
class SavedQueryPageNode:
    """A page of saved queries."""

    items: list[SavedQueryNode]
    page_num: int
    page_size: int | None
    total_items: int
    total_pages: int


@strawberry.type(name="EntityDimensionResultPage")
class GroupByPageNode:
    """A page of entities and dimensions."""

    items: list[EntityDimension]
    page_num: int
    page_size: int | None
    total_items: int
    total_pages: int


@strawberry.type(name="QueryRecordResultPage")
class QueryRecordPageNode:
    """A page of one's own queries."""

    items: list[QueryRecordNode]
    total_items: int
    page_num: int
    page_size: int | None


@strawberry.type(name="EnvironmentInfo")
class EnvironmentInfoNode:
    """What is behind the metrics."""

    dialect: SqlEngine
    sql_dialect: SqlDialect
    has_metrics_defined: bool
    dialect_supported_by_slg: bool


@strawberry.type(name="Source")
class SourceNode:
    """How fresh one source is."""

    name: str
    rows: int
    loaded_at: datetime | None
    data_through: date | None


@strawberry.type(name="Freshness")
class FreshnessNode:
    """How fresh the current publication is."""

    publication: str
    published_at: datetime
    as_of: date
    data_through: date
    sources: list[SourceNode]


@strawberry.type(name="Publication")
class PublicationNode:
    """A version of data and definitions."""

    version: str
    current: bool
    created_at: datetime
    as_of: date
    data_through: date
    tests_passed: int
    tests_warned: int
    fingerprint: str

    @classmethod
    def of(cls, info: PublicationInfo, *, current: str) -> PublicationNode:
        """The publication as answered."""
        return cls(
            **info.model_dump(exclude={"sources", "tables", "snowflake_schema"}), current=info.version == current
        )


@strawberry.type(name="Query")
class Queries(SegmentQueries):
    """What can be read."""

    @strawberry.field
    def metrics(
        self, info: Info, environment_id: BigInteger | None = None, search: str | None = None
    ) -> list[MetricNode]:
        """The metrics, in name order."""
        found = info.context.known(environment_id).metrics()
        return [item for item in found if matches(item.found, search_terms(search))]

    @strawberry.field
    def metrics_paginated(
        self,
        info: Info,
        environment_id: BigInteger | None = None,
        search: str | None = None,
        search_terms: list[str] | None = None,
        group_by: list[GroupByInput] | None = None,
        page_num: int = 1,
        page_size: int | None = None,
    ) -> MetricPageNode:
        """A page of the metrics that have one of the texts in them and join to all of `groupBy`."""
        known = info.context.known(environment_id)
        joined = known.joined_to([group_by_name(item, known.catalog) for item in group_by or ()])
        terms = _terms(search, search_terms)
        found = [item for item in joined if matches(item.found, terms)]
        return _page(MetricPageNode, found, number=page_num, size=page_size)

    @strawberry.field
    def dimensions(
        self,
        info: Info,
        metrics: list[MetricInput],
        environment_id: BigInteger | None = None,
        search: str | None = None,
    ) -> list[DimensionNode]:
        """The dimensions that join to every one of the metrics; all for none."""
        found = info.context.known(environment_id).dimensions(names(metrics))
        return [item for item in found if matches(item.found, search_terms(search))]

    @strawberry.field
    def dimensions_paginated(
        self,
        info: Info,
        metrics: list[MetricInput],
        environment_id: BigInteger | None = None,
        search: str | None = None,
        page_num: int = 1,
        page_size: int | None = None,
    ) -> DimensionPageNode:
        """A page of the dimensions that join to every one of the metrics."""
        known = info.context.known(environment_id).dimensions(names(metrics))
        found = [item for item in known if matches(item.found, search_terms(search))]
        return _page(DimensionPageNode, found, number=page_num, size=page_size)

    @strawberry.field
    def entities(
        self, info: Info, metrics: list[MetricInput], environment_id: BigInteger | None = None
    ) -> list[EntityNode]:
        """The entities whose keys join to every one of the metrics; all for none."""
        return info.context.known(environment_id).entities(names(metrics))

    @strawberry.field
    def entities_paginated(
        self,
        info: Info,
        environment_id: BigInteger | None = None,
        metrics: list[MetricInput] | None = None,
        search: str | None = None,
        page_num: int = 1,
        page_size: int | None = None,
    ) -> EntityPageNode:
        """A page of the entities whose keys join to every one of the metrics."""
        known = info.context.known(environment_id).entities(names(metrics))
        found = [item for item in known if matches(item.found, search_terms(search))]
        return _page(EntityPageNode, found, number=page_num, size=page_size)

    @strawberry.field
    def group_bys_paginated(
        self,
        info: Info,
        environment_id: BigInteger | None = None,
        metrics: list[MetricInput] | None = None,
        search: str | None = None,
        page_num: int = 1,
        page_size: int | None = None,
    ) -> GroupByPageNode:
        """A page of all that the metrics can be grouped by."""
        known = info.context.known(environment_id)
        every: list[EntityNode | DimensionNode] = [*known.entities(names(metrics)), *known.dimensions(names(metrics))]
        found = [item for item in every if matches(item.found, search_terms(search))]
        return _page(GroupByPageNode, found, number=page_num, size=page_size)

    @strawberry.field
    def measures(
        self, info: Info, metrics: list[MetricInput], environment_id: BigInteger | None = None
    ) -> list[MeasureNode]:
        """The measures that the metrics are computed from; all for none."""
        return info.context.known(environment_id).measures(names(metrics))

    @strawberry.field
    def metrics_for_dimensions(
        self, info: Info, dimensions: list[GroupByInput], environment_id: BigInteger | None = None
    ) -> list[MetricNode]:
        """The metrics that every one of the dimensions joins to."""
        known = info.context.known(environment_id)
        return known.joined_to([group_by_name(item, known.catalog) for item in dimensions])

    @strawberry.field
    def queryable_granularities(
        self, info: Info, metrics: list[MetricInput], environment_id: BigInteger | None = None
    ) -> list[TimeGranularity]:
        """The grains at which all of the metrics can be asked over time."""
        return grains(info.context.known(environment_id).shared_grains(names(metrics)))

    @strawberry.field
    def queryable_time_granularities(
        self, info: Info, metrics: list[MetricInput], environment_id: BigInteger | None = None
    ) -> list[str]:
        """The grains at which all of the metrics can be asked over time."""
        return upper(info.context.known(environment_id).shared_grains(names(metrics)))

    @strawberry.field
    def saved_queries(self, info: Info, environment_id: BigInteger | None = None) -> list[SavedQueryNode]:
        """The named questions."""
        return info.context.known(environment_id).saved_queries()

    @strawberry.field
    def saved_queries_paginated(
        self,
        info: Info,
        environment_id: BigInteger | None = None,
        search: str | None = None,
        page_num: int = 1,
        page_size: int | None = None,
    ) -> SavedQueryPageNode:
        """A page of the named questions."""
        term = (search or "").casefold()
        found = [
            item
            for item in info.context.known(environment_id).saved_queries()
            if any(term in (text or "").casefold() for text in (item.name, item.label, item.description))
        ]
        return _page(SavedQueryPageNode, found, number=page_num, size=page_size)

    @strawberry.field
    def saved_query(
        self, info: Info, saved_query_name: str, environment_id: BigInteger | None = None
    ) -> SavedQueryNode | None:
        """The named question."""
        known = info.context.known(environment_id)
        return SavedQueryNode.of(known.catalog.saved_query(saved_query_name), known)

    @strawberry.field
    def environment_info(self, info: Info, environment_id: BigInteger | None = None) -> EnvironmentInfoNode:
        """What is behind the metrics."""
        dialect = info.context.layer.publication().dialect
        return EnvironmentInfoNode(
            dialect=SqlEngine(dialect),
            sql_dialect=SqlDialect(dialect),
            has_metrics_defined=bool(info.context.known(environment_id).catalog.metrics),
            dialect_supported_by_slg=True,
        )

    @strawberry.field
    async def query(
        self, info: Info, query_id: str, environment_id: BigInteger | None = None, page_num: int = 1
    ) -> QueryResultNode:
        """Where a query of the caller's own stands; once it is SUCCESSFUL, with one page of its rows."""
        asking = info.context
        asking.require(environment_id)
        handle = Handle.parse(query_id)
        if handle.failure is not None:
            return refused(handle, handle.failure)
        found = await asking.deferred.find(asking.principal, handle.query_id)
        page_rows = asking.deferred.page_rows(PAGE_ROWS)

        async def page() -> Answer:
            return await asking.deferred.results(asking.principal, handle.query_id, page=page_num, rows=page_rows)

        async def sql() -> str | None:
            return await asking.deferred.sql(asking.principal, found)

        return stored(found, handle, page=page, sql_text=sql, page_rows=page_rows)

    @strawberry.field
    async def query_records(
        self, info: Info, environment_id: BigInteger | None = None, page_num: int = 1, page_size: int | None = None
    ) -> QueryRecordPageNode:
        """The caller's own queries that are kept, newest first."""
        asking = info.context
        asking.require(environment_id)
        dialect = asking.layer.publication().dialect
        size = page_size or 100
        page = paged(0, number=page_num, size=size)
        recent, total = await asking.deferred.recent(asking.principal, before=None, limit=page.end)
        return QueryRecordPageNode(
            items=[QueryRecordNode.of(query, dialect=dialect) for query in recent[page.first :]],
            total_items=total,
            page_num=page_num,
            page_size=size,
        )

    @strawberry.field
    def freshness(self, info: Info) -> FreshnessNode:
        """When each source was loaded, and the last day its data speaks of; not in dbt's schema."""
        found = info.context.layer.publication()
        return FreshnessNode(
            publication=found.version,
            published_at=found.created_at,
            as_of=found.as_of,
            data_through=found.data_through,
            sources=[SourceNode(**source.model_dump()) for source in found.sources],
        )

    @strawberry.field
    async def publications(self, info: Info) -> list[PublicationNode]:
        """The versions that are kept, newest first; not in dbt's schema."""
        layer = info.context.layer
        kept = await asyncio.to_thread(layer.publications)
        current = layer.publication().version
        return [PublicationNode.of(found, current=current) for found in kept]


def _page(node: Callable[..., PageNode], found: Sequence[object], *, number: int, size: int | None) -> PageNode:
    """One page of what was found, as a node of its kind."""
    page = paged(len(found), number=number, size=size)
    return node(
        items=part(found, page),
        page_num=page.number,
        page_size=page.size,
        total_items=page.total,
        total_pages=page.count,
    )


def _terms(search: str | None, more: list[str] | None) -> tuple[str, ...]:
    return search_terms(search, more)
