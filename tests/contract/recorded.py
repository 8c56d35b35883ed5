"""The examples of the contract, as the service really answers them over synthetic data.

Run by `make examples`; a test records again and compares.
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
from tests.contract import requests_page
from tests.contract.provoked import Stage, finished, first_requests, problems, provoke, staged
from tests.contract.served import JSON, Contract
from tests.contract.settled import settled

TEXTS = {"text/csv", "application/x-ndjson"}


async def record(stage: Stage) -> dict[str, Any]:
    """The examples: answers by operation and media type, problems by status."""
    contract = Contract(stage.app.openapi())
    requests = await first_requests(contract, stage.admin)
    answers: dict[str, dict[str, Any]] = {}
    for operation in contract.operations:
        response = await operation.ask(stage.admin, requests[operation.name])
        await finished(stage.admin, response)
        is_json = response.headers.get("content-type") == JSON
        answers[operation.name] = {JSON: settled(read(response))} if is_json else {}
        for text in sorted(TEXTS & operation.described["responses"].get("200", {}).get("content", {}).keys()):
            response = await operation.ask(stage.admin, requests[operation.name], headers={"Accept": text})
            answers[operation.name][text] = response.text.replace("\r\n", "\n")
    refused = problems(await provoke(contract, stage))
    return {"answers": answers, "problems": {status: settled(read(response)) for status, response in refused.items()}}


def read(response: httpx.Response) -> Any:
    """The answer as JSON has it."""
    return json.loads(response.content)


def as_text(examples: dict[str, Any]) -> str:
    """The text of the file of examples."""
    return json.dumps(examples, indent=1, ensure_ascii=False) + "\n"


async def _write(publications: Path, home: Path) -> None:
    async with staged(publications, home / "examples") as stage:
        EXAMPLES_FILE.write_text(as_text(await record(stage)), encoding="utf-8")
    async with staged(publications, home / "page") as stage:  # anew, so that what is cached is the same each time
        requests_page.PAGE.write_text(await requests_page.page(stage), encoding="utf-8")


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        published = publish(generated(Path(folder)), Path(folder))
        asyncio.run(_write(published.settings.publication_dir, Path(folder)))
