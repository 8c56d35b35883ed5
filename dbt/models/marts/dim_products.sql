with

products as (

    select * from {{ ref("stg_ecommerce__products") }}

),

product_groups as (

    select * from {{ ref("product_groups") }}

)

select
    products.product_sku,
    products.product_description,
    products.product_category,
    coalesce(product_groups.product_group, 'Other') as product_group
from products
left join product_groups on products.product_category = product_groups.product_category
