"""The engine's rows in the form that a caller sees: in the catalog's types, masked, in its time zone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pyarrow as pa

from api.catalog import ValueType
from api.compiler import Column, CompiledQuery
from api.policy import Grant, hashed
from api.warehouse import value_type

_UTC = "UTC"
_INLINE_ROWS = 10_000  # to hash some takes 10 ms; more would make everybody else wait


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaping:
    """How the answer to one question looks to one caller. The same rows of the engine serve many of these."""

    columns: tuple[Column, ...]
    masked: frozenset[str]
    zone: str
    secret: bytes = field(repr=False)

    @classmethod
    def of(cls, compiled: CompiledQuery, grant: Grant, *, secret: bytes) -> Shaping:
        """The shaping for what was compiled; `secret` is what values are hashed with."""
        question = compiled.question
        masked = frozenset(item.column for item in question.group_by if grant.role.hashes(item.dimension.name))
        return cls(columns=compiled.columns, masked=masked, zone=question.time_zone, secret=secret)

    @property
    def difference(self) -> tuple[str, ...]:
        """What tells its answers from those of other shapings of the same rows; empty for the plain one."""
        return (*sorted(self.masked), self.zone) if self.masked or self.zone != _UTC else ()

    def is_slow(self, rows: pa.Table) -> bool:
        """Whether it takes longer than anybody else should wait for the event loop."""
        return bool(self.masked) and rows.num_rows > _INLINE_ROWS

    def columns_of(self, schema: pa.Schema) -> tuple[Column, ...]:
        """The columns with every type known, those of metrics from the engine's schema."""
        return tuple(
            replace(column, type=ValueType.STRING) if column.name in self.masked else _typed(column, part)
            for column, part in zip(self.columns, schema, strict=True)
        )

    def table(self, rows: pa.Table) -> pa.Table:
        """The rows in just these types, masked values as texts that tell them apart and nothing else."""
        arrays = [
            self._shaped(array, column, is_masked=column.name in self.masked)
            for column, array in zip(self.columns, rows.itercolumns(), strict=True)
        ]
        return pa.table(arrays, names=[column.name for column in self.columns])

    def _shaped(self, array: pa.ChunkedArray, column: Column, *, is_masked: bool) -> pa.ChunkedArray:
        # Engines truncate a date to a timestamp; a month is a day to its reader.
        if column.type is ValueType.DATE and not pa.types.is_date32(array.type):
            array = array.cast(pa.date32())
        if is_masked:
            values = array.to_pylist()
            texts = {value: hashed(value, self.secret) for value in set(values)}
            return pa.chunked_array([pa.array(map(texts.get, values), pa.string())])
        if self.zone != _UTC and pa.types.is_timestamp(array.type):
            # Two steps: the first says that they are in UTC, the second only shows them elsewhere.
            return array.cast(pa.timestamp(array.type.unit, _UTC)).cast(pa.timestamp(array.type.unit, self.zone))
        return array


def _typed(column: Column, part: pa.Field) -> Column:
    return column if column.type else replace(column, type=value_type(part.type))
