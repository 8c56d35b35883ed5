"""The texts of a PDF's pages, read by a process that cannot take much: it may be anything that somebody uploads."""

from __future__ import annotations

import math
import os
import subprocess
import sys

from pydantic import BaseModel, ConfigDict, ValidationError

from clients.documents.errors import NoText, NotReadable
from clients.documents.settings import DocumentSettings

_HEADER_WITHIN = 1_024  # bytes; where readers of PDFs look for it
_MB = 1024 * 1024
# All that the reader's process may know of this one; no key is among it.
_PASSED_ON = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "SYSTEMROOT")


class _Said(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    pages: tuple[str, ...] = ()
    refused: str | None = None


def read_pages(content: bytes, settings: DocumentSettings) -> tuple[str, ...]:
    """The text of each page, in order; blocks for as long as the settings allow.

    Raises
    ------
    NotReadable
        It is no PDF, is encrypted or damaged, or takes more than it may.
    NoText
        There is no text on any page.
    """
    if len(content) > settings.max_mb * _MB:
        raise NotReadable(f"It is larger than {settings.max_mb} MB.", hint="Upload a part of it.")
    if b"%PDF-" not in content[:_HEADER_WITHIN]:
        raise NotReadable("It is no PDF, whatever its name says.", hint="Save it as PDF, and upload that.")
    said = _said(_run(content, settings))
    if said.refused is not None:
        raise _refusal(said.refused, settings)
    if not any(text.strip() for text in said.pages):
        raise NoText(
            "It has no text: its pages are pictures, as of a scan.",
            hint="Run it through text recognition (OCR), as with ocrmypdf, and upload the result.",
        )
    return said.pages


def _run(content: bytes, settings: DocumentSettings) -> bytes:
    limits = (settings.max_pages, settings.memory_mb, math.ceil(settings.timeout_s))
    command = [sys.executable, "-m", "clients.documents.reader", *(str(limit) for limit in limits)]
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    try:
        done = subprocess.run(  # noqa: S603 - our own module, numbers for arguments
            command,
            input=content,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            timeout=settings.timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _refusal("time", settings) from error
    if done.returncode < 0:  # the processor's time is up
        raise _refusal("time", settings)
    return done.stdout if done.returncode == 0 else b'{"refused": "memory"}'


def _said(output: bytes) -> _Said:
    try:
        return _Said.model_validate_json(output)
    except ValidationError:
        return _Said(refused="damaged")


def _refusal(why: str, settings: DocumentSettings) -> NotReadable:
    smaller = "Print the pages that you need to a new PDF, and upload that."
    known = {
        "encrypted": ("It is locked with a password.", "Save a copy without one, and upload that."),
        "pages": (f"It has more than {settings.max_pages} pages.", smaller),
        "characters": ("It has too much text.", smaller),
        "time": (f"Reading it takes longer than {settings.timeout_s:g} s.", smaller),
        "memory": (f"Reading it takes more than {settings.memory_mb} MB of memory.", smaller),
    }
    message, hint = known.get(why, ("It is damaged, and cannot be read.", "Open it in a viewer and save it anew."))
    return NotReadable(message, hint=hint)
