with

loads as (

    {{ load_order() }}

),

records as (

    select * from {{ source("ecommerce", "tax_amounts") }}

),

ordered as (

    select
        records.product_category,
        records.gst as gst_fraction,
        records.file_hash,
        records.line_number,
        records.loaded_at,
        coalesce(loads.load_id, 0) as load_id
    from records
    left join loads on records.file_hash = loads.file_hash

)

select * from ordered
{{ newest_by_key(["product_category"]) }}
