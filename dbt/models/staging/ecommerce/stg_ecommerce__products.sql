with

sales as (

    select * from {{ ref("int_sales_lines") }}

)

select
    product_sku,
    product_description,
    product_category,
    loaded_at
from sales
-- Should a SKU be renamed or moved, its last sale says what it is now.
qualify row_number() over (
    partition by product_sku order by transaction_date desc, load_id desc, line_number desc
) = 1
