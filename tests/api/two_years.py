"""Two years of sales, the second cut off in the middle of a month, with its leap day: what one year cannot tell."""

from __future__ import annotations

import csv
from datetime import date, datetime, timedelta
from pathlib import Path

from workers.generate import generate

AS_OF = date(2020, 5, 20)
_LATER = timedelta(days=366)  # so that the 28th of February becomes the 29th

Rows = list[dict[str, str]]


def two_years(out: Path) -> None:
    """A folder of CSV files: 2019, and a different 2020 up to `AS_OF`."""
    for seed, name in ((11, "first"), (12, "second")):
        generate(out / name, scale=0.1, seed=seed)
    data = out / "data"
    data.mkdir()
    for name, merged in (
        ("Online_Sales.csv", _sales),
        ("Marketing_Spend.csv", _spend),
        ("CustomersData.csv", _customers),
    ):
        _write(data / name, merged(_read(out / "first" / name), _read(out / "second" / name)))
    for name in ("Discount_Coupon.csv", "Tax_amount.csv"):
        (data / name).write_bytes((out / "first" / name).read_bytes())


def _sales(first: Rows, second: Rows) -> Rows:
    return first + [
        row | {"Transaction_ID": str(int(row["Transaction_ID"]) + 10**6)} for row in _moved(second, "Transaction_Date")
    ]


def _spend(first: Rows, second: Rows) -> Rows:
    return first + _moved(second, "Date")


def _customers(first: Rows, second: Rows) -> Rows:
    return list({row["CustomerID"]: row for row in first + second}.values())


def _moved(rows: Rows, column: str) -> Rows:
    moved = [row | {column: _later(row[column])} for row in rows]
    return [row for row in moved if date.fromisoformat(row[column]) <= AS_OF]


def _later(text: str) -> str:
    return (datetime.strptime(text, "%m/%d/%Y").date() + _LATER).isoformat()  # noqa: DTZ007 - a day


def _read(file: Path) -> Rows:
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def _write(file: Path, rows: Rows) -> None:
    with file.open("w", encoding="utf-8", newline="") as target:
        writer = csv.DictWriter(target, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
