{#-
  Lines whose amounts do not follow from their own quantity, price, coupon, tax and delivery share, each with what was
  expected. The invoice formula is written out once more here, so that a change of the model alone turns red.
-#}
{% test valid_transaction_amount(model) %}

with

expected as (

    select
        *,
        quantity * avg_price as expected_gross,
        quantity * avg_price * (1 - discount_fraction) as expected_net,
        quantity * avg_price * (1 - discount_fraction) * (1 + gst_fraction) + delivery_charges as expected_total
    from {{ model }}

)

select
    sale_id,
    quantity,
    avg_price,
    discount_fraction,
    gst_fraction,
    delivery_charges,
    gross_revenue,
    expected_gross,
    net_revenue,
    expected_net,
    total_revenue,
    expected_total
from expected
where
    gross_revenue != expected_gross
    or net_revenue != expected_net
    or total_revenue != expected_total
    or total_revenue is null

{% endtest %}
