"""Which rows are good, and the exact words about each that is not."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest

from workers.checking import BAD_ROWS_ALWAYS_BORNE, RowChecker
from workers.errors import TooManyBadRowsError
from workers.records import in_batches, open_records

SALES = (
    "CustomerID,Transaction_ID,Transaction_Date,Product_SKU,Product_Description,Product_Category,"
    "Quantity,Avg_Price,Delivery_Charges,Coupon_Status"
)
GOOD_SALE = "17850,16679,1/1/2019,SKU1,Nest  Thermostat,Nest-USA,1,153.71,6.5,Used"


class Desk:
    """Checks one file of the given lines, and remembers what came out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._good: list[dict[str, Any]] = []
        self._rejected: list[dict[str, Any]] = []

    def check(self, *lines: str) -> tuple[int, int, int]:
        self._path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        with duckdb.connect(":memory:") as scratch, open_records(self._path) as records:
            checker = RowChecker(records.header, scratch)
            for batch in in_batches(records, most_rows=100):
                checker.check(batch)
            checker.refuse_bad_file()
            self._good = [row for rows in checker.good_batches() for row in rows.to_pylist()]
            self._rejected = [row for rows in checker.rejected_batches() for row in rows.to_pylist()]
        return checker.rows_read, checker.good_rows, checker.bad_rows

    def good_lines(self) -> list[int]:
        return [row["line_number"] for row in self._good]

    def rejected(self) -> list[tuple[Any, ...]]:
        return [tuple(row.values()) for row in self._rejected]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "file.csv")


def cut(row: str, column: int, cell: str) -> str:
    cells = row.split(",")
    cells[column] = cell
    return ",".join(cells)


NOT_A_DATE = "is not a date; expected M/D/YYYY, M-D-YYYY, YYYYMMDD or YYYY-MM-DD"
NOT_A_NUMBER = "is not a number; expected digits like 1234.5"
BAD_CELLS = [
    (0, "", "CustomerID", "the cell is empty"),
    (0, "   ", "CustomerID", "the cell is empty"),
    (0, "-", "CustomerID", f"'-' {NOT_A_NUMBER}"),
    (0, "12.0", "CustomerID", "'12.0' is not a whole number"),
    (0, "9223372036854775808", "CustomerID", "'9223372036854775808' is above 9223372036854775807"),
    (1, "1e30", "Transaction_ID", f"'1e30' {NOT_A_NUMBER}"),
    (1, "1_000", "Transaction_ID", f"'1_000' {NOT_A_NUMBER}"),
    (2, "13/45/2019", "Transaction_Date", f"'13/45/2019' {NOT_A_DATE}"),
    (2, "2/29/2019", "Transaction_Date", f"'2/29/2019' {NOT_A_DATE}"),
    (2, "31.12.2019", "Transaction_Date", f"'31.12.2019' {NOT_A_DATE}"),
    (2, "1/2/19", "Transaction_Date", f"'1/2/19' {NOT_A_DATE}"),
    (2, "2019-01-02 00:00", "Transaction_Date", f"'2019-01-02 00:00' {NOT_A_DATE}"),
    (2, "1/2/9019", "Transaction_Date", "'1/2/9019' is not between 1900-01-01 and 2100-12-31"),
    (3, "", "Product_SKU", "the cell is empty"),
    (4, "a\x07b", "Product_Description", "'a\x07b' holds a control character"),
    (5, "\u00a0", "Product_Category", "the cell is empty"),
    (5, "\t", "Product_Category", "'\t' holds only blanks"),
    (6, "0", "Quantity", "'0' is below 1"),
    (6, "-3", "Quantity", "'-3' is negative"),
    (6, "1.5", "Quantity", "'1.5' is not a whole number"),
    (6, "2147483648", "Quantity", "'2147483648' is above 2147483647"),
    (7, "NaN", "Avg_Price", f"'NaN' {NOT_A_NUMBER}"),
    (7, "inf", "Avg_Price", f"'inf' {NOT_A_NUMBER}"),
    (7, "-1.00", "Avg_Price", "'-1.00' is negative"),
    (7, "1.005", "Avg_Price", "'1.005' has more than 2 decimals"),
    (7, '"1,000.00"', "Avg_Price", f"'1,000.00' {NOT_A_NUMBER}"),
    (7, "$5", "Avg_Price", f"'$5' {NOT_A_NUMBER}"),
    (7, "99999999999999999", "Avg_Price", "'99999999999999999' is above 9999999999999999"),
    (8, "6,5", None, "the row has 11 cells, the header has 10"),
    (9, "used", "Coupon_Status", "'used' is not one of Used, Clicked, Not Used"),
]


@pytest.mark.parametrize(("column", "cell", "header", "reason"), BAD_CELLS)
def test_a_bad_cell_is_quarantined_and_the_good_rows_load(
    desk: Desk, column: int, cell: str, header: str | None, reason: str
) -> None:
    bad = cut(GOOD_SALE, column, cell)
    assert desk.check(SALES, bad, GOOD_SALE) == (2, 1, 1)
    kept = cell.strip('"') if header else bad
    assert desk.rejected() == [(2, header, reason, kept)]
    assert desk.good_lines() == [3]


def test_a_nul_is_quarantined_and_shown_as_text(desk: Desk) -> None:
    desk.check("Product_Category,GST", "F\0n,0.1", "Fun,0.1", "Bags,0.\0")
    assert desk.rejected() == [
        (2, "Product_Category", "'F\\x00n' holds a control character", "F\\x00n"),
        (4, "GST", f"'0.\\x00' {NOT_A_NUMBER}", "0.\\x00"),
    ]


@pytest.mark.parametrize(
    ("header", "good", "bad", "expected"),
    [
        ("Product_Category,GST", "a,0.18", "b,18", ("GST", "'18' is above 1", "18")),
        ("Product_Category,GST", "a,1", "b,18%", ("GST", f"'18%' {NOT_A_NUMBER}", "18%")),
        ("Product_Category,GST", "a,0", "b,0.12345", ("GST", "'0.12345' has more than 4 decimals", "0.12345")),
        (
            "Month,Product_Category,Coupon_Code,Discount_pct",
            "Jan,a,S,100",
            "Jan,b,S,100.01",
            ("Discount_pct", "'100.01' is above 100", "100.01"),
        ),
        (
            "Month,Product_Category,Coupon_Code,Discount_pct",
            "Jan,a,S,0",
            "13,b,S,10",
            ("Month", "'13' is not a month; expected Jan, Feb, … Dec", "13"),
        ),
        ("CustomerID,Gender,Location,Tenure_Months", "1,M,x,0", "2,X,x,0", ("Gender", "'X' is not one of M, F", "X")),
        ("Product_Category,GST", "a,0.1", "b", (None, "the row has 1 cells, the header has 2", "b")),
    ],
)
def test_each_kind_has_its_own_bounds(
    desk: Desk, header: str, good: str, bad: str, expected: tuple[str | None, str, str]
) -> None:
    assert desk.check(header, bad, good) == (2, 1, 1)
    assert desk.rejected() == [(2, *expected)]


def test_a_long_bad_value_is_shortened(desk: Desk) -> None:
    desk.check("Product_Category,GST", f"a,{'9' * 5000}", "b,0.1")
    ((_, _, reason, kept),) = desk.rejected()
    assert reason == f"'{'9' * 60}' is above 1"
    assert kept == "9" * 2000


@pytest.mark.parametrize(
    ("header", "first", "second", "other"),
    [
        (SALES, GOOD_SALE, cut(GOOD_SALE, 6, "2"), cut(GOOD_SALE, 3, "SKU2")),
        ("CustomerID,Gender,Location,Tenure_Months", "1,M,x,1", "01,F,y,2", "2,M,x,1"),
        ("Month,Product_Category,Coupon_Code,Discount_pct", "Jan,a,S,1", "Jan,a ,T,2", "Feb,a,S,1"),
        ("Date,Offline_Spend,Online_Spend", "1/1/2019,1,1", "20190101,2,2", "1/2/2019,1,1"),
        ("GST,Product_Category", "0.1,a  b", "0.2,a b", "0.1,b"),
    ],
)
def test_a_repeated_key_is_quarantined_with_the_line_of_the_first(
    desk: Desk, header: str, first: str, second: str, other: str
) -> None:
    assert desk.check(header, first, other, second, second) == (4, 2, 2)
    assert desk.rejected() == [
        (4, None, "duplicate of line 2", second),
        (5, None, "duplicate of line 2", second),
    ]


def test_a_bad_row_does_not_make_a_later_good_one_a_duplicate(desk: Desk) -> None:
    desk.check("Product_Category,GST", "a,x", "a,0.1", "a,y")
    assert desk.good_lines() == [3]
    assert [row[:2] for row in desk.rejected()] == [(2, "GST"), (4, "GST")]


def tax_lines(*, good: int, bad: int) -> Sequence[str]:
    return [*(f"g{i},0.1" for i in range(good)), *(f"b{i},x" for i in range(bad))]


@pytest.mark.parametrize(
    ("good", "bad", "is_loaded"),
    [
        (0, 1, False),
        (1, BAD_ROWS_ALWAYS_BORNE, True),
        (1, BAD_ROWS_ALWAYS_BORNE + 1, False),
        (200, 200, True),
        (200, 201, False),
    ],
)
def test_a_file_that_is_mostly_bad_is_refused_with_the_commonest_reason(
    desk: Desk, good: int, bad: int, *, is_loaded: bool
) -> None:
    lines = ("Product_Category,GST", *tax_lines(good=good, bad=bad))
    if is_loaded:
        assert desk.check(*lines) == (good + bad, good, bad)
        return
    like = f"{bad} of them like line {good + 2}, GST: 'x' {NOT_A_NUMBER}"
    with pytest.raises(TooManyBadRowsError, match=re.escape(f"{bad} of {good + bad} rows are bad, {like}")):
        desk.check(*lines)
