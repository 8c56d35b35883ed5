with

sales as (

    select * from {{ ref("int_sales_lines") }}

)

select
    customer_id,
    min(transaction_date) as first_purchase_date,
    max(transaction_date) as last_purchase_date,
    count(distinct transaction_date) as purchase_dates,
    count(distinct transaction_id) as transaction_count
from sales
group by customer_id
