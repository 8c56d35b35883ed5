"""The application: the only place where the parts meet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
import structlog
from fastapi import Depends, FastAPI

from api.admission import Admission, QueueLimits
from api.allowance import Allowances
from api.cache import ResultCache
from api.deferred import DeferredQueries
from api.deferred_store import DeferredStore, StoreLimits
from api.errors import SemanticLayerError, WrongSetting
from api.export import ExportLimits
from api.flight.rpc import Reception
from api.flight.server import FlightServer, FlightSettings
from api.gate import Failures, Gate
from api.graphql import endpoint
from api.keys import ApiKeys, hash_secret
from api.observer import open_observer
from api.opened import OpenPublication, open_publication
from api.policy import PolicySource
from api.publication import PublicationFolder, ServedPublication
from api.query import PageLimits
from api.redis_tier import RedisTier
from api.rest import catalog, contract, deferred, exports, operations, outlook, pages, problems, queries, segments
from api.rest.envelope import Envelope
from api.rest.exchange import Patience
from api.rest.lean import Shortcut
from api.rest.strict import refuse_surplus
from api.rest.traffic import Traffic
from api.service import Apart, SemanticLayer, ServiceLimits
from api.settings import AuthMode, Settings
from api.snowflake_engine import SnowflakeSessions
from api.state import open_state
from api.tallies import RedisCounts
from api.telemetry import Serving, Telemetry, cache_series, publication_series, queue_series
from api.warehouse import EngineLimits

if TYPE_CHECKING:  # as in `api.gate`
    from api.tokens import Tokens

_log = structlog.get_logger(__name__)


def create_app(settings: Settings) -> FastAPI:
    """The service over REST and GraphQL, ready once its lifespan has begun; closes what it opened when that ends."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as closing:  # in reverse, whatever happens
            await _open_parts(app, settings, closing)
            yield

    app = FastAPI(
        title="Marketing Insight",
        version=version("marketing-insight"),
        lifespan=lifespan,
        dependencies=[Depends(refuse_surplus)],
        # A redirect is made of the Host header and the scheme that this process sees: behind a proxy that ends TLS it
        # would lead to http, and the credential and the body would follow it.
        redirect_slashes=False,
        docs_url=None,  # `pages` has it
        redoc_url=None,
        # FastAPI's own would hand paths, query strings and the values of refused bodies to whatever provider is global.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        # The path's parameters already say it; a second copy in every operation id helps nobody.
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.traffic = Traffic(most=settings.max_requests)
    app.add_middleware(Shortcut, router=queries.router, endpoint=queries.run_query)
    app.add_middleware(Envelope, traffic=app.state.traffic, patience=_patience(settings))
    problems.install(app)
    for part in (queries, catalog, deferred, exports, segments, outlook, operations, pages):
        app.include_router(part.router)
    app.include_router(endpoint.create_router(environment_id=settings.environment_id))
    contract.describe(app)
    return app


async def _open_parts(app: FastAPI, settings: Settings, closing: AsyncExitStack) -> None:
    """Open everything that routes find at the application, each part after those that it needs."""
    closing.push(partial(_note_fault, app))
    state = open_state(settings.state_url)
    closing.callback(state.dispose)
    app.state.telemetry = telemetry = Telemetry()
    app.state.observer = open_observer(settings, state, telemetry, closing)
    policies = PolicySource(settings.policy_file)
    url = _redis_url(settings)
    allowances = Allowances(redis=RedisCounts(url) if url else None)
    closing.push_async_callback(allowances.close)
    app.state.gate = Gate(
        keys=ApiKeys(state) if settings.auth is AuthMode.REQUIRED else None,
        tokens=_open_tokens(settings, policies, closing),
        failures=Failures(per_minute=settings.failures_per_minute, exempt=settings.exempt_networks),
        policies=policies,
        allowances=allowances,
    )
    layer = app.state.semantic_layer = await _semantic_layer(
        settings,
        policies=policies,
        allowances=allowances,
        secret=hash_secret(state),
        telemetry=telemetry,
        closing=closing,
    )
    app.state.deferred_queries = _deferred_queries(settings, layer, state)
    app.state.deferred_queries.start()
    closing.push_async_callback(app.state.deferred_queries.close)
    if settings.flight_port:
        await _start_flight(app, settings, layer, closing)


def _note_fault(app: FastAPI, _: object, error: BaseException | None, __: object) -> None:
    """Keep what ended the application for whoever runs it; the server in between would not tell."""
    if isinstance(error, SemanticLayerError):
        app.state.fault = error


async def _semantic_layer(
    settings: Settings,
    *,
    policies: PolicySource,
    allowances: Allowances,
    secret: bytes,
    telemetry: Telemetry,
    closing: AsyncExitStack,
) -> SemanticLayer:
    """The one door, serving what is published; what it holds is closed by `closing`."""
    folder = PublicationFolder(settings.publication_dir)
    engine = EngineLimits(
        memory_mb=settings.engine_memory_mb,
        threads=settings.engine_threads,
        connections=settings.pool_size,
        query_timeout=settings.query_timeout,
    )
    served = _served(folder, engine, _open_sessions(settings, engine, closing))
    closing.callback(served.close)
    cache = _open_cache(settings)
    closing.push_async_callback(cache.close)  # before the publication, whose warehouse its runs use
    # A place is a connection: whoever has one finds a thread and a connection free.
    admission = _open_admission(settings, places=settings.pool_size)
    _watch(telemetry, admission=admission, cache=cache, served=served)
    await served.refresh()
    if not served.is_ready:
        _log.warning("nothing_published", folder=str(settings.publication_dir), hint="insight pipeline run --data DIR")
    watch = asyncio.create_task(served.follow(every=timedelta(seconds=settings.publication_poll_s)))
    closing.callback(watch.cancel)
    layer = SemanticLayer(
        folder=folder,
        served=served,
        limits=_service_limits(settings),
        policies=policies,
        cache=cache,
        allowances=allowances,
        admission=admission,
        hash_secret=secret,
    )
    layer.review_policy()
    return layer


def _served(
    folder: PublicationFolder, limits: EngineLimits, sessions: SnowflakeSessions | None
) -> ServedPublication[OpenPublication]:
    return ServedPublication(
        folder, opener=lambda version: open_publication(folder.path(version), limits, sessions=sessions)
    )


def _open_sessions(settings: Settings, limits: EngineLimits, closing: AsyncExitStack) -> SnowflakeSessions | None:
    """The sessions of the account that holds the marts, signed out by `closing`; None where they are in a file."""
    if (account := settings.snowflake_account) is None:
        return None
    sessions = SnowflakeSessions(account, limits=limits)
    closing.callback(sessions.close)
    return sessions


def _open_tokens(settings: Settings, policies: PolicySource, closing: AsyncExitStack) -> Tokens | None:
    """What checks tokens, its keys followed until `closing`; None where no issuer is configured."""
    url, issuer, audience = settings.jwt_jwks_url, settings.jwt_issuer, settings.jwt_audience
    if url is None or issuer is None or audience is None:  # the settings have all of them or none
        return None
    from api.issuer import IssuerKeys
    from api.tokens import Tokens

    keys = IssuerKeys(url, internal_hosts=settings.internal_hosts)
    closing.push_async_callback(keys.close)
    watch = asyncio.create_task(keys.follow())
    closing.callback(watch.cancel)
    return Tokens(keys, issuer=issuer, audience=audience, role_claim=settings.jwt_role_claim, policies=policies)


def _deferred_queries(settings: Settings, layer: SemanticLayer, state: sa.Engine) -> DeferredQueries:
    kept = StoreLimits(
        waiting=settings.deferred_waiting,
        waiting_each=settings.deferred_waiting_each,
        kept_bytes_each=settings.deferred_kept_mb * 10**6,
        keep_for=timedelta(hours=settings.deferred_keep_h),
        lease=timedelta(seconds=settings.deferred_lease_s),
    )
    # Without a limit of its own, a question means all its rows.
    limits = PageLimits(default_rows=settings.max_deferred_rows, max_rows=settings.max_deferred_rows)
    return DeferredQueries(
        layer,
        DeferredStore(state, kept),
        run=Apart(limits=limits, timeout=timedelta(seconds=settings.deferred_timeout_s)),
        pages=_page_limits(settings),
        at_once=settings.deferred_running,
    )


async def _start_flight(app: FastAPI, settings: Settings, layer: SemanticLayer, closing: AsyncExitStack) -> None:
    """Serve Flight SQL until `closing`, which then waits for the streams under way."""
    flight = FlightServer(
        layer, Reception(app.state.gate, app.state.observer), _flight_settings(settings), pages=_page_limits(settings)
    )
    closing.push_async_callback(flight.close)
    await flight.start()


def _flight_settings(settings: Settings) -> FlightSettings:
    return FlightSettings(
        host=settings.host,
        port=settings.flight_port,
        certificate=_pem(settings.tls_cert_file),
        key=_pem(settings.tls_key_file),
        max_streams=settings.flight_max_streams,
        max_calls=settings.max_requests,
        max_message_bytes=settings.max_body_bytes,
        send_timeout=timedelta(seconds=settings.send_timeout_s),
        grace=timedelta(seconds=settings.stop_grace_s),
    )


def _pem(file: Path | None) -> bytes | None:
    try:
        return file.read_bytes() if file else None
    except OSError as error:
        raise WrongSetting(
            f"{file} cannot be read: {error.strerror}", hint="Mend INSIGHT_TLS_CERT_FILE or INSIGHT_TLS_KEY_FILE."
        ) from error


def _patience(settings: Settings) -> Patience:
    return Patience(
        max_body_bytes=settings.max_body_bytes,
        body_timeout=timedelta(seconds=settings.body_timeout_s),
        send_timeout=timedelta(seconds=settings.send_timeout_s),
    )


def _open_admission(settings: Settings, *, places: int) -> Admission:
    queue = QueueLimits(
        total=settings.queue_size,
        per_principal=settings.queue_size_per_principal,
        timeout=timedelta(seconds=settings.queue_timeout_s),
    )
    return Admission(places=places, queue=queue)


def _watch(
    telemetry: Telemetry, *, admission: Admission, cache: ResultCache, served: ServedPublication[OpenPublication]
) -> None:
    telemetry.watch(lambda: queue_series(admission.counters()))
    telemetry.watch(lambda: cache_series(cache.counters()))
    telemetry.watch(lambda: publication_series(_serving(served)))


def _serving(served: ServedPublication[OpenPublication]) -> Serving:
    if not served.is_ready:
        return Serving(publication=None, is_refusing=served.is_refusing)
    with served.lease() as publication:
        return Serving(publication=publication.info, is_refusing=served.is_refusing)


def _page_limits(settings: Settings) -> PageLimits:
    return PageLimits(default_rows=settings.default_rows, max_rows=settings.max_rows)


def _service_limits(settings: Settings) -> ServiceLimits:
    # Exports last, so they get half of the places, and leave the others for what is quick.
    places = _open_admission(settings, places=max(1, settings.pool_size // 2))
    return ServiceLimits(
        pages=_page_limits(settings),
        exports=ExportLimits(
            rows=settings.max_export_rows, timeout=timedelta(seconds=settings.export_timeout_s), places=places
        ),
    )


def _open_cache(settings: Settings) -> ResultCache:
    keep_for = timedelta(seconds=settings.cache_keep_s)
    url = _redis_url(settings)
    redis = RedisTier(url, keep_for=keep_for) if url else None
    return ResultCache(memory_bytes=settings.cache_memory_mb * 2**20, redis=redis)


def _redis_url(settings: Settings) -> str | None:
    return settings.redis_url.get_secret_value() if settings.redis_url else None
