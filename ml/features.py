"""What is known of each customer, as numbers: read through the API, whose metrics say what each number means.

The first three cluster; the others profile, and stand beside them in the comparison of the card.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clients.sdk import Client
from ml.errors import BadFeaturesError

Floats = npt.NDArray[np.float64]

_ARROW = "application/vnd.apache.arrow.stream"
_CUSTOMER = "customer"
_LAST_PURCHASE = "customer__last_purchase_date__day"
_TENURE = "customer__tenure_months"
_MOST_VALUES = 1_000  # of one filter
_ATTEMPTS = 3  # at reading one publication as a whole, while others come


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """A number of a customer: as what it is asked, what stands for a null, and the least that makes sense."""

    name: str
    label: str
    unit: str
    column: str
    null: str
    least: float | None
    fill: Callable[[Floats], float] | None = None


def _nothing(_: Floats) -> float:
    return 0.0


def _median(known: Floats) -> float:
    return float(np.median(known)) if known.size else 0.0


FEATURES = (
    Feature(
        name="recency_days",
        label="Recency",
        unit="days from the last purchase to the as-of date",
        column=_LAST_PURCHASE,
        null="never null: who has not bought is not in the answer",
        least=0,
    ),
    Feature(
        name="frequency",
        label="Frequency",
        unit="distinct transactions",
        column="transaction_count",
        null="never null, as above",
        least=1,
    ),
    Feature(
        name="monetary",
        label="Monetary value",
        unit="USD, net",
        column="net_revenue",
        null="never null",
        least=None,
    ),
    Feature(
        name="average_order_value",
        label="Average order value",
        unit="USD per transaction, tax and delivery included",
        column="average_order_value",
        null="never null",
        least=None,
    ),
    Feature(
        name="discount_sensitivity",
        label="Discount sensitivity",
        unit="discount as a fraction of gross revenue",
        column="discount_rate",
        null="0: whose gross revenue is 0 had no discount",
        least=0,
        fill=_nothing,
    ),
    Feature(
        name="category_breadth",
        label="Category breadth",
        unit="distinct product categories",
        column="category_count",
        null="never null",
        least=1,
    ),
    Feature(
        name="tenure_months",
        label="Tenure",
        unit="months",
        column=_TENURE,
        null="the median of the known: the customer file does not name everyone",
        least=0,
        fill=_median,
    ),
)
RFM = tuple(feature.name for feature in FEATURES[:3])


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureTable:
    """The features of all customers who have bought, in customer order, from one publication.

    `customer_ids` : (n_customers,) int64, ascending; `values` : (n_customers, n_features) float64, without nulls.
    """

    customer_ids: npt.NDArray[np.int64]
    names: tuple[str, ...]
    values: Floats
    publication: str
    as_of: date
    data_from: date

    @property
    def digest(self) -> str:
        """A hash of every number in it."""
        hashed = hashlib.sha256(repr((self.names, self.as_of)).encode())
        hashed.update(np.ascontiguousarray(self.customer_ids).tobytes())
        hashed.update(np.ascontiguousarray(self.values).tobytes())
        return hashed.hexdigest()

    def of(self, *names: str) -> Floats:
        """The columns of that name, (n_customers, n_names)."""
        return self.values[:, [self.names.index(name) for name in names]]


def read_features(client: Client, customers: Sequence[int] | None = None) -> FeatureTable:
    """The features of every customer with a purchase, or of those among the named, all from one publication.

    Raises
    ------
    ApiError
        The service refused, or cannot be reached.
    BadFeaturesError
        The publication changed at every attempt, or the answer lacks what it should hold.
    """
    metrics = [feature.column for feature in FEATURES if feature.column not in (_LAST_PURCHASE, _TENURE)]
    request: dict[str, Any] = {"metrics": metrics, "group_by": [_CUSTOMER, _LAST_PURCHASE, _TENURE]}
    requests = [request]
    if customers is not None:
        some = (customers[start : start + _MOST_VALUES] for start in range(0, len(customers), _MOST_VALUES))
        requests = [request | {"where": [{"field": _CUSTOMER, "op": "in", "values": list(each)}]} for each in some]
    whole = read_whole(client, *requests)
    return feature_table(pa.concat_tables(whole.tables), as_of=whole.as_of, publication=whole.publication)


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """The answers to some questions, in their order, all of one publication."""

    tables: tuple[pa.Table, ...]
    publication: str
    as_of: date


def read_whole(client: Client, *requests: Mapping[str, Any]) -> Whole:
    """All the rows of each request, from one publication; raises as `read_features`."""
    for _ in range(_ATTEMPTS):
        before = _whereabouts(client)
        tables = tuple(_exported(client, request) for request in requests)
        if _whereabouts(client)["publication"] == before["publication"]:
            as_of = date.fromisoformat(before["as_of"])
            return Whole(tables=tables, publication=before["publication"], as_of=as_of)
    raise BadFeaturesError(
        f"The data were published anew during each of {_ATTEMPTS} readings", hint="Train again when no pipeline runs"
    )


def _exported(client: Client, request: Mapping[str, Any]) -> pa.Table:
    target = io.BytesIO()
    client.export(request, target, media_type=_ARROW)
    return pa.ipc.open_stream(pa.BufferReader(target.getvalue())).read_all()


def feature_table(rows: pa.Table, *, as_of: date, publication: str) -> FeatureTable:
    """The features, from the rows that the API answered.

    Raises
    ------
    BadFeaturesError
        A column is missing, or null where it must not be.
    """
    missing = {_CUSTOMER, *(feature.column for feature in FEATURES)} - set(rows.column_names)
    if missing:
        raise BadFeaturesError(
            f"The API does not answer {', '.join(sorted(missing))}", hint="Give the key a role that sees every metric"
        )
    rows = rows.sort_by(_CUSTOMER)
    ids = rows.column(_CUSTOMER)
    if ids.null_count or not pa.types.is_integer(ids.type):
        raise BadFeaturesError(
            "The customers' ids are hidden from this key", hint="Use a key of a role that does not see them hashed"
        )
    last = rows.column(_LAST_PURCHASE)
    values = np.column_stack([_numbers(rows, feature, as_of) for feature in FEATURES])
    return FeatureTable(
        customer_ids=ids.to_numpy().astype(np.int64),
        names=tuple(feature.name for feature in FEATURES),
        values=values,
        publication=publication,
        as_of=as_of,
        data_from=pc.min(last).as_py() or as_of,
    )


def _numbers(rows: pa.Table, feature: Feature, as_of: date) -> Floats:
    column = rows.column(feature.column)
    if feature.column == _LAST_PURCHASE:
        column = pc.days_between(column, pa.scalar(as_of, pa.date32()))
    found: Floats = column.cast(pa.float64(), safe=False).to_numpy().astype(np.float64)  # null is NaN
    empty = np.isnan(found)
    if empty.any():
        if feature.fill is None:
            raise BadFeaturesError(
                f"{feature.label} is null for {int(empty.sum())} customers", hint=f"See the metric {feature.column}"
            )
        found = np.where(empty, feature.fill(found[~empty]), found)
    return found


def _whereabouts(client: Client) -> Mapping[str, Any]:
    """Which publication answers now, and from which day it looks back."""
    meta: Mapping[str, Any] = client.query({"metrics": ["customer_count"]})["meta"]
    return meta
