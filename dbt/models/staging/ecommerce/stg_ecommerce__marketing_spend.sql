with

loads as (

    {{ load_order() }}

),

records as (

    select * from {{ source("ecommerce", "marketing_spend") }}

),

ordered as (

    select
        records.spend_date,
        records.offline_spend,
        records.online_spend,
        records.file_hash,
        records.line_number,
        records.loaded_at,
        coalesce(loads.load_id, 0) as load_id
    from records
    left join loads on records.file_hash = loads.file_hash

)

select * from ordered
{{ newest_by_key(["spend_date"]) }}
