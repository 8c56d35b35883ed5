select
    sale_id,
    net_revenue,
    tax_amount,
    delivery_charges,
    total_revenue
from {{ ref("fct_sales") }}
where total_revenue != net_revenue + tax_amount + delivery_charges
