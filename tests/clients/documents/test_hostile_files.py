"""What somebody uploads to do harm (S11): it is refused or read within the limits, and harms nobody."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from fpdf import FPDF
from fpdf.encryption import EncryptionMethod

from clients.documents.extraction import read_pages
from clients.documents.library import Library, plain_name
from clients.documents.settings import DocumentSettings
from tests.clients.documents.made import made_pdf
from tests.conftest import REPOSITORY

_MB = 1024 * 1024
SETTINGS = DocumentSettings()
GOOD = made_pdf(["The quick brown fox."] * 3)


def with_objects(*objects: bytes) -> bytes:
    """A PDF of these objects, numbered from 1, the first being the catalog."""
    body, places = b"%PDF-1.7\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    trailer = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, len(body))
    return body + b"xref\n0 %d\n0000000000 65535 f \n%s%s" % (len(objects) + 1, table, trailer)


def one_page(content: bytes, *, filters: bytes = b"/FlateDecode", kids: bytes = b"[3 0 R]", count: int = 1) -> bytes:
    """A PDF with one page, whose content stream is as given."""
    return with_objects(
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids %s /Count %d >>" % (kids, count),
        b"<< /Type /Page /Parent 2 0 R /Contents 4 0 R /Resources << >> /MediaBox [0 0 9 9] >>",
        b"<< /Length %d /Filter %s >>\nstream\n%s\nendstream" % (len(content), filters, content),
    )


def bomb(megabytes: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(_MB)) for _ in range(megabytes)) + packer.flush()


def encrypted() -> bytes:
    pdf = FPDF()
    pdf.set_encryption(owner_password="o", user_password="u", encryption_method=EncryptionMethod.RC4)
    pdf.add_page()
    pdf.set_font("Helvetica")
    pdf.cell(text="secret")
    return bytes(pdf.output())


def many_pages(count: int) -> bytes:
    kids = b"[" + b" ".join(b"%d 0 R" % number for number in range(3, count + 3)) + b"]"
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] >>"
    pages = b"<< /Type /Pages /Kids %s /Count %d >>" % (kids, count)
    return with_objects(b"<< /Type /Catalog /Pages 2 0 R >>", pages, *[page] * count)


HOSTILE = {
    "a bomb of 700 MB": lambda: one_page(bomb(700)),
    "a bomb in a bomb": lambda: one_page(zlib.compress(bomb(700)), filters=b"[/FlateDecode /FlateDecode]"),
    "ten thousand pages": lambda: many_pages(10_000),
    "a page that is its own parent": lambda: one_page(b"", kids=b"[2 0 R]"),
    "a count that lies": lambda: one_page(b"", kids=b"[]", count=2_000_000_000),
    "encrypted": encrypted,
    "cut in half": lambda: GOOD[: len(GOOD) // 3],
    "no header": lambda: GOOD.replace(b"%PDF-", b"%XYZ-"),
    "a picture": lambda: b"\x89PNG\r\n\x1a\n" + bytes(1_000),
    "a page of HTML": lambda: b"<html><script>alert(1)</script></html>",
    "nothing": lambda: b"",
    "only a header": lambda: b"%PDF-1.7\n",
    "noise behind a header": lambda: b"%PDF-1.7\n" + random.Random(1).randbytes(200_000),
    "a million open brackets": lambda: b"%PDF-1.7\n1 0 obj\n" + b"[" * 1_000_000,
    "a million open dictionaries": lambda: one_page(b"<<" * 1_000_000, filters=b"[]"),
    "larger than may be": lambda: b"%PDF-" + bytes(21 * _MB),
    "an operator a million times": lambda: one_page(zlib.compress(b"q " * 3_000_000)),
    "texts nested without end": lambda: one_page(zlib.compress(b"BT " + b"(" * 2_000_000)),
    "a filter that there is not": lambda: one_page(b"x", filters=b"/NoSuchDecode"),
}


# In a process of its own, as the peak of memory is that of all children that a process ever had.
ADD = """
import json, resource, sys, time
from pathlib import Path
from clients.documents.errors import DocumentRefused
from clients.documents.library import Library
library = Library(Path(sys.argv[1]))
content = sys.stdin.buffer.read()
begun = time.monotonic()
try:
    library.add("x.pdf", content)
    hint = None
except DocumentRefused as refused:
    hint = refused.hint
peak_kb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
took_s = time.monotonic() - begun
print(json.dumps({"hint": hint, "took_s": took_s, "peak_kb": peak_kb, "documents": len(library.documents())}))
"""


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_within_ten_seconds_and_the_memory_allowed(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", ADD, str(tmp_path)]
    ran = subprocess.run(command, input=HOSTILE[name](), capture_output=True, cwd=REPOSITORY, check=True)

    told = json.loads(ran.stdout)
    assert told["took_s"] <= 10 + 2  # the promise, and what a busy machine takes to end a process
    assert told["hint"]
    assert told["documents"] == 0
    assert told["peak_kb"] <= SETTINGS.memory_mb * 1024 + 100 * 1024


def test_an_endless_chain_of_tables_is_read_to_its_end() -> None:
    content = GOOD.replace(b"trailer\n<<", b"trailer\n<< /Prev 9")

    assert len(read_pages(content, SETTINGS)) == 3


def test_a_good_file_is_read_after_all_that() -> None:
    assert [text.strip() for text in read_pages(GOOD, SETTINGS)] == ["The quick brown fox."] * 3


def test_the_process_that_reads_knows_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    from clients.documents import extraction

    seen = {}
    monkeypatch.setenv("INSIGHT_API_KEY", "mi_secret")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    real = extraction.subprocess.run
    monkeypatch.setattr(extraction.subprocess, "run", lambda *args, **named: seen.update(named) or real(*args, **named))

    read_pages(GOOD, SETTINGS)

    assert not [name for name in seen["env"] if "KEY" in name]


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("../../etc/passwd.pdf", "passwd.pdf"),
        ("..\\..\\windows\\system.pdf", "system.pdf"),
        ("/root/.ssh/id.pdf", "id.pdf"),
        ("a\0b\n\u202egnp.pdf", "a b gnp.pdf"),
        ("..", "document.pdf"),
        ("", "document.pdf"),
        ("x" * 500 + ".pdf", "x" * 120),
        ("'; drop table document; --.pdf", "'; drop table document; --.pdf"),
    ],
)
def test_a_name_is_only_ever_shown(name: str, plain: str, library: Library, tmp_path: Path) -> None:
    assert plain_name(name) == plain

    library.add(name, GOOD)

    assert [document.name for document in library.documents()] == [plain]
    assert {file.name for file in tmp_path.rglob("*") if file.is_file()} == {"documents.db"}
