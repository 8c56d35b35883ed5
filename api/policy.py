"""Who asks. What each may see (roles, row filters, masks, quotas) joins here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """An authenticated caller."""

    principal_id: str
    name: str


ANYBODY = Principal(principal_id="anonymous", name="authentication is off")
