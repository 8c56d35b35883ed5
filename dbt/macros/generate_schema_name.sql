{#- The custom schema as it is written, without the target's in front: readers know `marts` by that name. -#}
{% macro generate_schema_name(custom_schema_name, node) -%}
{{ (custom_schema_name or target.schema) | trim }}
{%- endmacro %}
