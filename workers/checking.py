"""Which rows of a file are good, typed, and why the others are not.

Whole columns are checked at a time, by the SQL that `sources` declares, in a scratch DuckDB. The SQL text is
made of those declarations only; cells come in as an Arrow table and are never part of it.
"""
# ruff: noqa: S608  SQL is put together here from the constants of `sources`; no value of a file enters it.

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import duckdb
import pyarrow as pa

from workers.errors import CutOffError, TooManyBadRowsError
from workers.records import CUT_HINT, Record, RecordBatch
from workers.sources import CELL, FileKind, Header, SourceColumn

LARGEST_BAD_SHARE: Final = 0.5
BAD_ROWS_ALWAYS_BORNE: Final = 100
"""A file is refused if more than this share *and* more than this number of its rows are bad, or all are."""

LONGEST_SHOWN_VALUE: Final = 60
LONGEST_KEPT_VALUE: Final = 2_000
"""Characters of a bad value that the reason quotes, and that the quarantine keeps."""

OUTPUT_ROWS: Final = 122_880
"""Rows of an outgoing batch: a row group of DuckDB."""


class RowChecker:
    """Takes the records of one file in batches; keeps the good rows typed, and the bad ones with a reason.

    A row is bad if it is no row (too few cells), if one of its cells is not of its column's type (the first
    such column is named), or if a good row before it has the same key. The rows lie in the scratch database.
    """

    def __init__(self, header: Header, scratch: duckdb.DuckDBPyConnection) -> None:
        """Make the tables `good` and `rejected` in the scratch database, which belongs to this file alone."""
        self.kind: FileKind = header.kind
        self.good_rows = 0
        self.bad_rows = 0
        self._header = header
        self._scratch = scratch
        empty = pa.schema([("line_number", pa.int64()), *((column.name, pa.string()) for column in header.columns)])
        scratch.register("cells", empty.empty_table())
        scratch.execute(f"CREATE TABLE good AS {_typed(self.kind)}")
        scratch.execute(
            "CREATE TABLE rejected"
            " (line_number BIGINT, column_name VARCHAR, rule VARCHAR, reason VARCHAR, raw_value VARCHAR)"
        )

    @property
    def rows_read(self) -> int:
        """How many rows were checked so far."""
        return self.good_rows + self.bad_rows

    def check(self, batch: RecordBatch) -> None:
        """Sort a batch into good and bad rows. Batches come in file order."""
        if batch.cells:
            self._scratch.register("cells", batch.cells)
            self._check_cells()
        if batch.faulty:
            self._reject(batch.faulty)
        self.good_rows = self._count("good")
        self.bad_rows = self._count("rejected")

    def good_batches(self) -> Iterator[pa.Table]:
        """Yield the good rows in file order, with `line_number` and the columns of the raw table."""
        yield from self._read("SELECT * FROM good")

    def rejected_batches(self) -> Iterator[pa.Table]:
        """Yield the bad rows in file order: `line_number`, `column_name`, `reason`, `raw_value`."""
        yield from self._read("SELECT * EXCLUDE (rule) FROM rejected ORDER BY line_number")

    def refuse_cut_cell(self, line_number: int) -> None:
        """Refuse the file if this line, its last and without a line end, is bad in its last cell.

        Raises
        ------
        CutOffError
            It is: `Not Us` is what a cut leaves of `Not Used`.

        """
        found = self._scratch.execute(
            "SELECT reason FROM rejected WHERE line_number = $1 AND column_name = $2",
            [line_number, self._header.columns[-1].header],
        ).fetchall()
        if found:
            message = f"The file is cut off in the middle of line {line_number}: {found[0][0]}"
            raise CutOffError(message, hint=CUT_HINT)

    def refuse_bad_file(self) -> None:
        """Refuse the file if so many of its rows are bad that the file itself must be wrong.

        Raises
        ------
        TooManyBadRowsError
            All rows are bad, or more than the share and the number borne.

        """
        total = self.rows_read
        is_mostly_bad = self.bad_rows > max(BAD_ROWS_ALWAYS_BORNE, total * LARGEST_BAD_SHARE)
        if is_mostly_bad or self.bad_rows == total > 0:
            message = f"{self.bad_rows:,} of {total:,} rows are bad, {self._commonest_fault()}"
            hint = "Nothing of the file was loaded; correct it, or fetch it again, and load it then"
            raise TooManyBadRowsError(message, hint=hint)

    def _commonest_fault(self) -> str:
        ((count, line_number, column, reason),) = self._scratch.execute(
            "SELECT count(*), min(line_number), column_name, arg_min(reason, line_number) FROM rejected"
            " GROUP BY column_name, rule ORDER BY 1 DESC, 2 LIMIT 1"
        ).fetchall()
        place = f"line {line_number}, {column}" if column else f"line {line_number}"
        return f"{count:,} of them like {place}: {reason}"

    def _check_cells(self) -> None:
        valid = " AND ".join(f"typed.{column.name} IS NOT NULL" for column in self.kind.columns)
        row_text = f"concat_ws($1, {', '.join(f'cells.{column.name}' for column in self._header.columns)})"
        self._scratch.execute(f"CREATE OR REPLACE TABLE typed AS {_typed(self.kind)}")
        self._scratch.execute(f"CREATE OR REPLACE TABLE repeats AS {_repeats(self.kind, valid=valid)}")
        self._scratch.execute(
            f"INSERT INTO good SELECT * FROM typed ANTI JOIN repeats USING (line_number) WHERE {valid}"
        )
        self._scratch.execute(f"INSERT INTO rejected {_bad_cells(self.kind, valid=valid)}")
        self._scratch.execute(
            "INSERT INTO rejected SELECT line_number, NULL, 'the row is a duplicate',"
            f" concat('duplicate of line ', first_line), {_kept(row_text)}"
            " FROM repeats JOIN cells USING (line_number)",
            [self._header.delimiter],
        )

    def _reject(self, records: Sequence[Record]) -> None:
        line_numbers, rows, faults = zip(*records, strict=True)
        texts = [self._header.delimiter.join(cells) for cells in rows]
        self._scratch.register("bad_rows", pa.table({"line_number": line_numbers, "fault": faults, "row_text": texts}))
        self._scratch.execute(
            f"INSERT INTO rejected SELECT line_number, NULL, fault, fault, {_kept('row_text')} FROM bad_rows"
        )

    def _count(self, table: str) -> int:
        ((rows,),) = self._scratch.execute(f"SELECT count(*) FROM {table}").fetchall()
        return int(rows)

    def _read(self, query: str) -> Iterator[pa.Table]:
        for batch in self._scratch.sql(query).to_arrow_reader(OUTPUT_ROWS):
            yield pa.Table.from_batches([batch])


def _typed(kind: FileKind) -> str:
    trimmed = ", ".join(f"trim({column.name}) AS {column.name}" for column in kind.columns)
    values = ", ".join(f"{column.type.value.replace(CELL, column.name)} AS {column.name}" for column in kind.columns)
    return f"SELECT line_number, {values} FROM (SELECT line_number, {trimmed} FROM cells)"


def _repeats(kind: FileKind, *, valid: str) -> str:
    key = ", ".join(kind.key)
    return f"""
        WITH fresh AS (
            SELECT line_number, {key}, min(line_number) OVER (PARTITION BY {key}) AS first_line
            FROM typed
            WHERE {valid}
        ),
        found AS (
            SELECT line_number, first_line FROM fresh WHERE first_line < line_number
            UNION ALL
            SELECT fresh.line_number, good.line_number FROM good JOIN fresh USING ({key})
        )
        SELECT line_number, min(first_line) AS first_line FROM found GROUP BY line_number
    """


def _bad_cells(kind: FileKind, *, valid: str) -> str:
    cell = _first_bad(kind, {column.name: f"cells.{column.name}" for column in kind.columns})
    header = _first_bad(kind, {column.name: _literal(column.header) for column in kind.columns})
    rule = _first_bad(kind, {column.name: _rule(column) for column in kind.columns})
    shown = f"left({_printable('trim(cell)')}, {LONGEST_SHOWN_VALUE})"
    return f"""
        SELECT
            line_number,
            column_name,
            rule,
            CASE WHEN trim(cell) = '' THEN rule ELSE concat('''', {shown}, ''' ', rule) END,
            {_kept("cell")}
        FROM (
            SELECT line_number, {header} AS column_name, {rule} AS rule, {cell} AS cell
            FROM typed JOIN cells USING (line_number)
            WHERE NOT ({valid})
        )
    """


def _first_bad(kind: FileKind, choices: Mapping[str, str]) -> str:
    cases = (f"WHEN typed.{column.name} IS NULL THEN {choices[column.name]}" for column in kind.columns)
    return f"CASE {' '.join(cases)} END"


def _rule(column: SourceColumn) -> str:
    cell = f"trim(cells.{column.name})"
    faults = (f"WHEN {condition.replace(CELL, cell)} THEN {_literal(text)}" for condition, text in column.type.faults)
    return f"CASE WHEN {cell} = '' THEN 'the cell is empty' {' '.join(faults)} END"


def _kept(text: str) -> str:
    return f"left({_printable(text)}, {LONGEST_KEPT_VALUE})"


def _printable(text: str) -> str:
    # NUL is legal in DuckDB, but most of what reads the quarantine afterwards refuses it or cuts at it.
    return f"replace({text}, chr(0), '\\x00')"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
