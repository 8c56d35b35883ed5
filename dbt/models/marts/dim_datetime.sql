with

covered as (

    select * from {{ ref("int_dates_covered") }}

),

-- A hundred years: wider than any data, and cut at its last day.
day_numbers as (

    {{ numbers_to(36525) }}

),

days as (

    select {{ days_after("covered.first_date", "day_numbers.generated_number - 1") }} as date_day
    from covered
    cross join day_numbers
    where day_numbers.generated_number <= {{ days_between("covered.first_date", "covered.last_date") }} + 1

),

numbered as (

    select
        date_day,
        -- 1 January 1900 was a Monday; the engines' own weekday numbers differ.
        cast(mod({{ days_between("date '1900-01-01'", "date_day") }}, 7) + 1 as integer) as day_of_week,
        cast(extract(day from date_day) as integer) as day_of_month,
        cast(extract(month from date_day) as integer) as month_number,
        cast(extract(quarter from date_day) as integer) as quarter_number,
        cast(extract(year from date_day) as integer) as year_number
    from days

)

select
    date_day,
    {{ day_name("day_of_week") }} as day_name,
    day_of_week,
    day_of_week >= 6 as is_weekend,
    day_of_month,
    {{ month_name("month_number") }} as month_name,
    month_number,
    quarter_number,
    year_number,
    month_number in (11, 12) as is_holiday_season
from numbered
