"""What differs from run to run, replaced by what stays: so that a difference is a difference."""

from __future__ import annotations

import re
from typing import Any

_SETTLED: dict[str, Any] = {
    "query_id": "5f0c8e0b6f7d4c0f9a3b1d2e4c6a8b0d",
    "request_id": "3a7d1c5e9b2f4860a1c3e5d7f9b0c2d4",
    "publication": "20200101T060000Z-5eed07",
    "version": "20200101T060000Z-5eed07",
    "created_at": "2020-01-01T06:00:00Z",
    "started_at": "2020-01-01T06:00:01Z",
    "finished_at": "2020-01-01T06:00:02Z",
    "expires_at": "2020-01-02T06:00:02Z",
    "published_at": "2020-01-01T06:00:00Z",
    "loaded_at": "2020-01-01T05:58:00Z",
    "fingerprint": "5eed07" * 10 + "5eed",
    "model": "20191231-default-5eed075eed",
    "cost": 110_000,  # the engine estimates from samples
    "tests_passed": 300,
    "tests_warned": 0,
    "compile_ms": 0.31,
    "run_ms": 2.1,
    "total_ms": 2.9,
}

# Of an answer, which names its publication; those of lists are the same in every run.
_CURSOR = re.compile(r"MjAy[A-Za-z0-9_-]{60,}={0,2}")
_SETTLED_CURSOR = "MjAyMDAxMDFUMDYwMDAwWi01ZWVkMDcgN2NiZmM5YWQyMjJkODdmMzdhY2M0YWE0Yjg3ZDIwNTMgMw=="


def settled(document: Any) -> Any:
    """The document with what differs from run to run replaced."""
    match document:
        case dict():
            return {
                key: _SETTLED[key] if key in _SETTLED and value is not None else settled(value)
                for key, value in document.items()
            }
        case list():
            return [settled(item) for item in document]
        case str() if _CURSOR.fullmatch(document):
            return _SETTLED_CURSOR
        case str():
            return re.sub("(?<=/v1/queries/)[0-9a-f]{32}", _SETTLED["query_id"], document)
        case _:
            return document
