"""Settings: a wrong one stops the start with one line that names it and hides its value."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from api.settings import AuthMode, Settings, explain


def read() -> Settings:
    return Settings(_env_file=None)


def test_the_defaults_are_those_of_a_laptop() -> None:
    settings = read()

    assert (settings.host, settings.port, settings.auth) == ("127.0.0.1", 8000, AuthMode.REQUIRED)
    assert settings.publication_dir == Path(".insight/publications")
    assert (settings.default_rows, settings.max_rows) == (10_000, 50_000)
    assert settings.max_body_bytes == 1_048_576
    assert settings.query_timeout.total_seconds() == 30


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("INSIGHT_PORT", "65536"),
        ("INSIGHT_PORT", "hunter2"),
        ("INSIGHT_QUERY_TIMEOUT_S", "0"),
        ("INSIGHT_QUERY_TIMEOUT_S", "nan"),
        ("INSIGHT_QUERY_TIMEOUT_S", "inf"),
        ("INSIGHT_POOL_SIZE", "-4711"),
        ("INSIGHT_AUTH", "hunter2"),
        ("INSIGHT_MAX_ROWS", "4.75"),
        ("INSIGHT_MAX_BODY_BYTES", "17"),
        ("INSIGHT_ENGINE_MEMORY_MB", "19"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_variable_and_hides_the_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(ValidationError) as caught:
        read()

    line = explain(caught.value)
    assert line.startswith(f"{name}: ")
    assert "\n" not in line
    assert value not in line.removeprefix(f"{name}: ") or len(value) < 3


def test_every_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INSIGHT_PORT", "INSIGHT_POOL_SIZE", "INSIGHT_MAX_ROWS"):
        monkeypatch.setenv(name, "hunter2")

    with pytest.raises(ValidationError) as caught:
        read()

    line = explain(caught.value)
    assert [part.partition(":")[0] for part in line.split("; ")] == [
        "INSIGHT_PORT",
        "INSIGHT_POOL_SIZE",
        "INSIGHT_MAX_ROWS",
    ]
    assert "hunter2" not in line


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_authentication_may_be_off_on_loopback(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("INSIGHT_AUTH", "off")
    monkeypatch.setenv("INSIGHT_HOST", host)

    assert read().auth is AuthMode.OFF


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.4", "insight.example", "localhost.example"])
def test_authentication_may_not_be_off_elsewhere(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("INSIGHT_AUTH", "off")
    monkeypatch.setenv("INSIGHT_HOST", host)

    with pytest.raises(ValidationError) as caught:
        read()

    line = explain(caught.value)
    assert "INSIGHT_AUTH=off" in line
    assert "loopback" in line
    assert "\n" not in line


def test_settings_cannot_be_changed_once_read() -> None:
    settings = read()

    with pytest.raises(ValidationError):
        settings.auth = AuthMode.OFF  # type: ignore[misc] # that is the point


def test_every_setting_says_what_it_is() -> None:
    assert all(field.description for field in Settings.model_fields.values())
