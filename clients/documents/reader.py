"""Reads a PDF in a process of its own: bytes on its standard input, JSON with the pages' texts on its output.

Run as `python -m clients.documents.reader PAGES MEMORY_MB SECONDS`. It limits itself before it reads a byte; whatever a
hostile file does then, it ends this process and no other.
"""

from __future__ import annotations

import io
import json
import resource
import sys
import warnings
from typing import BinaryIO

MOST_CHARACTERS = 5_000_000  # of all pages: some 2,000 full ones
_MOST_FILES = 64


def main() -> None:
    """Write `{"pages": [...]}`, or `{"refused": why}` with one of the words that `extraction` knows."""
    pages, memory_mb, seconds = (int(argument) for argument in sys.argv[1:4])
    _limit(memory_mb, seconds)
    try:
        said: dict[str, object] = _read(sys.stdin.buffer, pages)
    except MemoryError:
        said = {"refused": "memory"}
    except RecursionError:
        said = {"refused": "damaged"}
    sys.stdout.write(json.dumps(said))


def _limit(memory_mb: int, seconds: int) -> None:
    for what, most in (
        (resource.RLIMIT_AS, memory_mb * 1024 * 1024),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _MOST_FILES),
    ):
        _, hard = resource.getrlimit(what)
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (allowed, allowed))


def _read(source: BinaryIO, most_pages: int) -> dict[str, object]:
    # Here, so that what the library takes counts against the limits.
    from pypdf import PdfReader
    from pypdf.errors import FileNotDecryptedError

    warnings.simplefilter("ignore")
    try:
        reader = PdfReader(io.BytesIO(source.read()))
        if reader.is_encrypted and not reader.decrypt(""):
            return {"refused": "encrypted"}
        if len(reader.pages) > most_pages:
            return {"refused": "pages"}
        texts: list[str] = []
        left = MOST_CHARACTERS
        for page in reader.pages:
            texts.append(page.extract_text().encode("utf-8", "replace").decode())
            left -= len(texts[-1])
            if left < 0:
                return {"refused": "characters"}
    except FileNotDecryptedError:
        return {"refused": "encrypted"}
    except (MemoryError, RecursionError):
        raise
    except Exception:  # noqa: BLE001 - the outermost loop of this process; a damaged file may raise anything
        return {"refused": "damaged"}
    return {"pages": texts}


if __name__ == "__main__":
    main()
