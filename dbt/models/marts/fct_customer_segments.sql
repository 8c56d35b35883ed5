select
    customer_id,
    segment_id,
    segment_name
from {{ ref("stg_ml__customer_segments") }}
