{#- An ISO 8601 text as a naive UTC timestamp. A bare cast would drop the offset in DuckDB. -#}
{% macro utc_timestamp(text) -%}
{{ return(adapter.dispatch("utc_timestamp", "marketing_insight")(text)) }}
{%- endmacro %}

{% macro default__utc_timestamp(text) -%}
cast(cast({{ text }} as timestamptz) at time zone 'UTC' as timestamp)
{%- endmacro %}

{% macro snowflake__utc_timestamp(text) -%}
convert_timezone('UTC', {{ text }}::timestamp_tz)::timestamp_ntz
{%- endmacro %}
