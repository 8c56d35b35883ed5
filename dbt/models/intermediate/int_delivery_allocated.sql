with

sales as (

    select * from {{ ref("int_sales_lines") }}

),

transactions as (

    select * from {{ ref("stg_ecommerce__transactions") }}

),

in_cents as (

    select
        sales.transaction_id,
        sales.product_sku,
        transactions.line_count,
        cast(transactions.delivery_charges * 100 as bigint) as charge_cents,
        row_number() over (
            partition by sales.transaction_id order by sales.load_id, sales.line_number, sales.product_sku
        ) as line_rank
    from sales
    inner join transactions on sales.transaction_id = transactions.transaction_id

),

shared_out as (

    select
        transaction_id,
        product_sku,
        -- What is divided is divisible, so this is exact where `/` yields a double.
        cast((charge_cents - mod(charge_cents, line_count)) / line_count as bigint) as share_cents,
        case when line_rank <= mod(charge_cents, line_count) then 1 else 0 end as remainder_cents
    from in_cents

)

select
    transaction_id,
    product_sku,
    cast((share_cents + remainder_cents) * 0.01 as decimal(18, 2)) as delivery_charges
from shared_out
