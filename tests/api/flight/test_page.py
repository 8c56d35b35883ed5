"""docs/flight-sql.md: its snippets run as they stand, and what it names exists."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from api.flight.asking import FUNCTIONS
from tests.api.flight.flown import Flown
from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "flight-sql.md").read_text(encoding="utf-8")
SNIPPETS: list[str] = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
async def test_a_snippet_runs(flown: Flown, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSIGHT_API_KEY", flown.key)
    code = SNIPPETS[number].replace("grpc://localhost:31337", flown.uri)
    names: dict[str, Any] = {}

    await asyncio.to_thread(exec, compile(code, f"snippet-{number}", "exec"), names)

    shown = names["frame"] if "frame" in names else range(names["rows"])
    assert len(shown) > 5


def test_the_page_has_its_snippets() -> None:
    assert len(SNIPPETS) == 3


def test_every_call_and_its_arguments_are_named() -> None:
    table = PAGE.partition("| call | answers |")[2].partition("\n\n")[0]

    assert [name for name in FUNCTIONS if f"`{name}(" not in table] == []
