"""Sends messages to Kafka, for producers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from workers.broker import Broker, broker_away
from workers.messages import FEEDS, Outgoing

SEND_S: Final = 30.0


class Sender:
    """One idempotent producer, opened when it is needed and again after it has failed."""

    def __init__(self, broker: Broker) -> None:
        """Keep the broker."""
        self._broker = broker
        self._opened: AsyncExitStack | None = None
        self._producer: AIOKafkaProducer | None = None
        self._opening = asyncio.Lock()

    async def send(self, messages: Sequence[Outgoing]) -> None:
        """Return when all replicas have all of the messages; those of one key are in order.

        Raises
        ------
        BrokerAway
            Kafka did not take them in time; some may be there.
        """
        try:
            async with asyncio.timeout(SEND_S):
                producer = await self._open()
                acknowledged = [
                    await producer.send(
                        self._broker.full_name(FEEDS[each.topic]),
                        value=each.value,
                        key=each.key,
                        headers=list(each.headers),
                    )
                    for each in messages
                ]
                await asyncio.gather(*acknowledged)
        except (KafkaError, TimeoutError) as error:
            await self.close()
            raise broker_away(error) from error

    async def close(self) -> None:
        """Return when what was sent is there, or given up. Idempotent."""
        opened, self._opened, self._producer = self._opened, None, None
        if opened is not None:
            await opened.aclose()

    async def _open(self) -> AIOKafkaProducer:
        async with self._opening:
            if self._producer is None:
                await self._broker.ensure_topics()
                opened = AsyncExitStack()
                self._producer = await opened.enter_async_context(self._broker.producer())
                self._opened = opened
            return self._producer
