"""Which URLs may be called: what can be said of one before its name is looked up, and of each address that it has."""

from __future__ import annotations

import socket
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Annotated

import httpx2
from pydantic import AfterValidator, BeforeValidator, ValidationInfo
from pydantic_settings import NoDecode

# By hand, as what Python calls global differs between its patch releases. The registries: IANA IPv4 and IPv6
# Special-Purpose Address Registry.
_NOT_PUBLIC = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",  # of carriers, clouds and Tailscale; Alibaba's metadata
            "127.0.0.0/8",
            "168.63.129.16/32",  # Azure's agent, at a public address that is only reached from within
            "169.254.0.0/16",  # metadata of AWS, Azure, Google
            "172.16.0.0/12",
            "192.0.0.0/24",  # Oracle's metadata
            "192.0.2.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/3",  # multicast and reserved
            "2001::/23",  # Teredo, which wraps IPv4 addresses, is among them
            "2001:db8::/32",
            "2002::/16",  # 6to4 wraps them, too
            "3fff::/20",
        ),
    )
)
_UNICAST = ip_network("2000::/3")  # all that is public of IPv6; loopback, unique-local and link-local are outside
_TRANSLATED = ip_network("64:ff9b::/96")  # IPv4 addresses, as networks without IPv4 reach them (RFC 6052)

HINT = "Name a public https address, or have its host in INSIGHT_INTERNAL_HOSTS."


class AddressRefused(httpx2.ConnectError):
    """The URL may not be called; nothing was sent. A failed connection to whoever knows those alone."""

    def __init__(self, message: str, *, hint: str = HINT) -> None:
        super().__init__(message)
        self.hint = hint
        self.add_note(hint)  # where a library logs it, the trace has the hint, too


def is_internal(address: str) -> bool:
    """Whether the address, in numbers, is reached from this machine or network alone, or is none to be called."""
    numbers = ip_address(address.partition("%")[0])
    if isinstance(numbers, IPv6Address):
        wrapped = numbers.ipv4_mapped or (IPv4Address(int(numbers) % 2**32) if numbers in _TRANSLATED else None)
        if wrapped is None and numbers not in _UNICAST:
            return True
        return any((wrapped or numbers) in network for network in _NOT_PUBLIC)
    return any(numbers in network for network in _NOT_PUBLIC)


def check_url(url: str, *, internal_hosts: Collection[str]) -> None:
    """Return if the URL may be called as far as it shows by itself; looks nothing up.

    Raises
    ------
    AddressRefused
        It is no http(s) URL, has a user in it, or its host is not named and it is unencrypted, or internal.
    """
    try:
        parts = httpx2.URL(url)  # as it is read where it is called
    except (httpx2.InvalidURL, ValueError) as error:  # its text shows the value
        raise AddressRefused("The URL cannot be read") from error
    host = parts.raw_host.decode("ascii")
    if parts.scheme not in ("http", "https") or not host or parts.userinfo or not _is_port(parts.port):
        raise AddressRefused("The URL is no http(s) address without a user")
    if is_named(host, internal_hosts):
        return
    if parts.scheme != "https":
        raise AddressRefused("The URL is not encrypted", hint=_hint_for(host))
    if (address := _spelt(host)) is not None:
        check_address(host, address)


def check_address(host: str, address: str) -> None:
    """Return if the address that the host has, in numbers, is public.

    Raises
    ------
    AddressRefused
        It is internal.
    """
    if is_internal(address):
        raise AddressRefused(f"The URL leads to {address}, an internal address", hint=_hint_for(host))


def is_named(host: str, internal_hosts: Collection[str]) -> bool:
    """Whether the host is one of those that may be internal; exactly as it stands in the URL, but for its case."""
    return host.lower() in {named.lower() for named in internal_hosts}


def _is_port(port: int | None) -> bool:
    return port is None or 0 < port < 2**16


def _spelt(host: str) -> str | None:
    """The address that the host is a spelling of, as 0x7f000001 or 127.1; None for a name that has to be looked up."""
    bare = host.rstrip(".").lower()
    if bare == "localhost" or bare.endswith(".localhost"):  # RFC 6761
        return "127.0.0.1"
    try:
        return str(ip_address(bare))
    except ValueError:
        try:
            return socket.inet_ntoa(socket.inet_aton(bare))
        except OSError:
            return None


def _hint_for(host: str) -> str:
    return f"Name a public https address; or, if {host[:100]} is yours, have it in INSIGHT_INTERNAL_HOSTS."


def _separated_by_commas(hosts: object) -> object:
    return tuple(host.strip(" []") for host in hosts.split(",") if host.strip()) if isinstance(hosts, str) else hosts


def _checked(url: str, info: ValidationInfo) -> str:
    try:
        check_url(url, internal_hosts=info.data.get("internal_hosts", ()))
    except AddressRefused as error:
        raise ValueError(
            "must be a public https URL without a user; a host that is internal or unencrypted has to be in"
            " INSIGHT_INTERNAL_HOSTS"
        ) from error
    return url


# For settings: hosts by name or number, separated by commas; and a URL, in a class with `internal_hosts` above it.
InternalHosts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_separated_by_commas)]
OutgoingUrl = Annotated[str, AfterValidator(_checked)]
