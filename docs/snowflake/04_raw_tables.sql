-- The raw tables, so that the owner owns them and the loader only writes. They are those of workers/raw_tables.py: a test
-- holds one against the other. Keys are promises to readers; Snowflake does not enforce them, the loader does.
use role ${prefix}_OWNER;

create table if not exists ${database}.RAW.BITCOIN_EVENTS (
    kafka_topic varchar not null,
    kafka_partition integer not null,
    kafka_offset bigint not null,
    message_key varchar,
    schema_version integer not null,
    payload varchar not null,
    event_at datetime not null,
    loaded_at datetime not null,
    unique (kafka_topic, kafka_partition, kafka_offset)
);

create table if not exists ${database}.RAW.CONSUMER_OFFSETS (
    kafka_topic varchar not null,
    kafka_partition integer not null,
    event_table varchar not null,
    next_offset bigint not null,
    rows_loaded bigint not null,
    rows_rejected bigint not null,
    updated_at datetime not null,
    primary key (kafka_topic, kafka_partition)
);

create table if not exists ${database}.RAW.CUSTOMERS (
    customer_id bigint not null,
    gender varchar not null,
    location varchar not null,
    tenure_months integer not null,
    file_hash varchar not null,
    line_number bigint not null,
    loaded_at datetime not null
);

create table if not exists ${database}.RAW.DISCOUNT_COUPONS (
    coupon_month integer not null,
    product_category varchar not null,
    coupon_code varchar not null,
    discount_pct numeric(5, 2) not null,
    file_hash varchar not null,
    line_number bigint not null,
    loaded_at datetime not null
);

create table if not exists ${database}.RAW.LOAD_FILES (
    file_hash varchar not null,
    file_name varchar not null,
    file_kind varchar not null,
    load_id bigint not null,
    rows_read bigint not null,
    rows_loaded bigint not null,
    rows_quarantined bigint not null,
    seconds double not null,
    loaded_at datetime not null,
    primary key (file_hash),
    unique (load_id)
);

create table if not exists ${database}.RAW.MARKETING_SPEND (
    spend_date date not null,
    offline_spend numeric(18, 2) not null,
    online_spend numeric(18, 2) not null,
    file_hash varchar not null,
    line_number bigint not null,
    loaded_at datetime not null
);

create table if not exists ${database}.RAW.NEWS_EVENTS (
    kafka_topic varchar not null,
    kafka_partition integer not null,
    kafka_offset bigint not null,
    message_key varchar,
    schema_version integer not null,
    payload varchar not null,
    event_at datetime not null,
    loaded_at datetime not null,
    unique (kafka_topic, kafka_partition, kafka_offset)
);

create table if not exists ${database}.RAW.ONLINE_SALES (
    customer_id bigint not null,
    transaction_id bigint not null,
    transaction_date date not null,
    product_sku varchar not null,
    product_description varchar not null,
    product_category varchar not null,
    quantity integer not null,
    avg_price numeric(18, 2) not null,
    delivery_charges numeric(18, 2) not null,
    coupon_status varchar not null,
    file_hash varchar not null,
    line_number bigint not null,
    loaded_at datetime not null
);

create table if not exists ${database}.RAW.REJECTED_RECORDS (
    file_hash varchar not null,
    file_name varchar not null,
    file_kind varchar not null,
    line_number bigint not null,
    column_name varchar,
    reason varchar not null,
    raw_value varchar not null,
    loaded_at datetime not null
);

create table if not exists ${database}.RAW.SALES_EVENTS (
    kafka_topic varchar not null,
    kafka_partition integer not null,
    kafka_offset bigint not null,
    message_key varchar,
    schema_version integer not null,
    payload varchar not null,
    event_at datetime not null,
    loaded_at datetime not null,
    unique (kafka_topic, kafka_partition, kafka_offset)
);

create table if not exists ${database}.RAW.TAX_AMOUNTS (
    product_category varchar not null,
    gst numeric(5, 4) not null,
    file_hash varchar not null,
    line_number bigint not null,
    loaded_at datetime not null
);

-- By which writers take turns, and where files wait to be copied in (workers/snowflake_raw.py).
create table if not exists ${database}.RAW.TURNS (
    name varchar not null,
    taken_at datetime not null
);

-- By which one run of the pipeline keeps others off (workers/snowflake_build.py).
create table if not exists ${database}.RAW.PIPELINE_CLAIMS (
    holder varchar not null,
    claimed_until datetime not null
);

create stage if not exists ${database}.RAW.LOADING;
