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
        ("INSIGHT_REDIS_URL", "http://:hunter2@127.0.0.1:6379"),
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


TRUSTED = {
    "INSIGHT_JWT_JWKS_URL": "https://issuer.example/keys",
    "INSIGHT_JWT_ISSUER": "https://issuer.example/",
    "INSIGHT_JWT_AUDIENCE": "insight",
}


def set_all(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    "missing", [*([name] for name in TRUSTED), *([a, b] for a in TRUSTED for b in TRUSTED if a < b)]
)
def test_tokens_are_configured_wholly_or_not_at_all(monkeypatch: pytest.MonkeyPatch, missing: list[str]) -> None:
    set_all(monkeypatch, {name: value for name, value in TRUSTED.items() if name not in missing})

    with pytest.raises(ValidationError) as caught:
        read()

    line = explain(caught.value)
    told = line.partition("not set: ")[2]
    assert set(told.split(", ")) == set(missing)
    assert "\n" not in line
    assert "issuer.example" not in line


@pytest.mark.parametrize(
    "url",
    [
        "https://issuer.example/keys",
        "https://10.0.0.5:8443/keys?tenant=1",
        "http://127.0.0.1:9000/keys",
        "http://[::1]:9000/keys",
        "http://LOCALHOST/keys",
    ],
)
def test_keys_come_over_https_or_from_a_host_that_is_named(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    named = {"INSIGHT_INTERNAL_HOSTS": "10.0.0.5, 127.0.0.1,[::1],localhost"}
    set_all(monkeypatch, TRUSTED | named | {"INSIGHT_JWT_JWKS_URL": url})

    assert read().jwt_jwks_url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example/keys",
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.5/keys",
        "https://10.0.0.5/keys",
        "http://127.0.0.1:9000/keys",
        "https://localhost/keys",
        "http://127.0.0.1.issuer.example/keys",
        "http://localhost.issuer.example/keys",
        "http://127.0.0.1@issuer.example/keys",
        "https://ada:hunter2@issuer.example/keys",
        "http://[::ffff:10.0.0.5]/keys",
        "http://0.0.0.0/keys",
        "http:///keys",
        "https:///keys",
        "https://",
        "https://issuer.example:99999/keys",
        "https://issuer.example:port/keys",
        "https://[::1/keys",
        "file:///etc/passwd",
        "ftp://issuer.example/keys",
        "data:,{}",
        "issuer.example/keys",
        "//issuer.example/keys",
        "gopher://127.0.0.1/keys",
        "HTTP://issuer.example/keys",
        "",
    ],
)
def test_keys_come_from_no_other_place(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    set_all(monkeypatch, TRUSTED | {"INSIGHT_JWT_JWKS_URL": url})

    with pytest.raises(ValidationError) as caught:
        read()

    line = explain(caught.value)
    assert line.startswith("INSIGHT_JWT_JWKS_URL: ")
    assert "\n" not in line
    assert len(url) < 3 or url not in line


@pytest.mark.parametrize("texts", ["127.0.0.0/8, ::1", "10.0.0.1", " 10.0.0.0/8,fd00::/8 ,", ""])
def test_exempt_networks_are_addresses_or_networks(monkeypatch: pytest.MonkeyPatch, texts: str) -> None:
    monkeypatch.setenv("INSIGHT_FAILURES_EXEMPT", texts)

    assert len(read().exempt_networks) == sum(bool(text.strip()) for text in texts.split(","))


@pytest.mark.parametrize("texts", ["proxy.example", "10.0.0.1/8", "10.0.0.0-10.0.0.9", "10.0.0.1 10.0.0.2"])
def test_other_exemptions_stop_the_start(monkeypatch: pytest.MonkeyPatch, texts: str) -> None:
    monkeypatch.setenv("INSIGHT_FAILURES_EXEMPT", texts)

    with pytest.raises(ValidationError) as caught:
        read()

    assert explain(caught.value).startswith("INSIGHT_FAILURES_EXEMPT: must be addresses")
