with

events as (

    select * from {{ source("streaming", "bitcoin_events") }}

),

parsed as (

    select
        {{ json_text("payload", "source") }} as source,
        cast({{ json_text("payload", "price") }} as decimal(18, 8)) as price,
        cast({{ json_text("payload", "change_24h") }} as double) as change_24h,
        {{ json_text("payload", "volatility_category") }} as volatility_category,
        event_at,
        loaded_at,
        kafka_partition,
        kafka_offset
    from events

)

select * from parsed
-- A replay delivers the same event again at a later offset.
qualify row_number() over (
    partition by source, event_at order by loaded_at desc, kafka_offset desc, kafka_partition desc
) = 1
