"""Files to raw tables, end to end on a real DuckDB file."""

import datetime as dt
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from openpyxl import Workbook

from workers.checking import BAD_ROWS_ALWAYS_BORNE
from workers.errors import SettingError, WarehouseLockedError
from workers.ingest import BATCH_ROWS, FileReport, LoadProgress, LoadReport, LoadStatus, ingest
from workers.sinks import open_warehouse

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / "data" / "ecommerce"
needs_real_data = pytest.mark.skipif(not REAL.is_dir(), reason="the real data is not beside the project")

SALES = (
    "CustomerID,Transaction_ID,Transaction_Date,Product_SKU,Product_Description,Product_Category,"
    "Quantity,Avg_Price,Delivery_Charges,Coupon_Status"
)
GOOD_SALE = "17850,16679,1/1/2019,SKU1,Nest  Thermostat,Nest-USA,1,153.71,6.5,Used"


class Shop:
    """A folder of files and a warehouse to load it into."""

    def __init__(self, root: Path) -> None:
        self.data = root / "data"
        self.path = root / "w.duckdb"
        self.data.mkdir()

    def write(self, name: str, *lines: str, end: str = "\n", encoding: str = "utf-8") -> Path:
        path = self.data / name
        path.write_bytes("".join(line + end for line in lines).encode(encoding))
        return path

    def ingest(self, data: Path | None = None, progress: Callable[[LoadProgress], None] | None = None) -> LoadReport:
        with open_warehouse(f"duckdb:///{self.path}") as warehouse:
            return ingest(data or self.data, warehouse=warehouse, progress=progress)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(self.path, read_only=True) as connection:
            return connection.execute(query).fetchall()

    def rejected(self) -> list[tuple[Any, ...]]:
        columns = "file_name, line_number, column_name, reason, raw_value"
        return self.rows(f"SELECT {columns} FROM raw.rejected_records ORDER BY file_hash, line_number")


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def told(file: FileReport) -> tuple[object, ...]:
    return file.file_name, file.kind, str(file.status), file.rows_read, file.rows_loaded, file.rows_quarantined


def cut(row: str, column: int, cell: str) -> str:
    cells = row.split(",")
    cells[column] = cell
    return ",".join(cells)


@needs_real_data
def test_the_real_files_load_whole_and_a_second_time_not_at_all(shop: Shop) -> None:
    expected = [
        ("CustomersData.csv", "customers", 1468),
        ("Discount_Coupon.csv", "discount_coupons", 204),
        ("Marketing_Spend.csv", "marketing_spend", 365),
        ("Online_Sales.csv", "online_sales", 52924),
        ("Tax_amount.csv", "tax_amounts", 20),
    ]
    first = shop.ingest(REAL)
    assert [told(file) for file in first.files] == [(name, kind, "loaded", n, n, 0) for name, kind, n in expected]
    assert first.ignored == ("README.md",)
    again = shop.ingest(REAL)
    assert [told(file) for file in again.files] == [
        (name, kind, "already loaded", 0, 0, 0) for name, kind, _ in expected
    ]
    assert first.ok
    assert again.ok
    assert shop.rows("SELECT sum(quantity * avg_price), max(line_number) FROM raw.online_sales") == [
        (Decimal("4670794.62"), 52925)
    ]
    assert shop.rows("SELECT count(*) FROM raw.online_sales WHERE product_description LIKE '%  %'") == [(0,)]


@needs_real_data
def test_every_spelling_of_the_real_files_gives_the_same_rows(shop: Shop) -> None:
    report = shop.ingest(REAL / "variants")
    assert [told(file)[1:] for file in report.files] == [
        ("customers", "loaded", 1468, 1468, 0),
        ("customers", "loaded", 1468, 1468, 0),
        ("discount_coupons", "loaded", 204, 204, 0),
        ("marketing_spend", "loaded", 365, 365, 0),
        ("online_sales", "loaded", 500, 500, 0),
        ("tax_amounts", "loaded", 20, 20, 0),
    ]
    shop.ingest(REAL)
    for kind in ("customers", "discount_coupons", "marketing_spend", "tax_amounts"):
        hashes = shop.rows(f"SELECT file_hash FROM raw.load_files WHERE file_kind = '{kind}'")
        plain = f"SELECT * EXCLUDE (file_hash, loaded_at, line_number) FROM raw.{kind} WHERE file_hash ="
        contents = [sorted(shop.rows(f"{plain} '{file_hash}'")) for (file_hash,) in hashes]
        assert len(contents) > 1
        assert all(content == contents[0] for content in contents)
    lines = "SELECT * EXCLUDE (file_hash, loaded_at) FROM raw.online_sales"
    assert len(shop.rows(f"{lines} GROUP BY ALL HAVING count(*) = 2")) == 500


def test_every_kind_lands_typed_in_its_table(shop: Shop) -> None:
    shop.write("1.csv", SALES, GOOD_SALE)
    shop.write("2.csv", "CustomerID,Gender,Location,Tenure_Months", "1,F,New  York ,0")
    shop.write("3.csv", "Month,Product_Category ,Coupon_Code,Discount_pct", "Dec,Fun,SALE10,12.5")
    shop.write("4.csv", "Date,Offline_Spend,Online_Spend", "12/31/2019,4500,0.05")
    shop.write("5.csv", "Product_Category,GST", "Fun,0.1825")
    assert shop.ingest().ok
    read = "SELECT * EXCLUDE (file_hash, loaded_at) FROM raw."
    day = dt.date(2019, 1, 1)
    prices = (Decimal("153.71"), Decimal("6.50"))
    sale = (17850, 16679, day, "SKU1", "Nest Thermostat", "Nest-USA", 1, *prices, "Used", 2)
    assert shop.rows(f"{read}online_sales") == [sale]
    assert shop.rows(f"{read}customers") == [(1, "F", "New York", 0, 2)]
    assert shop.rows(f"{read}discount_coupons") == [(12, "Fun", "SALE10", Decimal("12.50"), 2)]
    spend = (dt.date(2019, 12, 31), Decimal("4500.00"), Decimal("0.05"), 2)
    assert shop.rows(f"{read}marketing_spend") == [spend]
    assert shop.rows(f"{read}tax_amounts") == [("Fun", Decimal("0.1825"), 2)]


@pytest.mark.parametrize("date", ["1/2/2019", "01/02/2019", "1-2-2019", "01-02-2019", "20190102", "2019-01-02"])
def test_every_spelling_of_a_date_is_month_first(shop: Shop, date: str) -> None:
    shop.write("spend.csv", "Date,Offline_Spend,Online_Spend", f"{date},1,2")
    assert shop.ingest().ok
    assert shop.rows("SELECT spend_date FROM raw.marketing_spend") == [(dt.date(2019, 1, 2),)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_delimiter_line_end_and_byte_order_mark_do_not_matter(
    shop: Shop, delimiter: str, end: str, encoding: str
) -> None:
    lines = ["Tenure_Months,LOCATION ,Gender,CustomerID", "", "12,São Paulo,M,7", " 3 ,Chicago,F, 8"]
    shop.write("c.csv", *(line.replace(",", delimiter) for line in lines), end=end, encoding=encoding)
    assert shop.ingest().ok
    assert shop.rows("SELECT customer_id, gender, location, tenure_months, line_number FROM raw.customers") == [
        (7, "M", "São Paulo", 12, 3),
        (8, "F", "Chicago", 3, 4),
    ]


def test_a_workbook_loads_with_its_sheet_rows_as_lines(shop: Shop) -> None:
    book = Workbook(write_only=True)
    sheet = book.create_sheet("any name")
    for row in (["Date", "Offline_Spend", "Online_Spend"], [dt.date(2019, 1, 2), 4500, 2424.5], ["x", 1, 2]):
        sheet.append(row)
    book.save(shop.data / "spend.XLSX")
    assert shop.ingest().ok
    spend = (dt.date(2019, 1, 2), Decimal("4500.00"), Decimal("2424.50"), 2)
    assert shop.rows("SELECT * EXCLUDE (file_hash, loaded_at) FROM raw.marketing_spend") == [spend]
    assert [row[:3] for row in shop.rejected()] == [("spend.XLSX", 3, "Date")]


def test_bad_rows_are_quarantined_with_file_line_column_and_reason_and_the_good_ones_load(shop: Shop) -> None:
    shop.write("sales.csv", SALES, cut(GOOD_SALE, 2, "13/45/2019"), GOOD_SALE, GOOD_SALE, "1,2")
    assert [told(file) for file in shop.ingest().files] == [("sales.csv", "online_sales", "loaded", 4, 1, 3)]
    not_a_date = "is not a date; expected M/D/YYYY, M-D-YYYY, YYYYMMDD or YYYY-MM-DD"
    assert shop.rejected() == [
        ("sales.csv", 2, "Transaction_Date", f"'13/45/2019' {not_a_date}", "13/45/2019"),
        ("sales.csv", 4, None, "duplicate of line 3", GOOD_SALE),
        ("sales.csv", 5, None, "the row has 2 cells, the header has 10", "1,2"),
    ]
    assert shop.rows("SELECT line_number FROM raw.online_sales") == [(3,)]


def test_duplicates_and_order_hold_across_batches(shop: Shop) -> None:
    count = BATCH_ROWS * 2 + 10
    lines = [f"{number},M,x,1" for number in range(count)]
    repeats = [f"{number},F,y,2" for number in (0, BATCH_ROWS, count - 1)]
    shop.write("c.csv", "CustomerID,Gender,Location,Tenure_Months", *lines, *repeats, repeats[0])
    assert [told(file)[3:] for file in shop.ingest().files] == [(count + 4, count, 4)]
    firsts = (2, BATCH_ROWS + 2, count + 1, 2)
    assert [row[1:4] for row in shop.rejected()] == [
        (count + 2 + place, None, f"duplicate of line {first}") for place, first in enumerate(firsts)
    ]
    assert shop.rows("SELECT count(*) FROM raw.customers WHERE customer_id <> line_number - 2") == [(0,)]


def only_failure(report: LoadReport) -> tuple[str, str]:
    (file,) = report.files
    assert file.status is LoadStatus.FAILED
    assert not report.ok
    assert (file.rows_read, file.rows_loaded, file.rows_quarantined) == (0, 0, 0)
    return str(file.error), str(file.hint)


def assert_nothing_loaded(shop: Shop) -> None:
    tables = ("online_sales", "customers", "tax_amounts", "load_files", "rejected_records")
    counts = " + ".join(f"(SELECT count(*) FROM raw.{table})" for table in tables)
    assert shop.rows(f"SELECT {counts}") == [(0,)]


@pytest.mark.parametrize("length", range(1, len(GOOD_SALE) + 1))
def test_a_sales_file_cut_at_any_byte_of_its_last_line_loads_nothing(shop: Shop, length: int) -> None:
    second = cut(GOOD_SALE, 1, "16680").replace(",Used", ",Not Used")
    path = shop.write("sales.csv", SALES, GOOD_SALE, second)
    path.write_bytes(path.read_bytes()[: -length - 1])
    error, hint = only_failure(shop.ingest())
    assert error.startswith("The file is cut off in the middle of line 3")
    assert hint.startswith("Fetch the file again")
    assert_nothing_loaded(shop)


def test_a_complete_last_line_needs_no_line_end(shop: Shop) -> None:
    path = shop.write("sales.csv", SALES, GOOD_SALE)
    path.write_bytes(path.read_bytes()[:-1])
    assert [told(file)[3:] for file in shop.ingest().files] == [(1, 1, 0)]


def test_a_short_last_row_with_a_line_end_is_only_quarantined(shop: Shop) -> None:
    shop.write("tax.csv", "Product_Category,GST", "a,0.1", "b")
    assert [told(file)[3:] for file in shop.ingest().files] == [(2, 1, 1)]


def test_a_file_that_is_not_loaded_does_not_stop_the_others_and_is_loaded_once_corrected(shop: Shop) -> None:
    shop.write("a.csv", "name,price", "x,1")
    shop.write("b.csv", "Product_Category,GST", "Café,0.1", encoding="latin-1")
    shop.write("c.csv", "Product_Category,GST", "Fun,0.1")
    (shop.data / "d.xlsx").write_bytes(b"PK\x03\x04 broken")
    report = shop.ingest()
    assert [(file.file_name, str(file.status), file.kind) for file in report.files] == [
        ("a.csv", "failed", None),
        ("b.csv", "failed", None),
        ("c.csv", "loaded", "tax_amounts"),
        ("d.xlsx", "failed", None),
    ]
    assert not report.ok
    assert all(file.error and file.hint for file in report.files if file.status is LoadStatus.FAILED)
    assert shop.rows("SELECT file_name FROM raw.load_files") == [("c.csv",)]
    shop.write("b.csv", "Product_Category,GST", "Café,0.1")
    assert [str(file.status) for file in shop.ingest().files] == ["failed", "loaded", "already loaded", "failed"]


def test_a_file_that_is_mostly_bad_is_refused_and_leaves_nothing(shop: Shop) -> None:
    shop.write("tax.csv", "Product_Category,GST", *(f"b{i},x" for i in range(BAD_ROWS_ALWAYS_BORNE + 1)), "g,0.1")
    error, _ = only_failure(shop.ingest())
    assert error.startswith("101 of 102 rows are bad")
    assert_nothing_loaded(shop)


def test_a_file_with_a_header_only_is_loaded_as_empty(shop: Shop) -> None:
    shop.write("tax.csv", "Product_Category,GST")
    assert [told(file) for file in shop.ingest().files] == [("tax.csv", "tax_amounts", "loaded", 0, 0, 0)]


def test_the_same_content_loads_once_under_any_name(shop: Shop) -> None:
    original = shop.write("a.csv", "Product_Category,GST", "Fun,0.1")
    shutil.copy(original, shop.data / "b.csv")
    assert [str(file.status) for file in shop.ingest().files] == ["loaded", "already loaded"]
    original.rename(shop.data / "c.csv")
    assert [told(file)[1:3] for file in shop.ingest().files] == [("tax_amounts", "already loaded")] * 2
    assert shop.rows("SELECT count(*) FROM raw.tax_amounts") == [(1,)]


def test_a_changed_file_is_another_load_and_raw_keeps_both(shop: Shop) -> None:
    shop.write("a.csv", "Product_Category,GST", "Fun,0.1")
    shop.ingest()
    shop.write("a.csv", "Product_Category,GST", "Fun,0.2")
    shop.ingest()
    loads = "SELECT load_id, gst FROM raw.tax_amounts JOIN raw.load_files USING (file_hash) ORDER BY 1"
    assert shop.rows(loads) == [(1, Decimal("0.1000")), (2, Decimal("0.2000"))]


def test_other_files_hidden_files_and_folders_are_left_alone(shop: Shop) -> None:
    shop.write("b.csv", "Product_Category,GST", "Fun,0.1")
    shop.write("notes.txt", "notes")
    shop.write("~$b.xlsx", "lock")
    shop.write(".b.csv", "half copied")
    (shop.data / "inner.csv").mkdir()
    report = shop.ingest()
    assert [file.file_name for file in report.files] == ["b.csv"]
    assert report.ignored == (".b.csv", "notes.txt", "~$b.xlsx")


def test_one_file_can_be_named_and_one_of_another_type_is_a_failure(shop: Shop) -> None:
    assert shop.ingest(shop.write("t.csv", "Product_Category,GST", "Fun,0.1")).ok
    error, _ = only_failure(shop.ingest(shop.write("t.json", "{}")))
    assert error == "Files of type '.json' are not read"


def test_nothing_to_load_is_an_error(shop: Shop) -> None:
    with pytest.raises(SettingError, match=r"holds no \.csv or \.xlsx file"):
        shop.ingest()
    with pytest.raises(SettingError, match="There is no file or folder"):
        shop.ingest(shop.data / "missing")


def test_a_file_name_that_is_sql_or_no_text_is_a_name_only(shop: Shop) -> None:
    hostile = shop.write("x'); DROP TABLE raw.customers; --.csv", "Product_Category,GST", "'; DROP TABLE x,0.1")
    shop.write("y.csv", "Product_Category,GST", "b,0.1").rename(shop.data / os.fsdecode(b"\xff.csv"))
    assert shop.ingest().ok
    assert shop.rows("SELECT file_name FROM raw.load_files ORDER BY load_id") == [(hostile.name,), ("\ufffd.csv",)]
    assert shop.rows("SELECT count(*) FROM raw.customers") == [(0,)]


def test_progress_ends_at_the_last_byte_of_all_files(shop: Shop) -> None:
    lines = [f"{number},M,x,1" for number in range(BATCH_ROWS * 2)]
    shop.write("a.csv", "CustomerID,Gender,Location,Tenure_Months", *lines)
    shop.write("b.csv", "Product_Category,GST", "Fun,0.1")
    seen: list[LoadProgress] = []
    shop.ingest(progress=seen.append)
    size = sum(path.stat().st_size for path in shop.data.iterdir())
    done = [progress.bytes_done for progress in seen]
    assert done == sorted(done)
    assert 0 < done[0] < size == done[-1] == seen[0].bytes_total
    assert [(seen[-2].file_name, seen[-2].rows_read), (seen[-1].file_name, seen[-1].rows_read)] == [
        ("a.csv", BATCH_ROWS * 2),
        ("b.csv", 1),
    ]


def test_a_file_that_grows_while_it_is_read_is_not_loaded(shop: Shop) -> None:
    path = shop.write(
        "a.csv", "CustomerID,Gender,Location,Tenure_Months", *(f"{i},M,x,1" for i in range(BATCH_ROWS * 2))
    )

    def grow(_: LoadProgress) -> None:
        with path.open("a") as stream:
            stream.write(f"{10**9 + stream.tell()},M,x,1\n")

    error, _ = only_failure(shop.ingest(progress=grow))
    assert error == "The file changed while it was read"
    assert_nothing_loaded(shop)


def test_an_ingestion_killed_at_any_moment_leaves_whole_files_only(shop: Shop) -> None:
    count = 60_000
    for name in ("a", "b", "c"):
        lines = [f"{number},M,{name},1" for number in range(count)]
        shop.write(f"{name}.csv", "CustomerID,Gender,Location,Tenure_Months", *lines)
    script = (
        "from pathlib import Path\nfrom workers.ingest import ingest\nfrom workers.sinks import open_warehouse\n"
        f"ingest(Path({str(shop.data)!r}), warehouse=open_warehouse({f'duckdb:///{shop.path}'!r}),"
        " progress=lambda p: print(p.rows_read, flush=True))"
    )
    for attempt in range(6):
        with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            # The first word comes once a batch is checked: the kill then falls into a check or a copy.
            process.stdout.readline()
            killer = threading.Timer(0.05 * attempt, process.kill)
            killer.start()
            process.wait()
            killer.cancel()
        loads = "SELECT count(*) FROM raw.customers GROUP BY file_hash"
        assert set(shop.rows(loads)) <= {(count,)}
        assert len(shop.rows(loads)) == len(shop.rows("SELECT * FROM raw.load_files"))
    assert shop.ingest().ok
    assert sorted(shop.rows("SELECT location, count(*) FROM raw.customers GROUP BY 1")) == [
        (name, count) for name in ("a", "b", "c")
    ]


def test_a_warehouse_locked_for_too_long_stops_the_run_with_what_to_do(shop: Shop) -> None:
    shop.write("t.csv", "Product_Category,GST", "Fun,0.1")
    script = f"import duckdb, time; c = duckdb.connect({str(shop.path)!r}); print(1, flush=True); time.sleep(60)"
    with (
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process,
        open_warehouse(f"duckdb:///{shop.path}", lock_timeout=timedelta(seconds=0.3)) as warehouse,
    ):
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(WarehouseLockedError, match="in use by another process"):
            ingest(shop.data, warehouse=warehouse)
        process.kill()
    assert shop.ingest().ok
