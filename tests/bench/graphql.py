"""A kept answer over GraphQL beside the same one over REST: what the document costs."""

from __future__ import annotations

import http.client
import json
import statistics
import time
from collections.abc import Callable

from tests.bench.queries import QUERIES
from tests.bench.service import PORT, published, serving

NAMES = ("revenue in all", "revenue by month", "revenue by location and month", "revenue by day")
ROUNDS, WARM_UP = 300, 20
GOAL_MS = 3.0
DOCUMENT = """
mutation($metrics: [MetricInput!], $groupBy: [GroupByInput!]) {
  createSynchronousQuery(metrics: $metrics, groupBy: $groupBy) { totalPages columns { name type unit } rows }
}"""

Ask = Callable[[], int]


def measure() -> None:
    """Print the table."""
    with serving(published(1)) as service:
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=60)
        headers = {"Authorization": f"Bearer {service.key}", "Content-Type": "application/json"}

        def asking(path: str, body: object) -> Ask:
            encoded = json.dumps(body)

            def ask() -> int:
                connection.request("POST", path, body=encoded, headers=headers)
                return len(connection.getresponse().read())

            return ask

        print(f"\n### GraphQL beside REST, kept answers (median of {ROUNDS}, ms)\n")
        print("| question | bytes | REST | GraphQL | overhead | p95 of GraphQL | goal | |")
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |")
        for name in NAMES:
            question = QUERIES[name]
            variables = {
                "metrics": [{"name": metric} for metric in question["metrics"]],
                "groupBy": [{"name": each} for each in question.get("group_by", ())],
            }
            over_rest = asking("/v1/query", question)
            over_graphql = asking("/graphql", {"query": DOCUMENT, "variables": variables})
            _print_row(name, over_rest, over_graphql)


def _print_row(name: str, over_rest: Ask, over_graphql: Ask) -> None:
    for _ in range(WARM_UP):
        over_rest()
        size = over_graphql()
    rounds = [(_ms(over_rest), _ms(over_graphql)) for _ in range(ROUNDS)]
    rest, graphql = (statistics.median(each) for each in zip(*rounds, strict=True))
    p95 = statistics.quantiles([taken for _, taken in rounds], n=20)[-1]
    verdict = "" if graphql - rest <= GOAL_MS else "over"
    cells = f"{rest:.2f} | {graphql:.2f} | {graphql - rest:.2f} | {p95:.2f} | {GOAL_MS:g} | {verdict}"
    print(f"| {name} | {size:,} | {cells} |")


def _ms(ask: Ask) -> float:
    started = time.perf_counter()
    ask()
    return (time.perf_counter() - started) * 1000
