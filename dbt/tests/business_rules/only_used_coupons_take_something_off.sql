select
    sale_id,
    coupon_status,
    coupon_code,
    discount_amount
from {{ ref("fct_sales") }}
where coupon_status != 'Used' and (discount_amount != 0 or coupon_code is not null)
