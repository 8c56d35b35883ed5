{#-
  Whether a row is new to this incremental model: loaded since its newest one, or within the window before, as loads of
  several consumers may be stamped out of order. A row that is read again replaces itself.
-#}
{% macro new_since(loaded_at) -%}
{{ loaded_at }} >= (
            select
                {{ dbt.dateadd("minute", -var("late_load_minutes"), "coalesce(max(published.loaded_at), timestamp '1900-01-01')") }}
            from {{ this }} as published
        )
{%- endmacro %}
