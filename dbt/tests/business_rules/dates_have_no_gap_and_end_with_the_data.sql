-- Days that follow on their predecessor with a gap, and the last day where it is not the data's last.
with

days as (

    select
        date_day,
        lag(date_day) over (order by date_day) as previous_day,
        lead(date_day) over (order by date_day) as next_day
    from {{ ref("dim_datetime") }}

),

covered as (

    select * from {{ ref("int_dates_covered") }}

)

select
    days.date_day,
    days.previous_day,
    covered.first_date,
    covered.last_date
from days
cross join covered
where
    {{ days_between("days.previous_day", "days.date_day") }} != 1
    or (days.previous_day is null and days.date_day != covered.first_date)
    or (days.next_day is null and days.date_day != covered.last_date)
