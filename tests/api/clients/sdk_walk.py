"""Every method of dbt's SDK, sync and async, in a process that knows the service by its environment alone.

Writes {"sync": {method: what it told}, "async": {…}} as JSON. A process of its own, since the SDK reads where to go as
it is imported, and the driver beneath it which certificates to trust as it is loaded.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any

warnings.simplefilter("ignore")  # the SDK warns of a part of itself, ADBC of transactions

from dbtsl import SemanticLayerClient  # noqa: E402
from dbtsl.asyncio import AsyncSemanticLayerClient  # noqa: E402

Client = SemanticLayerClient | AsyncSemanticLayerClient
REVENUE = {"metrics": ["total_revenue"]}
BY_PLACE = {**REVENUE, "group_by": ["customer__location"], "order_by": ["customer__location"]}
EVERY_LINE = {**REVENUE, "group_by": ["sale"]}  # more than are kept, so they come as they are computed
LONG = {"metrics": ["é" * 1_400]}


def names(items: list[Any]) -> list[str]:
    return [item.name for item in items]


STEPS: dict[str, tuple[str, dict[str, Any], Callable[[Any], Any]]] = {
    "metrics": ("metrics", {}, names),
    "dimensions": ("dimensions", REVENUE, names),
    "entities": ("entities", REVENUE, names),
    "measures": ("measures", REVENUE, names),
    "saved_queries": ("saved_queries", {}, names),
    "environment_info": ("environment_info", {}, lambda told: str(told.dialect)),
    "compile_sql": ("compile_sql", BY_PLACE, lambda told: told.count("SELECT")),
    "query": ("query", BY_PLACE, lambda told: told.to_pydict()),
    "dimension_values": (
        "dimension_values",
        {**REVENUE, "group_by": "customer__location"},
        lambda told: told.to_pydict(),
    ),
    "every line": ("query", EVERY_LINE, lambda told: [told.num_rows, sum(told.column("total_revenue").to_pylist())]),
    "cancel_query": ("cancel_query", {"query_id": "none"}, str),
    "misspelt": ("query", {"metrics": ["total_revehue"]}, str),
    "long error": ("query", LONG, str),
}


async def told(client: Client, method: str, given: dict[str, Any], show: Callable[[Any], Any]) -> Any:
    """What the method answers, or which error it raises."""
    try:
        answer = getattr(client, method)(**given)
        return show(await answer if inspect.isawaitable(answer) else answer)
    except Exception as error:  # noqa: BLE001 - whatever it raises is what is asked for
        return f"{type(error).__name__}: {error}"


async def walk(kind: type[Client], key: str, steps: Iterable[str]) -> dict[str, Any]:
    """What each step told, one after the other in one session."""
    client = kind(environment_id=1, auth_token=key, host="127.0.0.1", lazy=True)
    session: Any = client.session()
    if kind is SemanticLayerClient:
        with session:
            return {name: await told(client, *STEPS[name]) for name in steps}
    async with session:
        return {name: await told(client, *STEPS[name]) for name in steps}


async def main(key: str) -> dict[str, Any]:
    """What either client was told, and what a stranger was."""
    # It has no other list of what its instances can do.
    found: dict[str, Any] = {"methods": sorted(SemanticLayerClient._METHOD_MAP)}  # noqa: SLF001
    for name, kind in (("sync", SemanticLayerClient), ("async", AsyncSemanticLayerClient)):
        stranger = await walk(kind, "wrong", ("metrics", "query"))
        found[name] = await walk(kind, key, STEPS) | {f"{step} of a stranger": was for step, was in stranger.items()}
    return found


if __name__ == "__main__":
    json.dump(asyncio.run(main(os.environ["INSIGHT_API_KEY"])), sys.stdout, default=str)
