-- A contradiction of the source: the larger charge is taken, so it only warns.
{{ config(severity="warn") }}

select
    transaction_id,
    count(distinct delivery_charges) as charges,
    count(distinct transaction_date) as dates
from {{ ref("int_sales_lines") }}
group by transaction_id
having count(distinct delivery_charges) > 1 or count(distinct transaction_date) > 1
