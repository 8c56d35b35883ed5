"""Twenty typical questions of a marketing team."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MONTH, WEEK, DAY = "metric_time__month", "metric_time__week", "metric_time__day"
APPAREL = {"field": "product__category", "op": "eq", "values": ["Apparel"]}
FIRST_QUARTER = {"start": "2019-01-01", "end": "2019-03-31"}

QUERIES: Mapping[str, dict[str, Any]] = {
    "revenue in all": {"metrics": ["total_revenue"]},
    "revenue by month": {"metrics": ["total_revenue"], "group_by": [MONTH]},
    "revenue by day": {"metrics": ["total_revenue"], "group_by": [DAY]},
    "revenue by category": {"metrics": ["total_revenue"], "group_by": ["product__category"]},
    "revenue by location and month": {"metrics": ["total_revenue"], "group_by": [MONTH, "customer__location"]},
    "revenue by SKU, top 20": {
        "metrics": ["total_revenue"],
        "group_by": ["product"],
        "order_by": [{"field": "total_revenue", "descending": True}],
        "limit": 20,
    },
    "apparel by gender": {"metrics": ["net_revenue"], "group_by": ["customer__gender"], "where": [APPAREL]},
    "first quarter by week": {"metrics": ["gross_revenue"], "group_by": [WEEK], "time_range": FIRST_QUARTER},
    "last 30 days by day": {
        "metrics": ["total_revenue", "transaction_count"],
        "group_by": [DAY],
        "time_range": {"last": 30, "unit": "day"},
    },
    "order value by month": {"metrics": ["average_order_value"], "group_by": [MONTH]},
    "six revenue metrics": {
        "metrics": [
            "gross_revenue", "discount_amount", "net_revenue", "tax_amount", "delivery_charges", "total_revenue",
        ],
        "group_by": [MONTH],
    },
    "discount rate by coupon status": {"metrics": ["discount_rate"], "group_by": ["sale__coupon_status"]},
    "customers by month": {"metrics": ["customer_count"], "group_by": [MONTH]},
    "new and returning": {"metrics": ["new_customers", "returning_customers"], "group_by": [MONTH]},
    "churn by location": {"metrics": ["churn_rate"], "group_by": ["customer__location"]},
    "return on ad spend": {"metrics": ["return_on_ad_spend"], "group_by": [MONTH]},
    "weekend sales": {"metrics": ["units_sold"], "group_by": ["calendar_date__is_weekend"]},
    "month on month": {"metrics": ["revenue_growth_mom"], "group_by": [MONTH]},
    "month to date": {"metrics": ["revenue_mtd"], "group_by": [DAY], "time_range": FIRST_QUARTER},
    "big categories": {
        "metrics": ["total_revenue"],
        "group_by": ["product__category", "customer__location"],
        "having": [{"field": "total_revenue", "op": "gt", "values": [10000]}],
    },
}  # fmt: skip
