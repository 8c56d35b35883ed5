{#- One row with both sums, where they differ. Empty relations match. -#}
{% test sums_match(model, expression, compare_to, compare_expression) %}

with

sums as (

    select
        (select coalesce({{ expression }}, 0) from {{ model }}) as actual,
        (select coalesce({{ compare_expression }}, 0) from {{ compare_to }}) as expected

)

select * from sums
where actual != expected

{% endtest %}
