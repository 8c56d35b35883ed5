with

sales as (

    select * from {{ ref("int_sales_lines") }}

)

select
    transaction_id,
    min(transaction_date) as transaction_date,
    -- The charge of the whole transaction is repeated on each of its lines: once, never a sum.
    max(delivery_charges) as delivery_charges,
    count(*) as line_count,
    count(distinct customer_id) as customer_count,
    max(loaded_at) as loaded_at
from sales
group by transaction_id
