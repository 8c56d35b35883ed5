-- Customers whose status does not follow from their last purchase and the as-of date; counted in days here.
with

aged as (

    select
        customers.*,
        facts.as_of,
        customers.last_purchase_date + interval '30 days' >= facts.as_of as is_active,
        customers.last_purchase_date + interval '90 days' >= facts.as_of as is_active_or_lapsing
    from {{ ref("dim_customer") }} as customers
    cross join {{ ref("publication_facts") }} as facts

),

expected as (

    select
        *,
        case
            when last_purchase_date is null then 'Never purchased'
            when is_active then 'Active'
            when is_active_or_lapsing then 'Lapsing'
            else 'Churned'
        end as expected_status
    from aged

)

select
    customer_id,
    last_purchase_date,
    as_of,
    activity_status,
    expected_status,
    is_churned
from expected
where activity_status != expected_status or is_churned != (expected_status = 'Churned')
