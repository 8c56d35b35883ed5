select
    sales.sale_id,
    sales.product_category,
    sales.discount_fraction,
    sales.discount_amount
from {{ ref("fct_sales") }} as sales
left join {{ ref("stg_ecommerce__discount_coupons") }} as coupons
    on sales.product_category = coupons.product_category
where coupons.product_category is null and (sales.discount_amount != 0 or sales.coupon_code is not null)
