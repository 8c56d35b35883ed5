select
    file_hash,
    file_name,
    file_kind,
    line_number,
    column_name,
    reason,
    raw_value,
    loaded_at
from {{ source("ops", "rejected_records") }}
-- A file that was sent twice is quarantined once.
qualify row_number() over (
    partition by file_hash, line_number, column_name, reason order by loaded_at desc
) = 1
