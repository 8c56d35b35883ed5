"""Pages for a browser: the description of the API to read and try, and what any page of this service may do.

Keys are typed into them, so nothing that they run, show or ask comes from another host.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from importlib.resources import files

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html

router = APIRouter(include_in_schema=False)

# Swagger UI as it is published. (Not as file responses: the server would send those past the exchange.)
_FILES = files("fastapi_offline") / "static"
_MEDIA_TYPES = {"favicon.png": "image/png", "swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
# It sets styles as it goes, with pictures in them.
_NEEDS = {"script-src": "'self'", "style-src": "'self' 'unsafe-inline'", "img-src": "'self' data:"}


@router.get("/docs")
async def show_docs(request: Request) -> Response:
    """The API to read and to try."""
    page = get_swagger_ui_html(
        title=request.app.title,
        openapi_url="openapi.json",  # beside the page, whatever a proxy puts before both
        swagger_js_url="docs/swagger-ui-bundle.js",
        swagger_css_url="docs/swagger-ui.css",
        swagger_favicon_url="docs/favicon.png",
    )
    return confined(bytes(page.body).decode(), needs=_NEEDS)


@router.get("/docs/{part}")
async def show_part(part: str) -> Response:
    """A script, style or picture of the page."""
    if part not in _MEDIA_TYPES:
        raise HTTPException(404)
    return Response((_FILES / part).read_bytes(), media_type=_MEDIA_TYPES[part])


def confined(page: str, *, needs: Mapping[str, str] | None = None) -> Response:
    """The page, which may run the scripts and styles that stand in it, ask this service, and nothing else.

    Parameters
    ----------
    needs
        What it has to have besides: sources by directive, as a Content-Security-Policy has them.
    """
    policy = {
        "default-src": "'none'",
        "script-src": " ".join(_digests(page, "script")),
        "style-src": " ".join(_digests(page, "style")),
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    for directive, sources in (needs or {}).items():
        policy[directive] = f"{policy.get(directive, '')} {sources}".strip()
    header = "; ".join(f"{directive} {sources}" for directive, sources in policy.items() if sources)
    return Response(page, media_type="text/html", headers={"Content-Security-Policy": header})


def _digests(page: str, element: str) -> Iterator[str]:
    """What tells the policy each text of the element that stands in the page itself."""
    for text in re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL):
        yield f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
