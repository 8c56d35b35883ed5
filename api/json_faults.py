"""What pydantic finds wrong, in words for whoever wrote the JSON: pydantic speaks of Python here and there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_WORDS = {
    "extra_forbidden": "there is no such key here",
    "missing": "it is needed",
    "tuple_type": "write a list, as [1, 2]",
    "model_attributes_type": 'write an object, as {"key": 1}',
}


def fault_text(fault: Mapping[str, Any]) -> str:
    """What is wrong, of an entry of `ValidationError.errors()`."""
    return _WORDS.get(fault["type"], str(fault["msg"]))
