with

loads as (

    {{ load_order() }}

),

records as (

    select * from {{ source("ecommerce", "online_sales") }}

),

ordered as (

    select
        records.transaction_id,
        records.product_sku,
        records.customer_id,
        records.transaction_date,
        records.product_description,
        records.product_category,
        records.quantity,
        records.avg_price,
        records.delivery_charges,
        records.coupon_status,
        records.file_hash,
        records.line_number,
        records.loaded_at,
        coalesce(loads.load_id, 0) as load_id
    from records
    left join loads on records.file_hash = loads.file_hash

)

select * from ordered
{{ newest_by_key(["transaction_id", "product_sku"]) }}
