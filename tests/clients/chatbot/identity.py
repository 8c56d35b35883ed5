"""An OpenID provider on loopback: discovery, a page to sign in on, the code flow with PKCE, keys, signing out."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from tests.issuer import AUDIENCE, SigningKey

CLIENT_ID, CLIENT_SECRET = "chatbot", "a-secret-of-the-chatbot"
_PAGE = """<!doctype html><title>Sign in</title><h1>Who are you?</h1>
<form method="post"><input name="name" aria-label="Name"><button>Continue</button></form>"""


class IdentityProvider:
    """Signs in whoever says a name; `roles` are what the names may do. What it refuses is in `refused`."""

    def __init__(self) -> None:
        self.key = SigningKey()
        self.roles = {"ada": "admin", "kim": "narrow"}
        self.lifetime_s = 300
        self.refused: list[str] = []
        self._codes: dict[str, dict[str, str]] = {}
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider._get(self, urlsplit(self.path))

            def do_POST(self) -> None:
                form = dict(parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
                provider._post(self, urlsplit(self.path), form)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @property
    def service_settings(self) -> dict[str, str]:
        """The settings of a service that trusts it."""
        return {
            "internal_hosts": "127.0.0.1",
            "jwt_jwks_url": f"{self.url}/keys",
            "jwt_issuer": self.url,
            "jwt_audience": AUDIENCE,
        }

    def chat_settings(self, chat_url: str) -> dict[str, str]:
        """The settings of a chatbot that people sign in to here."""
        return {
            "INSIGHT_INTERNAL_HOSTS": "127.0.0.1",
            "INSIGHT_CHAT_OIDC_METADATA_URL": f"{self.url}/.well-known/openid-configuration",
            "INSIGHT_CHAT_OIDC_CLIENT_ID": CLIENT_ID,
            "INSIGHT_CHAT_OIDC_CLIENT_SECRET": CLIENT_SECRET,
            "INSIGHT_CHAT_OIDC_REDIRECT_URL": f"{chat_url}/oauth2callback",
            "INSIGHT_CHAT_OIDC_COOKIE_SECRET": "c" * 40,
        }

    @contextmanager
    def serving(self) -> Iterator[IdentityProvider]:
        """The provider, serving for the length of the block."""
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()

    def token(self, name: str, *, audience: str = AUDIENCE, **more: Any) -> str:
        """A token of somebody."""
        now = int(time.time())
        claims = {"iss": self.url, "aud": audience, "sub": name, "iat": now, "exp": now + self.lifetime_s}
        return self.key.sign(claims | {"role": self.roles[name]} | more)

    def _get(self, handler: BaseHTTPRequestHandler, url: Any) -> None:
        asked = {name: values[0] for name, values in parse_qs(url.query).items()}
        match url.path:
            case "/.well-known/openid-configuration":
                _send(handler, json.dumps(self._metadata()))
            case "/keys":
                _send(handler, json.dumps({"keys": [self.key.jwk]}))
            case "/authorize" if self._is_good(asked):
                _send(handler, _PAGE, kind="text/html")
            case "/logout":
                _redirect(handler, asked["post_logout_redirect_uri"])
            case _:
                _send(handler, "{}", status=404)

    def _post(self, handler: BaseHTTPRequestHandler, url: Any, form: dict[str, str]) -> None:
        if url.path == "/authorize":
            asked = {name: values[0] for name, values in parse_qs(url.query).items()}
            code = secrets.token_urlsafe(16)
            self._codes[code] = asked | {"name": form["name"]}
            _redirect(handler, f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}")
            return
        asked = self._codes.pop(form.get("code", ""), {})  # once
        proof = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest()).rstrip(b"=")
        basic = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        if (
            not asked
            or handler.headers["Authorization"] != f"Basic {basic}"
            or form["redirect_uri"] != asked["redirect_uri"]
            or proof.decode() != asked["code_challenge"]
        ):
            self.refused.append(f"token: {form}")
            _send(handler, '{"error": "invalid_grant"}', status=400)
            return
        name = asked["name"]
        tokens = {
            "access_token": self.token(name),
            "id_token": self.token(name, audience=CLIENT_ID, nonce=asked["nonce"]),
            "token_type": "Bearer",
            "expires_in": self.lifetime_s,
        }
        _send(handler, json.dumps(tokens))

    def _is_good(self, asked: dict[str, str]) -> bool:
        is_good = (
            asked.get("client_id") == CLIENT_ID
            and asked.get("response_type") == "code"
            and "openid" in asked.get("scope", "")
            and asked.get("code_challenge_method") == "S256"
            and {"state", "nonce", "redirect_uri", "code_challenge"} <= asked.keys()
        )
        if not is_good:
            self.refused.append(f"authorize: {asked}")
        return is_good

    def _metadata(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            "end_session_endpoint": f"{self.url}/logout",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
        }


def _send(handler: BaseHTTPRequestHandler, text: str, *, status: int = 200, kind: str = "application/json") -> None:
    body = text.encode()
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def _redirect(handler: BaseHTTPRequestHandler, url: str) -> None:
    handler.send_response(302)
    handler.send_header("Location", url)
    handler.send_header("Content-Length", "0")
    handler.end_headers()
