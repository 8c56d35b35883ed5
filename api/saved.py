"""A saved query as a question, and what its caller may add to it."""

from __future__ import annotations

from collections.abc import Sequence

from api.catalog import SavedQuery
from api.dbt_filter import parse_dbt_filter
from api.filters import Filter, all_of, comparisons
from api.query import MetricQuery, OrderBy


def saved_question(
    saved: SavedQuery,
    *,
    where: Filter | None = None,
    having: Filter | None = None,
    order_by: Sequence[OrderBy] = (),
    limit: int | None = None,
) -> MetricQuery:
    """The question: a caller's filters narrow it, a caller's order and limit stand in place of its own.

    Raises
    ------
    InvalidQuery
        A filter of the saved query is none that is understood.

    References
    ----------
    MetricFlow combines them so: `MetricFlowQueryParser.parse_and_validate_saved_query`.
    """
    own = [parse_dbt_filter(text) for text in saved.where]
    return MetricQuery(
        metrics=saved.metrics,
        group_by=saved.group_by,
        where=all_of(*(half.where for half in own), where),
        having=all_of(*(half.having for half in own), having),
        order_by=tuple(order_by)
        or tuple(OrderBy(field=name, is_descending=is_descending) for name, is_descending in saved.order_by),
        limit=saved.limit if limit is None else limit,
    )


def filtered_fields(filters: Sequence[str]) -> tuple[str, ...]:
    """The dimensions, at their grains, and the metrics that filters of a saved query are about, each once.

    Raises
    ------
    InvalidQuery
        One of them is none that is understood.
    """
    found: dict[str, None] = {}
    for half in map(parse_dbt_filter, filters):
        for leaf in (*comparisons(half.where), *comparisons(half.having)):
            found |= dict.fromkeys((leaf.field, *leaf.per))
    return tuple(found)
