"""What every resolver has at hand: who asks, the one door, and what is submitted and read later."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from strawberry.types import Info as StrawberryInfo

from api.catalog import Dimension, Metric, speaks_of
from api.deferred import DeferredQueries
from api.errors import InvalidQuery, UnknownName
from api.graphql.catalog_nodes import Known
from api.policy import Principal
from api.service import SemanticLayer

MAX_PAGE_SIZE = 1_000
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """One request of a caller that the gate has let in."""

    layer: SemanticLayer
    deferred: DeferredQueries
    principal: Principal
    environment_id: int

    def known(self, environment_id: int | None) -> Known:
        """What exists for the caller; raises `UnknownName` where it asks in another environment."""
        self.require(environment_id)
        return Known(catalog=self.layer.catalog(self.principal), definitions=self.layer.definitions(self.principal))

    def require(self, environment_id: int | None) -> None:
        """Return if the environment is the one that is served; clients of ours may leave it out.

        Raises
        ------
        UnknownName
            It is another one.
        """
        if environment_id is not None and environment_id != self.environment_id:
            raise UnknownName(
                f"There is no environment {environment_id}",
                hint=f"The environment here is {self.environment_id}; you may leave environmentId out.",
                code="unknown_environment",
            )


Info: TypeAlias = StrawberryInfo[Asking, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Paged:
    """A part of a list, and where it lies in it; `size` is None where nobody asked for pages."""

    number: int
    size: int | None
    first: int
    end: int
    total: int

    @property
    def count(self) -> int:
        """How many pages there are."""
        return math.ceil(self.total / self.size) if self.size else min(1, self.total)


def paged(total: int, *, number: int, size: int | None) -> Paged:
    """Which items of `total` the page has; none for a page after the last.

    Raises
    ------
    InvalidQuery
        There is no such page, or it is too large.
    """
    if number < 1 or (size is not None and not 1 <= size <= MAX_PAGE_SIZE):
        raise InvalidQuery(
            f"Pages are numbered from 1, and have 1 to {MAX_PAGE_SIZE} items",
            hint="Correct pageNum or pageSize.",
            code="invalid_limit",
        )
    first = (number - 1) * (size or total)
    return Paged(number=number, size=size, first=first, end=first + (size or total), total=total)


def part(items: Sequence[Item], page: Paged) -> list[Item]:
    """The items of the page."""
    return list(items[page.first : page.end])


def matches(item: Metric | Dimension, terms: Collection[str]) -> bool:
    """Whether it speaks of one of the terms; any item for no term."""
    return not terms or any(speaks_of(item, term) for term in terms)


def search_terms(search: str | None, more: Iterable[str] | None = None) -> tuple[str, ...]:
    """What is looked for; nothing for an empty search."""
    return tuple(term for term in (search, *(more or ())) if term)
