-- Transactions whose lines' shares do not add up to the charge that each of their lines repeats.
with

shares as (

    select
        transaction_id,
        sum(delivery_charges) as shared_out,
        max(delivery_charges) - min(delivery_charges) as largest_difference
    from {{ ref("fct_sales") }}
    group by transaction_id

),

charges as (

    select
        transaction_id,
        max(delivery_charges) as charged
    from {{ ref("int_sales_lines") }}
    group by transaction_id

)

select
    charges.transaction_id,
    charges.charged,
    shares.shared_out,
    shares.largest_difference
from charges
left join shares on charges.transaction_id = shares.transaction_id
where
    shares.shared_out is null
    or shares.shared_out != charges.charged
    or shares.largest_difference > 0.01
