{#- Rows whose value lies below `minimum`. Null passes: not_null says what it thinks of that. -#}
{% test at_least(model, column_name, minimum) %}

select * from {{ model }}
where {{ column_name }} < {{ minimum }}

{% endtest %}
