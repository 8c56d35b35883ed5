"""Pages of lists, by the name of the last item seen: stable while items come and go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any

from fastapi import Query

from api.cursor import decoded, encoded
from api.rest.resources import Listing, ListMeta

MAX_PAGE = 500

Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="Items on this page.", examples=[2])]
Cursor = Annotated[
    str | None,
    Query(
        max_length=500,
        description="`next_cursor` of the page before; left out for the first page.",
        examples=["YXZlcmFnZV9vcmRlcl92YWx1ZQ=="],
    ),
]


def page(items: Iterable[Any], *, key: Callable[[Any], str], limit: int, cursor: str | None) -> Listing[Any]:
    """The items behind the cursor in key order, `limit` at most.

    Raises
    ------
    UnreadableRequest
        The cursor is none of ours.
    """
    ordered = sorted(items, key=key)
    after = decoded(cursor) if cursor else ""
    rest = [item for item in ordered if key(item) > after]
    shown = rest[:limit]
    next_cursor = encoded(key(shown[-1])) if len(rest) > limit else None
    return Listing(data=shown, meta=ListMeta(total=len(ordered), next_cursor=next_cursor))


def whole(items: Sequence[Any]) -> Listing[Any]:
    """A short list on one page."""
    return Listing(data=list(items), meta=ListMeta(total=len(items), next_cursor=None))
