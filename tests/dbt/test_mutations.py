"""Each quirk of the data, mishandled on purpose, turns the test red that guards it."""

from dataclasses import dataclass

import pytest

from tests.dbt.conftest import Project

pytestmark = pytest.mark.full

_FCT_SALES = "dbt/models/marts/fct_sales.sql"
_DIM_CUSTOMER = "dbt/models/marts/dim_customer.sql"
_ALLOCATED = "dbt/models/intermediate/int_delivery_allocated.sql"
_ECOMMERCE = "dbt/models/staging/ecommerce/stg_ecommerce__"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """A mistake: the text that is replaced, what is built, and the tests that must fail."""

    mistake: str
    path: str
    old: str
    new: str
    build: str
    unit_tests: tuple[str, ...] = ()
    data_tests: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.mistake


_MUTATIONS = (
    Mutation(
        mistake="delivery is summed over the lines that repeat it",
        path=_FCT_SALES,
        old="deliveries.delivery_charges,",
        new="sales.delivery_charges,",
        build="fct_sales",
        data_tests=("delivery_counts_once_per_transaction", "fct_sales_delivery_adds_up_to_once_per_transaction"),
    ),
    Mutation(
        mistake="the remaining cents of delivery are dropped",
        path=_ALLOCATED,
        old="then 1 else 0 end as remainder_cents",
        new="then 0 else 0 end as remainder_cents",
        build="int_delivery_allocated fct_sales",
        unit_tests=("delivery_is_shared_out_to_the_cent_and_the_first_lines_take_the_remainder",),
        data_tests=("delivery_counts_once_per_transaction",),
    ),
    Mutation(
        mistake="the remaining cents of delivery go to the last lines",
        path=_ALLOCATED,
        old="order by sales.load_id, sales.line_number",
        new="order by sales.load_id desc, sales.line_number desc",
        build="int_delivery_allocated",
        unit_tests=("delivery_is_shared_out_to_the_cent_and_the_first_lines_take_the_remainder",),
    ),
    Mutation(
        mistake="the coupon's month is ignored",
        path=_FCT_SALES,
        old="and extract(month from sales.transaction_date) = coupons.coupon_month",
        new="and coupons.coupon_month = 1",
        build="fct_sales",
        unit_tests=("a_coupon_counts_by_month_and_category_where_it_was_used",),
        data_tests=("used_coupons_take_off_what_their_month_says",),
    ),
    Mutation(
        mistake="a clicked coupon takes something off",
        path=_FCT_SALES,
        old="sales.coupon_status = 'Used'",
        new="sales.coupon_status in ('Used', 'Clicked')",
        build="fct_sales",
        unit_tests=("a_coupon_counts_by_month_and_category_where_it_was_used",),
        data_tests=("only_used_coupons_take_something_off",),
    ),
    Mutation(
        mistake="a category without coupon loses its lines",
        path=_FCT_SALES,
        old="left join coupons",
        new="inner join coupons",
        build="fct_sales",
        data_tests=("no_sales_line_is_lost_or_invented", "row_count_equal_fct_sales_ref_int_sales_lines_"),
    ),
    Mutation(
        mistake="a category without coupon gets a discount",
        path=_FCT_SALES,
        old="coalesce(coupons.discount_fraction, 0)",
        new="coalesce(coupons.discount_fraction, 0.1)",
        build="fct_sales",
        data_tests=("categories_without_coupon_have_no_discount", "only_used_coupons_take_something_off"),
    ),
    Mutation(
        mistake="a category without tax rate loses its lines",
        path=_FCT_SALES,
        old="left join taxes",
        new="inner join taxes",
        build="fct_sales",
        data_tests=("no_sales_line_is_lost_or_invented",),
    ),
    Mutation(
        mistake="GST is taken for a percentage",
        path=_FCT_SALES,
        old="* discount_fraction) * gst_fraction as",
        new="* discount_fraction) * gst_fraction * 0.01 as",
        build="fct_sales",
        data_tests=("tax_is_levied_on_net", "valid_transaction_amount_fct_sales_"),
    ),
    Mutation(
        mistake="the coupon's percentage is taken for a fraction",
        path=f"{_ECOMMERCE}discount_coupons.sql",
        old="cast(records.discount_pct * 0.01 as decimal(5, 4))",
        new="cast(records.discount_pct as decimal(9, 4))",
        build="stg_ecommerce__discount_coupons",
        unit_tests=("a_coupon_percentage_becomes_a_fraction",),
        data_tests=("fraction_stg_ecommerce__discount_coupons_discount_fraction",),
    ),
    Mutation(
        mistake="money is a float",
        path=_FCT_SALES,
        old="cast(net_revenue + tax_amount + delivery_charges as decimal(28, 10))",
        new="cast(net_revenue + tax_amount + delivery_charges as double)",
        build="fct_sales",
        data_tests=("fct_sales",),
    ),
    Mutation(
        mistake="a line that was delivered again counts twice",
        path=f"{_ECOMMERCE}online_sales.sql",
        old='{{ newest_by_key(["transaction_id", "product_sku"]) }}',
        new="",
        build="stg_ecommerce__online_sales",
        unit_tests=("the_newest_load_of_a_sales_line_wins",),
        data_tests=("unique_combination_stg_ecommerce__online_sales_transaction_id__product_sku",),
    ),
    Mutation(
        mistake="the oldest delivery of a line wins",
        path="dbt/macros/newest_by_key.sql",
        old="order by load_id desc",
        new="order by load_id",
        build="stg_ecommerce__online_sales",
        unit_tests=("the_newest_load_of_a_sales_line_wins",),
    ),
    Mutation(
        mistake="a transaction is taken for the key of a line",
        path=f"{_ECOMMERCE}online_sales.sql",
        old='newest_by_key(["transaction_id", "product_sku"])',
        new='newest_by_key(["transaction_id"])',
        build="stg_ecommerce__online_sales",
        unit_tests=("the_newest_load_of_a_sales_line_wins",),
        data_tests=("staging_keeps_every_key_of_the_sales_files",),
    ),
    Mutation(
        mistake="today is the wall clock's",
        path="dbt/models/intermediate/int_as_of.sql",
        old="max(transaction_date) as as_of",
        new="current_date as as_of",
        build="int_as_of",
        unit_tests=("today_is_the_last_sales_date",),
    ),
    Mutation(
        mistake="ninety days are churned already",
        path=_DIM_CUSTOMER,
        old='<= {{ var("lapsing_within_days") }}',
        new='< {{ var("lapsing_within_days") }}',
        build="dim_customer",
        unit_tests=("activity_is_seen_from_the_as_of_date",),
    ),
    Mutation(
        mistake="customers whom the file does not name are lost",
        path=_DIM_CUSTOMER,
        old="    union distinct\n    select customer_id from purchases\n",
        new="",
        build="dim_customer",
        unit_tests=("a_customer_seen_in_sales_alone_is_kept_as_unknown",),
        data_tests=("every_known_customer_is_in_dim_customer",),
    ),
    Mutation(
        mistake="two transactions on one day are a repetition",
        path="dbt/models/intermediate/int_customer_purchases_summed.sql",
        old="count(distinct transaction_date) as purchase_dates",
        new="count(distinct transaction_id) as purchase_dates",
        build="int_customer_purchases_summed dim_customer",
        unit_tests=("purchases_on_one_day_are_one_purchase_date",),
        data_tests=("customers_purchases_add_up_to_the_sales",),
    ),
    Mutation(
        mistake="the calendar runs beyond the data",
        path="dbt/models/marts/dim_datetime.sql",
        old='"covered.last_date") }} + 1',
        new='"covered.last_date") }} + 2',
        build="dim_datetime",
        unit_tests=("the_calendar_ends_with_the_data",),
        data_tests=("dates_have_no_gap_and_end_with_the_data",),
    ),
    Mutation(
        mistake="a price is compared with another source's",
        path="dbt/models/marts/fct_bitcoin_prices.sql",
        old="partition by source order by event_at",
        new="order by event_at",
        build="fct_bitcoin_prices",
        unit_tests=("a_log_return_looks_at_the_event_before_of_the_same_source",),
    ),
)


@pytest.mark.parametrize("mutation", _MUTATIONS, ids=str)
def test_a_mistake_in_a_model_turns_its_tests_red(mutation: Mutation, project: Project) -> None:
    project.replace(mutation.path, mutation.old, mutation.new)
    results: dict[str, str] = {}
    # Apart, because a failed unit test skips its model and with it the data tests.
    if mutation.unit_tests:
        selected = (f"{name},test_type:unit" for name in mutation.build.split())
        results |= project.run("test", "--select", *selected)
    if mutation.data_tests:
        results |= project.run("build", "--select", *mutation.build.split(), "--exclude", "test_type:unit")
    red = {name for name, status in results.items() if status in {"fail", "error"}}
    assert {*mutation.unit_tests, *mutation.data_tests} <= red
