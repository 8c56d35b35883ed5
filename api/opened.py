"""A publication made ready to answer: definitions compiled in mind, data at hand."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from api.catalog import METRIC_TIME, Catalog, Metric
from api.compiler import CompiledQuery, Compiler, Dialect
from api.errors import SemanticLayerError, Unavailable
from api.manifest import read_catalog
from api.publication import PublicationInfo, read_info
from api.query import MetricQuery, PageLimits, check
from api.warehouse import EngineLimits, Warehouse

_ONE_ROW = PageLimits(default_rows=1, max_rows=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenPublication:
    """One version's definitions and data; holds connections until it is closed."""

    info: PublicationInfo
    catalog: Catalog
    compiler: Compiler
    warehouse: Warehouse

    @property
    def version(self) -> str:
        """Which publication it is."""
        return self.info.version

    async def compile(self, query: MetricQuery, limits: PageLimits) -> CompiledQuery:
        """SQL and parameters of the question, checked against this catalog and its as-of date."""
        return await self.compiler.compile(check(query, self.catalog, as_of=self.info.as_of, limits=limits))

    async def rehearse(self) -> None:
        """Ask for every metric and saved query once; whoever publishes calls this before anybody else can ask.

        Raises
        ------
        SemanticLayerError
            One of them cannot be compiled or run; the detail names it.
        """
        questions = {name: _simplest(metric) for name, metric in self.catalog.metrics.items()}
        questions |= {
            name: MetricQuery(metrics=saved.metrics, group_by=saved.group_by)
            for name, saved in self.catalog.saved_queries.items()
        }
        for name, question in questions.items():
            try:
                compiled = await self.compile(question, _ONE_ROW)
                await self.warehouse.query(compiled.sql, compiled.parameters)
            except SemanticLayerError as error:
                error.detail = f"{name} does not answer: {error.detail}"
                raise

    def close(self) -> None:
        """Close its connections."""
        self.warehouse.close()


def open_publication(folder: Path, limits: EngineLimits) -> OpenPublication:
    """The publication in the folder, ready to answer. Blocks, some 0.1 s.

    Raises
    ------
    Unavailable
        It is gone or damaged.
    """
    info = read_info(folder)
    try:
        text = (folder / "semantic_manifest.json").read_text(encoding="utf-8")
        compiler = Compiler(text, dialect=Dialect.DUCKDB)
        warehouse = Warehouse(folder / "data.duckdb", limits=limits)
        with ExitStack() as on_failure:
            on_failure.callback(warehouse.close)
            warehouse.check_complete()
            catalog = read_catalog(json.loads(text), joins=compiler.joins, column_types=warehouse.column_types)
            on_failure.pop_all()
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise Unavailable(
            f"Publication {info.version} is damaged: {error!r:.200}",
            hint="Publish again, or go back: insight pipeline rollback",
        ) from error
    return OpenPublication(info=info, catalog=catalog, compiler=compiler, warehouse=warehouse)


def _simplest(metric: Metric) -> MetricQuery:
    grains = metric.grains.get(METRIC_TIME, ())
    return MetricQuery(metrics=(metric.name,), group_by=(f"{METRIC_TIME}__{grains[-1]}",) if grains else ())
