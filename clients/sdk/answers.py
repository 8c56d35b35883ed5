"""What the service answers, typed: the bodies of the contract, as they were sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

import pyarrow as pa

from clients.sdk.errors import ApiError

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

# A value on the wire; a fraction is an exact decimal, a day or time a text.
Cell: TypeAlias = str | bool | int | Decimal | None


class Metric(TypedDict):
    """A number with its meaning."""

    name: str
    label: str
    description: str
    type: str
    unit: str | None
    owner: str | None
    synonyms: list[str]
    requires_metric_time: bool
    dimensions: list[str]


class Dimension(TypedDict):
    """Something to group and filter by; a time has grains and date parts."""

    name: str
    label: str
    description: str
    kind: str
    type: str
    entity: str | None
    grains: list[str]
    date_parts: list[str]
    synonyms: list[str]
    value_synonyms: dict[str, list[str]]


class SavedQuery(TypedDict):
    """A named question."""

    name: str
    label: str
    description: str
    metrics: list[str]
    group_by: list[str]


class Segment(TypedDict):
    """A group of customers; numbers are exact, and None where the caller does not see them."""

    segment_id: int
    name: str
    description: str
    customer_count: int | None
    share: Decimal | None
    total_revenue: Decimal | None
    revenue_share: Decimal | None
    centroid: dict[str, Decimal]


class SegmentCustomer(TypedDict):
    """A customer of a segment; its id is a text where the caller sees customers hashed."""

    customer_id: int | str
    transaction_count: int | None
    total_revenue: Decimal | None


class Column(TypedDict):
    """A column of an answer."""

    name: str
    label: str
    kind: str
    type: str | None
    unit: str | None
    grain: str | None
    date_part: str | None


class Answer(dict[str, Any]):
    """The body of an answer (`data`, `columns`, `meta`), which also knows itself as Arrow, pandas or polars.

    Fractions are exact: `Decimal` in rows, decimal128 in Arrow; only what the service calls a float becomes one.
    """

    @classmethod
    def read(cls, content: bytes) -> Answer:
        """The answer in a JSON body."""
        return cls(json.loads(content, parse_float=Decimal))

    @property
    def rows(self) -> list[dict[str, Cell]]:
        """A row for each group."""
        rows: list[dict[str, Cell]] = self["data"]
        return rows

    @property
    def columns(self) -> list[Column]:
        """What the columns are, in order."""
        columns: list[Column] = self["columns"]
        return columns

    @property
    def meta(self) -> Mapping[str, Any]:
        """Publication, as-of date, days, page and timings."""
        meta: Mapping[str, Any] = self["meta"]
        return meta

    def to_arrow(self) -> pa.Table:
        """The rows in their own types; a column without any value has the type null."""
        arrays = [_array([row[column["name"]] for row in self.rows], column["type"]) for column in self.columns]
        return pa.table(arrays, names=[column["name"] for column in self.columns])

    def to_pandas(self) -> pd.DataFrame:
        """The rows as a data frame; decimals are objects of `Decimal`. Needs pandas."""
        _needed("pandas")
        frame: pd.DataFrame = self.to_arrow().to_pandas()
        return frame

    def to_polars(self) -> pl.DataFrame:
        """The rows as a data frame. Needs polars."""
        _needed("polars")
        import polars as pl

        frame = pl.from_arrow(self.to_arrow())
        assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a table never becomes a series
        return frame


def read_arrow(streams: Iterable[bytes]) -> pa.Table:
    """One table of all the Arrow streams, which have the same columns."""
    tables = [pa.ipc.open_stream(stream).read_all() for stream in streams]
    # A page of which a decimal is smaller may have a narrower type than the next one.
    return pa.concat_tables(tables, promote_options="permissive")


_READERS: Mapping[str, Callable[[Any], object]] = {
    "decimal": Decimal,
    "float": float,
    "date": date.fromisoformat,
    "timestamp": datetime.fromisoformat,
}


def _array(values: list[Cell], type_: str | None) -> pa.Array:
    read: Callable[[Any], object] = _READERS.get(type_ or "", lambda value: value)
    return pa.array([None if value is None else read(value) for value in values])


def _needed(package: str) -> None:
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise ApiError(
            f"Answers as {package} need {package}", hint=f"Install it: pip install {package}", code="not_installed"
        )
