-- Used lines whose discount is not the one of their own month and category.
select
    sales.sale_id,
    sales.transaction_date,
    sales.product_category,
    sales.discount_fraction,
    coupons.discount_pct
from {{ ref("fct_sales") }} as sales
inner join {{ ref("stg_ecommerce__discount_coupons") }} as coupons
    on
        sales.product_category = coupons.product_category
        and extract(month from sales.transaction_date) = coupons.coupon_month
where sales.coupon_status = 'Used' and sales.discount_fraction * 100 != coupons.discount_pct
