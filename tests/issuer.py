"""An issuer of tokens on loopback: signs with keys of its own, publishes them, and misbehaves when it is told to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

ISSUER = "https://issuer.test/"
AUDIENCE = "marketing-insight"

CURVES = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}

Respond = Callable[[BaseHTTPRequestHandler], None]


class SigningKey:
    """A pair of keys; `jwk` is what is published of it."""

    def __init__(self, algorithm: str = "ES256", *, key_id: str | None = "first") -> None:
        self.algorithm = algorithm
        self.key_id = key_id
        self.private = private_key(algorithm, key_id or "")
        to_jwk = get_default_algorithms()[algorithm].to_jwk
        named = {"kid": key_id} if key_id is not None else {}
        self.jwk: dict[str, Any] = {**to_jwk(self.private.public_key(), as_dict=True), **named}

    def sign(self, claims: dict[str, Any], **headers: Any) -> str:
        """A token with exactly these claims."""
        named = {"kid": self.key_id} if self.key_id is not None else {}
        return jwt.encode(claims, self.private, algorithm=self.algorithm, headers=named | headers)


@cache  # an RSA key takes 0.1 s
def private_key(algorithm: str, name: str) -> Any:
    """A new key for the algorithm, the same for a name."""
    if algorithm in CURVES:
        return ec.generate_private_key(CURVES[algorithm]())
    return ed25519.Ed25519PrivateKey.generate() if algorithm == "EdDSA" else rsa.generate_private_key(65_537, 2_048)


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a good token; a change to None leaves one out."""
    now = int(time.time())
    usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "role": "analyst", "iat": now, "exp": now + 300}
    return {name: value for name, value in (usual | changes).items() if value is not None}


class Issuer:
    """Publishes the keys in `published`, unless `respond` is something else; counts how often it is asked."""

    def __init__(self) -> None:
        self.key = SigningKey()
        self.published = [self.key.jwk]
        self.respond: Respond = self.publish
        self.asked = 0
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                issuer.respond(self)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:  # a client that has read enough hangs up
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/keys"

    def token(self, **changes: Any) -> str:
        """A good token, but for the changes."""
        return self.key.sign(claims(**changes))

    def rotate(self, key_id: str, *, keep: bool = True) -> None:
        """Sign with a new key, and publish it."""
        self.key = SigningKey(key_id=key_id)
        self.published = [*(self.published if keep else ()), self.key.jwk]

    def publish(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer as an issuer does."""
        answer(json.dumps({"keys": self.published}).encode())(handler)

    @property
    def settings(self) -> dict[str, str]:
        """The settings of a service that trusts this issuer."""
        return {
            "internal_hosts": "127.0.0.1",
            "jwt_jwks_url": self.url,
            "jwt_issuer": ISSUER,
            "jwt_audience": AUDIENCE,
        }

    @contextmanager
    def serving(self) -> Iterator[Issuer]:
        """The issuer, serving for the length of the block."""
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()


def answer(body: bytes, status: int = 200, **headers: str) -> Respond:
    """A response with just this."""

    def respond(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return respond


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    """No response at all."""
    handler.close_connection = True
