with

known_customers as (

    select customer_id from {{ ref("stg_ecommerce__customers") }}
    union distinct
    select customer_id from {{ ref("int_sales_lines") }}

)

select known_customers.customer_id
from known_customers
left join {{ ref("dim_customer") }} as customers on known_customers.customer_id = customers.customer_id
where customers.customer_id is null
