"""Customers as the API would answer them, made up or read from the real files; nothing of ours counts them."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import duckdb
import numpy as np

from ml.features import FEATURES, FeatureTable

AS_OF = date(2019, 12, 31)

# Restated from the facts of the data: net is gross less the coupon of the month and category, where it was used.
_REAL = """
with line as (
    select
        cast(CustomerID as bigint) as customer, Transaction_ID as transaction_id,
        cast(strptime(Transaction_Date, '%m/%d/%Y') as date) as day, trim(Product_Category) as category,
        cast(Quantity as int) * cast(Avg_Price as decimal(18, 2)) as gross,
        case when Coupon_Status = 'Used' then coalesce((
            select max(cast(Discount_pct as int)) from read_csv('{coupons}', all_varchar = true) as c
            where trim(c.Product_Category) = trim(s.Product_Category) and c.Month = strftime(day, '%b')
        ), 0) else 0 end as percent
    from read_csv('{sales}', all_varchar = true) as s
)
select
    customer, date '2019-12-31' - max(day) as recency_days, count(distinct transaction_id) as frequency,
    cast(sum(gross * (100 - percent) / 100) as double) as monetary
from line group by customer order by customer
"""


def real_table(data: Path) -> FeatureTable:
    """Recency, frequency and net revenue of the real customers, counted by hand; other features are 0."""
    sql = _REAL.format(coupons=data / "Discount_Coupon.csv", sales=data / "Online_Sales.csv")
    with duckdb.connect() as connection:
        found = connection.execute(sql).fetchnumpy()
    return table(np.column_stack([found["recency_days"], found["frequency"], found["monetary"]]), ids=found["customer"])


def table(rfm: np.ndarray, *, ids: np.ndarray | None = None) -> FeatureTable:
    """A table of these recencies, frequencies and monetary values."""
    values = np.zeros((len(rfm), len(FEATURES)))
    values[:, :3] = rfm
    return FeatureTable(
        customer_ids=np.arange(1, len(rfm) + 1) if ids is None else ids.astype(np.int64),
        names=tuple(feature.name for feature in FEATURES),
        values=values,
        publication="made up",
        as_of=AS_OF,
        data_from=date(2019, 1, 1),
    )


def shop(customers: int = 600, *, seed: int = 5, recency_shift: float = 0) -> FeatureTable:
    """Made-up customers of five kinds, from the frequent to the lapsed, with overlaps."""
    drawn = np.random.default_rng(seed)
    kind = drawn.choice(5, customers, p=[0.2, 0.25, 0.2, 0.15, 0.2])
    recency = np.array([20, 60, 90, 150, 280])[kind] * drawn.uniform(0.5, 1.25, customers) + recency_shift
    frequency = 1 + drawn.poisson(np.array([35, 10, 18, 1, 4])[kind])
    monetary = frequency * np.array([150, 90, 320, 60, 120])[kind] * drawn.lognormal(0, 0.3, customers)
    return table(np.column_stack([np.floor(recency), frequency, np.round(monetary, 2)]))
