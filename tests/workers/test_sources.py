"""Headers, strict types and records, each against plain Python."""

import datetime as dt
import re
import unicodedata
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import Workbook

from workers.errors import CutOffError, SourceError, UnknownFileKindError, UnreadableFileError
from workers.records import Record, open_records
from workers.sinks import FILE_TABLES
from workers.sources import CELL, DELIMITERS, FILE_KINDS, ColumnType, recognise_cells, recognise_line

TYPES = {(kind.name, column.name): column.type for kind in FILE_KINDS for column in kind.columns}
SALES_HEADER = (
    "CustomerID,Transaction_ID,Transaction_Date,Product_SKU,Product_Description,Product_Category,"
    "Quantity,Avg_Price,Delivery_Charges,Coupon_Status"
)


def typed(kind: ColumnType, cell: str) -> object:
    query = f"SELECT {kind.value.replace(CELL, 'cell')} FROM (SELECT trim($1) AS cell)"
    ((value,),) = duckdb.execute(query, [cell]).fetchall()
    return value


def reason(kind: ColumnType, cell: str) -> str:
    faults = " ".join(f"WHEN {test.replace(CELL, 'cell')} THEN '{text}'" for test, text in kind.faults)
    ((text,),) = duckdb.execute(f"SELECT CASE {faults} END FROM (SELECT trim($1) AS cell)", [cell]).fetchall()
    return str(text)


def read(path: Path) -> list[Record]:
    with open_records(path) as records:
        return list(records)


def written(tmp_path: Path, content: str | bytes, *, name: str = "file.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def trimmed(cell: str) -> str:
    # DuckDB's trim takes away every space separator of Unicode, and nothing else.
    spaces = "".join(chr(code) for code in range(0x3001) if unicodedata.category(chr(code)) == "Zs")
    return cell.strip(spaces)


def oracle_date(cell: str) -> dt.date | None:
    forms = (
        (r"(?P<m>\d{1,2})/(?P<d>\d{1,2})/(?P<y>\d{4})"),
        (r"(?P<m>\d{1,2})-(?P<d>\d{1,2})-(?P<y>\d{4})"),
        (r"(?P<y>\d{4})(?P<m>\d{2})(?P<d>\d{2})"),
        (r"(?P<y>\d{4})-(?P<m>\d{2})-(?P<d>\d{2})"),
    )
    for form in forms:
        if found := re.fullmatch(form, trimmed(cell), re.ASCII):
            try:
                date = dt.date(int(found["y"]), int(found["m"]), int(found["d"]))
            except ValueError:
                return None
            return date if dt.date(1900, 1, 1) <= date <= dt.date(2100, 12, 31) else None
    return None


def oracle_number(cell: str, *, decimals: int, least: int, most: int) -> Decimal | None:
    fraction = rf"(\.\d{{1,{decimals}}})?" if decimals else ""
    if not re.fullmatch(r"\d+" + fraction, trimmed(cell), re.ASCII):
        return None
    number = Decimal(trimmed(cell))
    return number if least <= number <= most else None


def padded(*, width: int) -> Callable[[int], str]:
    return lambda number: str(number).zfill(width)


DATE_LIKE = st.one_of(
    st.builds(
        lambda month, day, year, sep: f"{month}{sep}{day}{sep}{year}",
        st.integers(0, 14).map(str) | st.integers(0, 14).map(padded(width=2)),
        st.integers(0, 33).map(str) | st.integers(0, 33).map(padded(width=2)),
        st.integers(1890, 2110).map(str) | st.sampled_from(["0000", "19", "9019", "02019"]),
        st.sampled_from("/-. "),
    ),
    st.dates(dt.date(1895, 1, 1), dt.date(2105, 1, 1)).map(lambda date: date.strftime("%Y%m%d")),
    st.dates(dt.date(1895, 1, 1), dt.date(2105, 1, 1)).map(lambda date: date.strftime("%Y-%m-%d")),
    st.dates(dt.date(1895, 1, 1), dt.date(2105, 1, 1)).map(lambda date: date.strftime(" %m/%d/%Y ")),
    st.integers(0, 10**8).map(padded(width=8)),
    st.text(alphabet="0123456789/- ", max_size=12),
    st.text(max_size=12),
)
NUMBER_LIKE = st.one_of(
    st.integers(-(10**20), 10**20).map(str),
    st.integers(0, 2000).map(str),
    st.decimals(-1000, 1000, places=2).map(str),
    st.decimals(0, 2, places=4).map(str),
    st.floats().map(str),
    st.sampled_from(
        ["NaN", "inf", "-inf", "1e30", "1_000", "1,000", "-", "", "+5", ".5", "5.", "0x10", "٣", "\uff11", "1\n"]
    ),
    st.text(alphabet="0123456789.,-+eE ", max_size=22),
    st.text(max_size=8),
)


@settings(max_examples=400, deadline=None)
@given(DATE_LIKE)
def test_a_date_is_what_python_reads_month_first_and_nothing_else(cell: str) -> None:
    assert typed(TYPES["online_sales", "transaction_date"], cell) == oracle_date(cell)


@pytest.mark.parametrize(
    ("column", "decimals", "least", "most"),
    [
        (("online_sales", "customer_id"), 0, 0, 2**63 - 1),
        (("online_sales", "quantity"), 0, 1, 2**31 - 1),
        (("online_sales", "avg_price"), 2, 0, 10**16 - 1),
        (("discount_coupons", "discount_pct"), 2, 0, 100),
        (("tax_amounts", "gst"), 4, 0, 1),
    ],
)
def test_a_number_is_what_python_reads_exactly_and_nothing_else(
    column: tuple[str, str], decimals: int, least: int, most: int
) -> None:
    @settings(max_examples=250, deadline=None)
    @given(NUMBER_LIKE)
    def agree(cell: str) -> None:
        assert typed(TYPES[column], cell) == oracle_number(cell, decimals=decimals, least=least, most=most)

    agree()


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab'\";é \t\n\r\x00\x1f\x7f\u00a0"), max_size=12))
def test_a_text_is_folded_and_never_empty_or_with_control_characters(cell: str) -> None:
    folded = re.sub(r"[ \t\n\r\u00a0]+", " ", cell).strip(" ")
    has_control = re.search(r"[\x00-\x08\x0e-\x1f\x7f]", cell)
    assert typed(TYPES["customers", "location"], cell) == (None if has_control else folded or None)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(TYPES)), NUMBER_LIKE | DATE_LIKE)
def test_a_bad_cell_always_has_a_reason(column: tuple[str, str], cell: str) -> None:
    if trimmed(cell) and typed(TYPES[column], cell) is None:
        assert reason(TYPES[column], cell) not in ("", "None")


def test_months_are_the_twelve_english_short_names() -> None:
    months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
    assert [typed(TYPES["discount_coupons", "coupon_month"], month) for month in months] == [*range(1, 13)]
    for wrong in ("January", "jan", "1", "13", ""):
        assert typed(TYPES["discount_coupons", "coupon_month"], wrong) is None


def test_every_kind_fills_exactly_the_columns_of_its_raw_table() -> None:
    origin = {"file_hash", "line_number", "loaded_at"}
    assert {kind.name: {column.name for column in kind.columns} for kind in FILE_KINDS} == {
        name: set(table.columns.keys()) - origin for name, table in FILE_TABLES.items()
    }


@pytest.mark.parametrize("kind", FILE_KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("delimiter", DELIMITERS)
def test_a_header_is_recognised_under_any_delimiter_order_case_and_blanks(kind: object, delimiter: str) -> None:
    columns = kind.columns[::-1]  # type: ignore[attr-defined]  # parametrised by a FileKind
    line = delimiter.join(f" {column.header.upper()} " for column in columns)
    header = recognise_line(f"{line}\r\n")
    assert (header.kind, header.columns, header.delimiter) == (kind, columns, delimiter)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a,b,c\n", "The header 'a', 'b', 'c' is not one of the known kinds"),
        ("Product_Category\n", "The header is nearly that of tax_amounts, but lacks 'GST'"),
        (
            "Date;Offline_Spend;Online_Spend;Currency\n",
            "nearly that of marketing_spend, but has the unknown 'Currency'",
        ),
        ("CustomerID,Gender,Location\n", "nearly that of customers, but lacks 'Tenure_Months'"),
        ("GST,gst,Product_Category\n", "nearly that of tax_amounts, but repeats 'GST'"),
        ("Product_Category,GTS\n", "but lacks 'GST' and has the unknown 'GTS'"),
    ],
)
def test_an_unknown_header_is_refused_by_naming_what_differs(line: str, message: str) -> None:
    with pytest.raises(UnknownFileKindError, match=re.escape(message)) as caught:
        recognise_line(line)
    assert "Product_Category, GST" in caught.value.hint or "The columns must be exactly" in caught.value.hint


def test_a_workbook_row_is_recognised_without_a_delimiter() -> None:
    assert recognise_cells(["gst", "Product_Category "]).kind.name == "tax_amounts"


def test_records_keep_the_physical_line_past_blank_lines_and_line_breaks_in_cells(tmp_path: Path) -> None:
    text = '\ufeffProduct_Category,GST\r\n\r\nOffice,0.1\r\n   \r\n"Nest\r\n\r\nUSA",0.2\r\nFun,0.18'
    assert read(written(tmp_path, text)) == [
        (3, ["Office", "0.1"], ""),
        (5, ["Nest\r\n\r\nUSA", "0.2"], ""),
        (8, ["Fun", "0.18"], ""),
    ]


def test_a_row_of_another_width_or_with_misplaced_quotes_carries_its_fault(tmp_path: Path) -> None:
    text = 'Product_Category,GST\na\nb,1,2\n"c"d,0.1\n"e ""f""",0.1\n'
    assert read(written(tmp_path, text)) == [
        (2, ["a"], "the row has 1 cells, the header has 2"),
        (3, ["b", "1", "2"], "the row has 3 cells, the header has 2"),
        (4, ['"c"d,0.1'], "the row has misplaced quotes"),
        (5, ['e "f"', "0.1"], ""),
    ]


def test_a_cell_beyond_the_length_limit_is_a_fault_of_its_row(tmp_path: Path) -> None:
    records = read(written(tmp_path, f"Product_Category,GST\n{'x' * 200_000},0.1\nb,0.1\n"))
    assert [(line, fault) for line, _, fault in records] == [(2, "the row has a cell that is too long"), (3, "")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Product_Category,GST\na,0.1\nb", "cut off in the middle of line 3"),
        ("Product_Category,GST\na,0.1\nb,", "cut off in the middle of line 3"),
        ('Product_Category,GST\na,0.1\n"b,0.1\n', "ends inside a quoted cell that opens on line 3"),
        ('Product_Category,GST\na,0.1\n"b', "ends inside a quoted cell that opens on line 3"),
    ],
)
def test_a_file_that_ends_in_a_line_is_cut_off(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(CutOffError, match=message):
        read(written(tmp_path, content))


def test_a_quote_that_swallows_lines_refuses_the_file_and_names_them(tmp_path: Path) -> None:
    path = written(tmp_path, 'Product_Category,GST\n"a,0.1\nb,0.1\n"c",0.1\n')
    with pytest.raises(UnreadableFileError, match="opens on line 2 is not closed properly by line 4"):
        read(path)


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("a.csv", b"", UnknownFileKindError, "The file is empty"),
        ("a.csv", b"\n \n", UnknownFileKindError, "The file is empty"),
        ("a.csv", b"Product_Category,GST\nCaf\xe9,0.1\n", UnreadableFileError, "line 2, byte 24 of the file"),
        ("a.csv", "Product_Category,GST\n".encode("utf-16"), UnreadableFileError, "line 1, byte 0 of the file"),
        ("a.xlsx", b"Product_Category,GST\n", UnreadableFileError, "not a readable workbook"),
        ("a.xlsx", b"", UnreadableFileError, "not a readable workbook"),
        ("a.txt", b"Product_Category,GST\n", UnreadableFileError, "Files of type '.txt' are not read"),
    ],
)
def test_what_is_no_source_file_is_refused(
    tmp_path: Path, name: str, content: bytes, error: type[SourceError], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        read(written(tmp_path, content, name=name))


def workbook(path: Path, *sheets: list[list[object]]) -> Path:
    book = Workbook(write_only=True)
    for rows in sheets:
        sheet = book.create_sheet()
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def test_a_workbook_gives_numbers_and_dates_as_a_spreadsheet_shows_them(tmp_path: Path) -> None:
    rows: list[list[object]] = [
        [],
        ["Date", "Offline_Spend", "Online_Spend"],
        [dt.datetime(2019, 1, 2), 4500, 12.989999999999998],  # noqa: DTZ001  a workbook has no time zones
        [],
        ["1/3/2019", 4500.0, 1e30],
        [dt.datetime(2019, 1, 4, 12, 30), None, True],  # noqa: DTZ001  as above
        ["1/5/2019", 1, 2, "note"],
    ]
    assert read(workbook(tmp_path / "a.xlsx", [["notes"]], rows)) == [
        (3, ["2019-01-02", "4500", "12.99"], ""),
        (5, ["1/3/2019", "4500", "1e+30"], ""),
        (6, ["2019-01-04 12:30:00", "", "True"], ""),
        (7, ["1/5/2019", "1", "2", "note"], "the row has 4 cells, the header has 3"),
    ]


def test_a_workbook_with_two_known_sheets_or_none_is_refused(tmp_path: Path) -> None:
    known: list[list[object]] = [["Product_Category", "GST"], ["a", 0.1]]
    with pytest.raises(UnknownFileKindError, match="are each a file of their own"):
        read(workbook(tmp_path / "two.xlsx", known, known))
    with pytest.raises(UnknownFileKindError, match="'notes' is not one of the known kinds"):
        read(workbook(tmp_path / "none.xlsx", [["notes"]]))


def test_a_workbook_cut_at_any_place_is_refused(tmp_path: Path) -> None:
    whole = workbook(tmp_path / "a.xlsx", [["Product_Category", "GST"], ["a", 0.1]]).read_bytes()
    for share in range(0, 100, 7):
        with pytest.raises(UnreadableFileError, match="not a readable workbook"):
            read(written(tmp_path, whole[: len(whole) * share // 100], name="cut.xlsx"))
