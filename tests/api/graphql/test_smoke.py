import httpx, json
from tests.api.graphql.asked import data, sent
import asyncio, time

async def test_smoke(api: httpx.AsyncClient) -> None:
    print((await data(api, "{ metrics { name type label dimensions { name } } }"))["metrics"][:2])
    got = await data(api, 'mutation { createSynchronousQuery(metrics: [{name: "total_revenue"}], groupBy: [{name: "metric_time", timeGranularity: "MONTH"}]) { queryId status totalPages sql rows columns { name type } jsonResult(encoded: false) params { type ... on MetricQueryParams { metrics { name } } } } }')
    print(json.dumps(got, default=str)[:3000])
    made = (await data(api, 'mutation { createQuery(metrics: [{name: "total_revenue", alias: "rev"}], groupBy: [{name: "customer__location"}], where: [{sql: "{{ Dimension(\'customer__location\') }} = \'Chicago\'"}]) { queryId } }'))["createQuery"]
    print(made)
    for _ in range(50):
        got = await data(api, 'query($q: String!) { query(queryId: $q) { status error rows sql params { type ... on MetricQueryParams { where { sql } metrics { name alias } } } } }', q=made["queryId"])
        if got["query"]["status"] not in ("PENDING", "RUNNING"): break
        await asyncio.sleep(0.1)
    print(got)
    print(await sent(api, 'mutation { compileSql(metrics: [{name: "total_revenu"}]) { sql } }'))
    print(await sent(api, 'mutation { compileSql(metrics: [{name: "total_revenue"}]) { sql parameters } }'))
    print(await sent(api, '{ metricz { name } }'))
    for p in ("/", "/api/graphql"):
        print(await sent(api, '{ freshness { publication asOf publishedAt sources { name rows } } publications { version current } environmentInfo { dialect sqlDialect } queryRecords { items { queryId status queryDetails { ... on SemanticLayerQueryDetails { params { limit } } } } totalItems } }', path=p))
    from graphql import get_introspection_query
    t = time.perf_counter(); r = await sent(api, get_introspection_query()); print(len(str(r)), r.get("errors"), time.perf_counter() - t)
    t = time.perf_counter(); r = await data(api, "{ metrics { name description type label dimensions { name qualifiedName description type label isPartition expr queryableGranularities queryableTimeGranularities } measures { name agg aggTimeDimension expr } entities { name description type role expr } } }"); print(len(str(r)), time.perf_counter() - t)
    assert 0
