{% macro month_name(month_number) -%}
case {{ month_number }}
        {% for name in [
            "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
            "November", "December",
        ] %}
        when {{ loop.index }} then '{{ name }}'
        {% endfor %}
    end
{%- endmacro %}

{% macro day_name(day_of_week) -%}
case {{ day_of_week }}
{% for name in ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"] %}
        when {{ loop.index }} then '{{ name }}'
        {% endfor %}
    end
{%- endmacro %}
