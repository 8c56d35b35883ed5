"""Connects to nothing but what may be called: names are looked up here, and what was checked is connected to."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection, Sequence
from urllib.request import getproxies, proxy_bypass

import httpx2

from outgoing.addresses import check_address, check_url, is_named

_PORTS = {"http": 80, "https": 443}

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


async def look_up(host: str, port: int) -> list[str]:
    """The addresses of the host, in the system's order and plain numbers, whatever way they are spelt."""
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in infos))


async def checked_addresses(
    url: httpx2.URL, *, internal_hosts: Collection[str], resolve: Resolve = look_up
) -> Sequence[str]:
    """Where the URL leads, each address in numbers and checked; none, if a proxy alone knows.

    Raises
    ------
    AddressRefused
        The URL, or any address of its host, may not be called.
    httpx2.ConnectError
        The host has no address.
    """
    check_url(str(url), internal_hosts=internal_hosts)
    host = url.raw_host.decode("ascii")
    try:
        addresses = await resolve(host, url.port or _PORTS[url.scheme])
    except (OSError, UnicodeError) as error:
        if _proxy_for(url) is not None:
            return ()
        raise httpx2.ConnectError(f"{host} has no address") from error
    if not is_named(host, internal_hosts):
        for address in addresses:
            check_address(host, address)
    return addresses


class GuardedTransport(httpx2.AsyncBaseTransport):
    """HTTP for one loop, that only goes where it may.

    For each request, so for each redirect that a client follows, too: the URL is checked, its name looked up once,
    every address of it checked, and the connection made to one of these; TLS and the Host header keep the name. No
    connection is kept for a next request, as it could be for another name at the same address. Where the environment
    names a proxy for the URL, the proxy looks up and connects; what the name means here, if anything, is checked, too.

    Parameters
    ----------
    internal_hosts
        Hosts that may be internal and unencrypted.
    resolve
        Finds the addresses of a host and port.
    verify
        Whom TLS trusts; without, the usual authorities.
    """

    def __init__(
        self, internal_hosts: Collection[str], *, resolve: Resolve = look_up, verify: ssl.SSLContext | bool = True
    ) -> None:
        self._internal_hosts = tuple(internal_hosts)
        self._resolve = resolve
        self._verify = verify
        self._opened: dict[str | None, httpx2.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """The response, of an address that may be called.

        Raises
        ------
        AddressRefused
            The URL, or any address of its host, may not be called.
        httpx2.TransportError
            The host has no address, or does not answer.
        """
        try:
            async with asyncio.timeout(request.extensions.get("timeout", {}).get("connect")):
                addresses = await checked_addresses(
                    request.url, internal_hosts=self._internal_hosts, resolve=self._resolve
                )
        except TimeoutError as error:
            raise httpx2.ConnectTimeout(f"{request.url.host} is not found in time") from error
        if (proxy := _proxy_for(request.url)) is not None:
            return await self._through(proxy).handle_async_request(request)
        failed = httpx2.ConnectError(f"{request.url.host} has no address")
        for address in addresses:
            try:
                return await self._through(None).handle_async_request(_pinned(request, address))
            except httpx2.ConnectError as error:  # nothing was sent
                failed = error
        raise failed

    async def aclose(self) -> None:
        """Close what is open. Idempotent."""
        for transport in self._opened.values():
            await transport.aclose()

    def _through(self, proxy: str | None) -> httpx2.AsyncHTTPTransport:
        if proxy not in self._opened:
            limits = httpx2.Limits(max_keepalive_connections=0)
            self._opened[proxy] = httpx2.AsyncHTTPTransport(verify=self._verify, limits=limits, proxy=proxy)
        return self._opened[proxy]


def _pinned(request: httpx2.Request, address: str) -> httpx2.Request:
    """The request, addressed in numbers."""
    named = {"sni_hostname": request.url.raw_host.decode("ascii")}
    return httpx2.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,  # among them the Host
        stream=request.stream,
        extensions={**request.extensions, **named},
    )


def _proxy_for(url: httpx2.URL) -> str | None:
    """The proxy that the environment names (HTTPS_PROXY, NO_PROXY, …)."""
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    return None if proxy is None or proxy_bypass(url.host) else proxy
