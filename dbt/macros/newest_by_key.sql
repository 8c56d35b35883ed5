{#-
  The rows of a relation that carries `load_id` and `line_number`, the newest load alone for each key: a corrected
  file replaces the lines that it repeats, and within one file the later line wins.
-#}
{% macro newest_by_key(key) -%}
qualify row_number() over (partition by {{ key | join(", ") }} order by load_id desc, line_number desc) = 1
{%- endmacro %}
