"""What a second build, another as-of date, a correction and a late event do to the marts."""

from collections.abc import Iterator

from tests.dbt.conftest import Project

_GREEN = {"success", "pass", "warn", "no-op"}


def _bitcoin(offset: int, *, at: str, price: int, loaded: str) -> str:
    payload = f'{{"source": "coingecko", "price": {price}, "change_24h": 1, "volatility_category": "Low"}}'
    return (
        "insert into raw.bitcoin_events values "
        f"('bitcoin', 0, {offset}, null, 1, '{payload}', timestamp '{at}', timestamp '{loaded}');"
    )


def test_a_second_build_of_the_same_data_changes_nothing(project: Project) -> None:
    tables = ("marts.fct_sales", "marts.fct_bitcoin_prices", "marts.fct_news_events", "snapshots.customer_history")

    def contents() -> Iterator[list[tuple[object, ...]]]:
        for table in tables:
            yield project.query(f"select * from {table} order by all")

    before = list(contents())
    project.run("build", "--exclude", "resource_type:test", "resource_type:unit_test")
    assert all(before)
    assert list(contents()) == before


def test_incremental_prices_equal_a_full_refresh_after_late_and_repeated_events(project: Project) -> None:
    query = "select * from marts.fct_bitcoin_prices order by all"
    before = project.query(query)
    project.execute(
        _bitcoin(90_001, at="2019-03-05 01:00:00", price=4000, loaded="2030-01-01")
        + _bitcoin(90_002, at="2019-03-05 01:00:00", price=4100, loaded="2030-01-01")
        + _bitcoin(90_003, at="2019-08-01 00:00:00", price=5000, loaded="2030-01-02")
    )
    project.run("run", "--select", "fct_bitcoin_prices")
    incremental = project.query(query)
    project.run("run", "--select", "fct_bitcoin_prices", "--full-refresh")
    assert incremental == project.query(query)
    assert len(incremental) == len(before) + 2


def test_an_article_that_is_sent_again_replaces_itself(project: Project) -> None:
    (before,) = project.query("select count(*) from marts.fct_news_events")
    project.execute(
        "insert into raw.news_events select * replace (kafka_offset + 5000 as kafka_offset, "
        "timestamp '2030-01-01' as loaded_at, replace(payload, 'Headline', 'Corrected') as payload) "
        "from raw.news_events limit 1"
    )
    project.run("run", "--select", "fct_news_events")
    assert project.query("select count(*) from marts.fct_news_events") == [before]
    assert project.query("select count(*) from marts.fct_news_events where headline like 'Corrected%'") == [(1,)]


def test_the_as_of_date_can_be_set_and_is_published(project: Project) -> None:
    results = project.run("build", "--vars", "{as_of: '2021-06-30'}", "--select", "int_as_of+")
    assert set(results.values()) <= _GREEN
    assert project.query("select as_of::varchar, data_through > date '2019-12-01' from marts.publication_facts") == [
        ("2021-06-30", True)
    ]
    statuses = project.query("select distinct activity_status from marts.dim_customer order by all")
    assert statuses == [("Churned",), ("Never purchased",)]


def test_a_customer_who_moves_has_a_history(project: Project) -> None:
    (customer,) = project.query("select min(customer_id) from raw.customers where tenure_months > 1")[0]
    project.execute(
        "insert into raw.load_files select * replace ('moved' as file_hash, 99 as load_id) from raw.load_files limit 1;"
        "insert into raw.customers select * replace ('Elsewhere' as location, 'moved' as file_hash, "
        f"timestamp '2020-02-01' as loaded_at) from raw.customers where customer_id = {customer} limit 1"
    )
    project.run("snapshot")
    history = project.query(
        "select location, dbt_valid_from::varchar, dbt_valid_to::varchar from snapshots.customer_history "
        f"where customer_id = {customer} order by dbt_valid_from"
    )
    assert [row[1:] for row in history] == [
        ("2020-01-01 00:00:00", "2020-02-01 00:00:00"),
        ("2020-02-01 00:00:00", None),
    ]
    assert history[-1][0] == "Elsewhere"


# What is done to the raw data, each time in another line, and the test that has to notice.
DAMAGES = {
    # a description holds a double space
    "update raw.online_sales set product_description = 'Two  spaces' where line_number = 3": (
        "single_spaced_stg_ecommerce__online_sales_product_description"
    ),
    # a tax rate is a percentage
    "alter table raw.tax_amounts alter gst type decimal(7, 4); update raw.tax_amounts set gst = gst * 100": (
        "fraction_stg_ecommerce__tax_amount_gst_fraction"
    ),
    # a coupon status is unheard of
    "update raw.online_sales set coupon_status = 'Expired' where line_number = 4": (
        "accepted_values_stg_ecommerce__online_sales_coupon_status__Used__Clicked__Not_Used"
    ),
    # a delivery charge is negative
    "update raw.online_sales set delivery_charges = -1 where line_number = 5": (
        "non_negative_stg_ecommerce__online_sales_delivery_charges"
    ),
    # a quantity is missing
    "update raw.online_sales set quantity = null where line_number = 6": "never_null_stg_ecommerce__online_sales",
}


def test_bad_data_turn_a_test_red_that_keeps_the_rows(project: Project) -> None:
    for damage in DAMAGES:
        project.execute(damage)

    models = ("stg_ecommerce__online_sales", "stg_ecommerce__tax_amount")
    results = project.run("test", "--select", *models, "--exclude", "test_type:unit")

    assert {name for name, status in results.items() if status == "fail"} == set(DAMAGES.values())
    for red in DAMAGES.values():
        stored = project.query(
            "select table_name from duckdb_tables() "
            f"where schema_name = 'test_failures' and table_name like '{red[:30]}%'"
        )
        assert any(project.query(f'select * from test_failures."{name}"') for (name,) in stored), red
