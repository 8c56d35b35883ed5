"""Who bought lately is put into a segment anew when events are published; everybody is, when all is built.

The candidate is asked for those whom the events name, as anybody would ask, and scores them with the published model.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from clients.sdk import Client
from workers.errors import SegmentsError
from workers.publish import Models
from workers.segments import ProjectCopy, client_of, in_our_words
from workers.settings import WorkerSettings
from workers.sinks import Warehouse

SALES_EVENTS: Final = "sales_events"

# Events that came while a build waited for the warehouse are in it, and older than it: they are looked at twice.
_OVERLAP: Final = timedelta(minutes=5)

_EVER: Final = datetime(1970, 1, 2, tzinfo=UTC)

_CUSTOMER, _SEGMENT = "customer", "customer__segment_name"
_ARROW = "application/vnd.apache.arrow.stream"


def customers_of_events(warehouse: Warehouse, *, since: datetime | None) -> frozenset[int]:
    """The customers of the sales events that have been loaded since the moment, and shortly before; of all, without."""
    payloads = warehouse.payloads_since(SALES_EVENTS, since - _OVERLAP if since else _EVER)
    return frozenset(int(json.loads(payload)["customer_id"]) for payload in payloads)


def rescore(
    candidate: AbstractContextManager[Path],
    customers: Collection[int],
    models: Models,
    project: ProjectCopy,
    settings: WorkerSettings,
    *,
    asking: Callable[[str], None],
) -> bool:
    """Whether any of the customers is in another segment now; if so, the project's seed says who is in which.

    Parameters
    ----------
    candidate
        The marts with the events, and the model that scores.
    models
        That model.

    Raises
    ------
    SegmentsError
        The candidate cannot be asked.
    """
    asking("segments of customers who bought")
    with in_our_words(), client_of(candidate, settings) as client:
        before, now = _placed(client), _scored(client, sorted(customers), models)
    moved = {customer: name for customer, name in now.items() if before.get(customer) != name}
    if moved:
        project.write_segments(_seed((before | moved).items(), models))
    return bool(moved)


def _placed(client: Client) -> dict[int, str]:
    """The segment of every customer, by name."""
    target = io.BytesIO()
    client.export({"metrics": ["customer_count"], "group_by": [_CUSTOMER, _SEGMENT]}, target, media_type=_ARROW)
    rows = pa.ipc.open_stream(pa.BufferReader(target.getvalue())).read_all()
    return dict(zip(rows.column(_CUSTOMER).to_pylist(), rows.column(_SEGMENT).to_pylist(), strict=True))


def _scored(client: Client, customers: list[int], models: Models) -> dict[int, str]:
    """The segment that each of the customers is in now, by name; only of those who have bought."""
    from ml.features import read_features

    table = read_features(client, customers)
    names = [feature["name"] for feature in (models.segments or {}).get("features", ())]
    values = table.of(*names).tolist()
    rows = [
        {"id": customer, "features": dict(zip(names, row, strict=True))}
        for customer, row in zip(table.customer_ids.tolist(), values, strict=True)
    ]
    scored = client.score(rows)
    if refused := [each for each in scored if each["result"] is None]:
        raise SegmentsError(
            f"{len(refused)} customers cannot be scored: {refused[0]['errors'][0]['message']}",
            hint="Build anew: insight pipeline publish",
        )
    return {each["id"]: each["result"]["segment"]["name"] for each in scored}


def _seed(placed: Iterable[tuple[int, str]], models: Models) -> bytes:
    """The rows of dbt's seed, as CSV; who is in no segment of the model has none."""
    document: Mapping[str, Any] = models.segments or {"segments": ()}
    ids = {segment["name"]: segment["segment_id"] for segment in document["segments"]}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("customer_id", "segment_id", "segment_name"))
    writer.writerows((customer, ids[name], name) for customer, name in sorted(placed) if name in ids)
    return text.getvalue().encode()
