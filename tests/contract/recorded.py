"""The examples of the contract, as the service really answers them over synthetic data.

Run by `make examples`; a test records again and compares. What differs from run to run is replaced by a value that
stays, so that a difference is a difference.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from api.rest.contract import EXAMPLES_FILE
from tests.conftest import generated, publish
from tests.contract.provoked import Stage, first_requests, problems, provoke, staged
from tests.contract.served import JSON, Contract

CSV = "text/csv"

_SETTLED: dict[str, Any] = {
    "query_id": "5f0c8e0b6f7d4c0f9a3b1d2e4c6a8b0d",
    "request_id": "3a7d1c5e9b2f4860a1c3e5d7f9b0c2d4",
    "publication": "20200101T060000Z-5eed07",
    "version": "20200101T060000Z-5eed07",
    "created_at": "2020-01-01T06:00:00Z",
    "published_at": "2020-01-01T06:00:00Z",
    "loaded_at": "2020-01-01T05:58:00Z",
    "fingerprint": "5eed07" * 10 + "5eed",
    "tests_passed": 300,
    "tests_warned": 0,
    "compile_ms": 0.31,
    "run_ms": 2.1,
    "total_ms": 2.9,
}


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
        case _:
            return document


async def record(stage: Stage) -> dict[str, Any]:
    """The examples: answers by operation and media type, problems by status."""
    contract = Contract(stage.app.openapi())
    requests = await first_requests(contract, stage.admin)
    answers: dict[str, dict[str, Any]] = {}
    for operation in contract.operations:
        response = await operation.ask(stage.admin, requests[operation.name])
        answers[operation.name] = {JSON: settled(read(response))} if response.content else {}
        if CSV in operation.described["responses"].get("200", {}).get("content", {}):
            text = await operation.ask(stage.admin, requests[operation.name], headers={"Accept": CSV})
            answers[operation.name][CSV] = text.text.replace("\r\n", "\n")
    refused = problems(await provoke(contract, stage))
    return {"answers": answers, "problems": {status: settled(read(response)) for status, response in refused.items()}}


def read(response: httpx.Response) -> Any:
    """The answer as JSON has it."""
    return json.loads(response.content)


def as_text(examples: dict[str, Any]) -> str:
    """The text of the file of examples."""
    return json.dumps(examples, indent=1, ensure_ascii=False) + "\n"


async def _write(publications: Path, home: Path) -> None:
    async with staged(publications, home) as stage:
        EXAMPLES_FILE.write_text(as_text(await record(stage)), encoding="utf-8")


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        published = publish(generated(Path(folder)), Path(folder))
        asyncio.run(_write(published.settings.publication_dir, Path(folder)))
