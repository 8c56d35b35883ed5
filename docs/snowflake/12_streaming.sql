-- By which events come in where INSIGHT_SNOWFLAKE_STREAMING_URL is set; unused otherwise. The pipes are those of
-- workers/snowpipe.py: a test holds one against the other. A row without a payload moves a channel's token, and goes nowhere.
use role ${prefix}_OWNER;

create pipe if not exists ${database}.RAW.BITCOIN_EVENTS_STREAM as
copy into ${database}.RAW.BITCOIN_EVENTS (
    kafka_topic, kafka_partition, kafka_offset, message_key, schema_version, payload, event_at, loaded_at
)
from (
    select
        $1:kafka_topic::varchar,
        $1:kafka_partition::integer,
        $1:kafka_offset::bigint,
        $1:message_key::varchar,
        $1:schema_version::integer,
        $1:payload::varchar,
        $1:event_at::datetime,
        $1:loaded_at::datetime
    from table(data_source(type => 'STREAMING'))
    where $1:payload is not null
);

create pipe if not exists ${database}.RAW.NEWS_EVENTS_STREAM as
copy into ${database}.RAW.NEWS_EVENTS (
    kafka_topic, kafka_partition, kafka_offset, message_key, schema_version, payload, event_at, loaded_at
)
from (
    select
        $1:kafka_topic::varchar,
        $1:kafka_partition::integer,
        $1:kafka_offset::bigint,
        $1:message_key::varchar,
        $1:schema_version::integer,
        $1:payload::varchar,
        $1:event_at::datetime,
        $1:loaded_at::datetime
    from table(data_source(type => 'STREAMING'))
    where $1:payload is not null
);

create pipe if not exists ${database}.RAW.SALES_EVENTS_STREAM as
copy into ${database}.RAW.SALES_EVENTS (
    kafka_topic, kafka_partition, kafka_offset, message_key, schema_version, payload, event_at, loaded_at
)
from (
    select
        $1:kafka_topic::varchar,
        $1:kafka_partition::integer,
        $1:kafka_offset::bigint,
        $1:message_key::varchar,
        $1:schema_version::integer,
        $1:payload::varchar,
        $1:event_at::datetime,
        $1:loaded_at::datetime
    from table(data_source(type => 'STREAMING'))
    where $1:payload is not null
);

use role securityadmin;

-- For a pipe that a release adds, as for its table (05_grants.sql).
grant create pipe on schema ${database}.RAW to role ${prefix}_LOADER;
grant operate, monitor on all pipes in schema ${database}.RAW to role ${prefix}_LOADER;
grant operate, monitor on future pipes in schema ${database}.RAW to role ${prefix}_LOADER;
