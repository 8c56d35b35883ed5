"""What the tests use of the installed dbt-sl-sdk, which warns of a part of itself when it is imported."""

from __future__ import annotations

import warnings

with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
    from dbtsl.api.adbc.client.asyncio import AsyncADBCClient
    from dbtsl.api.adbc.client.sync import SyncADBCClient
    from dbtsl.api.shared.query_params import GroupByParam, GroupByType, OrderByGroupBy, OrderByMetric
    from dbtsl.error import AuthError, QueryFailedError

__all__ = [
    "AsyncADBCClient",
    "AuthError",
    "GroupByParam",
    "GroupByType",
    "OrderByGroupBy",
    "OrderByMetric",
    "QueryFailedError",
    "SyncADBCClient",
]
