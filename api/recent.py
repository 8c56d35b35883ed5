"""What was used last, within a budget of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """Keeps values by key; what was used longest ago goes when there is no room. For one thread."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._kept: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self.held_bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Key) -> Value | None:
        """The value, which becomes the one used last."""
        if (kept := self._kept.get(key)) is None:
            return None
        self._kept.move_to_end(key)
        return kept[0]

    def put(self, key: Key, value: Value, *, size_bytes: int) -> list[Key]:
        """Keep the value in place of an earlier one; the keys of those that had to go for it."""
        self.drop(key)
        self._kept[key] = value, size_bytes
        self.held_bytes += size_bytes
        gone: list[Key] = []
        while self.held_bytes > self._budget_bytes:
            gone.append(next(iter(self._kept)))
            self.drop(gone[-1])
        return gone

    def drop(self, key: Key) -> None:
        """Let the value go, if there is one."""
        if (kept := self._kept.pop(key, None)) is not None:
            self.held_bytes -= kept[1]
