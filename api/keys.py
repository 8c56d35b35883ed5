"""API keys: made, checked and revoked in the service's state database; only their hashes are kept.

A key is `mi_<id>_<secret>` with 256 random bits of secret, so a fast hash is enough: there is nothing to guess
(OWASP Password Storage Cheat Sheet asks for slow hashes where people choose the secret).
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from api.errors import Unauthenticated, Unavailable, UnknownName
from api.policy import Claims, Principal
from api.state import metadata

_api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("key_id", sa.String(16), primary_key=True),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("key_hash", sa.String(64), nullable=False, unique=True),
    sa.Column("role", sa.String(200), nullable=False),
    sa.Column("claims", sa.JSON, nullable=False),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("expires_at", sa.DateTime),
    sa.Column("revoked_at", sa.DateTime),
)
_secrets = sa.Table(
    "secrets",
    metadata,
    sa.Column("purpose", sa.String(32), primary_key=True),
    sa.Column("secret", sa.LargeBinary(32), nullable=False),
)

KEY_PREFIX = "mi_"  # no JWT begins so: its first letters are those of `{"` in base64

_RETRY = timedelta(seconds=2)
_REMEMBERED_S = 2.0
_REMEMBERED_KEYS = 10_000

_HINT = "Send `Authorization: Bearer <key>`; make a key with: insight keys create NAME"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """What is known of a key; never the key."""

    key_id: str
    name: str
    role: str
    claims: Mapping[str, list[str]]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class ApiKeys:
    """The keys in the state database. All methods but `authenticate` and `has_let_in` block."""

    def __init__(self, state: sa.Engine) -> None:
        self._state = state
        self._remembered: dict[str, tuple[Principal, float]] = {}

    def create(self, name: str, *, role: str, claims: Claims | None = None, lifetime: timedelta | None = None) -> str:
        """A new key, shown this once."""
        key_id, now = secrets.token_hex(4), _now()
        key = f"{KEY_PREFIX}{key_id}_{secrets.token_urlsafe(32)}"
        with self._state.begin() as connection:
            connection.execute(
                _api_keys.insert().values(
                    key_id=key_id,
                    name=name,
                    key_hash=_hash(key),
                    role=role,
                    claims={claim: list(values) for claim, values in (claims or {}).items()},
                    created_at=now,
                    expires_at=now + lifetime if lifetime else None,
                )
            )
        return key

    def records(self) -> tuple[KeyRecord, ...]:
        """Every key ever made, newest first."""
        columns = [column for column in _api_keys.c if column.name != "key_hash"]
        with self._state.connect() as connection:
            rows = connection.execute(sa.select(*columns).order_by(_api_keys.c.created_at.desc())).mappings()
            return tuple(KeyRecord(**row) for row in rows)

    def revoke(self, key_id: str) -> None:
        """End a key, within 2 s in a running service; idempotent.

        Raises
        ------
        UnknownName
            No such key.
        """
        statement = _api_keys.update().where(_api_keys.c.key_id == key_id)
        keep_first = sa.func.coalesce(_api_keys.c.revoked_at, _now())
        with self._state.begin() as connection:
            if connection.execute(statement.values(revoked_at=keep_first)).rowcount == 0:
                raise UnknownName(f"There is no key {key_id!r}", hint="See: insight keys list", code="unknown_key")

    async def authenticate(self, key: str) -> Principal:
        """Who the key belongs to, asked of the database; `recognize` repeats it for 2 s.

        They begin with the asking, so a revoked key may live that long.

        Raises
        ------
        Unauthenticated
            The key is unknown, expired or revoked. Which one is not said: it would help an attacker alone.
        Unavailable
            The state database does not answer.
        """
        key_hash, asked_at = _hash(key), time.monotonic()
        try:
            principal = await asyncio.to_thread(self._look_up, key_hash)
        except Unauthenticated:
            self._remembered.pop(key_hash, None)
            raise
        if len(self._remembered) >= _REMEMBERED_KEYS:
            self._remembered.clear()
        self._remembered[key_hash] = (principal, asked_at + _REMEMBERED_S)
        return principal

    def recognize(self, key: str) -> Principal | None:
        """Who the key belongs to, as far as `authenticate` has said so lately: no look-up."""
        known = self._remembered.get(_hash(key))
        return known[0] if known is not None and known[1] > time.monotonic() else None

    def has_let_in(self, key: str) -> bool:
        """Whether the key was found valid here before, and not invalid since; remembered for some 10,000 keys."""
        return _hash(key) in self._remembered

    def _look_up(self, key_hash: str) -> Principal:
        columns = [column for column in _api_keys.c if column.name != "key_hash"]
        try:
            with self._state.connect() as connection:
                row = connection.execute(sa.select(*columns).where(_api_keys.c.key_hash == key_hash)).one_or_none()
        except sa.exc.SQLAlchemyError as error:
            raise Unavailable(
                "The keys cannot be looked up", hint="Try again shortly.", code="state_unavailable", retry_after=_RETRY
            ) from error
        if row is None or row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= _now()):
            raise Unauthenticated("The key is not valid", hint=_HINT, code="invalid_key")
        claims = {claim: tuple(values) for claim, values in row.claims.items()}
        return Principal(principal_id=row.key_id, name=row.name, role=row.role, claims=claims)


def hash_secret(state: sa.Engine) -> bytes:
    """The secret with which masked values are hashed: made once, the same for every replica on this state."""
    kept = sa.select(_secrets.c.secret).where(_secrets.c.purpose == "mask")
    try:
        with state.begin() as connection:
            connection.execute(_secrets.insert().values(purpose="mask", secret=secrets.token_bytes(32)))
    except sa.exc.IntegrityError:
        pass  # it was made before
    with state.connect() as connection:
        return bytes(connection.execute(kept).scalar_one())


def missing_key() -> Unauthenticated:
    """The refusal for a request that shows no credential."""
    return Unauthenticated("The request carries no key", hint=_HINT, code="missing_key")


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _now() -> datetime:
    # Naive UTC, as SQLite keeps no zone.
    return datetime.now(UTC).replace(tzinfo=None)
