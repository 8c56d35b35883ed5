-- Customers whose counts differ from what their lines say.
with

counted as (

    select
        customer_id,
        min(transaction_date) as first_purchase_date,
        max(transaction_date) as last_purchase_date,
        count(distinct transaction_date) as purchase_dates
    from {{ ref("fct_sales") }}
    group by customer_id

)

select
    customers.customer_id,
    customers.first_purchase_date,
    customers.last_purchase_date,
    customers.purchase_dates,
    customers.is_repeat_customer,
    counted.purchase_dates as counted_purchase_dates
from {{ ref("dim_customer") }} as customers
left join counted on customers.customer_id = counted.customer_id
where
    customers.purchase_dates != coalesce(counted.purchase_dates, 0)
    or customers.is_repeat_customer != (coalesce(counted.purchase_dates, 0) >= 2)
    or coalesce(customers.first_purchase_date != counted.first_purchase_date, false)
    or coalesce(customers.last_purchase_date != counted.last_purchase_date, false)
