"""docs/flight-sql.md: what it names exists."""

from __future__ import annotations

from api.flight.asking import FUNCTIONS
from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "flight-sql.md").read_text(encoding="utf-8")


def test_every_call_and_its_arguments_are_named() -> None:
    table = PAGE.partition("| call | answers |")[2].partition("\n\n")[0]

    assert [name for name in FUNCTIONS if f"`{name}(" not in table] == []
