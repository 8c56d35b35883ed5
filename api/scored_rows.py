"""The rows that are sent to be scored: features, or transactions that they are made of; each good or faulty alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StrictInt, StrictStr, ValidationError

from api.json_faults import fault_text
from api.periods import day
from api.segment_model import SegmentModel, Standing, of_transactions

MAX_ROWS = 1_000
MAX_TRANSACTIONS = 1_000  # of one customer; the busiest of the data has 328
_SHOWN_FAULTS = 5  # of one row


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


# More is no customer, and its squares would be beyond what a float holds.
_Number = Annotated[FiniteFloat, Field(strict=True, ge=-1e15, le=1e15)]


class TransactionRow(_Row):
    """One transaction of a customer."""

    transaction_id: StrictStr | StrictInt
    date: StrictStr
    net_revenue: _Number


class CustomerRow(_Row):
    """One customer to score; `features` or `transactions`."""

    id: StrictStr | StrictInt | None = None
    features: dict[str, _Number] | None = None
    transactions: tuple[TransactionRow, ...] | None = Field(None, min_length=1, max_length=MAX_TRANSACTIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedRow:
    """A good row: the features by name, and as the model takes them."""

    row: int
    label: str | int | None
    features: Mapping[str, float]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredRow:
    """A good row, and where its customer stands."""

    row: int
    label: str | int | None
    features: Mapping[str, float]
    standing: Standing


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFault:
    """A row that cannot be scored, and why: the place in the row, and what is wrong there."""

    row: int
    label: str | int | None
    faults: tuple[tuple[str, str], ...]


def parse_row(row: Mapping[str, Any], place: int, *, model: SegmentModel, as_of: date) -> ParsedRow | RowFault:
    """The row, if it is a customer that the model can score; else what keeps it from being one."""
    given = row.get("id")
    label = given if isinstance(given, str | int) and not isinstance(given, bool) else None
    try:
        customer = CustomerRow.model_validate(row)
        features = _features(customer, model, as_of)
    except ValidationError as error:
        faults = tuple(
            (".".join(map(str, item["loc"])), fault_text(item))
            for item in error.errors(include_input=False, include_url=False, include_context=False)
        )
        return RowFault(row=place, label=label, faults=faults[:_SHOWN_FAULTS])
    except _Faulty as faulty:
        return RowFault(row=place, label=label, faults=(faulty.fault,))
    values = tuple(features[feature.name] for feature in model.features)
    return ParsedRow(row=place, label=label, features=features, values=values)


class _Faulty(Exception):
    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.fault = (field, message)


def _features(customer: CustomerRow, model: SegmentModel, as_of: date) -> Mapping[str, float]:
    if (customer.features is None) == (customer.transactions is None):
        raise _Faulty("", "give features or transactions, one of the two")
    given = customer.features if customer.features is not None else _summed(customer, as_of)
    known = [feature.name for feature in model.features]
    for name in known:
        if name not in given:
            place = f"features.{name}" if customer.features is not None else "transactions"
            raise _Faulty(place, f"{name} is needed" if customer.features is not None else f"they do not tell {name}")
    for name in given:
        if name not in known and customer.features is not None:
            raise _Faulty(f"features.{name[:100]}", f"the model does not know it; it takes {', '.join(known)}")
    for feature in model.features:
        if feature.least is not None and given[feature.name] < feature.least:
            raise _Faulty(f"features.{feature.name}", f"it is {feature.least:g} at least")
    return {name: given[name] for name in known}


def _summed(customer: CustomerRow, as_of: date) -> Mapping[str, float]:
    transactions = []
    for place, each in enumerate(customer.transactions or ()):
        try:
            on = day(each.date)
        except ValueError:
            raise _Faulty(f"transactions.{place}.date", "write a day as 2019-01-31") from None
        if on > as_of:
            raise _Faulty(f"transactions.{place}.date", f"it lies after the as-of date, {as_of}")
        transactions.append((str(each.transaction_id), on, each.net_revenue))
    return of_transactions(transactions, as_of=as_of)
