{#- Rows in which a column is null; one test for all of a model, as dbt takes 0.1 s for each. -#}
{% test never_null(model, columns) %}

select * from {{ model }}
where {{ columns | join(" is null or ") }} is null

{% endtest %}
