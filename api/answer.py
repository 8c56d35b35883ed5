"""What a question is answered with: rows, their meaning, where they come from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date

import pyarrow as pa

from api.cache import Origin, Reason
from api.compiler import Column
from api.floor import Withheld
from api.observation import AnsweredWith
from api.periods import DateRange
from api.query import MetricQuery


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Which part of a stored result is shown: page `number` of `count`, `rows` on each, `total_rows` on all."""

    number: int
    count: int
    rows: int
    total_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Milliseconds spent: making SQL, running it, and both with all around."""

    compile_ms: float
    run_ms: float
    total_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Rows with their meaning and their origin.

    `table` has one Arrow column for each of `columns`, in that order: money decimal, a time at a grain of a day or
    more a date. `is_truncated` says that more rows follow after `offset + table.num_rows`. `tag` is the same for equal
    answers, and for these alone. `next_cursor` begins the page of these more rows. `cost` is there where the role has a
    budget. `grant` names what the caller was allowed when it was made. `page` is there where the answer was stored and
    is shown in parts. `withheld` is there where the role has a floor that concerns the answer.
    """

    query_id: str
    table: pa.Table
    columns: tuple[Column, ...]
    publication: str
    as_of: date
    time_zone: str
    time_range: DateRange | None
    compared_with: DateRange | None
    limit: int
    offset: int
    is_truncated: bool
    next_cursor: str | None
    is_plan_cached: bool
    result_origin: Origin
    result_reason: Reason
    tag: str
    cost: int | None
    grant: str
    timings: Timings
    page: Page | None = None
    withheld: Withheld | None = None

    def again(self, *, query_id: str, total_ms: float) -> Answer:
        """The same rows out of memory, for the same request once more."""
        return replace(
            self,
            query_id=query_id,
            is_plan_cached=True,
            result_origin=Origin.HIT,
            result_reason=Reason.KEPT,
            timings=Timings(compile_ms=0.0, run_ms=0.0, total_ms=total_ms),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """An answer that was given, and what the audit said of it: for `SemanticLayer.repeat`."""

    answer: Answer
    query: MetricQuery
    told: AnsweredWith

    def told_again(self, query_id: str) -> AnsweredWith:
        """What the audit says when it is given once more."""
        told = self.told
        return AnsweredWith(
            metrics=told.metrics,
            publication=told.publication,
            sql_hash=told.sql_hash,
            query_id=query_id,
            rows=told.rows,
            origin=Origin.HIT,
        )
