{{ config(materialized="incremental", unique_key="url", on_schema_change="fail") }}

with

articles as (

    select stg.* from {{ ref("stg_streaming__news") }} as stg
    {% if is_incremental() %}
    where
        stg.loaded_at >= (
            select coalesce(max(published.loaded_at), timestamp '1900-01-01') from {{ this }} as published
        )
    {% endif %}

)

select
    url,
    coalesce(category, 'Unknown') as category,
    coalesce(source_name, 'Unknown') as source_name,
    headline,
    word_count,
    coalesce(has_crypto_mention, false) as has_crypto_mention,
    published_at,
    cast(published_at as date) as event_date,
    loaded_at
from articles
