{#- Rows whose value is no fraction: a percentage that was not divided by 100 shows here. -#}
{% test fraction(model, column_name) %}

select * from {{ model }}
where {{ column_name }} < 0 or {{ column_name }} > 1

{% endtest %}
