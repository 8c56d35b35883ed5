{#- Rows in which one of the columns is null. One test for all columns of a model: dbt takes a tenth of a second for each. -#}
{% test never_null(model, columns) %}

select * from {{ model }}
where {{ columns | join(" is null or ") }} is null

{% endtest %}
