"""The service's commands: `insight serve`, `insight keys …`, `insight openapi`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from api.errors import WrongSetting
from api.settings import Settings, explain

if TYPE_CHECKING:
    from api.keys import ApiKeys

keys = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys.")


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (INSIGHT_HOST).")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port to listen on (INSIGHT_PORT).")] = None,
) -> None:
    """Serve metrics over REST until ctrl-C."""
    from api.main import create_app
    from api.server import run
    from api.telemetry import configure_logging

    configure_logging()
    settings = _settings(host=host, port=port)
    run(create_app(settings), host=settings.host, port=settings.port)


def openapi(
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("openapi.yaml"),
    check: Annotated[bool, typer.Option("--check", help="Only say whether the file is up to date.")] = False,
) -> None:
    """Write the OpenAPI description of the service to a file."""
    from api.main import create_app
    from api.rest.contract import as_yaml

    text = as_yaml(create_app(_settings()).openapi())
    if not check:
        out.write_text(text, encoding="utf-8")
    elif not out.is_file() or out.read_text(encoding="utf-8") != text:
        raise WrongSetting(f"{out} differs from what is served", hint="Run: make openapi")


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whom or what the key is for.")],
    role: Annotated[str, typer.Option(help="A role of the policy; admin, analyst, viewer without a file.")] = "analyst",
    claim: Annotated[list[str] | None, typer.Option(help="For row filters, as regions=California,Chicago.")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="Days until it expires; never, if left out.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the key alone.")] = False,
) -> None:
    """Make a key and print it; it cannot be shown again."""
    lifetime = timedelta(days=days) if days else None
    key = _keys().create(name, role=role, claims=_claims(claim or ()), lifetime=lifetime)
    typer.echo(key if quiet else f"Key for {name}, shown this once:\n{key}")


@keys.command("list")
def list_keys(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """List the keys that were made, without the keys themselves."""
    records = _keys().records()
    if as_json:
        fields = ("key_id", "name", "role", "claims", "created_at", "expires_at", "revoked_at")
        typer.echo(json.dumps([{name: getattr(record, name) for name in fields} for record in records], default=str))
        return
    for record in records:
        state = (
            "revoked" if record.revoked_at else f"until {record.expires_at:%Y-%m-%d}" if record.expires_at else "valid"
        )
        typer.echo(f"{record.key_id}  {record.created_at:%Y-%m-%d %H:%M}  {state:<17} {record.role:<10} {record.name}")


@keys.command("revoke")
def revoke_key(key_id: Annotated[str, typer.Argument(help="The id that `insight keys list` shows.")]) -> None:
    """End a key at once."""
    _keys().revoke(key_id)
    typer.echo(f"Revoked {key_id}")


def _claims(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    claims = {}
    for text in texts:
        name, separator, values = text.partition("=")
        if not separator or not name:
            raise typer.BadParameter(f"{text!r} is no claim; write it as regions=California,Chicago")
        claims[name] = tuple(value.strip() for value in values.split(",") if value.strip())
    return claims


def _keys() -> ApiKeys:
    from api.keys import ApiKeys, open_state

    return ApiKeys(open_state(_settings().state_url))


def _settings(**given: Any) -> Settings:  # noqa: ANN401 - pydantic checks them
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise WrongSetting(explain(error), hint="See docs/configuration.md.") from error
