-- A SKU that moved: past lines keep their category for tax and coupon, questions by category see the newest.
{{ config(severity="warn") }}

select
    product_sku,
    count(distinct product_category) as categories
from {{ ref("int_sales_lines") }}
group by product_sku
having count(distinct product_category) > 1
