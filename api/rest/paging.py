"""Pages of lists, by the name of the last item seen: stable while items come and go."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any

from fastapi import Query

from api.errors import UnreadableRequest
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


def encoded(name: str) -> str:
    """The cursor behind the item of that name."""
    return base64.urlsafe_b64encode(name.encode()).decode()


def decoded(cursor: str) -> str:
    """The name of the item that the cursor stands behind; raises `UnreadableRequest` for one that is none of ours."""
    try:
        return base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError) as error:
        raise UnreadableRequest(
            "The cursor cannot be read", hint="Pass next_cursor as it came, or none.", code="invalid_cursor"
        ) from error
