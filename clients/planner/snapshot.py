"""What a planner knows of the service: the catalog as the caller may see it, values, and the as-of date."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from clients.sdk import ApiError, Cell, Client, Dimension, Metric, SavedQuery

_MOST_VALUES = 1_000
_FAULTS = 500  # statuses from there on are the service's fault, no matter of rights


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything by name, all of one caller; nothing else is ever used in a request.

    `values` has the texts (and truth values) of categorical dimensions that hold few enough to be listed.
    """

    metrics: Mapping[str, Metric]
    dimensions: Mapping[str, Dimension]
    saved_queries: tuple[SavedQuery, ...]
    values: Mapping[str, tuple[str | bool, ...]]
    as_of: date
    publication: str

    @property
    def usual_metrics(self) -> tuple[str, ...]:
        """All metrics, those that saved queries ask for first: what to propose where any would do."""
        asked = [name for saved in self.saved_queries for name in saved["metrics"] if name in self.metrics]
        return tuple(sorted(self.metrics, key=lambda name: (-asked.count(name), name)))

    def usual_dimensions(self, metrics: Collection[str]) -> tuple[str, ...]:
        """The categorical dimensions that join to the metrics, those that saved queries group by first."""
        asked = [name for saved in self.saved_queries for name in saved["group_by"]]
        known = [
            name
            for name, dimension in self.dimensions.items()
            if dimension["kind"] == "categorical"
            and all(name in self.metrics[metric]["dimensions"] for metric in metrics)
        ]
        return tuple(sorted(known, key=lambda name: (-asked.count(name), -len(self.values.get(name, ())), name)))


def take_snapshot(client: Client) -> Snapshot:
    """What the caller may see now: some forty small requests, a second at most.

    Raises
    ------
    ApiError
        The service cannot be reached, or the caller is nobody.
    """
    metrics = {metric["name"]: metric for metric in client.metrics()}
    dimensions = {dimension["name"]: dimension for dimension in client.dimensions()}
    freshness = client.freshness()
    return Snapshot(
        metrics=metrics,
        dimensions=dimensions,
        saved_queries=tuple(client.saved_queries()),
        values={
            name: _values(client, name, [metric for metric in metrics if name in metrics[metric]["dimensions"]])
            for name, dimension in dimensions.items()
            if dimension["kind"] == "categorical" and dimension["type"] in ("string", "boolean")
        },
        as_of=date.fromisoformat(freshness["as_of"]),
        publication=freshness["publication"],
    )


def _values(client: Client, dimension: str, metrics: Sequence[str]) -> tuple[str | bool, ...]:
    """The values; none of a dimension whose values the caller may not list, or with more than can be listed."""
    values: Sequence[Cell] = ()
    # Some roles may list values only beside a number, of the rows that they see of it.
    for beside in ((), metrics[:1]):
        try:
            values = client.values(dimension, metrics=beside, limit=_MOST_VALUES)
        except ApiError as error:
            if error.status is None or error.status >= _FAULTS:
                raise
            if error.code != "metric_required":
                break
        else:
            break
    known = tuple(value for value in values if isinstance(value, str | bool))
    return known if len(known) < _MOST_VALUES else ()
