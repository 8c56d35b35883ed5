select
    as_of,
    data_through
from {{ ref("int_as_of") }}
