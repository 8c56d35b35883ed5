with

events as (

    select * from {{ source("streaming", "sales_events") }}

),

parsed as (

    select
        cast({{ json_text("payload", "transaction_id") }} as bigint) as transaction_id,
        {{ json_text("payload", "product_sku") }} as product_sku,
        cast({{ json_text("payload", "customer_id") }} as bigint) as customer_id,
        cast({{ json_text("payload", "transaction_date") }} as date) as transaction_date,
        {{ json_text("payload", "product_description") }} as product_description,
        {{ json_text("payload", "product_category") }} as product_category,
        cast({{ json_text("payload", "quantity") }} as integer) as quantity,
        cast({{ json_text("payload", "avg_price") }} as decimal(18, 2)) as avg_price,
        cast({{ json_text("payload", "delivery_charges") }} as decimal(18, 2)) as delivery_charges,
        {{ json_text("payload", "coupon_status") }} as coupon_status,
        event_at,
        loaded_at,
        kafka_partition,
        kafka_offset
    from events

)

select * from parsed
-- A replay delivers the same event again at a later offset.
qualify row_number() over (
    partition by transaction_id, product_sku order by loaded_at desc, kafka_offset desc, kafka_partition desc
) = 1
