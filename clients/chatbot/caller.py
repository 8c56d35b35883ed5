"""Who uses the chatbot: told apart by what the service has just accepted."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from datetime import UTC, datetime
from typing import Any

_KEY = re.compile(r"mi_([0-9A-Za-z]+)_")


def owner_of(url: str, credential: str | None) -> str:
    """A name for the caller's folder: 32 hexadecimal digits, the same whenever the same caller comes back.

    Only for a credential that the service at `url` has accepted: the name is made of the part that says who somebody
    is (the id of a key; issuer and subject of a token), which the service alone can verify.
    """
    return hashlib.sha256(json.dumps([url, _identity(credential)]).encode()).hexdigest()[:32]


def _identity(credential: str | None) -> list[str]:
    if not credential:
        return ["nobody"]
    if found := _KEY.match(credential):
        return ["key", found[1]]
    try:
        claims = _claims(credential)
        return ["token", str(claims["iss"]), str(claims["sub"])]
    except (LookupError, ValueError, TypeError, binascii.Error):
        return ["credential", credential]


def runs_out_at(credential: str) -> datetime | None:
    """When a token runs out, as it says itself; None of a key. Tells a person in time; the service decides."""
    try:
        return datetime.fromtimestamp(float(_claims(credential)["exp"]), UTC)
    except (LookupError, ValueError, TypeError, OverflowError, OSError, binascii.Error):
        return None


def _claims(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims
