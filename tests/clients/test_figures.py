"""Numbers as people read them: one rule by the unit, for the chatbot, the report and the command line."""

from __future__ import annotations

from decimal import Decimal

import pytest

from clients.figures import figure, shown
from clients.sdk import Cell


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (Decimal("201.0000"), "USD per transaction", "201.00 USD per transaction"),
        (Decimal("9999.994"), "USD", "9,999.99 USD"),
        (Decimal("-7.5"), "USD", "-7.50 USD"),
        (0, "USD", "0.00 USD"),
        (Decimal("440261.3712"), "USD", "440,261 USD"),
        (Decimal("-12345.6"), "USD per customer", "-12,346 USD per customer"),
        (Decimal("0.12345"), "ratio", "12.3 %"),
        (Decimal("0.01"), "ratio", "1.0 %"),
        (Decimal("0.00456"), "ratio", "0.46 %"),
        (Decimal("-0.0049"), "ratio", "-0.49 %"),
        (0, "ratio", "0.0 %"),
        (Decimal("32.1"), "ratio", "3,210.0 %"),
        (12345, "orders", "12,345 orders"),
        (Decimal(12345), "units", "12,345 units"),
        (Decimal("3.14159"), "units per transaction", "3.1416 units per transaction"),
        (Decimal("31.4159"), "units per transaction", "31.42 units per transaction"),
        (Decimal("31.5000"), "units", "31.5 units"),
        (Decimal("0.00012"), "ratio squared", "0.0001 ratio squared"),
        (None, "USD", "no data"),
        (True, None, "yes"),
        ("Chicago", None, "Chicago"),
    ],
)
def test_a_number_is_written_as_its_unit_asks(value: Cell, unit: str | None, text: str) -> None:
    assert shown(value, unit) == text


def test_a_cell_under_a_heading_has_no_unit_but_that_it_is_per_cent() -> None:
    assert figure(Decimal(201), "USD per transaction") == "201.00"
    assert figure(Decimal("0.5"), "ratio") == "50.0 %"
