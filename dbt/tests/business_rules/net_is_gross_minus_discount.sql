select
    sale_id,
    gross_revenue,
    discount_amount,
    net_revenue
from {{ ref("fct_sales") }}
where net_revenue != gross_revenue - discount_amount
