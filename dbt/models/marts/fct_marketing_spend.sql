with

spend as (

    select * from {{ ref("stg_ecommerce__marketing_spend") }}

)

select
    spend_date,
    online_spend,
    offline_spend,
    cast(online_spend + offline_spend as decimal(18, 2)) as total_spend
from spend
