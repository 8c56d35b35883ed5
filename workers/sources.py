"""What the source files look like: their kinds, headers, columns and types, and how a header is recognised.

`FILE_KINDS` is the whole table. A file is recognised by its header alone: letter case, outer blanks, column
order and delimiter are free; the names are not. An unknown column refuses the file: nobody can say whether a
column that we do not know (a currency, a refund flag) changes what its row means.

A `ColumnType` is SQL over one text cell, run by DuckDB on whole columns. Strict means: a cell has one of the
written forms, or its row is rejected. Nothing is null, rounded or guessed. Outer blanks never matter.
"""

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from workers.errors import UnknownFileKindError

EARLIEST_DATE: Final = "1900-01-01"
LATEST_DATE: Final = "2100-12-31"
"""A year outside these is a typing error; one day in 9019 would make the calendar 7,000 years long."""

DELIMITERS: Final = (",", ";", "\t", "|")
LEAST_RESEMBLANCE: Final = 0.5
"""The share of a kind's columns from which on a header counts as that kind with mistakes."""

MOST_SHOWN_NAMES: Final = 12
LONGEST_SHOWN_NAME: Final = 40

CELL: Final = "{cell}"
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DATE_FORMS: Final = (
    ("[0-9]{1,2}/[0-9]{1,2}/[0-9]{4}", "%m/%d/%Y"),
    ("[0-9]{8}", "%Y%m%d"),
    ("[0-9]{4}-[0-9]{2}-[0-9]{2}", "%Y-%m-%d"),
    ("[0-9]{1,2}-[0-9]{1,2}-[0-9]{4}", "%m-%d-%Y"),
)
_CONTROL: Final = r"\x00-\x08\x0E-\x1F\x7F"
_BLANK: Final = r"\s\x{00A0}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnType:
    """A strict type, as SQL over `CELL`.

    Attributes
    ----------
    value
        The typed value; null exactly where the cell is bad.
    faults
        Pairs of a condition and what it says about the cell; the first that holds is the reason.

    """

    value: str
    faults: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceColumn:
    """A column of a file, and of the raw table that it fills."""

    header: str
    name: str
    type: ColumnType


@dataclass(frozen=True, slots=True, kw_only=True)
class FileKind:
    """A kind of file, named like its raw table; no two rows of a file share the values of its `key`."""

    name: str
    key: tuple[str, ...]
    columns: tuple[SourceColumn, ...]


def _number(sql_type: str, *, decimals: int, least: int, most: int) -> ColumnType:
    form = "[0-9]+" + (rf"(\.[0-9]{{1,{decimals}}})?" if decimals else "")
    is_written_well = f"regexp_full_match({CELL}, '{form}')"
    number = f"TRY_CAST({CELL} AS {sql_type})"
    too_precise = f"has more than {decimals} decimals" if decimals else "is not a whole number"
    return ColumnType(
        value=f"CASE WHEN {is_written_well} AND {number} BETWEEN {least} AND {most} THEN {number} END",
        faults=(
            (
                rf"NOT regexp_full_match({CELL}, '-?[0-9]+(\.[0-9]+)?')",
                "is not a number; expected digits like 1234.5",
            ),
            (f"{CELL} LIKE '-%'", "is negative"),
            (f"NOT {is_written_well}", too_precise),
            (f"{number} < {least}", f"is below {least}"),
            ("TRUE", f"is above {most}"),
        ),
    )


def _money() -> ColumnType:
    return _number("DECIMAL(18, 2)", decimals=2, least=0, most=10**16 - 1)


def _identifier() -> ColumnType:
    return _number("BIGINT", decimals=0, least=0, most=2**63 - 1)


def _count(*, least: int) -> ColumnType:
    return _number("INTEGER", decimals=0, least=least, most=2**31 - 1)


def _calendar_date() -> ColumnType:
    forms = " ".join(
        f"WHEN regexp_full_match({CELL}, '{pattern}') THEN CAST(try_strptime({CELL}, '{form}') AS DATE)"
        for pattern, form in _DATE_FORMS
    )
    date = f"CASE {forms} END"
    return ColumnType(
        value=f"CASE WHEN {date} BETWEEN DATE '{EARLIEST_DATE}' AND DATE '{LATEST_DATE}' THEN {date} END",
        faults=(
            (f"{date} IS NULL", "is not a date; expected M/D/YYYY, M-D-YYYY, YYYYMMDD or YYYY-MM-DD"),
            ("TRUE", f"is not between {EARLIEST_DATE} and {LATEST_DATE}"),
        ),
    )


def _month_name() -> ColumnType:
    names = ", ".join(f"'{month}'" for month in _MONTHS)
    return ColumnType(
        value=f"CAST(nullif(list_position([{names}], {CELL}), 0) AS INTEGER)",
        faults=(("TRUE", "is not a month; expected Jan, Feb, … Dec"),),
    )


def _one_of(*allowed: str) -> ColumnType:
    values = ", ".join(f"'{value}'" for value in allowed)
    return ColumnType(
        value=f"CASE WHEN {CELL} IN ({values}) THEN {CELL} END",
        faults=(("TRUE", f"is not one of {', '.join(allowed)}"),),
    )


def _text() -> ColumnType:
    word = f"[^{_BLANK}{_CONTROL}]+"
    folded = f"nullif(trim(regexp_replace({CELL}, '[{_BLANK}]+', ' ', 'g')), '')"
    is_folded = f"regexp_full_match({CELL}, '{word}( {word})*')"
    control = f"regexp_matches({CELL}, '[{_CONTROL}]')"
    return ColumnType(
        # The first branch takes most cells, and spares them the replacement.
        value=f"CASE WHEN {is_folded} THEN {CELL} WHEN NOT {control} THEN {folded} END",
        faults=((control, "holds a control character"), ("TRUE", "holds only blanks")),
    )


def _column(header: str, kind: ColumnType, *, name: str | None = None) -> SourceColumn:
    return SourceColumn(header=header, name=name or header.lower(), type=kind)


FILE_KINDS: Final = (
    FileKind(
        name="online_sales",
        key=("transaction_id", "product_sku"),
        columns=(
            _column("CustomerID", _identifier(), name="customer_id"),
            _column("Transaction_ID", _identifier()),
            _column("Transaction_Date", _calendar_date()),
            _column("Product_SKU", _text()),
            _column("Product_Description", _text()),
            _column("Product_Category", _text()),
            _column("Quantity", _count(least=1)),
            _column("Avg_Price", _money()),
            _column("Delivery_Charges", _money()),
            _column("Coupon_Status", _one_of("Used", "Clicked", "Not Used")),
        ),
    ),
    FileKind(
        name="customers",
        key=("customer_id",),
        columns=(
            _column("CustomerID", _identifier(), name="customer_id"),
            _column("Gender", _one_of("M", "F")),
            _column("Location", _text()),
            _column("Tenure_Months", _count(least=0)),
        ),
    ),
    FileKind(
        name="discount_coupons",
        key=("coupon_month", "product_category"),
        columns=(
            _column("Month", _month_name(), name="coupon_month"),
            _column("Product_Category", _text()),
            _column("Coupon_Code", _text()),
            _column("Discount_pct", _number("DECIMAL(5, 2)", decimals=2, least=0, most=100)),
        ),
    ),
    FileKind(
        name="marketing_spend",
        key=("spend_date",),
        columns=(
            _column("Date", _calendar_date(), name="spend_date"),
            _column("Offline_Spend", _money()),
            _column("Online_Spend", _money()),
        ),
    ),
    FileKind(
        name="tax_amounts",
        key=("product_category",),
        columns=(
            _column("Product_Category", _text()),
            _column("GST", _number("DECIMAL(5, 4)", decimals=4, least=0, most=1)),
        ),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A recognised header: the kind, and its columns in the order of the file."""

    kind: FileKind
    columns: tuple[SourceColumn, ...]
    delimiter: str


def recognise_line(line: str) -> Header:
    """Return the header that a line of text holds, under whichever delimiter makes it a known kind.

    Raises
    ------
    UnknownFileKindError
        No delimiter does; the message names what is missing or unknown for the nearest kind.

    """
    splits = tuple((delimiter, next(csv.reader([line], delimiter=delimiter), [])) for delimiter in DELIMITERS)
    for delimiter, cells in splits:
        if header := _match(cells, delimiter=delimiter):
            return header
    raise _unknown_kind(max((cells for _, cells in splits), key=lambda cells: (_nearest(cells)[1], len(cells))))


def recognise_cells(cells: Sequence[str]) -> Header:
    """Return the header that a workbook's row holds.

    Raises
    ------
    UnknownFileKindError
        The cells are not exactly the columns of a known kind.

    """
    if header := _match(cells, delimiter=","):
        return header
    raise _unknown_kind(cells)


def _match(cells: Sequence[str], *, delimiter: str) -> Header | None:
    names = [_normal(cell) for cell in cells]
    for kind in FILE_KINDS:
        columns = _by_normal_name(kind)
        if sorted(names) == sorted(columns):
            return Header(kind=kind, columns=tuple(columns[name] for name in names), delimiter=delimiter)
    return None


def _normal(header: str) -> str:
    return re.sub(r"[\s_]+", "_", header.strip()).casefold()


def _by_normal_name(kind: FileKind) -> dict[str, SourceColumn]:
    return {_normal(column.header): column for column in kind.columns}


def _nearest(cells: Sequence[str]) -> tuple[FileKind, float]:
    names = {_normal(cell) for cell in cells}
    shares = ((kind, len(names & set(_by_normal_name(kind))) / len(kind.columns)) for kind in FILE_KINDS)
    return max(shares, key=lambda pair: pair[1])


def _unknown_kind(cells: Sequence[str]) -> UnknownFileKindError:
    kind, share = _nearest(cells)
    if share < LEAST_RESEMBLANCE:
        known = "; ".join(f"{each.name}: {_expected(each)}" for each in FILE_KINDS)
        return UnknownFileKindError(
            f"The header {_quoted(cells)} is not one of the known kinds", hint=f"Known are {known}"
        )
    columns = _by_normal_name(kind)
    names = [_normal(cell) for cell in cells]
    faults = {
        "lacks": [column.header for name, column in columns.items() if name not in names],
        "has the unknown": [cell for cell, name in zip(cells, names, strict=True) if name not in columns],
        "repeats": [column.header for name, column in columns.items() if names.count(name) > 1],
    }
    told = " and ".join(f"{verb} {_quoted(found)}" for verb, found in faults.items() if found)
    return UnknownFileKindError(
        f"The header is nearly that of {kind.name}, but {told}",
        hint=f"The columns must be exactly {_expected(kind)}, in any order",
    )


def _expected(kind: FileKind) -> str:
    return ", ".join(column.header for column in kind.columns)


def _quoted(names: Iterable[str]) -> str:
    shown = [f"'{name.strip()[:LONGEST_SHOWN_NAME]}'" for name in names]
    more = [f"and {len(shown) - MOST_SHOWN_NAMES} more"] if len(shown) > MOST_SHOWN_NAMES else []
    return ", ".join([*shown[:MOST_SHOWN_NAMES], *more])
