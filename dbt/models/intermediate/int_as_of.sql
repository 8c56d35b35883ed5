with

sales as (

    select * from {{ ref("int_sales_lines") }}

)

select
    max(transaction_date) as data_through,
    {% if var("as_of") %}
    cast('{{ var("as_of") }}' as date) as as_of
    {% else %}
    max(transaction_date) as as_of
    {% endif %}
from sales
