"""The public keys with which the issuer of tokens signs (JWKS, RFC 7517): read ahead, kept while the issuer is away."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Literal

import httpx2
import structlog
from jwt import PyJWK, PyJWTError
from pydantic import BaseModel, ConfigDict, ValidationError

from api.errors import Unavailable
from outgoing import GuardedTransport

_log = structlog.get_logger(__name__)

# Signatures by a private key alone. With HMAC the issuer's public key would do as the secret, and `none` needs no key.
_KINDS: Mapping[str, tuple[str, str | None]] = MappingProxyType(
    {
        **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), ("RSA", None)),
        "ES256": ("EC", "P-256"),
        "ES384": ("EC", "P-384"),
        "ES512": ("EC", "P-521"),
        "EdDSA": ("OKP", "Ed25519"),
    }
)
ALGORITHMS = tuple(_KINDS)

_RENEW_EVERY_S = 300.0  # so a key that the issuer withdraws is over within five minutes
_RETRY_EVERY_S = 10.0
_PAUSE_S = 5.0  # between two questions to the issuer, whatever callers send
_PATIENCE = timedelta(seconds=5)
_KEPT_S = 24 * 3600.0  # while the issuer is away; its tokens have run out long before
_LARGEST_BYTES = 512 * 2**10  # issuers with a certificate beside each key need 20 KB
_MOST_KEYS = 100

_HEADERS = {"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"}

Keys = Mapping[tuple[str, str | None], PyJWK]


class _PublishedKey(BaseModel):
    """One key of the issuer, as far as it decides whether the key is for us."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    kty: str
    crv: str | None = None
    kid: str | None = None
    alg: str | None = None
    use: Literal["sig"] | None = None
    d: None = None  # a private key in public proves nothing


class IssuerKeys:
    """Finds the key of a token. One question at a time goes to the issuer, and one in five seconds at most.

    Redirects are not followed: the operator named the place, and no other is trusted.

    Parameters
    ----------
    url
        Of the key set.
    internal_hosts
        Hosts that may be internal and unencrypted.
    clock
        Seconds, growing evenly.
    patience
        For one answer, from the connection to the last byte.
    """

    def __init__(
        self,
        url: str,
        *,
        internal_hosts: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
        patience: timedelta = _PATIENCE,
    ) -> None:
        self._url = url
        self._patience_s = patience.total_seconds()
        self._client = httpx2.AsyncClient(
            transport=GuardedTransport(internal_hosts),
            follow_redirects=False,
            headers=_HEADERS,
            timeout=self._patience_s,
        )
        self._clock = clock
        self._keys: Keys = {}
        self._read_at = -math.inf
        self._asked_at = -math.inf
        self._is_failing = False
        self._asking: asyncio.Task[None] | None = None

    async def find(self, key_id: str | None, algorithm: str) -> PyJWK | None:
        """The key for a signature, None if the issuer has none such; a token without `key_id` means the only one.

        An unknown key is asked for, as the issuer may have begun to sign with a new one.

        Raises
        ------
        Unavailable
            The issuer does not answer, and the key is not known from before.
        """
        key = self._known(key_id, algorithm)
        if key is None and self._may_ask:
            await self._ask()
            key = self._known(key_id, algorithm)
        if key is None and self._is_failing:
            raise Unavailable(
                "The issuer of tokens does not answer, so the token cannot be checked",
                hint="Try again shortly, or use an API key.",
                code="issuer_unavailable",
                retry_after=timedelta(seconds=_PAUSE_S),
            )
        return key

    async def follow(self) -> None:
        """Read the keys now and every five minutes, until cancelled."""
        while True:
            await self._ask()
            await asyncio.sleep(_RETRY_EVERY_S if self._is_failing else _RENEW_EVERY_S)

    async def close(self) -> None:
        """Stop asking. Idempotent."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait((self._asking,))
        await self._client.aclose()

    @property
    def _may_ask(self) -> bool:
        return self._asking is not None or self._clock() - self._asked_at >= _PAUSE_S

    def _known(self, key_id: str | None, algorithm: str) -> PyJWK | None:
        if self._clock() - self._read_at > _KEPT_S:
            return None
        if key_id is not None:
            return self._keys.get((algorithm, key_id))
        fitting = [key for (signs_with, _), key in self._keys.items() if signs_with == algorithm]
        return fitting[0] if len(fitting) == 1 else None

    async def _ask(self) -> None:
        """Read the keys, or wait for whoever does. Who waits may be cancelled without harm to the others."""
        if self._asking is None:
            self._asking = asyncio.create_task(self._read())
        await asyncio.shield(self._asking)

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(self._patience_s):
                keys = read_keys(await self._download())
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:  # a TimeoutError is an OSError
            if not self._is_failing:
                _log.warning("issuer_lost", url=self._url, reason=f"{error!r:.200}", hint=getattr(error, "hint", None))
            self._is_failing = True
        else:
            if self._is_failing or keys.keys() != self._keys.keys():
                _log.info("issuer_keys_read", keys=len({key_id for _, key_id in keys}))
            self._keys, self._read_at, self._is_failing = keys, self._clock(), False
        finally:
            self._asked_at, self._asking = self._clock(), None

    async def _download(self) -> bytes:
        body = bytearray()
        async with self._client.stream("GET", self._url) as response:
            if response.status_code != httpx2.codes.OK:
                raise ValueError(f"status {response.status_code}")
            async for chunk in response.aiter_raw():  # raw, as a few KB could unpack to a GB
                body += chunk
                if len(body) > _LARGEST_BYTES:
                    raise ValueError(f"more than {_LARGEST_BYTES} bytes")
        return bytes(body)


def read_keys(document: bytes) -> Keys:
    """The keys of a key set by the algorithm and the id that tokens name; keys that are not for us are left out.

    Raises
    ------
    ValueError
        The document is no key set, or holds no key that can be used.
    """
    try:
        published = _KeySet.model_validate_json(document).keys
    except ValidationError as error:
        raise ValueError("not a key set") from error
    keys: dict[tuple[str, str | None], PyJWK] = {}
    for described in published[:_MOST_KEYS]:
        for name, key in _usable(described).items():
            keys.setdefault(name, key)
    if not keys:
        raise ValueError("no key that can be used")
    return keys


class _KeySet(BaseModel):
    keys: list[Any]  # one that is malformed must not hide the others


def _usable(described: Mapping[str, object]) -> Keys:
    """The key for each algorithm whose signatures it can check; nothing, if it is none or malformed."""
    try:
        key = _PublishedKey.model_validate(described)
        kind = (key.kty, None if key.kty == "RSA" else key.crv)
        fitting = [name for name in ALGORITHMS if _KINDS[name] == kind and key.alg in (None, name)]
        return {(name, key.kid): PyJWK(dict(described), name) for name in fitting}
    except (ValidationError, PyJWTError, ValueError):
        return {}
