select
    sale_id,
    net_revenue,
    gst_fraction,
    tax_amount
from {{ ref("fct_sales") }}
where tax_amount != net_revenue * gst_fraction
