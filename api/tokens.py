"""JWT bearer tokens (RFC 7519) of an OpenID Connect issuer: checked here, by the keys that the issuer publishes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import jwt
import structlog

from api.errors import Forbidden, Unauthenticated
from api.issuer import ALGORITHMS, IssuerKeys
from api.policy import Claims, PolicySource, Principal

_log = structlog.get_logger(__name__)

LEEWAY = timedelta(seconds=10)  # that our clock and the issuer's may differ

_REQUIRED = ("exp", "iss", "aud", "sub")
_ABOUT_THE_TOKEN = frozenset({"iss", "aud", "jti"})  # nothing to filter rows by
_LONGEST_TOKEN = 16_384  # characters; proxies allow 8 to 16 KB of headers in all
_LONGEST_SUBJECT = 255  # OpenID Connect Core 1.0, section 2

_REMEMBERED_S = 5.0
_REMEMBERED_TOKENS = 10_000

_HINT = "Get a new token from the issuer, for this service, and send `Authorization: Bearer <token>`."


class Tokens:
    """Who a token speaks for.

    Parameters
    ----------
    keys
        Of the issuer.
    issuer, audience
        What `iss` must be, and `aud` be or hold; exactly.
    role_claim
        The claim that names the role: a claim's whole name, or a path with dots (`realm_access.roles`).
    policies
        Where a token carries several roles, the one that the policy knows counts.
    """

    def __init__(
        self, keys: IssuerKeys, *, issuer: str, audience: str, role_claim: str, policies: PolicySource
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._role_claim = role_claim
        self._policies = policies
        self._remembered: dict[bytes, tuple[Principal, float]] = {}

    async def authenticate(self, token: str) -> Principal:
        """Who the token speaks for; remembered for 5 s, or until the token expires.

        Raises
        ------
        Unauthenticated
            The token is not valid. A genuine one that has expired is told so, as its owner can get another; what else
            is wrong is said in the log alone, where an attacker does not read it.
        Forbidden
            It names no role, or several that the policy knows.
        Unavailable
            The issuer's keys cannot be had.
        """
        digest, now = hashlib.sha256(token.encode(errors="replace")).digest(), time.monotonic()
        known = self._remembered.get(digest)
        if known is not None and known[1] > now:
            return known[0]
        claims = await self._checked(token)
        principal = self._principal(claims)
        if len(self._remembered) >= _REMEMBERED_TOKENS:
            self._remembered.clear()
        # In whole numbers, as `exp` may be too large for a float.
        self._remembered[digest] = (principal, now + min(_REMEMBERED_S, int(claims["exp"]) - int(time.time())))
        return principal

    async def _checked(self, token: str) -> Mapping[str, Any]:
        """The claims of a valid token."""
        try:
            key_id, algorithm = _header(token)
            key = await self._keys.find(key_id, algorithm)
            if key is None:
                raise jwt.InvalidKeyError("the issuer has no such key")
            claims: Mapping[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[algorithm],  # one of ours, and the only one that the key is for
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY,
                options={"require": list(_REQUIRED), "enforce_minimum_key_length": True},
            )
            _check_subject(claims["sub"])
        except jwt.ExpiredSignatureError as error:  # raised after the signature was found good
            raise Unauthenticated("The token has expired", hint=_HINT, code="expired_token") from error
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            _log.info("token_refused", reason=type(error).__name__)
            raise Unauthenticated("The token is not valid", hint=_HINT, code="invalid_token") from error
        return claims

    def _principal(self, claims: Mapping[str, Any]) -> Principal:
        subject: str = claims["sub"]
        name = claims.get("name")
        return Principal(
            principal_id=f"token:{subject}",  # a key's id has no colon
            name=name[:_LONGEST_SUBJECT] if isinstance(name, str) else subject,
            role=self._role(claims),
            claims=_filterable(claims, self._role_claim),
        )

    def _role(self, claims: Mapping[str, Any]) -> str:
        named = tuple(dict.fromkeys(_texts(_found(claims, self._role_claim))))
        policy = self._policies.current()
        match [role for role in named if policy.knows(role)] or list(named[:1]):
            case [role]:
                return role
            case []:
                raise Forbidden(
                    "The token names no role",
                    hint=f"Ask whoever runs the issuer for the claim {self._role_claim!r}.",
                    code="missing_role",
                )
            case _:
                raise Forbidden(
                    "The token names several roles, and a caller has one",
                    hint="Ask whoever runs the issuer to leave one of them.",
                    code="ambiguous_role",
                )


def _header(token: str) -> tuple[str | None, str]:
    """The key's id and the algorithm that the token names.

    Raises
    ------
    jwt.PyJWTError
        It is no token, or not signed in a way that we accept.
    """
    if len(token) > _LONGEST_TOKEN:
        raise jwt.DecodeError("too long")
    header = jwt.get_unverified_header(token)
    algorithm = header.get("alg")
    if algorithm not in ALGORITHMS:
        raise jwt.InvalidAlgorithmError("not accepted")
    return header.get("kid"), algorithm


def _check_subject(subject: object) -> None:
    """Refuse what cannot name a principal, in a log for instance; raises `jwt.InvalidTokenError`."""
    is_name = isinstance(subject, str) and subject.isprintable() and 0 < len(subject) <= _LONGEST_SUBJECT
    if not is_name:
        raise jwt.InvalidTokenError("not a name")


def _found(claims: Mapping[str, Any], path: str) -> object:
    """The claim of that name, or else what lies along the path; names with dots, such as URLs, go before paths."""
    if path in claims:
        return claims[path]
    for position in (place for place in range(len(path) - 1, 0, -1) if path[place] == "."):
        inner = claims.get(path[:position])
        if isinstance(inner, Mapping) and (found := _found(inner, path[position + 1 :])) is not None:
            return found
    return None


def _filterable(claims: Mapping[str, Any], role_claim: str) -> Claims:
    """The claims that row filters may use: those that are a text or texts."""
    skipped = _ABOUT_THE_TOKEN | {role_claim}
    return {name: texts for name, value in claims.items() if name not in skipped and (texts := _texts(value))}


def _texts(value: object) -> tuple[str, ...]:
    """The texts of a claim; none if any part is something else, as half a list would filter by half a claim."""
    match value:
        case str():
            return (value,)
        case list() if all(isinstance(item, str) for item in value):
            return tuple(value)
        case _:
            return ()
