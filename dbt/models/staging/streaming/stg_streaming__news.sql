with

events as (

    select * from {{ source("streaming", "news_events") }}

),

parsed as (

    select
        {{ json_text("payload", "url") }} as url,
        {{ json_text("payload", "source") }} as source,
        {{ json_text("payload", "source_name") }} as source_name,
        {{ json_text("payload", "category") }} as category,
        {{ json_text("payload", "headline") }} as headline,
        {{ json_text("payload", "description") }} as description,
        cast({{ json_text("payload", "word_count") }} as integer) as word_count,
        cast({{ json_text("payload", "has_crypto_mention") }} as boolean) as has_crypto_mention,
        {{ utc_timestamp(json_text("payload", "published_at")) }} as published_at,
        event_at,
        loaded_at,
        kafka_partition,
        kafka_offset
    from events

)

select * from parsed
-- A replay delivers the same event again at a later offset.
qualify row_number() over (
    partition by url order by loaded_at desc, kafka_offset desc, kafka_partition desc
) = 1
