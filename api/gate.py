"""`Gate`: who asks, and whether now. Every transport lets its callers in here."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING

from api.allowance import Allowance, Allowances
from api.errors import TooManyRequests, Unauthenticated
from api.keys import KEY_PREFIX, ApiKeys, missing_key
from api.observation import observed
from api.policy import ANYBODY, PolicySource, Principal
from api.tallies import Clock, Tally

if TYPE_CHECKING:  # it brings a library of 10 MB, and many services have keys alone
    from api.tokens import Tokens

_MINUTE = timedelta(minutes=1)
_ADDRESSES = 10_000
_SUBNET_BITS = 64  # what one subscriber of IPv6 has at least


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A caller that is in; its `allowance` is None where its role has no limit of requests."""

    principal: Principal
    allowance: Allowance | None


class Failures:
    """Failed authentications of each address in this minute.

    Parameters
    ----------
    per_minute
        How many an address may have before it has to wait.
    exempt
        Networks that nothing is counted for.
    """

    def __init__(
        self, *, per_minute: int, exempt: tuple[IPv4Network | IPv6Network, ...] = (), clock: Clock = time.time
    ) -> None:
        self._per_minute = per_minute
        self._exempt = exempt
        self._tally = Tally(_MINUTE, most_names=_ADDRESSES, clock=clock)

    def count(self, address: str | None) -> None:
        """Count one failure of the address; raises `TooManyRequests` where it makes too many."""
        if (name := self._name(address)) is not None and self._tally.add(name) > self._per_minute:
            raise self._refusal()

    def require_few(self, address: str | None) -> None:
        """Refuse an address that has failed too often already; raises `TooManyRequests`."""
        if (name := self._name(address)) is not None and self._tally.count(name) >= self._per_minute:
            raise self._refusal()

    def _name(self, address: str | None) -> str | None:
        """What the address is counted under, None where it is not counted. A socket of this machine has no address."""
        try:
            parsed = ip_address(address or "")
        except ValueError:
            return None
        if isinstance(parsed, IPv6Address):
            parsed = parsed.ipv4_mapped or parsed
        if any(parsed in network for network in self._exempt):
            return None
        return str(ip_network((parsed, _SUBNET_BITS), strict=False) if isinstance(parsed, IPv6Address) else parsed)

    def _refusal(self) -> TooManyRequests:
        return TooManyRequests(
            "Too many authentications from your address have failed",
            hint="Mend the key or token, and wait as long as Retry-After says.",
            code="too_many_failures",
            retry_after=self._tally.ends_in,
        )


class Gate:
    """Lets callers in, one request at a time.

    Parameters
    ----------
    keys
        Of the service; None lets everybody in (`auth=off`).
    tokens
        Of the issuer; None where none is configured.
    """

    def __init__(
        self,
        *,
        keys: ApiKeys | None,
        tokens: Tokens | None,
        failures: Failures,
        policies: PolicySource,
        allowances: Allowances,
    ) -> None:
        self._keys = keys
        self._tokens = tokens
        self._failures = failures
        self._policies = policies
        self._allowances = allowances

    async def admit(self, credential: str | None, *, address: str | None) -> Admitted:
        """Who asks, and what it may still ask in this minute.

        Parameters
        ----------
        credential
            An API key or a JWT.
        address
            Of the client, for counting failures; None where there is none.

        Raises
        ------
        Unauthenticated
            There is no credential, or not a valid one.
        Forbidden
            The policy does not know the caller's role.
        TooManyRequests
            The caller has asked, or its address has failed, too often.
        Unavailable
            The credential cannot be checked now.
        """
        principal = await self._recognized(credential, address)
        observed().principal = principal
        role = self._policies.current().role(principal)
        allowance = await self._allowances.take_request(principal, role)
        return Admitted(principal=principal, allowance=allowance)

    async def _recognized(self, credential: str | None, address: str | None) -> Principal:
        if self._keys is None:
            return ANYBODY
        if not credential:
            raise missing_key()
        try:
            if self._tokens is not None and not credential.startswith(KEY_PREFIX):
                return await self._tokens.authenticate(credential)
            if (principal := self._keys.recognize(credential)) is not None:
                return principal
            # A key that was let in before is no guess. Signatures are not guessed, and cost no look-up.
            if not self._keys.has_let_in(credential):
                self._failures.require_few(address)
            return await self._keys.authenticate(credential)
        except Unauthenticated:
            self._failures.count(address)
            raise
