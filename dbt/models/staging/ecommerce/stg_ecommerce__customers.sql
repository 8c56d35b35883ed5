with

loads as (

    {{ load_order() }}

),

records as (

    select * from {{ source("ecommerce", "customers") }}

),

ordered as (

    select
        records.customer_id,
        records.gender,
        records.location,
        records.tenure_months,
        records.file_hash,
        records.line_number,
        records.loaded_at,
        coalesce(loads.load_id, 0) as load_id
    from records
    left join loads on records.file_hash = loads.file_hash

)

select * from ordered
{{ newest_by_key(["customer_id"]) }}
