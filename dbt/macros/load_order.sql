{#- One row a loaded file, with its place in the order of loading; one, lest a join multiply lines. -#}
{% macro load_order() -%}
    select
        file_hash,
        max(load_id) as load_id,
    from {{ source("ops", "load_files") }}
    group by file_hash
{%- endmacro %}
