"""A second delivery: what the shop corrects afterwards, and what a well-behaved first delivery never has."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

Row = Mapping[str, str]

# Two customers whom no customer file names; a category without coupon, tax rate and group; 10.00 over three lines.
_NEW_LINES: tuple[tuple[str, ...], ...] = (
    ("1", "900001", "7/4/2019", "ZZNEW0000003", "New Thing C", "Gadgets", "2", "10.01", "10", "Used"),
    ("2", "900001", "7/4/2019", "ZZNEW0000001", "New Thing A", "Gadgets", "1", "99.99", "10", "Clicked"),
    ("1", "900001", "7/4/2019", "ZZNEW0000002", "New Thing B", "Gadgets", "3", "0", "10", "Not Used"),
    ("2", "900002", "11/30/2019", "ZZNEW0000001", "New Thing A", "Gadgets", "5", "25", "0.01", "Not Used"),
)
_NEVER_BOUGHT = (("3", "F", "Chicago", "0"), ("4", "M", "New York", "37"), ("5", "F", "California", "12"))


def write_corrections(data_dir: Path, out: Path) -> None:
    """Write the second delivery to the files of `data_dir` into `out`."""
    out.mkdir()
    _write_sales(data_dir / "Online_Sales.csv", out / "Online_Sales.csv")
    _write_customers(data_dir / "CustomersData.csv", out / "CustomersData.csv")


def _write_sales(source: Path, out: Path) -> None:
    columns, lines = _read(source)
    corrected = [{**line, "Quantity": str(int(line["Quantity"]) + 1), "Coupon_Status": "Used"} for line in lines[::97]]
    # Backwards, so that the order of this file is not that of the first.
    _write(out, columns, [*reversed(corrected), *(dict(zip(columns, new, strict=True)) for new in _NEW_LINES)])


def _write_customers(source: Path, out: Path) -> None:
    columns, customers = _read(source)
    moved = [{**customer, "Location": "Washington DC"} for customer in customers[::11]]
    _write(out, columns, [*moved, *(dict(zip(columns, new, strict=True)) for new in _NEVER_BOUGHT)])


def _read(path: Path) -> tuple[Sequence[str], list[dict[str, str]]]:
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        return tuple(reader.fieldnames or ()), list(reader)


def _write(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
