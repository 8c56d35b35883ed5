{#-
  Lets the roles of the var `mart_readers` read a mart on Snowflake. A hook rather than the `grants` config, which in
  the project file holds no list made from a var and which DuckDB remarks on in every build.
-#}
{% macro grant_to_mart_readers() -%}
{%- if target.type == "snowflake" and var("mart_readers", "") -%}
grant select on {{ this }} to role {{ var("mart_readers").split(",") | join(", role ") }}
{%- endif -%}
{%- endmacro %}
