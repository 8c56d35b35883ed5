{{ config(materialized="incremental", unique_key="price_event_id", on_schema_change="fail") }}

with

events as (

    select * from {{ ref("stg_streaming__bitcoin") }}

),

compared as (

    select
        *,
        lag(price) over (partition by source order by event_at) as previous_price
    from events

)

{% if is_incremental() %}
,

-- A late event changes the return of its successor, so all from the earliest new event on is made again.
restart as (

    select min(events.event_at) as event_at from events
    where
        {{ new_since("events.loaded_at") }}

)
{% endif %}

select
    compared.source || '@' || cast(compared.event_at as varchar) as price_event_id,
    compared.source,
    compared.price,
    compared.change_24h,
    coalesce(compared.volatility_category, 'Unknown') as volatility_category,
    compared.event_at,
    cast(compared.event_at as date) as event_date,
    case
        when compared.price > 0 and compared.previous_price > 0
            then ln(compared.price / compared.previous_price)
    end as log_return,
    compared.loaded_at
from compared
{% if is_incremental() %}
where compared.event_at >= (select restart.event_at from restart)
{% endif %}
