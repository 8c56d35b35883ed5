"""Tokens: only those that the issuer signed, for this service, in time; whatever the issuer or the caller sends.

Long, as the issuer and its misbehaviour stand behind every test.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from api import issuer as issuer_module
from api.errors import Forbidden, Unauthenticated, Unavailable
from api.issuer import ALGORITHMS, IssuerKeys, read_keys
from api.keys import ApiKeys
from api.main import create_app
from api.observation import named
from api.policy import PolicySource
from api.state import open_state
from api.tokens import Tokens
from tests.conftest import Published, connect, service_settings
from tests.issuer import AUDIENCE, ISSUER, Issuer, Respond, SigningKey, answer, claims, hang_up

PATIENCE = timedelta(seconds=0.5)
POLICY = """
version: 1
roles:
  admin: {metrics: ["*"], dimensions: ["*"]}
  analyst: {metrics: ["*"], dimensions: ["*"], see_sql: true}
  regional: {metrics: ["*"], dimensions: ["*"], rows: [{field: customer__location, op: in, claim: regions}]}
"""


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer().serving() as made:
        yield made


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def keys(issuer: Issuer, clock: Clock) -> AsyncIterator[IssuerKeys]:
    made = IssuerKeys(issuer.url, internal_hosts=("127.0.0.1",), clock=clock, patience=PATIENCE)
    yield made
    await made.close()


def tokens_of(keys: IssuerKeys, *, role_claim: str = "role", policy: Path | None = None) -> Tokens:
    policies = PolicySource(policy)
    return Tokens(keys, issuer=ISSUER, audience=AUDIENCE, role_claim=role_claim, policies=policies)


@pytest.fixture
def tokens(keys: IssuerKeys) -> Tokens:
    return tokens_of(keys)


async def refusal(tokens: Tokens, token: str) -> str:
    """The code with which the token is refused."""
    with pytest.raises(Unauthenticated) as caught:
        await tokens.authenticate(token)
    return caught.value.code


def encoded(part: object) -> str:
    text = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


# Whom a token speaks for


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("says_algorithm", [True, False])
async def test_a_token_signed_by_the_issuer_is_accepted(
    issuer: Issuer, tokens: Tokens, algorithm: str, *, says_algorithm: bool
) -> None:
    key = SigningKey(algorithm)
    issuer.published = [key.jwk | ({"alg": algorithm, "use": "sig"} if says_algorithm else {})]

    caller = await tokens.authenticate(key.sign(claims(regions=["Chicago", "California"], name="Ada L.")))

    assert (caller.principal_id, caller.name, caller.role) == ("token:ada", "Ada L.", "analyst")
    assert caller.claims["regions"] == ("Chicago", "California")


def test_only_signatures_by_a_private_key_are_accepted() -> None:
    assert {name[:2] for name in ALGORITHMS} == {"RS", "PS", "ES", "Ed"}


async def test_texts_and_lists_of_texts_become_claims_and_nothing_else_does(issuer: Issuer, tokens: Tokens) -> None:
    token = issuer.token(
        team="north", places=["a", "b"], mixed=["a", 1], nothing=[], level=3, is_new=True, deep={"a": "b"}, jti="x"
    )

    caller = await tokens.authenticate(token)

    assert caller.claims == {"team": ("north",), "places": ("a", "b"), "sub": ("ada",)}


@pytest.mark.parametrize(
    ("role_claim", "given_claims"),
    [
        ("groups", {"groups": "viewer"}),
        ("roles", {"roles": ["viewer"]}),
        ("realm_access.roles", {"realm_access": {"roles": ["offline_access", "viewer", "uma_authorization"]}}),
        ("resource_access.my.app.roles", {"resource_access": {"my.app": {"roles": ["viewer"]}}}),
        ("https://insight.example/role", {"https://insight.example/role": "viewer"}),
        ("https://insight.example/claims.role", {"https://insight.example/claims": {"role": "viewer"}}),
        ("a.b", {"a.b": "viewer", "a": {"b": "admin"}}),
        ("roles", {"roles": ["viewer", "viewer"]}),
    ],
)
async def test_the_role_is_found_by_the_name_of_its_claim_or_by_a_path(
    issuer: Issuer, keys: IssuerKeys, role_claim: str, given_claims: dict[str, Any]
) -> None:
    caller = await tokens_of(keys, role_claim=role_claim).authenticate(issuer.token(role=None, **given_claims))

    assert caller.role == "viewer"


@pytest.mark.parametrize(
    ("given_role", "code"),
    [
        (None, "missing_role"),
        ([], "missing_role"),
        (7, "missing_role"),
        (["viewer", 7], "missing_role"),
        ({"name": "viewer"}, "missing_role"),
        (["viewer", "admin"], "ambiguous_role"),
    ],
)
async def test_a_token_that_names_no_role_or_several_is_forbidden(
    issuer: Issuer, tokens: Tokens, given_role: object, code: str
) -> None:
    with pytest.raises(Forbidden) as caught:
        await tokens.authenticate(issuer.token(role=given_role))

    assert caught.value.code == code


async def test_callers_of_several_tokens_are_told_apart(issuer: Issuer, tokens: Tokens) -> None:
    ada, bob = issuer.token(), issuer.token(sub="bob", role="viewer")

    for _ in range(3):
        assert (await tokens.authenticate(ada)).principal_id == "token:ada"
        assert (await tokens.authenticate(bob)).role == "viewer"


# What is refused


def by_a_key_in_the_token(issuer: Issuer) -> str:
    attacker = SigningKey(key_id="attacker")
    return attacker.sign(claims(), kid="first", jwk=attacker.jwk)


def by_a_key_elsewhere(issuer: Issuer) -> str:
    return SigningKey(key_id="attacker").sign(claims(), jku=issuer.url.replace("/keys", "/attacker"), x5u=issuer.url)


def with_the_public_key_as_secret(issuer: Issuer, algorithm: str = "HS256") -> str:
    public = issuer.key.private.public_key()
    secret = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    signed = f"{encoded({'alg': algorithm, 'kid': 'first'})}.{encoded(claims())}"
    signature = jwt.get_algorithm_by_name(algorithm).sign(signed.encode(), secret)
    return f"{signed}.{encoded(signature)}"


def unsigned(issuer: Issuer) -> str:
    return jwt.encode(claims(), None, algorithm="none", headers={"kid": "first"})


def unsigned_under_another_name(issuer: Issuer) -> str:
    return f"{encoded({'alg': 'ES256', 'kid': 'first'})}.{encoded(claims())}."


def with_another_payload(issuer: Issuer) -> str:
    header, _, signature = issuer.token().split(".")
    return f"{header}.{encoded(claims(sub='root'))}.{signature}"


def with_another_header(issuer: Issuer) -> str:
    _, payload, signature = issuer.token().split(".")
    return f"{encoded({'alg': 'EdDSA', 'kid': 'first'})}.{payload}.{signature}"


def detached(issuer: Issuer) -> str:
    header = encoded({"alg": "ES256", "kid": "first", "b64": False, "crit": ["b64"]})
    return f"{header}..{issuer.token().split('.')[2]}"


NOW = int(time.time())

FORGED: dict[str, Callable[[Issuer], str]] = {
    "signed by a key in the token": by_a_key_in_the_token,
    "signed by a key elsewhere": by_a_key_elsewhere,
    "HS256 with the public key as secret": with_the_public_key_as_secret,
    "HS512 with the public key as secret": lambda issuer: with_the_public_key_as_secret(issuer, "HS512"),
    "unsigned": unsigned,
    "an empty signature": unsigned_under_another_name,
    "another payload": with_another_payload,
    "another algorithm": with_another_header,
    "a detached payload": detached,
    "an unknown extension": lambda issuer: issuer.key.sign(claims(), crit=["x"], x=1),
    "too long": lambda issuer: issuer.token(padding="x" * 20_000),
}
MALFORMED: dict[str, str] = {
    "no algorithm in capitals": f"{encoded({'alg': 'NONE', 'kid': 'first'})}.{encoded(claims())}.",
    "a key id that is no text": f"{encoded({'alg': 'ES256', 'kid': 1})}.{encoded(claims())}.AAAA",
    "a header that is a list": f"{encoded(['ES256'])}.{encoded(claims())}.AAAA",
    "an algorithm that is a list": f"{encoded({'alg': ['ES256']})}.{encoded(claims())}.AAAA",
    "a deep header": f"{encoded(b'[' * 5_000)}.{encoded(claims())}.AAAA",
    "encrypted": "a.b.c.d.e",
    "no token": "hello",
    "two parts": "a.b",
    "dots": "..",
    "NUL": "\0",
    "a surrogate": "\ud800.\ud800.\ud800",
}
WRONG: dict[str, dict[str, Any]] = {
    "for another service": {"aud": "another"},
    "for several others": {"aud": ["another", "third"]},
    "for nobody": {"aud": None},
    "for an empty list": {"aud": []},
    "for a prefix of us": {"aud": AUDIENCE[:-1]},
    "for no text": {"aud": {"marketing-insight": True}},
    "by another issuer": {"iss": "https://attacker.test/"},
    "by nearly the issuer": {"iss": ISSUER.rstrip("/")},
    "by nobody": {"iss": None},
    "without an end": {"exp": None},
    "with an end that is no number": {"exp": "never"},
    "with an infinite end": {"exp": float("inf")},
    "not yet valid": {"nbf": NOW + 3_600},
    "issued in the future": {"iat": NOW + 3_600},
    "without a subject": {"sub": None},
    "with an empty subject": {"sub": ""},
    "with a subject of two lines": {"sub": "ada\nroot"},
    "with a subject that is too long": {"sub": "a" * 256},
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
async def test_a_forged_token_is_refused(issuer: Issuer, tokens: Tokens, forge: Callable[[Issuer], str]) -> None:
    assert await refusal(tokens, forge(issuer)) == "invalid_token"
    assert issuer.asked <= 1


@pytest.mark.parametrize("token", MALFORMED.values(), ids=MALFORMED)
async def test_what_is_no_token_is_refused_and_the_issuer_is_not_asked(
    issuer: Issuer, tokens: Tokens, token: str
) -> None:
    assert await refusal(tokens, token) == "invalid_token"
    assert issuer.asked == 0


@pytest.mark.parametrize("changes", WRONG.values(), ids=WRONG)
async def test_a_token_of_the_issuer_that_says_something_wrong_is_refused(
    issuer: Issuer, tokens: Tokens, changes: dict[str, Any]
) -> None:
    token = issuer.key.sign(claims(**changes))

    assert await refusal(tokens, token) == "invalid_token"


async def test_a_refusal_does_not_say_why_but_the_log_does(issuer: Issuer, tokens: Tokens) -> None:
    texts = set()
    forged = [issuer.key.sign(claims(**changes)) for changes in WRONG.values()]
    forged += [*(forge(issuer) for forge in FORGED.values()), *MALFORMED.values()]
    with capture_logs() as logs:
        for token in forged:
            with pytest.raises(Unauthenticated) as caught:
                await tokens.authenticate(token)
            texts.add((caught.value.detail, caught.value.hint, caught.value.code))

    assert len(texts) == 1
    reasons = {line["reason"] for line in logs if line["event"] == "token_refused"}
    assert {"InvalidAudienceError", "InvalidIssuerError", "InvalidSignatureError"} <= reasons
    assert not any(token in json.dumps(logs) for token in forged if len(token) > 5)


async def test_a_subject_that_is_no_text_is_refused(issuer: Issuer, tokens: Tokens) -> None:
    signed = f"{encoded({'alg': 'ES256', 'kid': 'first'})}.{encoded(claims() | {'sub': 7})}"
    signature = jwt.get_algorithm_by_name("ES256").sign(signed.encode(), issuer.key.private)

    assert await refusal(tokens, f"{signed}.{encoded(signature)}") == "invalid_token"


async def test_an_expired_token_is_told_so_if_it_is_genuine(issuer: Issuer, tokens: Tokens) -> None:
    expired = claims(exp=NOW - 60)

    assert await refusal(tokens, issuer.key.sign(expired)) == "expired_token"
    assert await refusal(tokens, SigningKey(key_id="attacker").sign(expired, kid="first")) == "invalid_token"


async def test_clocks_may_differ_by_ten_seconds(issuer: Issuer, tokens: Tokens) -> None:
    now = int(time.time())
    ahead = issuer.token(nbf=now + 5, iat=now + 5)
    too_far_ahead = issuer.token(nbf=now + 60)

    assert (await tokens.authenticate(ahead)).role == "analyst"
    assert (await tokens.authenticate(issuer.token(exp=now - 4))).role == "analyst"
    assert await refusal(tokens, issuer.token(exp=now - 11)) == "expired_token"
    assert await refusal(tokens, too_far_ahead) == "invalid_token"


async def test_a_token_is_not_remembered_beyond_its_end(issuer: Issuer, tokens: Tokens) -> None:
    token = issuer.token(exp=int(time.time()) - 8)  # within the leeway for two seconds
    assert (await tokens.authenticate(token)).role == "analyst"

    await asyncio.sleep(2.1)

    assert await refusal(tokens, token) == "expired_token"


async def test_a_short_rsa_key_is_not_used(issuer: Issuer, tokens: Tokens) -> None:
    short = SigningKey("RS256")
    short.private = rsa.generate_private_key(65_537, 1_024)
    short.jwk = jwt.algorithms.RSAAlgorithm.to_jwk(short.private.public_key(), as_dict=True) | {"kid": "first"}
    issuer.published = [short.jwk]
    signed = f"{encoded({'alg': 'RS256', 'kid': 'first'})}.{encoded(claims())}"
    signature = jwt.get_algorithm_by_name("RS256").sign(signed.encode(), short.private)

    assert await refusal(tokens, f"{signed}.{encoded(signature)}") == "invalid_token"


often = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@often
@given(data=st.data())
async def test_a_token_with_one_character_changed_is_refused(
    issuer: Issuer, tokens: Tokens, data: st.DataObject
) -> None:
    token = issuer.token()
    position = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters(codec="utf-8").filter(lambda drawn: drawn != token[position]))

    assert await refusal(tokens, token[:position] + other + token[position + 1 :]) == "invalid_token"


@often
@given(
    text=st.text(max_size=200)
    | st.lists(st.binary(max_size=60), min_size=3, max_size=3).map(lambda parts: ".".join(map(encoded, parts)))
)
async def test_noise_is_refused(tokens: Tokens, text: str) -> None:
    assert await refusal(tokens, text) == "invalid_token"


# The issuer's keys


async def test_a_new_key_is_fetched_when_the_first_token_comes_with_it(
    issuer: Issuer, tokens: Tokens, clock: Clock
) -> None:
    before = issuer.token()
    assert (await tokens.authenticate(before)).role == "analyst"
    issuer.rotate("second")
    clock.now += 6

    assert (await tokens.authenticate(issuer.token(sub="bob"))).principal_id == "token:bob"
    assert (await tokens.authenticate(before)).role == "analyst"
    assert issuer.asked == 2


async def test_a_withdrawn_key_is_over_when_the_keys_are_read_again(
    issuer: Issuer, keys: IssuerKeys, clock: Clock
) -> None:
    before = issuer.token()
    assert (await tokens_of(keys).authenticate(before)).role == "analyst"
    issuer.rotate("second", keep=False)
    clock.now += 6

    forgetful = tokens_of(keys)  # a token that was checked is remembered for 5 s
    assert (await forgetful.authenticate(issuer.token())).role == "analyst"
    assert await refusal(forgetful, before) == "invalid_token"


async def test_keys_are_read_ahead_and_again(issuer: Issuer, keys: IssuerKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuer_module, "_RENEW_EVERY_S", 0.02)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(keys.follow(), timeout=2)
    asked = issuer.asked

    assert asked >= 3
    assert (await tokens_of(keys).authenticate(issuer.token())).role == "analyst"
    assert issuer.asked <= asked + 1  # one may have been under way


async def test_random_key_ids_do_not_make_us_hammer_the_issuer(issuer: Issuer, tokens: Tokens, clock: Clock) -> None:
    guesses = [SigningKey(key_id="attacker").sign(claims(), kid=f"guess {number}") for number in range(200)]
    good = issuer.token()
    for number, guess in enumerate(guesses):
        clock.now += 0.1
        assert await refusal(tokens, guess) == "invalid_token", number
        assert (await tokens.authenticate(good)).role == "analyst"

    assert issuer.asked <= 1 + 20 / 5


async def test_many_callers_at_once_are_one_question(issuer: Issuer, tokens: Tokens) -> None:
    def slowly(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.1)
        issuer.publish(handler)

    issuer.respond = slowly
    callers = await asyncio.gather(*(tokens.authenticate(issuer.token(sub=f"{number}")) for number in range(50)))

    assert {caller.principal_id for caller in callers} == {f"token:{number}" for number in range(50)}
    assert issuer.asked == 1


async def test_a_caller_that_goes_away_does_not_stop_the_question_of_the_others(issuer: Issuer, tokens: Tokens) -> None:
    def slowly(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.2)
        issuer.publish(handler)

    issuer.respond = slowly
    impatient = asyncio.create_task(tokens.authenticate(issuer.token()))
    await asyncio.sleep(0.05)
    patient = asyncio.create_task(tokens.authenticate(issuer.token(sub="bob")))
    await asyncio.sleep(0.05)
    impatient.cancel()

    assert (await patient).principal_id == "token:bob"
    assert issuer.asked == 1


async def test_a_token_without_a_key_id_is_checked_by_the_only_key(
    issuer: Issuer, tokens: Tokens, clock: Clock
) -> None:
    nameless = SigningKey(key_id=None)
    issuer.published = [nameless.jwk, SigningKey("RS256").jwk]
    token = nameless.sign(claims())
    assert (await tokens.authenticate(token)).role == "analyst"

    issuer.published = [nameless.jwk, SigningKey(key_id="other").jwk]
    clock.now += 6
    assert await refusal(tokens, SigningKey(key_id="other").sign(claims(), kid="unknown")) == "invalid_token"
    assert await refusal(tokens, nameless.sign(claims(sub="bob"))) == "invalid_token"


def drip(handler: BaseHTTPRequestHandler) -> None:
    """One byte at a time, each soon enough to keep a time-out between bytes from striking."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(200):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


def without_end(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(1_000):
        handler.wfile.write(b" " * 100_000)


_PAIR = SigningKey("EdDSA")
_PRIVATE = jwt.algorithms.OKPAlgorithm.to_jwk(_PAIR.private, as_dict=True) | {"kid": "first"}
_PACKED = gzip.compress(json.dumps({"keys": [SigningKey().jwk]}).encode())

MISBEHAVIOUR: dict[str, Respond] = {
    "hangs up": hang_up,
    "fails": answer(b"", 500),
    "has moved": answer(b"", 404),
    "answers nothing": answer(b"", 204),
    "a page": answer(b"<html>Sign in</html>"),
    "no document": answer(b""),
    "bytes": answer(b"\xff\xfe\x00"),
    "a list": answer(b"[]"),
    "an empty object": answer(b"{}"),
    "no keys": answer(b'{"keys": []}'),
    "keys that are no list": answer(b'{"keys": {"first": {}}}'),
    "keys of no use": answer(b'{"keys": [null, 1, "x", [], {}, {"kty": "RSA"}, {"kty": "EC", "crv": "P-256"}]}'),
    "a shared secret": answer(b'{"keys": [{"kty": "oct", "kid": "first", "k": "AAAA", "alg": "HS256"}]}'),
    "a private key": answer(json.dumps({"keys": [_PRIVATE]}).encode()),
    "a key for encryption": answer(json.dumps({"keys": [SigningKey("RS256").jwk | {"use": "enc"}]}).encode()),
    "a key of another curve": answer(json.dumps({"keys": [SigningKey("ES384").jwk | {"alg": "ES256"}]}).encode()),
    "a deep document": answer(b'{"keys": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "cut short": answer(b'{"keys": [', **{"Content-Length": "500"}),
    "packed, though we asked for it unpacked": answer(_PACKED, **{"Content-Encoding": "gzip"}),
    "a zip bomb": answer(gzip.compress(b" " * 50_000_000), **{"Content-Encoding": "gzip"}),
    "without an end": without_end,
    "drips": drip,
    "silent": lambda _: time.sleep(1),
}


@pytest.mark.parametrize("respond", MISBEHAVIOUR.values(), ids=MISBEHAVIOUR)
async def test_an_issuer_that_misbehaves_is_away_soon_and_its_old_keys_stay(
    issuer: Issuer, tokens: Tokens, keys: IssuerKeys, clock: Clock, respond: Respond
) -> None:
    publish, issuer.respond = issuer.respond, respond
    started = time.monotonic()
    for number in range(3):  # the second and the third do not wait
        with pytest.raises(Unavailable) as caught:
            await tokens.authenticate(issuer.token(sub=f"{number}"))
        assert caught.value.code == "issuer_unavailable"
        assert caught.value.retry_after
    assert time.monotonic() - started < 3
    assert issuer.asked == 1

    issuer.respond = publish
    clock.now += 6
    assert (await tokens.authenticate(issuer.token())).role == "analyst"

    issuer.respond = respond
    clock.now += 6
    with pytest.raises(Unavailable):
        await tokens.authenticate(SigningKey(key_id="new").sign(claims()))
    assert issuer.asked == 3
    assert (await tokens.authenticate(issuer.token(sub="bob"))).principal_id == "token:bob"


async def test_keys_are_kept_for_a_day_while_the_issuer_is_away(issuer: Issuer, keys: IssuerKeys, clock: Clock) -> None:
    assert (await tokens_of(keys).authenticate(issuer.token())).role == "analyst"
    issuer.respond = answer(b"", 503)

    clock.now += 23 * 3_600
    assert (await tokens_of(keys).authenticate(issuer.token())).role == "analyst"
    clock.now += 2 * 3_600
    with pytest.raises(Unavailable):
        await tokens_of(keys).authenticate(issuer.token())


async def test_a_redirect_is_not_followed(issuer: Issuer, tokens: Tokens) -> None:
    with Issuer().serving() as attacker:
        issuer.respond = answer(b"", 302, Location=attacker.url)
        with pytest.raises(Unavailable):
            await tokens.authenticate(attacker.token())

        assert attacker.asked == 0


async def test_an_outage_is_logged_once_at_either_end(issuer: Issuer, tokens: Tokens, clock: Clock) -> None:
    issuer.respond, publish = answer(b"", 500), issuer.respond
    with capture_logs() as logs:
        for _ in range(5):
            clock.now += 6
            with pytest.raises(Unavailable):
                await tokens.authenticate(issuer.token())
        issuer.respond = publish
        clock.now += 6
        await tokens.authenticate(issuer.token())

    assert [line["event"] for line in logs] == ["issuer_lost", "issuer_keys_read"]


def test_a_malformed_key_does_not_hide_the_others() -> None:
    good = SigningKey(key_id="good")
    document = {"keys": [{"kty": "RSA", "n": 5, "kid": "bad"}, None, good.jwk, good.jwk | {"x": "AAAA"}]}

    assert list(read_keys(json.dumps(document).encode())) == [("ES256", "good")]


def test_no_more_than_a_hundred_keys_are_read() -> None:
    document = {"keys": [SigningKey(key_id="good").jwk | {"kid": f"{number}"} for number in range(1_000)]}

    assert len(read_keys(json.dumps(document).encode())) == 100


# Over HTTP


@asynccontextmanager
async def serving(
    published: Published, folder: Path, issuer: Issuer, **given_settings: Any
) -> AsyncIterator[tuple[httpx.AsyncClient, ApiKeys]]:
    """A client without a credential of a service that trusts the issuer, and the service's keys."""
    (folder / "policy.yml").write_text(POLICY)
    url = f"sqlite:///{folder / 'state.db'}"
    usual = {"state_url": url, "policy_file": folder / "policy.yml", **issuer.settings}
    state = open_state(url)
    app = create_app(service_settings(published, **(usual | given_settings)))
    async with app.router.lifespan_context(app), connect(app) as client:
        yield client, ApiKeys(state)
    state.dispose()


def bearing(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_a_token_and_a_key_open_the_same_door(synthetic: Published, tmp_path: Path, issuer: Issuer) -> None:
    async with serving(synthetic, tmp_path, issuer) as (client, keys):
        key = keys.create("a key", role="analyst")
        for headers in (bearing(issuer.token()), {"X-API-Key": issuer.token()}, bearing(key), {"X-API-Key": key}):
            assert (await client.get("/v1/metrics", headers=headers)).status_code == 200
        for headers in (bearing(issuer.token()[:-5]), bearing("hello"), {"X-API-Key": "hello"}):
            refused = await client.get("/v1/metrics", headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (401, "invalid_token")
            assert refused.headers["www-authenticate"].startswith("Bearer")
        refused = await client.get("/v1/metrics", headers=bearing(f"{key[:-1]}!"))
        assert (refused.status_code, refused.json()["code"]) == (401, "invalid_key")


async def test_a_role_that_the_policy_does_not_have_is_forbidden_everywhere(
    synthetic: Published, tmp_path: Path, issuer: Issuer
) -> None:
    async with serving(synthetic, tmp_path, issuer) as (client, _):
        for path in ("/v1/metrics", "/v1/freshness", "/v1/publications"):
            refused = await client.get(path, headers=bearing(issuer.token(role="stranger")))
            assert (refused.status_code, refused.json()["code"]) == (403, "unknown_role")


async def test_a_claim_of_the_token_filters_the_rows(synthetic: Published, tmp_path: Path, issuer: Issuer) -> None:
    question = {"metrics": ["line_count", "total_revenue"], "group_by": ["customer__location"]}
    explicit = question | {"where": [{"field": "customer__location", "op": "in", "values": ["Chicago", "California"]}]}

    async with serving(synthetic, tmp_path, issuer) as (client, _):

        async def ask(body: dict[str, Any], **changes: Any) -> httpx.Response:
            return await client.post("/v1/query", json=body, headers=bearing(issuer.token(**changes)))

        expected = (await ask(explicit)).json()["data"]
        both = await ask(question, role="regional", regions=["Chicago", "California"])
        one = await ask(question, role="regional", regions="Chicago")
        refused = [await ask(question, role="regional", regions=value) for value in (None, [], 7, ["Chicago", 7])]

    assert len(expected) == 2
    assert both.json()["data"] == expected
    assert [row["customer__location"] for row in one.json()["data"]] == ["Chicago"]
    assert [(answer.status_code, answer.json()["code"]) for answer in refused] == [(403, "missing_claim")] * 4


async def test_while_the_issuer_is_away_tokens_wait_and_keys_do_not(
    synthetic: Published, tmp_path: Path, issuer: Issuer
) -> None:
    issuer.respond = answer(b"", 500)
    async with serving(synthetic, tmp_path, issuer) as (client, keys):
        key = keys.create("a key", role="analyst")
        refused = await client.get("/v1/metrics", headers=bearing(issuer.token()))

        assert (refused.status_code, refused.json()["code"]) == (503, "issuer_unavailable")
        assert int(refused.headers["retry-after"]) >= 1
        assert "www-authenticate" not in refused.headers
        assert (await client.get("/v1/metrics", headers=bearing(key))).status_code == 200


async def test_a_service_starts_while_the_issuer_is_away(synthetic: Published, tmp_path: Path) -> None:
    with Issuer().serving() as issuer:
        pass
    started = time.monotonic()
    async with serving(synthetic, tmp_path, issuer) as (client, _):
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.get("/v1/metrics", headers=bearing(issuer.token()))).status_code == 503
    assert time.monotonic() - started < 20


async def test_without_an_issuer_a_token_is_no_key(api: httpx.AsyncClient, issuer: Issuer) -> None:
    refused = await api.get("/v1/metrics", headers=bearing(issuer.token()))

    assert (refused.status_code, refused.json()["code"]) == (401, "invalid_key")
    assert issuer.asked == 0


async def test_a_subject_that_is_a_keys_id_is_another_principal(
    synthetic: Published, tmp_path: Path, issuer: Issuer
) -> None:
    async with serving(synthetic, tmp_path, issuer) as (client, keys):
        keys.create("a key", role="analyst")
        key_id = keys.records()[0].key_id
        with capture_logs([named]) as logs:
            await client.post("/v1/query", json={"metrics": ["line_count"]}, headers=bearing(issuer.token(sub=key_id)))

    assert {line["principal"] for line in logs if line["event"] == "request"} == {f"token:{key_id}"}
