with

filed as (

    select * from {{ ref("stg_ecommerce__online_sales") }}

),

announced as (

    select * from {{ ref("stg_streaming__sales_events") }}

)

select
    transaction_id,
    product_sku,
    customer_id,
    transaction_date,
    product_description,
    product_category,
    quantity,
    avg_price,
    delivery_charges,
    coupon_status,
    line_number,
    loaded_at,
    load_id,
    'file' as delivered_by
from filed

union all

select
    announced.transaction_id,
    announced.product_sku,
    announced.customer_id,
    announced.transaction_date,
    announced.product_description,
    announced.product_category,
    announced.quantity,
    announced.avg_price,
    announced.delivery_charges,
    announced.coupon_status,
    announced.kafka_offset as line_number,
    announced.loaded_at,
    -- After every file: what was announced and not filed yet is the newest.
    cast(9007199254740991 as bigint) as load_id,
    'event' as delivered_by
from announced
-- The file is the shop's book. A line that came both ways is the file's.
left join filed
    on
        announced.transaction_id = filed.transaction_id
        and announced.product_sku = filed.product_sku
where filed.transaction_id is null
