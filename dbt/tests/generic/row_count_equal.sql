{#- One row with both counts, where they differ. -#}
{% test row_count_equal(model, compare_to) %}

with

counts as (

    select
        (select count(*) from {{ model }}) as actual_rows,
        (select count(*) from {{ compare_to }}) as expected_rows

)

select * from counts
where actual_rows != expected_rows

{% endtest %}
