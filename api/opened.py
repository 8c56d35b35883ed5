"""A publication made ready to answer: definitions compiled in mind, data at hand."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from api.catalog import METRIC_TIME, Catalog, Metric
from api.compiler import CompiledQuery, Compiler, Dialect
from api.cursor import resumed
from api.definitions import Definitions, read_definitions
from api.duckdb_engine import open_file
from api.errors import InvalidQuery, SemanticLayerError, Unavailable
from api.floor import FlooredQuery, People, floored
from api.manifest import read_catalog
from api.policy import REHEARSING, Grant, Role
from api.policy_check import broken_policy, require_sound
from api.publication import SEGMENTS_FILE, PublicationInfo, read_info
from api.query import CheckedQuery, MetricQuery, PageLimits, check, with_rows
from api.saved import saved_question
from api.segment_model import SegmentModel, read_segment_model
from api.snowflake_engine import SnowflakeEngine, SnowflakeSessions
from api.warehouse import EngineLimits, Warehouse

_log = structlog.get_logger(__name__)

_REMEMBERED_ROLES = 100
_ONE_ROW = PageLimits(default_rows=1, max_rows=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenPublication:
    """One version's definitions and data; holds connections until it is closed."""

    info: PublicationInfo
    catalog: Catalog
    compiler: Compiler
    warehouse: Warehouse
    definitions: Definitions = field(default_factory=Definitions)
    segments: SegmentModel | None = None
    _visible: dict[Role, Catalog] = field(default_factory=dict, compare=False, repr=False)
    _defined: dict[Role, Definitions] = field(default_factory=dict, compare=False, repr=False)

    @property
    def version(self) -> str:
        """Which publication it is."""
        return self.info.version

    def visible_to(self, grant: Grant) -> Catalog:
        """The catalog as it is for the grant's role; made once for each role of a policy.

        Raises
        ------
        Forbidden
            The role does not fit the definitions, so that it cannot be applied.
        """
        if grant.role not in self._visible:
            if len(self._visible) >= _REMEMBERED_ROLES:
                self._visible.clear()
            role = grant.role
            require_sound(grant.role_name, role, self.catalog)
            needed = {self.catalog.group_by(row.field).dimension.name for row in role.rows}
            self._visible[role] = self.catalog.narrowed(
                shows_metric=lambda name: role.shows_metric(name) and self._keeps_floor(name, role),
                shows_dimension=role.shows_dimension,
                needed=needed,
            )
        return self._visible[grant.role]

    def defined_for(self, grant: Grant) -> Definitions:
        """How what the grant's role sees is written down; expressions and filters for those who see SQL alone."""
        visible = self.visible_to(grant)
        if grant.role not in self._defined:
            if len(self._defined) >= _REMEMBERED_ROLES:
                self._defined.clear()
            shown = self.definitions.without(self.catalog.metrics.keys() - visible.metrics.keys())
            self._defined[grant.role] = shown if grant.role.see_sql else shown.without_sql()
        return self._defined[grant.role]

    async def compile(self, query: MetricQuery, grant: Grant, limits: PageLimits) -> CompiledQuery:
        """SQL and parameters of the question over the rows that count for the grant."""
        checked = self._over_rows(self._checked(query, grant, limits), grant)
        if query.cursor is not None:
            checked = resumed(checked, query.cursor, version=self.version)
        return await self.compiler.compile(checked)

    def _checked(self, query: MetricQuery, grant: Grant, limits: PageLimits) -> CheckedQuery:
        if query.cursor is not None:
            grant.refuse_below_floor("Cursors", hint="Page with offset.")
        limits = limits.at_most(grant.role.max_rows)
        checked = check(query, self.visible_to(grant), as_of=self.info.as_of, limits=limits)
        grant.refuse_hashed(checked)
        grant.refuse_unfiltered(checked)
        grant.refuse_uncounted(checked)
        return checked

    def _keeps_floor(self, metric: str, role: Role) -> bool:
        return role.min_customers is None or People(self.catalog).can_be_counted(self.catalog.metric(metric))

    def _over_rows(self, checked: CheckedQuery, grant: Grant) -> CheckedQuery:
        """The question over the rows that count for the grant alone."""
        if grant.rows is None:
            return checked
        try:
            return with_rows(checked, grant.rows, self.catalog)
        except InvalidQuery as error:
            if error.code != "invalid_value":
                raise
            # Not the caller's own filter, so not for the caller to mend: a claim that is no day, say.
            raise broken_policy(grant.role_name) from error

    async def floored(self, query: MetricQuery, grant: Grant, limits: PageLimits) -> FlooredQuery | None:
        """The question under the floor of the grant's role; None if it has none, or people are not concerned."""
        if grant.role.min_customers is None:
            return None
        return await floored(
            self._checked(query, grant, limits),
            floor=grant.role.min_customers,
            over_rows=lambda checked: self._over_rows(checked, grant),
            people=People(self.catalog),
            compiler=self.compiler,
        )

    async def with_cost(self, compiled: CompiledQuery, floored: FlooredQuery | None = None) -> CompiledQuery:
        """The same with what it will cost, its floor included; nothing runs."""
        statements = floored.statements if floored else (compiled,)
        costs = [await self.warehouse.estimate(each.sql, each.parameters) for each in statements]
        return replace(compiled, cost=sum(costs))

    async def rehearse(self) -> None:
        """Ask for every metric and saved query once; whoever publishes calls this before anybody else can ask.

        One that is merely too large for the engine is logged: the others should not have to wait for it.

        Raises
        ------
        SemanticLayerError
            One of them cannot be compiled or run; the detail names it.
        """
        questions = {name: _simplest(metric) for name, metric in self.catalog.metrics.items()}
        questions |= {
            name: replace(saved_question(saved), limit=None) for name, saved in self.catalog.saved_queries.items()
        }
        for name, question in questions.items():
            try:
                compiled = await self.compile(question, REHEARSING, _ONE_ROW)
                await self.warehouse.query(compiled.sql, compiled.parameters)
            except SemanticLayerError as error:
                if error.code == "query_too_large":  # rightly defined, and refused by the service in these words
                    _log.warning("too_large_to_rehearse", name=name, detail=error.detail, hint=error.hint)
                    continue
                error.detail = f"{name} does not answer: {error.detail}"
                raise

    def close(self) -> None:
        """Close its connections."""
        self.warehouse.close()


def open_publication(
    folder: Path, limits: EngineLimits, *, sessions: SnowflakeSessions | None = None
) -> OpenPublication:
    """The publication in the folder, ready to answer. Blocks, some 0.1 s; on Snowflake some seconds.

    Parameters
    ----------
    sessions
        Those of the account that INSIGHT_WAREHOUSE_URL names, if it names one.

    Raises
    ------
    Unavailable
        It is gone or damaged, or its data are in an account that is not configured.
    """
    info = read_info(folder)
    segments = read_segment_model(folder / SEGMENTS_FILE)
    try:
        text = (folder / "semantic_manifest.json").read_text(encoding="utf-8")
        compiler = Compiler(text, dialect=Dialect.SNOWFLAKE if info.snowflake_schema else Dialect.DUCKDB)
        warehouse = _open_warehouse(folder, info, limits, sessions)
        with ExitStack() as on_failure:
            on_failure.callback(warehouse.close)
            warehouse.check_complete()
            manifest = json.loads(text)
            catalog = read_catalog(manifest, joins=compiler.joins, column_types=warehouse.column_types)
            definitions = read_definitions(manifest)
            on_failure.pop_all()
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise Unavailable(
            f"Publication {info.version} is damaged: {error!r:.200}",
            hint="Publish again, or go back: insight pipeline rollback",
        ) from error
    return OpenPublication(
        info=info,
        catalog=catalog,
        compiler=compiler,
        warehouse=warehouse,
        definitions=definitions,
        segments=segments,
    )


def _open_warehouse(
    folder: Path, info: PublicationInfo, limits: EngineLimits, sessions: SnowflakeSessions | None
) -> Warehouse:
    if info.snowflake_schema is None:
        return open_file(folder / "data.duckdb", limits=limits)
    if sessions is None:
        raise Unavailable(
            f"The data of publication {info.version} are on Snowflake, and no account is configured",
            hint="Set INSIGHT_WAREHOUSE_URL to the one that the pipeline writes to.",
        )
    engine = SnowflakeEngine(sessions, schema=info.snowflake_schema, table_rows=info.tables)
    return Warehouse(engine, limits=limits)


def _simplest(metric: Metric) -> MetricQuery:
    grains = metric.grains.get(METRIC_TIME, ())
    return MetricQuery(metrics=(metric.name,), group_by=(f"{METRIC_TIME}__{grains[-1]}",) if grains else ())
