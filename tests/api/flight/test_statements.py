from __future__ import annotations

from tests.api.flight.flown import Flown


async def test_a_call_is_answered(flown: Flown) -> None:
    table = await flown.table('{{ semantic_layer.query(metrics=["total_revenue"],group_by=["metric_time__month"]) }}')
    print(table)
    for s in ["SELECT customer_location, SUM(total_revenue) AS r FROM METRICS.ALL WHERE customer__gender='F' GROUP BY customer_location ORDER BY 2 DESC LIMIT 3", "select NAME, TYPE from {{ semantic_layer.metrics() }} where TYPE='RATIO'", "select * from revenue_by_month limit 2","{{ semantic_layer.dimension_values(group_by='customer__location', metrics=[]) }}","{{ semantic_layer.query(metrics=['total_revenue'], compile=True) }}", "SELECT 1"]:
        try: print(s, (await flown.table(s)).to_pydict())
        except Exception as e: print(s, "!!", type(e), e)
    def walk(c):
        print(c.adbc_get_info())
        o=c.adbc_get_objects(depth="all").read_all().to_pylist()
        print(str(o)[:1500])
        print(c.adbc_get_table_types())
        print(c.adbc_get_table_schema("ALL", db_schema_filter="METRICS"))
    await flown.with_connection(walk)
    assert 0
