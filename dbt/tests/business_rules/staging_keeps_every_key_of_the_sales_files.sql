-- Keys that were delivered and that staging does not have: deduplication drops repetitions, never a line.
select distinct
    delivered.transaction_id,
    delivered.product_sku
from {{ source("ecommerce", "online_sales") }} as delivered
left join {{ ref("stg_ecommerce__online_sales") }} as staged
    on
        delivered.transaction_id = staged.transaction_id
        and delivered.product_sku = staged.product_sku
where staged.transaction_id is null
