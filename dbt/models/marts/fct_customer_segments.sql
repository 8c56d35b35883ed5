with

segments as (

    select * from {{ ref("stg_ml__customer_segments") }}

),

customers as (

    select * from {{ ref("dim_customer") }}

),

sales as (

    select * from {{ ref("fct_sales") }}

),

as_of_date as (

    select * from {{ ref("int_as_of") }}

),

revenues as (

    select
        customer_id,
        sum(total_revenue) as total_revenue
    from sales
    group by customer_id

),

valued as (

    select
        segments.customer_id,
        segments.segment_id,
        segments.segment_name,
        customers.activity_status,
        coalesce(revenues.total_revenue, 0) as total_revenue,
        -- A customer of today has been one for a day; so has one of a day after the as-of date.
        greatest({{ days_between("customers.first_purchase_date", "as_of_date.as_of") }}, 0) + 1
            as days_as_customer
    from segments
    inner join customers on segments.customer_id = customers.customer_id
    left join revenues on segments.customer_id = revenues.customer_id
    cross join as_of_date

)

select
    customer_id,
    segment_id,
    segment_name,
    activity_status,
    cast(total_revenue as decimal(38, 10)) as total_revenue,
    cast(total_revenue / days_as_customer as decimal(28, 10)) as daily_revenue_rate
from valued
