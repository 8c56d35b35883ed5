{#- Rows whose text has outer blanks or a run of blanks inside. -#}
{% test single_spaced(model, column_name) %}

select * from {{ model }}
where {{ column_name }} like '%  %' or {{ column_name }} != trim({{ column_name }})

{% endtest %}
