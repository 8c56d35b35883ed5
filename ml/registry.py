"""The models that were trained, on disk, and which of them is promoted.

    <root>/promoted.json                  versions, the promoted one first, then those that it followed
    <root>/<version>/model.skops          the estimator; loading it runs nothing that is in it
    <root>/<version>/facts.json           what it was trained on
    <root>/<version>/card.json, card.md, *.png

A version is written into a hidden folder and renamed, and the pointer replaced, so a kill leaves what was.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import skops.io
from skops.io.exceptions import UntrustedTypesFoundException

from ml.errors import NotPromotedError, UnknownModelError
from ml.evaluate import Check, Quality
from ml.model import Band, Configuration, Model
from ml.segmentation import SEGMENTS

_POINTER = "promoted.json"
# Our own two estimators, beside those of scikit-learn that skops trusts; a file that names another is refused.
_TRUSTED = ["ml.segmentation.LogWhereSkewed", "ml.segmentation.Segmenter"]


class Registry:
    """The models in one folder. One writer at a time."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def versions(self) -> tuple[str, ...]:
        """Every version, newest first."""
        found = sorted(self._root.glob("[!.]*/facts.json"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
        return tuple(file.parent.name for file in found)

    def promoted(self) -> str | None:
        """The version that scores, or None before the first promotion."""
        history = self._history()
        return history[0] if history else None

    def folder(self, version: str) -> Path:
        """Where the version's card and plots are."""
        return self._root / version

    def add(
        self,
        model: Model,
        *,
        quality: Quality,
        checks: Sequence[Check],
        illustrate: Callable[[Path], None] = lambda _: None,
    ) -> None:
        """Keep the model with what was found out about it; the same version again replaces itself.

        Parameters
        ----------
        illustrate
            Called with the folder, to write the card's text and plots into it.
        """
        hidden = self._root / f".adding-{secrets.token_hex(4)}"
        hidden.mkdir(parents=True)
        try:
            skops.io.dump(model.segmenter, hidden / "model.skops")
            _write(hidden / "facts.json", model.facts())
            _write(hidden / "card.json", {"quality": asdict(quality), "gate": [asdict(check) for check in checks]})
            illustrate(hidden)
            shutil.rmtree(self._root / model.version, ignore_errors=True)
            hidden.rename(self._root / model.version)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)

    def load(self, version: str) -> Model:
        """The model of that version.

        Raises
        ------
        UnknownModelError
            There is none, or its files are damaged or name types that are not trusted.
        """
        folder = self._existing(version)
        try:
            facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
            segmenter = skops.io.load(folder / "model.skops", trusted=_TRUSTED)
            return _model(facts, segmenter)
        except (OSError, ValueError, LookupError, TypeError, UntrustedTypesFoundException) as error:
            raise UnknownModelError(
                f"The model {version} cannot be read: {error!r:.200}", hint="Train anew: insight ml train"
            ) from error

    def quality(self, version: str) -> Quality:
        """How good the model was when it was trained; raises `UnknownModelError` as `load`."""
        return Quality(**self._card(version)["quality"])

    def checks(self, version: str) -> tuple[Check, ...]:
        """How the gate went when it was trained; raises `UnknownModelError` as `load`."""
        return tuple(Check(**check) for check in self._card(version)["gate"])

    def promote(self, version: str) -> None:
        """Let the version score from now on.

        Raises
        ------
        NotPromotedError
            Its gate was not passed.
        UnknownModelError
            As `load`.
        """
        failed = [str(check) for check in self.checks(version) if not check.is_passed]
        if failed:
            raise NotPromotedError(
                f"The model {version} does not pass the gate: {'; '.join(failed)}",
                hint="See its card; the model before scores on",
            )
        self._point([version, *(kept for kept in self._history() if kept != version)])

    def rollback(self, version: str | None = None) -> str:
        """The version that scores now: the named one of those that were promoted, or else the one before.

        Raises
        ------
        UnknownModelError
            It was never promoted, or there is none to go back to.
        """
        current, *older = self._history() or [""]
        chosen = version or next(iter(older), None)
        if chosen is None or chosen not in (current, *older):
            raise UnknownModelError(
                f"There is no promoted model {version}" if version else "There is no older model to go back to",
                hint="See: insight ml status",
            )
        self._existing(chosen)
        # Those after it are forgotten, so that going back twice goes two steps back.
        history = [current, *older]
        self._point(history[history.index(chosen) :])
        return chosen

    def _history(self) -> list[str]:
        try:
            found: list[str] = json.loads((self._root / _POINTER).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        except ValueError as error:
            raise UnknownModelError(
                f"{self._root / _POINTER} is damaged", hint="Remove it, then: insight ml promote VERSION"
            ) from error
        return found

    def _point(self, history: list[str]) -> None:
        fresh = self._root / f".{_POINTER}.{secrets.token_hex(4)}"
        _write(fresh, history)
        fresh.replace(self._root / _POINTER)

    def _existing(self, version: str) -> Path:
        if version not in self.versions():
            raise UnknownModelError(f"There is no model {version:.100}", hint="See: insight ml status")
        return self.folder(version)

    def _card(self, version: str) -> Mapping[str, Any]:
        try:
            card: Mapping[str, Any] = json.loads((self._existing(version) / "card.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UnknownModelError(
                f"The card of model {version} cannot be read", hint="Train anew: insight ml train"
            ) from error
        return card


def _model(facts: Mapping[str, Any], segmenter: Any) -> Model:  # noqa: ANN401 - whatever was in the file
    configuration = facts["configuration"]
    return Model(
        version=facts["version"],
        configuration=Configuration(**configuration | {"features": tuple(configuration["features"])}),
        segmenter=segmenter,
        names=tuple(SEGMENTS[number] for number in facts["names"]),
        customers=facts["customers"],
        data_from=date.fromisoformat(facts["data_from"]),
        as_of=date.fromisoformat(facts["as_of"]),
        feature_digest=facts["feature_digest"],
        bands={
            name: Band(edges=tuple(band["edges"]), shares=tuple(band["shares"]))
            for name, band in facts["bands"].items()
        },
    )


def _write(file: Path, content: object) -> None:
    file.write_text(json.dumps(content, indent=1), encoding="utf-8")
