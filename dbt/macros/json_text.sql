{#- One top-level field of a JSON text, as text; null when the field is missing or the text is no JSON. -#}
{% macro json_text(column, field) -%}
{{ return(adapter.dispatch("json_text", "marketing_insight")(column, field)) }}
{%- endmacro %}

{% macro default__json_text(column, field) -%}
json_extract_string(try_cast({{ column }} as json), '$.{{ field }}')
{%- endmacro %}

{% macro snowflake__json_text(column, field) -%}
get_path(try_parse_json({{ column }}), '{{ field }}')::varchar
{%- endmacro %}
