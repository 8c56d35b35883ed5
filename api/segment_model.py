"""The published model of customer segments: plain data, and the arithmetic that puts a customer into a segment.

`segments.json` of a publication is the contract with `ml.model`, which writes it. Nothing is trained here, and nothing
is loaded that could run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from api.errors import Unavailable

Floats = npt.NDArray[np.float64]

_DISTANCE_DIGITS = 6  # the last ones depend on the processor

RECENCY, FREQUENCY, MONETARY = "recency_days", "frequency", "monetary"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SegmentFeature(_Part):
    """A number that customers are told apart by.

    `column` is the metric or dimension that it is asked as; a day stands for the days from it to the as-of date.
    """

    name: str
    label: str
    unit: str
    column: str
    least: float | None
    is_logged: bool
    mean: FiniteFloat
    scale: Annotated[FiniteFloat, Field(gt=0)]


class Segment(_Part):
    """A group of customers; `center` in the prepared space, `centroid` the same in the features' own units."""

    segment_id: int
    name: str
    description: str
    center: tuple[FiniteFloat, ...]
    centroid: Mapping[str, FiniteFloat]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a customer stands: the nearest segment and the one after it, with the distances to both.

    Distances are Euclidean in the prepared space, in which each feature has a standard deviation of 1.
    """

    segment: Segment
    distance: float
    next_segment: Segment
    next_distance: float


class SegmentModel(_Part):
    """A trained segmentation, ready to score."""

    format: Literal[1]
    model: str
    trained_as_of: date
    features: tuple[SegmentFeature, ...] = Field(min_length=1)
    segments: tuple[Segment, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if any(len(segment.center) != len(self.features) for segment in self.segments):
            raise ValueError("each center needs a value for each feature")
        if len({segment.segment_id for segment in self.segments}) < len(self.segments):
            raise ValueError("two segments have one id")
        return self

    def segment(self, segment_id: int) -> Segment | None:
        """The segment of that id, or None."""
        return next((segment for segment in self.segments if segment.segment_id == segment_id), None)

    def named(self, name: str | None) -> Segment | None:
        """The segment of that name, or None."""
        return next((segment for segment in self.segments if segment.name == name), None)

    def distances(self, values: Floats) -> Floats:
        """From each customer to each segment's center, (n_customers, n_segments).

        Parameters
        ----------
        values : (n_customers, n_features)
            In the order of `features`, in their units.
        """
        logged = np.where(self._is_logged, np.sign(values) * np.log1p(np.abs(values)), values)
        prepared = (logged - self._mean) / self._scale
        distances: Floats = np.linalg.norm(prepared[:, None, :] - self._centers[None, :, :], axis=2)
        return distances

    def nearest(self, values: Floats) -> npt.NDArray[np.int64]:
        """The id of the segment that each customer is nearest to, (n_customers,)."""
        ids = np.array([segment.segment_id for segment in self.segments])
        found: npt.NDArray[np.int64] = ids[self.distances(values).argmin(axis=1)]
        return found

    def standings(self, values: Floats, *, known: Segment | None = None) -> tuple[Standing, ...]:
        """Where each customer stands; in the `known` segment, if one is given, whatever is nearest."""
        return tuple(self._standing(row, known) for row in self.distances(values))

    def _standing(self, distances: Floats, known: Segment | None) -> Standing:
        order = [self.segments[place] for place in np.argsort(distances, kind="stable")]
        segment = known or order[0]
        following = next(each for each in order if each is not segment)
        by_id = {each.segment_id: float(value) for each, value in zip(self.segments, distances, strict=True)}
        return Standing(
            segment=segment,
            distance=round(by_id[segment.segment_id], _DISTANCE_DIGITS),
            next_segment=following,
            next_distance=round(by_id[following.segment_id], _DISTANCE_DIGITS),
        )

    @cached_property
    def _is_logged(self) -> npt.NDArray[np.bool_]:
        return np.array([feature.is_logged for feature in self.features])

    @cached_property
    def _mean(self) -> Floats:
        return np.array([feature.mean for feature in self.features])

    @cached_property
    def _scale(self) -> Floats:
        return np.array([feature.scale for feature in self.features])

    @cached_property
    def _centers(self) -> Floats:
        return np.array([segment.center for segment in self.segments])


def read_segment_model(file: Path) -> SegmentModel | None:
    """The model in the file; None without a file, as the publication's customers are in no segments.

    Raises
    ------
    Unavailable
        The file is damaged.
    """
    try:
        return SegmentModel.model_validate_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeError, ValidationError) as error:
        raise Unavailable(
            f"The segments of publication {file.parent.name:.100} are damaged: {error!r:.200}",
            hint="Publish again, or go back: insight pipeline rollback",
        ) from error


def of_transactions(transactions: Sequence[tuple[str, date, float]], *, as_of: date) -> dict[str, float]:
    """Recency, frequency and monetary value of a customer with these transactions: id, day, net revenue in USD."""
    return {
        RECENCY: float((as_of - max(day for _, day, _ in transactions)).days),
        FREQUENCY: float(len({transaction for transaction, _, _ in transactions})),
        MONETARY: float(sum(net for _, _, net in transactions)),
    }
