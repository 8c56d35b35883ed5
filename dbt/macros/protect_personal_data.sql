{#-
  Marks the columns of a mart that say something of a person, and puts the mart's row policy on it; masks hang on the mark
  (docs/snowflake). At each build, as a table that is made anew has neither; before it is published, so no reader meets it
  without. On DuckDB, and with an empty var `governance_schema`, nothing.
-#}
{% macro protect_personal_data() -%}
{%- if target.type == "snowflake" and var("governance_schema") -%}
{%- set governance = target.database ~ "." ~ var("governance_schema") -%}
{%- for column in model.columns.values() if "personal_data" in column.meta %}
alter table {{ this }} modify column {{ column.name }} set tag {{ governance }}.PERSONAL_DATA = '{{ column.meta["personal_data"] }}';
{%- endfor %}
{%- if "row_policy" in model.config.meta %}
alter table {{ this }} add row access policy {{ governance }}.{{ model.config.meta["row_policy"]["name"] }} on ({{ model.config.meta["row_policy"]["column"] }});
{%- endif %}
{%- endif -%}
{%- endmacro %}
