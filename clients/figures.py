"""A number as people read it, by its unit: the one rule of chatbot, report and command line."""

from __future__ import annotations

from decimal import Decimal

from clients.sdk import Cell

RATIO = "ratio"  # the unit of shares and rates, read as per cent
_MONEY = ("USD",)  # how units of money begin: USD, USD per customer
_WHOLE_MONEY = 10_000  # from here cents say nothing
_SMALL = 10  # below it two decimals of an average are too few
_SMALL_RATE = Decimal("0.01")


def shown(value: Cell, unit: str | None = None) -> str:
    """The value with its unit; "no data" for none."""
    text = figure(value, unit)
    return f"{text} {unit}" if unit and unit != RATIO and value is not None else text


def figure(value: Cell, unit: str | None = None) -> str:
    """The value without its unit, thousands apart; a ratio's is per cent, which is said.

    Money has cents below 10,000 and none from there; rates have one decimal, two below 1 %; counts have none; what else
    there is has two decimals, and up to four below 10.
    """
    match value:
        case None:
            return "no data"
        case bool():
            return "yes" if value else "no"
        case Decimal() | int():
            return _number(value, unit)
        case _:
            return str(value)


def places(value: Decimal | int, unit: str | None) -> int:
    """How many decimals the number is shown with at most, before it is made per cent."""
    size = abs(Decimal(value))
    if unit == RATIO:
        return 4 if 0 < size < _SMALL_RATE else 3
    if is_money(unit):
        return 2 if size < _WHOLE_MONEY else 0
    if isinstance(value, int):
        return 0
    return 2 if size >= _SMALL else 4


def is_money(unit: str | None) -> bool:
    """Whether it is an amount, or one for each of something."""
    return unit is not None and unit.startswith(_MONEY)


def _number(value: Decimal | int, unit: str | None) -> str:
    decimals = places(value, unit)
    if unit == RATIO:
        return f"{value * 100:,.{decimals - 2}f} %"
    text = f"{value:,.{decimals}f}"
    # Zeros behind the point are cents, or nothing.
    return text if is_money(unit) or "." not in text else text.rstrip("0").rstrip(".")
