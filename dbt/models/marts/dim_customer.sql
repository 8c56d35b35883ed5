with

customers as (

    select * from {{ ref("stg_ecommerce__customers") }}

),

purchases as (

    select * from {{ ref("int_customer_purchases_summed") }}

),

segments as (

    select * from {{ ref("stg_ml__customer_segments") }}

),

as_of_date as (

    select * from {{ ref("int_as_of") }}

),

known_customers as (

    select customer_id from customers
    union distinct
    select customer_id from purchases

),

dated as (

    select
        purchases.customer_id,
        purchases.first_purchase_date,
        purchases.last_purchase_date,
        purchases.purchase_dates,
        purchases.transaction_count,
        {{ days_between("purchases.last_purchase_date", "as_of_date.as_of") }} as days_since_purchase
    from purchases
    cross join as_of_date

)

select
    known_customers.customer_id,
    coalesce(customers.gender, 'Unknown') as gender,
    coalesce(customers.location, 'Unknown') as location,
    customers.tenure_months,
    case
        when customers.tenure_months is null then 'Unknown'
        when customers.tenure_months <= 12 then '0-12'
        when customers.tenure_months <= 24 then '13-24'
        when customers.tenure_months <= 36 then '25-36'
        else '37+'
    end as tenure_band,
    coalesce(segments.segment_name, 'Unassigned') as segment_name,
    case
        when dated.customer_id is null then 'Never purchased'
        when dated.days_since_purchase <= {{ var("active_within_days") }} then 'Active'
        when dated.days_since_purchase <= {{ var("lapsing_within_days") }} then 'Lapsing'
        else 'Churned'
    end as activity_status,
    dated.first_purchase_date,
    dated.last_purchase_date,
    coalesce(dated.purchase_dates, 0) as purchase_dates,
    coalesce(dated.transaction_count, 0) as transaction_count,
    coalesce(dated.purchase_dates, 0) >= 2 as is_repeat_customer,
    coalesce(dated.days_since_purchase, 0) > {{ var("lapsing_within_days") }} as is_churned
from known_customers
left join customers on known_customers.customer_id = customers.customer_id
left join dated on known_customers.customer_id = dated.customer_id
left join segments on known_customers.customer_id = segments.customer_id
