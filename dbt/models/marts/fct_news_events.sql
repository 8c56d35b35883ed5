{{ config(materialized="incremental", unique_key="url", on_schema_change="fail") }}

with

articles as (

    select stg.* from {{ ref("stg_streaming__news") }} as stg
    {% if is_incremental() %}
    where
        {{ new_since("stg.loaded_at") }}
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
