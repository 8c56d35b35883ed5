"""The page to try GraphQL with: an example for each feature, and nothing that comes from another host."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

from fastapi import Response

from api.rest.pages import confined

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
    return confined(_page())


@cache
def _page() -> str:
    # "</" would end the script that holds the examples, whatever stands around it.
    return _text("console.html").replace("[/* examples */]", json.dumps(examples()).replace("</", "<\\/"))


def _text(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
