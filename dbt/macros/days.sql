{#- Days from one date to another; negative when the second lies before the first. -#}
{% macro days_between(first, last) -%}
{{ dbt.datediff(first, last, "day") }}
{%- endmacro %}

{#- The date so many days after a date. -#}
{% macro days_after(date, days) -%}
cast({{ dbt.dateadd("day", "cast(" ~ days ~ " as integer)", date) }} as date)
{%- endmacro %}

{#- The query of the numbers from 1 to `last`, as column `generated_number`. -#}
{% macro numbers_to(last) -%}
{{ dbt.generate_series(last) }}
{%- endmacro %}
