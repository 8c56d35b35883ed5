with

loads as (

    {{ load_order() }}

),

records as (

    select * from {{ source("ecommerce", "discount_coupons") }}

),

ordered as (

    select
        records.coupon_month,
        records.product_category,
        records.coupon_code,
        records.discount_pct,
        cast(records.discount_pct * 0.01 as decimal(5, 4)) as discount_fraction,
        records.file_hash,
        records.line_number,
        records.loaded_at,
        coalesce(loads.load_id, 0) as load_id
    from records
    left join loads on records.file_hash = loads.file_hash

)

select * from ordered
{{ newest_by_key(["coupon_month", "product_category"]) }}
