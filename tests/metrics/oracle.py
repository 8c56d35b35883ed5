"""What each metric means, in SQL over the raw tables: the specification that the semantic layer must agree with.

The views of ``raw_facts`` restate the facts of the data; the cases here say, metric by metric, what is counted.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One question and the SQL that knows its answer: the group-bys in order, then the metric."""

    metric: str
    group_by: tuple[str, ...] = ()
    sql: str

    def __str__(self) -> str:
        return f"{self.metric}-by-{'-'.join(self.group_by) or 'nothing'}"


# What a dimension is, in terms of one view's columns.
_TIME = {
    f"metric_time__{grain}": f"date_trunc('{grain}', day)" for grain in ("day", "week", "month", "quarter", "year")
}
_PARTS = {  # of a date; the week begins on Monday, with 1
    "metric_time__extract_year": "year(day)",
    "metric_time__extract_quarter": "quarter(day)",
    "metric_time__extract_month": "month(day)",
    "metric_time__extract_day": "day(day)",
    "metric_time__extract_dow": "isodow(day)",
    "metric_time__extract_doy": "dayofyear(day)",
}
_CALENDAR = {
    "calendar_date": "day",
    "calendar_date__day_name": "dayname(day)",
    "calendar_date__day_of_week": "isodow(day)",
    "calendar_date__is_weekend": "dayname(day) in ('Saturday', 'Sunday')",
    "calendar_date__month_name": "monthname(day)",
    "calendar_date__month_number": "month(day)",
    "calendar_date__quarter_number": "quarter(day)",
    "calendar_date__year_number": "year(day)",
    "calendar_date__is_holiday_season": "month(day) >= 11",
}
_CUSTOMER = {
    "customer": "customer_id",
    "customer__gender": "gender",
    "customer__location": "location",
    "customer__tenure_months": "tenure_months",
    "customer__tenure_band": "tenure_band",
    "customer__activity_status": "activity",
    "customer__segment_name": "segment",
}
_LINE = {
    **_TIME,
    **_PARTS,
    **_CALENDAR,
    **_CUSTOMER,
    "product": "product_sku",
    "product__category": "product_category",
    "product__product_group": "product_group",
    "product__description": "product_description",
    "sale__coupon_status": "coupon_status",
    "sale__coupon_code": "coupon_code",
    "sale__sale_size": "sale_size",
    "sale": "transaction_id || '-' || product_sku",
    "transaction": "transaction_id",
}
_PRICE = {
    **_TIME,
    **_PARTS,
    **_CALENDAR,
    "bitcoin__event_at__hour": "date_trunc('hour', event_at)",
    "bitcoin__volatility_category": "volatility_category",
}
_ARTICLE = {
    **_TIME,
    **_PARTS,
    **_CALENDAR,
    "news": "url",
    "news__published_at__hour": "date_trunc('hour', published_at)",
    "news__category": "category",
    "news__source_name": "source_name",
    "news__has_crypto_mention": "is_crypto",
}

# metric: what is counted over the sales lines. Each is asked by several dimensions, below.
LINE_METRICS = {
    "gross_revenue": "sum(quantity * avg_price)",
    "discount_amount": "sum(discount)",
    "net_revenue": "sum(net)",
    "tax_amount": "sum(tax)",
    "delivery_charges": "sum(delivery)",
    "total_revenue": "sum(net + tax + delivery)",
    "units_sold": "sum(quantity)",
    "line_count": "count(*)",
    "transaction_count": "count(distinct transaction_id)",
    "order_count": "count(distinct transaction_id)",
    "customer_count": "count(distinct customer_id)",
    "product_count": "count(distinct product_sku)",
    "category_count": "count(distinct product_category)",
    "coupon_used_line_count": "sum(if(coupon_status = 'Used', 1, 0))",
    "average_order_value": "sum(total)::double / count(distinct transaction_id)",
    "units_per_transaction": "sum(quantity)::double / count(distinct transaction_id)",
    "revenue_per_customer": "sum(total)::double / count(distinct customer_id)",
    "discount_rate": "sum(discount)::double / nullif(sum(gross), 0)",
    "coupon_usage_rate": "avg(if(coupon_status = 'Used', 1, 0))",
}
CUSTOMER_METRICS = {  # over customers with a purchase; in time, by the day of the first
    "new_customers": "count(*)",
    "repeat_customers": "sum(if(days > 1, 1, 0))",
    "churned_customers": "sum(if(last_day + 90 < (select today from as_of), 1, 0))",
    "repeat_purchase_rate": "avg(if(days > 1, 1, 0))",
    "churn_rate": "avg(if(last_day + 90 < (select today from as_of), 1, 0))",
}
SPEND_METRICS = {
    "marketing_spend": "sum(online) + sum(offline)",
    "online_spend": "sum(online)",
    "offline_spend": "sum(offline)",
}
PRICE_METRICS = {
    "bitcoin_price_avg": "sum(price)::double / count(*)",
    "bitcoin_price_min": "min(price)",
    "bitcoin_price_max": "max(price)",
    "bitcoin_squared_log_return": "sum(step ** 2)",
    "bitcoin_volatility": "sqrt(sum(step ** 2))",
}
ARTICLE_METRICS = {
    "news_count": "count(*)",
    "crypto_news_count": "sum(if(is_crypto, 1, 0))",
    "crypto_news_share": "count(*) filter (is_crypto)::double / count(*)",
}

# Every line metric is asked by these, and by one more dimension at a time so that each dimension is asked too.
_SALES_GROUPINGS = (
    (),
    ("metric_time__day",),
    ("metric_time__month",),
    ("product__category",),
    ("customer__location", "customer__gender"),
    ("metric_time__quarter", "product__product_group", "sale__coupon_status"),
)


def _grouped(metric: str, group_by: tuple[str, ...], *, source: str, value: str, columns: Mapping[str, str]) -> Case:
    selected = ", ".join((*(columns[name] for name in group_by), value))
    return Case(metric=metric, group_by=group_by, sql=f"select {selected} from {source} group by all")


def _line_cases() -> Iterator[Case]:
    for metric, value in LINE_METRICS.items():
        for group_by in _SALES_GROUPINGS:
            yield _grouped(metric, group_by, source="line", value=value, columns=_LINE)
    for dimension in _LINE:
        for metric in ("total_revenue", "transaction_count", "average_order_value"):
            yield _grouped(metric, (dimension,), source="line", value=LINE_METRICS[metric], columns=_LINE)


def _customer_cases() -> Iterator[Case]:
    columns = {**_CUSTOMER, **_TIME, **_PARTS, **_CALENDAR}
    groupings: tuple[tuple[str, ...], ...] = (
        (),
        ("metric_time__month",),
        ("metric_time__week", "customer__gender"),
        ("customer__tenure_band",),
        ("customer__activity_status",),
        ("calendar_date__is_weekend",),
        ("metric_time__extract_month", "metric_time__extract_dow"),
    )
    for metric, value in CUSTOMER_METRICS.items():
        for group_by in groupings:
            source = "(select *, first_day as day from customer)"
            yield _grouped(metric, group_by, source=source, value=value, columns=columns)


def _other_cases() -> Iterator[Case]:
    for metric, value in SPEND_METRICS.items():
        for name in (*_TIME, *_PARTS, "calendar_date__day_name", "calendar_date__is_holiday_season"):
            yield _grouped(metric, (name,), source="spend", value=value, columns={**_TIME, **_PARTS, **_CALENDAR})
        yield _grouped(metric, (), source="spend", value=value, columns={})
    groupings: tuple[tuple[str, ...], ...] = ((), *((name,) for name in _PRICE))
    for metric, value in PRICE_METRICS.items():
        for group_by in (*groupings, ("metric_time__month", "bitcoin__volatility_category")):
            yield _grouped(metric, group_by, source="price", value=value, columns=_PRICE)
    groupings = ((), *((name,) for name in _ARTICLE))
    for metric, value in ARTICLE_METRICS.items():
        for group_by in (*groupings, ("metric_time__month", "news__category")):
            yield _grouped(metric, group_by, source="article", value=value, columns=_ARTICLE)


def _case(metric: str, *group_by: str, sql: str) -> Case:
    return Case(metric=metric, group_by=group_by, sql=sql)


def _latest_price_cases() -> Iterator[Case]:
    yield _case("bitcoin_price_latest", sql="select price from price order by event_at desc limit 1")
    for grain in ("day", "week", "month", "quarter", "year"):
        yield _case(
            "bitcoin_price_latest",
            f"metric_time__{grain}",
            sql=f"select date_trunc('{grain}', day), max_by(price, event_at) from price group by all",
        )
    for name, part in _PARTS.items():
        yield _case("bitcoin_price_latest", name, sql=f"select {part}, max_by(price, event_at) from price group by all")


def _returning_cases() -> Iterator[Case]:
    """Customers of a period whose first purchase lies before it."""
    yield _case("returning_customers", sql="select 0")
    for grain in ("day", "week", "month", "quarter"):
        yield _case(
            "returning_customers",
            f"metric_time__{grain}",
            sql=f"""
                select date_trunc('{grain}', day) as period,
                    count(distinct customer_id) filter (date_trunc('{grain}', first_day) < period)
                from line join customer using (customer_id) group by all""",
        )
    yield _case(
        "returning_customers",
        "metric_time__month",
        "customer__gender",
        sql="""
            select date_trunc('month', day) as period, line.gender,
                count(distinct customer_id) filter (date_trunc('month', first_day) < period)
            from line join customer using (customer_id) group by all""",
    )


def _spend_ratio_cases() -> Iterator[Case]:
    """Both sides summed apart, then divided: never a join of days with lines."""
    for name, key in {**_TIME, **_PARTS, "calendar_date__day_name": _CALENDAR["calendar_date__day_name"]}.items():
        yield _case(
            "return_on_ad_spend",
            name,
            sql=f"""
                with revenue as (select {key} as k, sum(total) as usd from line group by all),
                cost as (select {key} as k, sum(online + offline) as usd from spend group by all)
                select k, revenue.usd::double / nullif(cost.usd, 0) from revenue full join cost using (k)""",
        )
        yield _case(
            "customer_acquisition_cost",
            name,
            sql=f"""
                with newcomer as (
                    select {key} as k, count(*) as customers from (select first_day as day from customer) group by all
                ), cost as (select {key} as k, sum(online + offline) as usd from spend group by all)
                select k, cost.usd::double / customers from newcomer full join cost using (k)""",
        )
    yield _case(
        "return_on_ad_spend",
        sql="select (select sum(total) from line)::double / (select sum(online + offline) from spend)",
    )
    yield _case(
        "customer_acquisition_cost",
        sql="select (select sum(online + offline) from spend)::double / (select count(*) from customer)",
    )


# metric: the days whose revenue counts on day `c.day`.
_LOOKING_BACK = {
    "cumulative_revenue": "line.day <= c.day",
    "revenue_mtd": "line.day between date_trunc('month', c.day) and c.day",
    "revenue_trailing_7d": "line.day between c.day - 6 and c.day",
}


def _looking_back_cases() -> Iterator[Case]:
    """By day, by day and gender, and at coarser grains the value of the period's last day."""
    yield _case("cumulative_revenue", sql="select sum(total) from line")
    yield _case("cumulative_revenue", "customer__gender", sql="select gender, sum(total) from line group by all")
    for metric, window in _LOOKING_BACK.items():
        daily = f"select c.day, sum(total) as usd from calendar as c join line on {window} group by all"
        yield _case(metric, "metric_time__day", sql=daily)
        yield _case(
            metric,
            "metric_time__day",
            "customer__gender",
            sql=f"select c.day, gender, sum(total) from calendar as c join line on {window} group by all",
        )
        for grain in ("week", "month", "quarter"):
            yield _case(
                metric,
                f"metric_time__{grain}",
                sql=f"select date_trunc('{grain}', day), max_by(usd, day) from ({daily}) group by all",
            )


def _growth_cases() -> Iterator[Case]:
    for metric, before, grain in (
        ("revenue_growth_mom", "1 month", "month"),
        ("revenue_growth_yoy", "1 year", "month"),
        ("revenue_growth_yoy", "1 year", "year"),
        ("revenue_growth_mom", "1 month", "day"),
    ):
        yield _case(
            metric,
            f"metric_time__{grain}",
            sql=f"""
                with revenue as (select date_trunc('{grain}', day) as period, sum(total) as usd from line group by all),
                period as (select distinct date_trunc('{grain}', day) as period from calendar)
                select period.period, this.usd::double / that.usd - 1
                from period
                left join revenue as this on this.period = period.period
                left join revenue as that on that.period = period.period - interval {before}
                where this.usd is not null or that.usd is not null""",
        )
    yield _case(
        "revenue_growth_mom",
        "metric_time__month",
        "product__category",
        sql="""
            with revenue as (
                select date_trunc('month', day) as period, product_category as c, sum(total) as usd
                from line group by all
            ), before as (
                select period + interval 1 month as period, c, usd from revenue
                where period < (select date_trunc('month', max(day)) from calendar)
            )
            select coalesce(this.period, before.period), coalesce(this.c, before.c), this.usd::double / before.usd - 1
            from revenue as this full join before on this.period = before.period and this.c = before.c""",
    )


def _conversion_cases() -> Iterator[Case]:
    """A use counts for the customer's last click within the seven days that end with it, on that click's date."""
    for name, key in {**_TIME, **_PARTS, "customer__gender": "gender", "customer__location": "location"}.items():
        yield _case("coupon_conversion_rate", name, sql=_conversion(key))
    yield _case("coupon_conversion_rate", sql=_conversion("0", selected=""))


def _conversion(key: str, *, selected: str = "k, ") -> str:
    return f"""
        with click as (select distinct customer_id, day, gender, location from line where coupon_status = 'Clicked'),
        use as (select distinct customer_id, day from line where coupon_status = 'Used'),
        credited as (
            select click.customer_id, max(click.day) as day,
                any_value(gender) as gender, any_value(location) as location
            from use join click using (customer_id)
            where use.day between click.day and click.day + 6
            group by click.customer_id, use.day
        ),
        clicking as (select {key} as k, count(distinct customer_id) as customers from click group by all),
        using_ as (select {key} as k, count(distinct customer_id) as customers from credited group by all)
        select {selected}coalesce(using_.customers, 0)::double / clicking.customers
        from clicking full join using_ using (k)"""


_ALL_CASES = (
    *_line_cases(),
    *_customer_cases(),
    *_other_cases(),
    *_latest_price_cases(),
    *_returning_cases(),
    *_spend_ratio_cases(),
    *_looking_back_cases(),
    *_growth_cases(),
    *_conversion_cases(),
)
CASES: tuple[Case, ...] = tuple(dict.fromkeys(_ALL_CASES))

# Known answers over the whole of the real data, to the digits that are known.
REAL_TOTALS = {
    "gross_revenue": "4670794.62",
    "discount_amount": "310772.458",
    "net_revenue": "4360022.162",
    "tax_amount": "480701.51434",
    "delivery_charges": "220522.14",
    "total_revenue": "5061245.81634",
    "average_order_value": "201.957",
    "return_on_ad_spend": "2.920",
    "line_count": "52924",
    "transaction_count": "25061",
    "customer_count": "1468",
    "product_count": "1145",
}
