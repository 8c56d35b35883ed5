"""The service's commands: `insight serve`, `audit`, `keys …`, `policy check`, `openapi` and `graphql-schema`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import datetime, timedelta
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from api.audit_listing import HEADING, following, in_json, in_one_line, parse_since
from api.errors import WrongSetting
from api.observation import Decision
from api.settings import Settings, explain

if TYPE_CHECKING:
    from api.catalog import Catalog
    from api.keys import ApiKeys

keys = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys.")
policy = typer.Typer(no_args_is_help=True, help="Check who may see what.")


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (INSIGHT_HOST).")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port to listen on (INSIGHT_PORT).")] = None,
) -> None:
    """Serve metrics over REST, GraphQL and Flight SQL until ctrl-C."""
    from api.logs import configure_logging
    from api.main import create_app
    from api.server import Certificate, Stopping, run

    settings = _settings(host=host, port=port)
    configure_logging(settings.log_level)
    if settings.snowflake_account is None:  # its driver reads Arrow with pandas at hand alone
        sys.meta_path.insert(0, _NoPandas())
    run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        certificate=(
            Certificate(chain=settings.tls_cert_file, key=settings.tls_key_file)
            if settings.tls_cert_file and settings.tls_key_file
            else None
        ),
        connections=settings.max_connections,
        stopping=Stopping(
            notice=timedelta(seconds=settings.stop_notice_s), grace=timedelta(seconds=settings.stop_grace_s)
        ),
    )


class _NoPandas(MetaPathFinder):
    """Says that pandas is not installed: Arrow imports it wherever it is, 36 MB that nothing in the service uses."""

    def find_spec(self, name: str, *_: object) -> None:
        """Nothing for any other name."""
        if name == "pandas":
            raise ModuleNotFoundError(f"{name} is not for this process", name=name)


def openapi(
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("openapi.yaml"),
    check: Annotated[bool, typer.Option("--check", help="Only say whether the file is up to date.")] = False,
) -> None:
    """Write the OpenAPI description of the service to a file."""
    from api.main import create_app
    from api.rest.contract import as_yaml

    _write(as_yaml(create_app(_settings()).openapi()), out, check=check, hint="Run: make openapi")


def graphql_schema(
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("api/graphql/schema.graphql"),
    check: Annotated[bool, typer.Option("--check", help="Only say whether the file is up to date.")] = False,
) -> None:
    """Write the GraphQL schema of the service to a file."""
    from api.graphql.schema import sdl

    _write(sdl(), out, check=check, hint="Run: make openapi")


def audit(
    since: Annotated[
        datetime | None, typer.Option(parser=parse_since, metavar="2h|7d|DATE", help="From then on; UTC.")
    ] = None,
    principal: Annotated[str | None, typer.Option(help="Id or name of who asked.")] = None,
    decision: Annotated[Decision | None, typer.Option(help="How it ended.")] = None,
    metric: Annotated[str | None, typer.Option(help="A metric that was asked for.")] = None,
    request_id: Annotated[str | None, typer.Option(help="The X-Request-Id of the answer.")] = None,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, max=100_000, help="Records at most.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, with all that is known.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Oldest first, and on with new ones until ctrl-C.")] = False,
) -> None:
    """Show who asked for what and how it ended, newest first."""
    from api.audit_store import AuditQuestion, AuditStore
    from api.state import open_state

    store = AuditStore(open_state(_settings().state_url))
    question = AuditQuestion(since=since, principal=principal, decision=decision, metric=metric, request_id=request_id)
    records = following(store, question, limit=limit) if follow else store.newest(question, limit=limit)
    if not as_json:
        typer.echo(HEADING)
    for record in records:
        typer.echo(in_json(record) if as_json else in_one_line(record))


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


@policy.callback()
def about_policy() -> None:
    """Check who may see what."""


@policy.command("check")
def check_policy(
    file: Annotated[Path | None, typer.Option(help="The policy file (INSIGHT_POLICY_FILE).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say what the policy file names and the current publication does not have; fails if there is anything."""
    from api.policy import read_policy
    from api.policy_check import policy_problems

    settings = _settings(policy_file=file)
    if settings.policy_file is None:
        raise WrongSetting("There is no policy file to check", hint="Name one: --file FILE or INSIGHT_POLICY_FILE.")
    found = policy_problems(read_policy(settings.policy_file), _published_catalog(settings))
    if as_json:
        typer.echo(json.dumps([asdict(problem) for problem in found]))
    else:
        for problem in found:
            meant = f"; did you mean {' or '.join(problem.nearest)}?" if problem.nearest else ""
            closed = " (the role is refused until it is mended)" if problem.is_closing else ""
            typer.echo(f"{problem.place}: {problem.detail}{meant}{closed}")
        typer.echo(f"{settings.policy_file}: {len(found) or 'no'} problem{'' if len(found) == 1 else 's'}")
    if found:
        raise typer.Exit(1)


def _write(text: str, out: Path, *, check: bool, hint: str) -> None:
    """Write what is served to the file, or fail if it differs."""
    if not check:
        out.write_text(text, encoding="utf-8")
    elif not out.is_file() or out.read_text(encoding="utf-8") != text:
        raise WrongSetting(f"{out} differs from what is served", hint=hint)


def _published_catalog(settings: Settings) -> Catalog:
    from api.opened import open_publication
    from api.publication import PublicationFolder
    from api.snowflake_engine import SnowflakeSessions
    from api.warehouse import EngineLimits

    folder = PublicationFolder(settings.publication_dir)
    version = folder.current_version()
    if version is None:
        raise WrongSetting(
            f"Nothing is published in {settings.publication_dir}, so there is nothing to check the policy against",
            hint="Run: insight pipeline run --data DIR",
        )
    engine = EngineLimits(memory_mb=64, threads=1, connections=1, query_timeout=settings.query_timeout)
    account = settings.snowflake_account
    with ExitStack() as closing:
        sessions = SnowflakeSessions(account, limits=engine) if account else None
        if sessions is not None:
            closing.callback(sessions.close)
        publication = open_publication(folder.path(version), engine, sessions=sessions)
        closing.callback(publication.close)
        return publication.catalog


def _claims(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    claims = {}
    for text in texts:
        name, separator, values = text.partition("=")
        if not separator or not name:
            raise typer.BadParameter(f"{text!r} is no claim; write it as regions=California,Chicago")
        claims[name] = tuple(value.strip() for value in values.split(",") if value.strip())
    return claims


def _keys() -> ApiKeys:
    from api.keys import ApiKeys
    from api.state import open_state

    return ApiKeys(open_state(_settings().state_url))


def _settings(**given: Any) -> Settings:  # noqa: ANN401 - pydantic checks them
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise WrongSetting(explain(error), hint="See docs/configuration.md.") from None  # the cause would show values
