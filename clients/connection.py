"""The service that the everyday commands speak to, as the environment says."""

from __future__ import annotations

import os

from clients.sdk import Client


def service_url() -> str:
    """The address of the service, `INSIGHT_API_URL`."""
    return os.environ.get("INSIGHT_API_URL", "http://127.0.0.1:8000").rstrip("/")


def service_key() -> str | None:
    """The key, `INSIGHT_API_KEY`."""
    return os.environ.get("INSIGHT_API_KEY")


def connected() -> Client:
    """A client of it with that key."""
    return Client(service_url(), key=service_key())
