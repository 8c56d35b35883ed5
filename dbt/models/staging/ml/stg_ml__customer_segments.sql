select
    customer_id,
    segment_id,
    segment_name
from {{ ref("customer_segments") }}
