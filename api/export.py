"""An answer that is computed while it is taken, so that it may have any number of rows in a fixed amount of memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import date, timedelta

import pyarrow as pa

from api.admission import Admission
from api.compiler import Column
from api.errors import InvalidQuery
from api.periods import DateRange
from api.warehouse import RowStream

# Some MB of text in memory at once, and some 20 ms of one core between two looks at whether anybody still reads.
BATCH_ROWS = 8_192

Shape = Callable[[pa.Table], pa.Table]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportLimits:
    """How many rows an export may have, how long it may take with its reader's time, and the places for exports."""

    rows: int
    timeout: timedelta
    places: Admission


class ExportedRows:
    """The rows of an export, table by table; the next is computed when it is asked for.

    Parameters
    ----------
    stream
        The rows as the engine has them, one more than `most` if there are more.
    shape
        Makes a table of the engine's one that the caller may see; runs in a thread.
    most
        Rows at most.
    is_cut_short
        Whether the caller asked for no more than that; else more rows are more than an export may have.
    """

    def __init__(self, stream: RowStream, *, shape: Shape, most: int, is_cut_short: bool) -> None:
        self.schema: pa.Schema = shape(stream.schema.empty_table()).schema
        self.count = 0
        self.is_whole = False
        self._stream = stream
        self._shape = shape
        self._most = most
        self._is_cut_short = is_cut_short

    async def __aiter__(self) -> AsyncIterator[pa.Table]:
        """Tables of `schema`, none of them empty.

        Raises
        ------
        InvalidQuery
            There are more rows than an export may have; or the engine needs more memory than allowed.
        """
        async for batch in self._stream:
            left = self._most - self.count
            if batch.num_rows > left and not self._is_cut_short:
                raise InvalidQuery(
                    f"The answer has more than the {self._most} rows that one export may have",
                    hint="Name a limit, or ask for a part at a time, such as a month.",
                    code="export_too_large",
                )
            table = pa.Table.from_batches([batch]).slice(0, left)
            self.count += table.num_rows
            if table.num_rows:
                yield await asyncio.to_thread(self._shape, table)
        self.is_whole = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """Rows with their meaning and their origin; the columns and the types are those of an `Answer`."""

    query_id: str
    rows: ExportedRows
    columns: tuple[Column, ...]
    publication: str
    as_of: date
    time_range: DateRange | None
