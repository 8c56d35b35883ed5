"""What an error tells its reader to do next, in the words of the transport that it came over.

Hints are written once, with the requests of REST, whose names are the contract's. Over GraphQL and Flight SQL the same
step has another name, or none: then REST's stays, as it is true there too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from api.observation import Transport

# Where one begins with another, the longer one stands first.
_STEPS: Mapping[str, Mapping[Transport, str]] = {
    r"POST /v1/query with limit and offset": {
        Transport.GRAPHQL: "createSynchronousQuery with a limit",
        Transport.FLIGHT: "a statement with a LIMIT",
    },
    r"POST /v1/query\b": {
        Transport.GRAPHQL: "createSynchronousQuery",
        Transport.FLIGHT: "semantic_layer.query(...) without compile",
    },
    r"POST /v1/queries\b": {Transport.GRAPHQL: "createQuery"},
    r"DELETE /v1/queries/\S+?(?=[.;]|$)": {Transport.GRAPHQL: "cancelQuery"},
    r"GET /v1/queries/\S+?(?=[.;]|$)": {Transport.GRAPHQL: "query(queryId: ...)"},
    r"GET /v1/queries lists": {Transport.GRAPHQL: "queryRecords lists"},
    r"GET /v1/dimensions\?metrics=…": {
        Transport.GRAPHQL: "dimensions(metrics: ...)",
        Transport.FLIGHT: "semantic_layer.dimensions(metrics=[...])",
    },
    r"GET /v1/metrics\b": {Transport.GRAPHQL: "the query metrics", Transport.FLIGHT: "semantic_layer.metrics()"},
    r"GET /v1/dimensions\b": {
        Transport.GRAPHQL: "the query dimensions",
        Transport.FLIGHT: "semantic_layer.dimensions()",
    },
    r"GET /v1/segments/\{segment_id\}/customers": {
        Transport.GRAPHQL: "segment(segmentId: ...) { customers }",
        Transport.FLIGHT: "customer and customer__segment_name in a query's group_by",
    },
    r"GET /v1/segments(?=[.;]|$)": {
        Transport.GRAPHQL: "the query segments",
        Transport.FLIGHT: "customer__segment_name in a query's group_by",
    },
    r"GET /v1/backtests\b": {Transport.GRAPHQL: "the query backtests", Transport.FLIGHT: "the backtests of REST"},
    r"unproven=true": {Transport.GRAPHQL: "unproven: true"},
    r"GET /v1/saved-queries\b": {
        Transport.GRAPHQL: "the query savedQueries",
        Transport.FLIGHT: "semantic_layer.saved_queries()",
    },
    r"page by page, with the cursor of the page before": {
        Transport.GRAPHQL: "with createQuery, which has pages",
        Transport.FLIGHT: "without a limit: a statement answers all rows",
    },
    r"as long as Retry-After says": {
        Transport.GRAPHQL: "as many seconds as extensions.retry_after says",
        Transport.FLIGHT: "as many seconds as the trailer retry-after says",
    },
}
_ANY_STEP = re.compile("|".join(f"({pattern})" for pattern in _STEPS))
_WORDS = dict(enumerate(_STEPS.values(), start=1))  # by the group that finds the step


def worded(hint: str, transport: Transport) -> str:
    """The hint for a reader who came over the transport."""
    return _ANY_STEP.sub(lambda found: _WORDS[found.lastindex or 0].get(transport, found[0]), hint)
