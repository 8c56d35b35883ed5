"""Where a language model may be: https to the public internet, or what the operator has named.

Otherwise whoever sets the address could have this process call what only this machine can reach: a cloud's metadata,
a database, a neighbour's admin page (OWASP, Server-Side Request Forgery Prevention).
"""

from __future__ import annotations

import socket
from collections.abc import Collection
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

from clients.planner.llm.errors import AddressRefused, ModelUnreachable


def check_address(url: str, *, allowed_hosts: Collection[str]) -> None:
    """Return if the address may be called; looks its name up, and so blocks.

    Raises
    ------
    AddressRefused
        It is no web address, has credentials in it, is not encrypted, or leads to an internal network.
    ModelUnreachable
        Its name is unknown.
    """
    hint = "Name a public https address in OPENAI_BASE_URL, or its host in INSIGHT_LLM_ALLOWED_HOSTS."
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise AddressRefused("The base URL is no address", hint=hint) from error
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
        raise AddressRefused("The base URL is no http(s) address without credentials", hint=hint)
    if parts.hostname.lower() in {host.lower() for host in allowed_hosts}:
        return
    if parts.scheme != "https":
        raise AddressRefused("The base URL is not encrypted", hint=hint)
    for address in _addresses(parts.hostname, port or 443):
        if not _is_public(address):
            raise AddressRefused(f"The base URL leads to {address}, an internal address", hint=hint)


def _addresses(host: str, port: int) -> list[str]:
    try:
        return sorted({str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)})
    except (OSError, UnicodeError) as error:
        raise ModelUnreachable(f"{host} has no address") from error


def _is_public(text: str) -> bool:
    address = ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped or address.sixtofour if isinstance(address, IPv6Address) else None
    return (mapped or address).is_global and not address.is_multicast
