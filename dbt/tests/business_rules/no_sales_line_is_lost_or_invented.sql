-- Lines that are in staging or in the mart alone, and in which.
with

staged as (

    select
        transaction_id,
        product_sku
    from {{ ref("int_sales_lines") }}

),

published as (

    select
        transaction_id,
        product_sku
    from {{ ref("fct_sales") }}

)

select
    coalesce(staged.transaction_id, published.transaction_id) as transaction_id,
    coalesce(staged.product_sku, published.product_sku) as product_sku,
    case when published.transaction_id is null then 'lost' else 'invented' end as what_happened
from staged
full outer join published
    on
        staged.transaction_id = published.transaction_id
        and staged.product_sku = published.product_sku
where staged.transaction_id is null or published.transaction_id is null
