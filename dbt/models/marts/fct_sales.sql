{{ config(cluster_by=["transaction_date", "customer_id"]) }}

with

sales as (

    select * from {{ ref("int_sales_lines") }}

),

coupons as (

    select * from {{ ref("stg_ecommerce__discount_coupons") }}

),

taxes as (

    select * from {{ ref("stg_ecommerce__tax_amount") }}

),

deliveries as (

    select * from {{ ref("int_delivery_allocated") }}

),

priced as (

    select
        sales.transaction_id,
        sales.product_sku,
        sales.customer_id,
        sales.transaction_date,
        sales.product_category,
        sales.coupon_status,
        sales.quantity,
        sales.avg_price,
        coupons.coupon_code,
        deliveries.delivery_charges,
        cast(sales.quantity * sales.avg_price as decimal(18, 2)) as gross_revenue,
        coalesce(coupons.discount_fraction, 0) as discount_fraction,
        coalesce(taxes.gst_fraction, 0) as gst_fraction
    from sales
    inner join deliveries
        on
            sales.transaction_id = deliveries.transaction_id
            and sales.product_sku = deliveries.product_sku
    -- Both are left joins: a category without coupon or tax row keeps its lines.
    left join coupons
        on
            sales.coupon_status = 'Used'
            and sales.product_category = coupons.product_category
            and extract(month from sales.transaction_date) = coupons.coupon_month
    left join taxes on sales.product_category = taxes.product_category

),

discounted as (

    select
        *,
        cast(gross_revenue * discount_fraction as decimal(28, 10)) as discount_amount,
        cast(gross_revenue - gross_revenue * discount_fraction as decimal(28, 10)) as net_revenue,
        -- Multiplied before the cast to ten places, which would leave too few digits for the product.
        cast((gross_revenue - gross_revenue * discount_fraction) * gst_fraction as decimal(28, 10))
            as tax_amount
    from priced

)

select
    cast(transaction_id as varchar) || '-' || product_sku as sale_id,
    transaction_id,
    product_sku,
    customer_id,
    transaction_date,
    product_category,
    coupon_status,
    coupon_code,
    case
        when net_revenue < {{ var("small_sale_below") }} then 'Small'
        when net_revenue < {{ var("medium_sale_below") }} then 'Medium'
        else 'Large'
    end as sale_size,
    quantity,
    avg_price,
    cast(discount_fraction as decimal(5, 4)) as discount_fraction,
    cast(gst_fraction as decimal(5, 4)) as gst_fraction,
    gross_revenue,
    discount_amount,
    net_revenue,
    tax_amount,
    delivery_charges,
    cast(net_revenue + tax_amount + delivery_charges as decimal(28, 10)) as total_revenue
from discounted
