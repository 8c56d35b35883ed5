"""The facts of the data, restated as views over the raw tables, for the oracle to count.

One invoice formula, delivery once per transaction, the coupon of the month, the newest delivery of each key; nothing
here reads a staging view or a mart.
"""

from pathlib import Path

_PRODUCT_GROUPS = Path(__file__).parents[2] / "dbt" / "seeds" / "product_groups.csv"

_VIEWS = """
-- The newest delivery of each line.
create temp view delivered as
select * exclude (age) from (
    select s.*, load_id,
        row_number() over (partition by transaction_id, product_sku order by load_id desc, s.line_number desc) as age
    from raw.online_sales as s join raw.load_files using (file_hash)
) where age = 1;

create temp view as_of as select max(transaction_date) as today from raw.online_sales;

-- The newest delivery of each customer.
create temp view customer_file as
select * from (
    select c.*, row_number() over (partition by customer_id order by load_id desc, c.line_number desc) as age
    from raw.customers as c join raw.load_files using (file_hash)
) where age = 1;

-- All that is known of a customer who bought. Recency is seen from the as-of date.
create temp view customer as
with bought as (
    select customer_id, min(transaction_date) as first_day, max(transaction_date) as last_day,
        count(distinct transaction_date) as days
    from delivered group by customer_id
)
select
    bought.*, coalesce(gender, 'Unknown') as gender, coalesce(location, 'Unknown') as location, tenure_months,
    case
        when tenure_months between 0 and 12 then '0-12' when tenure_months between 13 and 24 then '13-24'
        when tenure_months between 25 and 36 then '25-36' when tenure_months > 36 then '37+' else 'Unknown'
    end as tenure_band,
    case
        when today - last_day <= 30 then 'Active' when today - last_day <= 90 then 'Lapsing' else 'Churned'
    end as activity,
    coalesce(segment_name, 'Unassigned') as segment
from bought cross join as_of left join customer_file using (customer_id)
left join (
    select * from read_csv('{segments}', header = true, columns = {{
        'customer_id': 'bigint', 'segment_id': 'integer', 'segment_name': 'varchar'
    }})
) using (customer_id);

-- Lines with their amounts. `position` counts the lines of a transaction in file order.
create temp view line as
with priced as (
    select
        d.*, cast(quantity * avg_price as decimal(18, 2)) as gross,
        row_number() over (partition by transaction_id order by load_id, line_number, product_sku) as position,
        count(*) over (partition by transaction_id) as lines,
        cast(delivery_charges * 100 as bigint) as charge_cents,
        case when coupon_status = 'Used' then (
            select coupon_code from raw.discount_coupons as c
            where c.product_category = d.product_category and coupon_month = month(transaction_date)
        ) end as coupon_code,
        case when coupon_status = 'Used' then coalesce((
            select discount_pct from raw.discount_coupons as c
            where c.product_category = d.product_category and coupon_month = month(transaction_date)
        ), 0) else 0 end as discount_pct,
        coalesce((select gst from raw.tax_amounts as t where t.product_category = d.product_category), 0) as gst
    from delivered as d
), discounted as (
    select *, gross * discount_pct * 0.01 as discount, gross * (100 - discount_pct) * 0.01 as net from priced
)
select
    l.*, transaction_date as day, net * gst as tax,
    -- Floor of (c + n - k) / n for k = 1 to n: equal shares, the cents left over to the first lines.
    cast((charge_cents + lines - position) // lines * 0.01 as decimal(18, 2)) as delivery,
    net + tax + delivery as total,
    case when net < 25 then 'Small' when net < 100 then 'Medium' else 'Large' end as sale_size,
    gender, location, tenure_months, tenure_band, activity, segment,
    coalesce(product_group, 'Other') as product_group
from discounted as l
join customer using (customer_id)
left join read_csv('{product_groups}') as g on g.product_category = l.product_category;

create temp view spend as
select spend_date as day, online_spend as online, offline_spend as offline from raw.marketing_spend;

create temp view price as
with event as (
    select
        event_at, payload ->> 'source' as source, cast(payload ->> 'price' as decimal(18, 8)) as price,
        coalesce(payload ->> 'volatility_category', 'Unknown') as volatility_category,
        row_number() over (partition by source, event_at order by kafka_offset desc) as age
    from raw.bitcoin_events
)
select *, cast(event_at as date) as day, ln(price / lag(price) over (partition by source order by event_at)) as step
from event where age = 1;

create temp view article as
with sent as (
    select
        payload ->> 'url' as url, coalesce(payload ->> 'category', 'Unknown') as category,
        coalesce(payload ->> 'source_name', 'Unknown') as source_name,
        cast(payload ->> 'has_crypto_mention' as boolean) as is_crypto,
        cast(replace(payload ->> 'published_at', 'Z', '') as timestamp) as published_at,
        row_number() over (partition by url order by kafka_offset desc) as age
    from raw.news_events
)
select *, cast(published_at as date) as day from sent where age = 1;

-- The days that the data cover.
create temp view calendar as
with dates as (
    select day from line union select day from spend union select day from price union select day from article
)
select cast(unnest(range(min(day), max(day) + interval 1 day, interval 1 day)) as date) as day from dates;
"""


def views(*, segments: Path) -> str:
    """The statements that create the views; `segments` is the seed that the segmentation wrote."""
    return _VIEWS.format(product_groups=_PRODUCT_GROUPS, segments=segments)
