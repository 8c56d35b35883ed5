{#- The number of rows, where it is not one. -#}
{% test one_row(model) %}

select count(*) as actual_rows
from {{ model }}
having count(*) != 1

{% endtest %}
