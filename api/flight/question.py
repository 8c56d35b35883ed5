"""What a statement asks for, its names matched against what its caller may see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import pyarrow as pa

from api.query import MetricQuery
from api.service import CacheUse


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A column of the answer under the name that its reader gave it."""

    name: str
    column: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question for metrics, and which columns of its answer are shown.

    Where `shown` is None all of them are, those that `aliases` name under another name.
    """

    query: MetricQuery
    shown: tuple[Shown, ...] | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)
    use: CacheUse = field(default=CacheUse.READ)

    def rows(self, answer: pa.Table) -> pa.Table:
        """The answer's rows as they are shown."""
        if self.shown is None:
            return answer.rename_columns([self.aliases.get(name, name) for name in answer.column_names])
        return answer.select([item.column for item in self.shown]).rename_columns([item.name for item in self.shown])


@dataclass(frozen=True, slots=True, kw_only=True)
class Compilation:
    """The SQL of a question instead of its answer."""

    query: MetricQuery


@dataclass(frozen=True, slots=True, kw_only=True)
class ValuesOf:
    """The values of a dimension, among the rows of metrics."""

    dimension: str
    metrics: tuple[str, ...]
    search: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What the catalog says, as rows."""

    rows: pa.Table


Asked: TypeAlias = Question | Compilation | ValuesOf | Listing
