"""How far the warehouse is with every partition, beside where Kafka is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from workers.sinks import Warehouse
from workers.stream_settings import StreamSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionStatus:
    """One partition, of Kafka or of a recording. `lag` counts offsets not passed yet; None, where there is no Kafka."""

    topic: str
    partition: int
    next_offset: int
    lag: int | None
    loaded: int
    rejected: int
    topic_per_second: float
    updated_at: datetime | None


async def read_status(
    warehouse: Warehouse, *, settings: StreamSettings, since: datetime, span: timedelta
) -> tuple[PartitionStatus, ...]:
    """The status of every partition that the warehouse or Kafka knows; rates count what came since then."""
    warehouse.ensure_raw_tables()
    known = {(each.topic, each.partition): each for each in warehouse.stream_positions()}
    recent = warehouse.loads_since(since)
    ends: dict[tuple[str, int], int] = {}
    if settings.kafka_bootstrap_servers:
        from workers.broker import Broker

        broker = Broker(settings)
        found = await broker.log_ends(list(broker.topics()))
        ends = {(place.topic, place.partition): log.end for place, log in found.items()}
    status = []
    for topic, partition in sorted({*known, *ends}):
        position = known.get((topic, partition))
        reached = position.next_offset if position else 0
        end = ends.get((topic, partition))
        status.append(
            PartitionStatus(
                topic=topic,
                partition=partition,
                next_offset=reached,
                lag=None if end is None else max(0, end - reached),
                loaded=position.rows_loaded if position else 0,
                rejected=position.rows_rejected if position else 0,
                topic_per_second=recent.get(topic, 0) / span.total_seconds(),
                updated_at=position.updated_at if position else None,
            )
        )
    return tuple(status)
