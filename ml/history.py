"""What was bought by whom on which day, and metrics day by day: read through the API, to learn what to expect.

Days are counted from the first of the history: day 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clients.sdk import Client
from ml.errors import BadFeaturesError
from ml.features import Floats, read_whole

Places = npt.NDArray[np.int64]

# Sums and counts alone: a day without a row is one on which they are 0.
DAILY = ("total_revenue", "transaction_count", "units_sold", "marketing_spend")

_CUSTOMER, _DAY, _NET = "customer", "metric_time__day", "net_revenue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Purchases:
    """Who bought on which day for how much; one row for each customer and day, by customer, then day.

    `customer_ids` : (n_customers,) int64, ascending; `owner` : (n_rows,) places in it; `day` : (n_rows,), days since
    the first of the history; `net` : (n_rows,) USD.
    """

    customer_ids: Places
    owner: Places
    day: Places
    net: Floats

    def until(self, cut: int) -> Purchases:
        """Those up to the day `cut`, itself included; the customers stay all of them."""
        return self._where(self.day <= cut)

    def between(self, after: int, last: int) -> Purchases:
        """Those later than the day `after`, up to `last`."""
        return self._where((self.day > after) & (self.day <= last))

    def days(self) -> Places:
        """On how many days each customer bought, (n_customers,)."""
        return np.bincount(self.owner, minlength=len(self.customer_ids))

    def spent(self) -> Floats:
        """For how much each customer bought, in USD, (n_customers,)."""
        return _sums(self.owner, self.net, size=len(self.customer_ids))

    def _where(self, chosen: npt.NDArray[np.bool_]) -> Purchases:
        return Purchases(
            customer_ids=self.customer_ids, owner=self.owner[chosen], day=self.day[chosen], net=self.net[chosen]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """All that was bought, and the daily metrics, of one publication, from `first` to the as-of date.

    `daily` : by metric, (n_days,) float64 in the metric's unit; a metric is missing where the caller does not see it.
    """

    purchases: Purchases
    daily: Mapping[str, Floats]
    first: date
    as_of: date
    publication: str

    @property
    def days(self) -> int:
        """How many there are."""
        return (self.as_of - self.first).days + 1

    def date_of(self, day: int) -> date:
        """The date of a day."""
        return self.first + timedelta(days=day)


def read_history(client: Client) -> History:
    """The history of the current publication.

    Raises
    ------
    ApiError
        The service refused, or cannot be reached.
    BadFeaturesError
        The publication changed at every attempt, the customers' ids are hidden, or there is nothing.
    """
    by_customer = {"metrics": [_NET], "group_by": [_CUSTOMER, _DAY]}
    whole = read_whole(client, by_customer, {"metrics": list(DAILY), "group_by": [_DAY]})
    return history(*whole.tables, as_of=whole.as_of, publication=whole.publication)


def history(bought: pa.Table, daily: pa.Table, *, as_of: date, publication: str) -> History:
    """The history, from the rows that the API answered; those after the as-of date are no part of it."""
    bought, daily = (
        rows.filter(pc.less_equal(_days_of(rows), pa.scalar(as_of, pa.date32()))) for rows in (bought, daily)
    )
    ids = bought.column(_CUSTOMER)
    if ids.null_count or not pa.types.is_integer(ids.type):
        raise BadFeaturesError(
            "The customers' ids are hidden from this key", hint="Use a key of a role that does not see them hashed"
        )
    if not bought.num_rows:
        raise BadFeaturesError(
            "Nothing was bought up to the as-of date", hint="Load sales, or set a later INSIGHT_AS_OF"
        )
    first = pc.min(_days_of(bought)).as_py()
    days = (as_of - first).days + 1
    return History(
        purchases=_purchases(bought, first),
        daily={name: _series(daily, name, first, days) for name in DAILY if name in daily.column_names},
        first=first,
        as_of=as_of,
        publication=publication,
    )


def _purchases(bought: pa.Table, first: date) -> Purchases:
    bought = bought.sort_by([(_CUSTOMER, "ascending"), (_DAY, "ascending")])
    ids, owner = np.unique(bought.column(_CUSTOMER).to_numpy().astype(np.int64), return_inverse=True)
    return Purchases(
        customer_ids=ids,
        owner=owner.astype(np.int64),
        day=_since(bought, first),
        net=_floats(bought, _NET),
    )


def _series(daily: pa.Table, name: str, first: date, days: int) -> Floats:
    place = _since(daily, first)
    known = place >= 0
    return _sums(place[known], _floats(daily, name)[known], size=days)


def _sums(places: Places, numbers: Floats, *, size: int) -> Floats:
    return np.bincount(places, weights=numbers, minlength=size).astype(np.float64)


def _days_of(rows: pa.Table) -> pa.ChunkedArray:
    return rows.column(_DAY).cast(pa.date32())


def _since(rows: pa.Table, first: date) -> Places:
    found: Places = pc.days_between(pa.scalar(first, pa.date32()), _days_of(rows)).to_numpy().astype(np.int64)
    return found


def _floats(rows: pa.Table, name: str) -> Floats:
    values: Floats = rows.column(name).cast(pa.float64(), safe=False).to_numpy().astype(np.float64)
    return np.nan_to_num(values)
