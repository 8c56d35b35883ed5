"""What the documents say of the code is so."""

from __future__ import annotations

import re

import pytest
from pydantic_settings import BaseSettings

from api.settings import Settings
from api.snowflake_account import SnowflakeSettings
from clients.chatbot.settings import ChatSettings
from clients.documents.settings import DocumentSettings
from clients.settings import LlmSettings
from tests.conftest import REPOSITORY
from workers.settings import AccountSettings, WorkerSettings
from workers.stream_settings import StreamSettings

_ROW = re.compile(r"^\| `([A-Z_]+)` \| (.*?) \|", flags=re.MULTILINE)
_DBT_VARIABLE = re.compile(r"env_var\('(\w+)', '([^']*)'\)")


def documented(section: str) -> dict[str, str | None]:
    """The variables of the section's table with their defaults, None where there is none (words, not code)."""
    page = (REPOSITORY / "docs" / "configuration.md").read_text(encoding="utf-8")
    (text,) = re.findall(rf"^## {re.escape(section)} \(.*?\n(.*?)(?=^## |\Z)", page, flags=re.MULTILINE | re.DOTALL)
    rows: list[tuple[str, str]] = _ROW.findall(text)
    assert len(rows) == len({name for name, _ in rows}), "a variable is named twice"
    return {name: default.strip("`") if default.startswith("`") else None for name, default in rows}


def defaults(settings: type[BaseSettings]) -> dict[str, str | None]:
    prefix = settings.model_config["env_prefix"]
    return {
        field.alias or f"{prefix}{name}".upper(): written(field.default)
        for name, field in settings.model_fields.items()
    }


def written(default: object) -> str | None:
    if default in (None, ()):
        return None
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, float):
        return f"{default:g}"
    return str(default).removeprefix(f"{REPOSITORY}/")


@pytest.mark.parametrize(
    ("section", "settings"),
    [
        ("Service", Settings),
        ("Pipeline", WorkerSettings),
        ("Snowflake", SnowflakeSettings),
        ("Snowflake account", AccountSettings),
        ("Streams", StreamSettings),
        ("Language model", LlmSettings),
        ("Chatbot", ChatSettings),
        ("Documents", DocumentSettings),
    ],
)
def test_the_page_of_settings_names_each_with_its_default(section: str, settings: type[BaseSettings]) -> None:
    assert documented(section) == defaults(settings)


def test_the_page_of_settings_names_what_dbt_reads() -> None:
    profiles = (REPOSITORY / "dbt" / "profiles.yml").read_text(encoding="utf-8")
    read = {name: default or None for name, default in _DBT_VARIABLE.findall(profiles)}
    assert len(read) == profiles.count("env_var(")
    assert documented("dbt") == read


def test_the_page_of_settings_names_what_the_clients_read() -> None:
    code = "".join(file.read_text(encoding="utf-8") for file in (REPOSITORY / "clients").glob("*.py"))
    read = set(re.findall(r"environ\.get\(\"(\w+)\"", code))
    assert set(documented("Clients")) == read
