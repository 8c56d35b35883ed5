"""The page to try GraphQL with: an example for each feature, and nothing that comes from another host."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from functools import cache
from pathlib import Path

from fastapi import Response

_FOLDER = Path(__file__).parent
_HEADING = re.compile(r"^#: (?P<feature>[^:\n]+): (?P<title>.+)\n", re.MULTILINE)


@cache
def examples() -> tuple[dict[str, str], ...]:
    """Every example: `feature`, `title`, and its document."""
    headings = [*_HEADING.finditer(_text("examples.graphql"))]
    ends = [heading.start() for heading in headings[1:]] + [None]
    return tuple(
        {**heading.groupdict(), "document": heading.string[heading.end() : end].strip()}
        for heading, end in zip(headings, ends, strict=True)
    )


async def show_console() -> Response:
    """The page. It needs no key, as it holds no data; what it sends needs one."""
    page, policy = _page()
    return Response(page, media_type="text/html", headers={"Content-Security-Policy": policy})


@cache
def _page() -> tuple[str, str]:
    """The page, and what it may do: run its own script, and ask this service."""
    # "</" would end the script that holds the examples, whatever stands around it.
    page = _text("console.html").replace("[/* examples */]", json.dumps(examples()).replace("</", "<\\/"))
    scripts = " ".join(_digest(text) for text in re.findall(r"<script>(.*?)</script>", page, re.DOTALL))
    styles = " ".join(_digest(text) for text in re.findall(r"<style>(.*?)</style>", page, re.DOTALL))
    allowed = f"script-src {scripts}; style-src {styles}; connect-src 'self'"
    return page, f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _text(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
