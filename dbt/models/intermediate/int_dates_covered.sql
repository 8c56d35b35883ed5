with

fact_dates as (

    select transaction_date as date_day from {{ ref("int_sales_lines") }}
    union distinct
    select spend_date as date_day from {{ ref("stg_ecommerce__marketing_spend") }}
    union distinct
    select cast(event_at as date) as date_day from {{ ref("stg_streaming__bitcoin") }}
    union distinct
    select cast(published_at as date) as date_day from {{ ref("stg_streaming__news") }}

)

select
    min(date_day) as first_date,
    max(date_day) as last_date
from fact_dates
