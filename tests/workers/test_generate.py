"""The synthetic data has the sizes, formats and quirks that the pipeline must cope with."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from workers.errors import SettingError
from workers.generate import DRAWN_PERCENT, GeneratedData, generate
from workers.shop import BEHAVIOURS, CATEGORIES, MONTHS

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
HEADERS = {
    "Online_Sales.csv": "CustomerID,Transaction_ID,Transaction_Date,Product_SKU,Product_Description,"
    "Product_Category,Quantity,Avg_Price,Delivery_Charges,Coupon_Status",
    "CustomersData.csv": "CustomerID,Gender,Location,Tenure_Months",
    "Discount_Coupon.csv": "Month,Product_Category,Coupon_Code,Discount_pct",
    "Marketing_Spend.csv": "Date,Offline_Spend,Online_Spend",
    "Tax_amount.csv": "Product_Category,GST",
}
MONEY = re.compile(r"\d+(\.\d?[1-9])?")  # no trailing zero
DAY = re.compile(r"[1-9]\d?/[1-9]\d?/2019")


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> GeneratedData:
    return generate(tmp_path_factory.mktemp("scale_1") / "made" / "by_generate")


@pytest.fixture(scope="module")
def folder(generated: GeneratedData) -> Path:
    return generated.files[0].path.parent


@pytest.fixture(scope="module")
def db(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        for name in HEADERS:
            connection.execute(
                f"create table {name.removesuffix('.csv')} as from "
                f"read_csv('{folder / name}', dateformat='%-m/%-d/%Y', auto_type_candidates="
                "['BIGINT', 'DECIMAL(18,2)', 'DATE', 'VARCHAR'])"
            )
        yield connection


def rows_of(connection: duckdb.DuckDBPyConnection, query: str) -> list[tuple[Any, ...]]:
    return connection.execute(query).fetchall()


def value_of(connection: duckdb.DuckDBPyConnection, query: str) -> Any:
    ((value,),) = rows_of(connection, query)
    return value


def cells(path: Path) -> list[list[str]]:
    return [line.split(",") for line in path.read_text("ascii").splitlines()[1:]]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_sizes_at_scale_1_are_those_of_the_real_data(db: duckdb.DuckDBPyConnection) -> None:
    sizes = rows_of(
        db,
        "select count(*), count(distinct Transaction_ID), count(distinct CustomerID),"
        " count(distinct Product_SKU), count(distinct Product_Category), count(distinct Transaction_Date),"
        " count(distinct Product_Description)"
        " from Online_Sales",
    )
    assert sizes == [(52_924, 25_061, 1_468, 1_145, 20, 365, 404)]


def test_the_report_names_each_file_with_its_rows(generated: GeneratedData, folder: Path) -> None:
    reported = {file.path.name: file.rows for file in generated.files}
    assert reported == {name: len(cells(folder / name)) for name in HEADERS}
    assert list(reported.values()) == [52_924, 1_468, 204, 365, 20]
    assert set(contents(folder)) == set(HEADERS)


@pytest.mark.parametrize("name", HEADERS)
def test_a_file_has_the_real_header_lf_ends_no_quotes_and_no_empty_cell(folder: Path, name: str) -> None:
    text = (folder / name).read_bytes()
    assert text.split(b"\n", 1)[0].decode() == HEADERS[name]
    assert text.endswith(b"\n")
    assert not re.search(rb'["\r]|,,|,\n|\n,|\n\n', text)
    assert {len(row) for row in cells(folder / name)} == {HEADERS[name].count(",") + 1}


def test_dates_are_month_first_without_padding_and_money_has_no_trailing_zeros(folder: Path) -> None:
    sales, spend = cells(folder / "Online_Sales.csv"), cells(folder / "Marketing_Spend.csv")
    assert all(DAY.fullmatch(row[2]) for row in sales)
    assert all(DAY.fullmatch(row[0]) for row in spend)
    assert all(MONEY.fullmatch(cell) for row in sales for cell in row[7:9])
    assert all(MONEY.fullmatch(row[2]) for row in spend)
    assert {len(row[7].partition(".")[2]) for row in sales} == {0, 1, 2}


def test_a_product_occurs_once_in_a_transaction(db: duckdb.DuckDBPyConnection) -> None:
    assert value_of(db, "select count(distinct (Transaction_ID, Product_SKU)) from Online_Sales") == 52_924


def test_a_transaction_has_one_date_and_one_delivery_charge_on_each_of_its_lines(
    db: duckdb.DuckDBPyConnection,
) -> None:
    per_transaction = (
        "select Transaction_ID, count(distinct Transaction_Date) d, count(distinct Delivery_Charges) c,"
        " count(*) n, any_value(Delivery_Charges) charge from Online_Sales group by all"
    )
    assert rows_of(db, f"select max(d), max(c), max(n) from ({per_transaction})") == [(1, 1, 35)]
    assert value_of(db, f"select count(*) from ({per_transaction}) where n > 1 and charge > 0") > 10_000


def test_one_transaction_in_twenty_has_lines_of_several_customers(db: duckdb.DuckDBPyConnection) -> None:
    customers = "select count(distinct CustomerID) n from Online_Sales group by Transaction_ID"
    assert value_of(db, f"select count(*) from ({customers}) where n > 1") == 1_319
    assert value_of(db, f"select count(*) from ({customers}) where n > 2") > 50


def test_most_transactions_of_several_lines_mix_coupon_statuses(db: duckdb.DuckDBPyConnection) -> None:
    mixed = value_of(
        db,
        "select avg((s > 1)::int) from (select count(distinct Coupon_Status) s from Online_Sales"
        " group by Transaction_ID having count(*) > 1)",
    )
    assert mixed == pytest.approx(0.77, abs=0.03)


def test_coupon_statuses_come_in_the_measured_shares(db: duckdb.DuckDBPyConnection) -> None:
    shares = dict(rows_of(db, "select Coupon_Status, count(*) / 52924 from Online_Sales group by all"))
    assert shares == pytest.approx({"Clicked": 0.51, "Used": 0.34, "Not Used": 0.15}, abs=0.02)


def test_some_customers_use_a_coupon_within_days_of_the_click(db: duckdb.DuckDBPyConnection) -> None:
    share = value_of(
        db,
        "select count(distinct c.CustomerID) filter (u.CustomerID is not null) / count(distinct c.CustomerID)"
        " from Online_Sales c left join Online_Sales u on u.CustomerID = c.CustomerID"
        " and u.Coupon_Status = 'Used' and u.Transaction_Date - c.Transaction_Date between 1 and 6"
        " where c.Coupon_Status = 'Clicked'",
    )
    assert 0.15 < share < 0.35


def test_a_return_within_six_days_uses_more_coupons_than_an_ordinary_visit(
    db: duckdb.DuckDBPyConnection,
) -> None:
    used = dict(
        rows_of(
            db,
            "with visits as (select CustomerID, Transaction_Date, count_if(Coupon_Status = 'Used') used,"
            " count(*) n from Online_Sales group by all), gaps as (select *,"
            " coalesce(Transaction_Date - lag(Transaction_Date) over"
            " (partition by CustomerID order by Transaction_Date) <= 6, false) is_return from visits)"
            " select is_return, sum(used) / sum(n) from gaps group by all",
        )
    )
    assert used[True] > used[False] + 0.05


def test_a_share_of_descriptions_holds_double_spaces(db: duckdb.DuckDBPyConnection) -> None:
    lines, descriptions = rows_of(
        db,
        "select count(*), count(distinct Product_Description) from Online_Sales"
        " where contains(Product_Description, '  ')",
    )[0]
    assert 200 < lines < 1_000
    assert 3 < descriptions < 20
    assert value_of(db, "select max(length(Product_Description)) from Online_Sales") <= 59


def test_a_sku_has_one_description_and_category_but_several_skus_share_a_description(
    db: duckdb.DuckDBPyConnection,
) -> None:
    assert (
        value_of(
            db,
            "select count(distinct (Product_SKU, Product_Description, Product_Category)) from Online_Sales",
        )
        == 1_145
    )
    shared = "select count(distinct Product_SKU) n from Online_Sales group by Product_Description"
    assert rows_of(db, f"select max(n) > 5, min(n), median(n) from ({shared})") == [(True, 1, 2.0)]


def test_a_sku_has_several_prices_over_the_year_and_sometimes_two_on_a_day(
    db: duckdb.DuckDBPyConnection,
) -> None:
    prices = "select count(distinct Avg_Price) n from Online_Sales group by Product_SKU"
    assert 2 <= value_of(db, f"select median(n) from ({prices})") <= 5
    a_day = f"{prices}, Transaction_Date"
    assert 0.03 < value_of(db, f"select avg((n = 2)::int) from ({a_day})") < 0.15


def test_one_sku_has_12_characters_and_the_others_14(db: duckdb.DuckDBPyConnection) -> None:
    query = "select length(Product_SKU), count(distinct Product_SKU) from Online_Sales group by 1 order by 1"
    lengths = rows_of(db, query)
    assert lengths == [(12, 1), (14, 1_144)]


def test_quantities_are_mostly_one_with_a_tail_to_900(db: duckdb.DuckDBPyConnection) -> None:
    smallest, middle, ninety_ninth, largest = rows_of(
        db,
        "select min(Quantity), median(Quantity), quantile_cont(Quantity, 0.99), max(Quantity) from Online_Sales",
    )[0]
    assert (smallest, middle) == (1, 1)
    assert 40 < ninety_ninth < 120
    assert 600 < largest <= 900


def test_lines_per_transaction_and_prices_follow_the_measured_distributions(
    db: duckdb.DuckDBPyConnection,
) -> None:
    counts = "select count(*) n from Online_Sales group by Transaction_ID"
    assert rows_of(db, f"select avg((n = 1)::int), avg((n > 5)::int) from ({counts})")[0] == pytest.approx(
        (0.584, 0.065), abs=0.01
    )
    median, ninetieth = rows_of(
        db, "select median(Avg_Price)::double, quantile_cont(Avg_Price::double, 0.9) from Online_Sales"
    )[0]
    assert median == pytest.approx(17, rel=0.15)
    assert ninetieth == pytest.approx(149, rel=0.1)


def test_the_year_s_gross_is_within_a_tenth_of_the_real_one(db: duckdb.DuckDBPyConnection) -> None:
    gross = value_of(db, "select sum(Quantity * Avg_Price)::double from Online_Sales")
    assert gross == pytest.approx(4_670_795, rel=0.1)


def test_transaction_and_customer_ids_rise_from_the_real_first_to_the_real_last_with_gaps(
    db: duckdb.DuckDBPyConnection, folder: Path
) -> None:
    bounds = "select min(CustomerID), max(CustomerID), min(Transaction_ID), max(Transaction_ID) from Online_Sales"
    assert rows_of(db, bounds) == [(12_346, 18_283, 16_679, 48_497)]
    lines = [(date(2019, *map(int, row[2].split("/")[:2])), int(row[1])) for row in cells(folder / "Online_Sales.csv")]
    assert lines == sorted(lines)
    gaps = {b - a for (_, a), (_, b) in itertools.pairwise(lines)}
    assert {0, 1, 2, 3, 4} <= gaps


def test_every_customer_of_the_sales_is_a_customer_and_the_other_way_round(
    db: duckdb.DuckDBPyConnection,
) -> None:
    assert value_of(db, "select count(distinct CustomerID) from CustomersData") == 1_468
    assert value_of(db, "select count(*) from Online_Sales anti join CustomersData using (CustomerID)") == 0
    assert value_of(db, "select count(*) from CustomersData anti join Online_Sales using (CustomerID)") == 0


def test_customer_attributes_have_the_real_values(db: duckdb.DuckDBPyConnection) -> None:
    assert rows_of(db, "select list_sort(list(distinct Gender)) from CustomersData") == [(["F", "M"],)]
    locations = {row[0] for row in rows_of(db, "select distinct Location from CustomersData")}
    assert locations == {"California", "Chicago", "New York", "New Jersey", "Washington DC"}
    assert rows_of(db, "select min(Tenure_Months), max(Tenure_Months) from CustomersData") == [(2, 50)]


def test_every_category_sold_has_one_tax_row_with_a_known_fraction(db: duckdb.DuckDBPyConnection, folder: Path) -> None:
    taxed = sorted(row[0] for row in cells(folder / "Tax_amount.csv"))
    assert taxed == [row[0] for row in rows_of(db, "select distinct Product_Category from Online_Sales order by 1")]
    assert {row[1] for row in cells(folder / "Tax_amount.csv")} == {"0.05", "0.1", "0.12", "0.18"}


def test_four_sold_categories_have_no_coupon_and_notebooks_has_coupons_but_no_sales(
    db: duckdb.DuckDBPyConnection,
) -> None:
    sold, couponed = (
        {row[0] for row in rows_of(db, f"select distinct Product_Category from {table}")}
        for table in ("Online_Sales", "Discount_Coupon")
    )
    assert sold - couponed == {"Backpacks", "Fun", "Google", "More Bags"}
    assert couponed - sold == {"Notebooks"}


def test_a_coupon_is_one_row_a_month_and_category_with_the_percentage_rotating_by_month(folder: Path) -> None:
    coupons = cells(folder / "Discount_Coupon.csv")
    assert len({(month, category) for month, category, _, _ in coupons}) == 204
    percents = {month: {row[3] for row in coupons if row[0] == month} for month, *_ in coupons}
    assert list(percents) == list(MONTHS)
    assert list(percents.values()) == [{"10"}, {"20"}, {"30"}] * 4


def test_only_the_extra_codes_serve_two_categories(folder: Path) -> None:
    served: dict[str, set[str]] = {}
    for _, category, code, _ in cells(folder / "Discount_Coupon.csv"):
        served.setdefault(code, set()).add(category)
    assert len(served) == 48
    assert {code for code, categories in served.items() if len(categories) > 1} == {
        "EXTRA10",
        "EXTRA20",
        "EXTRA30",
    }


def test_spend_has_every_day_of_2019_once_and_whole_offline_amounts(folder: Path) -> None:
    spend = cells(folder / "Marketing_Spend.csv")
    days = [date(2019, *map(int, row[0].split("/")[:2])) for row in spend]
    assert days == sorted(set(days))
    assert (len(days), days[0], days[-1]) == (365, date(2019, 1, 1), date(2019, 12, 31))
    assert all(500 <= int(row[1]) <= 5_000 for row in spend)


def test_sales_peak_in_november_and_december_and_dip_on_monday_and_tuesday(
    db: duckdb.DuckDBPyConnection,
) -> None:
    by_month = "select month(Transaction_Date), sum(Quantity * Avg_Price) from Online_Sales group by 1"
    assert {month for month, _ in rows_of(db, f"{by_month} order by 2 desc limit 2")} == {11, 12}
    by_weekday = "select isodow(Transaction_Date), count(distinct Transaction_ID) from Online_Sales group by 1"
    assert {weekday for weekday, _ in rows_of(db, f"{by_weekday} order by 2 limit 2")} == {1, 2}


def test_customers_fall_into_behaviours_worth_segmenting(db: duckdb.DuckDBPyConnection) -> None:
    db.execute(
        "create or replace temp view rfm as select CustomerID,"
        " date '2019-12-31' - max(Transaction_Date) as recency,"
        " count(distinct Transaction_Date) as visits, sum(Quantity * Avg_Price)::double as gross"
        " from Online_Sales group by all"
    )
    lapsed = value_of(db, "select avg((recency > 120)::int) from rfm")
    frequent = value_of(db, "select avg((visits >= 5 and recency <= 90)::int) from rfm")
    rare_big = value_of(db, "select avg((visits <= 2 and gross > 5000)::int) from rfm")
    top_tenth = value_of(
        db,
        "select sum(gross) filter (p > 0.9) / sum(gross) from "
        "(select gross, percent_rank() over (order by gross) p from rfm)",
    )
    gone = value_of(db, "select avg((recency > 115)::int) from rfm where visits = 2")
    assert 0.4 < lapsed < 0.65
    assert gone > 0.6, "two visits spread over the whole year would leave 0.45"
    assert 0.05 < frequent < 0.2
    assert 0.02 < rare_big < 0.15
    assert top_tenth > 0.35


def test_the_behaviours_cover_all_customers_and_the_catalogue_all_lines() -> None:
    assert sum(behaviour.customers_percent for behaviour in BEHAVIOURS) == 100
    assert sum(category.lines for category in CATEGORIES) == pytest.approx(10_000, abs=10)


def test_the_same_seed_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    generate(tmp_path / "here", scale=0.1, seed=7)
    # Another hash seed and thread count: neither may move a byte.
    environment = os.environ | {"PYTHONHASHSEED": "12345", "OMP_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1"}
    code = (
        "from pathlib import Path; from workers.generate import generate\n"
        f"generate(Path({str(tmp_path / 'there')!r}), scale=0.1, seed=7)"
    )
    command = [sys.executable, "-c", code]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    assert contents(tmp_path / "here") == contents(tmp_path / "there")


def test_another_seed_gives_other_sales_customers_and_spend(tmp_path: Path) -> None:
    for seed in (1, 2):
        generate(tmp_path / str(seed), scale=0.1, seed=seed)
    first, second = contents(tmp_path / "1"), contents(tmp_path / "2")
    differing = {name for name in HEADERS if first[name] != second[name]}
    assert differing == {"Online_Sales.csv", "CustomersData.csv", "Marketing_Spend.csv"}


@pytest.mark.parametrize(("scale", "lines"), [(0.1, 5_292), (0.001, 53)])
def test_a_small_scale_keeps_the_keys_and_the_references(tmp_path: Path, scale: float, lines: int) -> None:
    data = generate(tmp_path, scale=scale)
    sales = cells(tmp_path / "Online_Sales.csv")
    assert data.files[0].rows == len(sales) == lines
    assert len({(row[1], row[3]) for row in sales}) == lines
    assert {row[0] for row in sales} == {row[0] for row in cells(tmp_path / "CustomersData.csv")}
    assert len(cells(tmp_path / "Marketing_Spend.csv")) == 365


def test_a_tenth_of_the_size_still_sells_every_day_and_every_product(tmp_path: Path) -> None:
    generate(tmp_path, scale=0.1)
    sales = cells(tmp_path / "Online_Sales.csv")
    assert (len({row[2] for row in sales}), len({row[3] for row in sales})) == (365, 1_145)


def test_the_progress_rises_to_100_percent(tmp_path: Path) -> None:
    seen: list[int] = []
    generate(tmp_path, scale=2, progress=seen.append)
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0, 100)
    assert len(set(seen)) > 3


def test_a_failure_while_writing_leaves_the_file_before_as_it_was(tmp_path: Path) -> None:
    generate(tmp_path, scale=0.1, seed=1)
    before = contents(tmp_path)

    def fail_while_writing(percent: int) -> None:
        if percent > DRAWN_PERCENT:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path, scale=0.1, seed=2, progress=fail_while_writing)
    assert contents(tmp_path) == before


def test_a_kill_while_writing_leaves_no_half_csv(tmp_path: Path) -> None:
    code = (
        "import time; from pathlib import Path; from workers.generate import generate\n"
        f"def stall(percent): time.sleep(60 if percent > {DRAWN_PERCENT} else 0)\n"
        f"generate(Path({str(tmp_path)!r}), scale=2, progress=stall)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as process:
        deadline = time.monotonic() + 30
        while not list(tmp_path.glob(".*.part")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert list(tmp_path.glob(".Online_Sales.csv.*.part")), "killed before it wrote anything"
    assert not list(tmp_path.glob("*.csv"))


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf")])
def test_a_scale_that_is_not_a_positive_number_is_refused(tmp_path: Path, scale: float) -> None:
    with pytest.raises(SettingError, match="scale must be a number above 0, not") as caught:
        generate(tmp_path / "out", scale=scale)
    assert "Take 1" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_a_negative_seed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="seed must be 0 or more, not -1") as caught:
        generate(tmp_path / "out", seed=-1)
    assert "from 0 on" in caught.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("below", ["", "folder"])
def test_an_out_that_is_or_lies_in_a_file_is_refused(tmp_path: Path, below: str) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(SettingError, match=r"taken.* is, or lies in, a file") as caught:
        generate(tmp_path / "taken" / below)
    assert "Name a folder" in caught.value.hint
    assert (tmp_path / "taken").read_text() == "mine"
