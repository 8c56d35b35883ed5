"""Where requests to named addresses may go (S15): no spelling, name, redirect or second look-up leads inside."""

from __future__ import annotations

import asyncio
import re
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import pytest
import trustme
from authlib.integrations.starlette_client import StarletteOAuth2App

from api.errors import Unavailable
from api.issuer import IssuerKeys
from clients.chatbot.served import guard_sign_in
from clients.chatbot.settings import ChatSettings
from outgoing import AddressRefused, GuardedTransport, check_url, checked_addresses, is_internal
from tests.conftest import REPOSITORY
from workers.errors import ApiRefused
from workers.producers.coingecko import CoinGecko
from workers.producers.ledger import Ledger
from workers.producers.polling import Poller
from workers.producers.sources import Api

INTERNAL = (
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.7",
    "100.64.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001:0:7f00:1::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%lo",
    "fec0::1",
    "ff02::1",
)
PUBLIC = ("8.8.8.8", "1.1.1.1", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808")

# Other ways to write 127.0.0.1, 169.254.169.254 and ::1; what the system's resolver makes of them counts.
SPELLINGS = (
    "2130706433",
    "0x7f000001",
    "0x7F.0.0.1",
    "017700000001",
    "0177.0.0.1",
    "127.1",
    "127.0.1",
    "127.0.0.1.",
    "0",
    "2852039166",
    "0xA9FEA9FE",
    "169.254.43518",
    "169.16689662",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "db.localhost",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[fe80::1%25lo]",
    "[fd00:ec2::254]",
)
NO_URLS = (
    "",
    "https://",
    "https:///v1",
    "https://[::1",
    "https://example.com:99999/",
    "https://example.com:port/",
    "https://user:secret@example.com/",
    "https://8.8.8.8@127.0.0.1/",
    "https://example.com\\@127.0.0.1/",
    "//example.com",
    "example.com/v1",
    "file:///etc/passwd",
    "ftp://example.com/",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "data:,x",
    "unix:/run/docker.sock",
    "http://example.com/v1",
    "HTTP://example.com/v1",
)


class Names:
    """What names lead to: an answer for each time that one is asked for, the last again and again."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self.answers = {name.replace("_", "."): list(given) for name, given in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, _port: int) -> Sequence[str]:
        self.asked.append(host)
        answers = self.answers.get(host, [[host]] if host[0].isdigit() else None)
        if answers is None:
            raise OSError("no such name")
        return answers.pop(0) if len(answers) > 1 else answers[0]


class Place:
    """A server that keeps what it is asked, as host and path; `location` sends whoever asks elsewhere."""

    def __init__(self, address: str, certificate: trustme.LeafCert | None) -> None:
        self.asked: list[tuple[str, str]] = []
        self.location = ""
        place = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                place.asked.append((self.headers["Host"].partition(":")[0], self.path))
                self.send_response(307 if place.location and self.path != "/secret" else 200)
                self.send_header("Location", place.location)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def do_CONNECT(self) -> None:
                place.asked.append(("CONNECT", self.path))
                self.send_error(502)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer((address, 0), Handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificate.configure_cert(context)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_port


@contextmanager
def place(address: str = "127.0.0.1", certificate: trustme.LeafCert | None = None) -> Iterator[Place]:
    made = Place(address, certificate)
    threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()


async def got(url: str, *hosts: str, names: Names | None = None, **more: object) -> httpx2.Response:
    """What is answered; redirects are followed, as clients may."""
    guarded = GuardedTransport(hosts, **({"resolve": names} if names else {}), **more)  # type: ignore[arg-type]
    async with httpx2.AsyncClient(transport=guarded, follow_redirects=True, timeout=5) as client:
        return await client.get(url)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize("address", INTERNAL)
async def test_an_internal_address_is_refused_as_such_and_behind_a_name(address: str) -> None:
    assert is_internal(address)
    names = Names(model_example=[["8.8.8.8", address]])

    with pytest.raises(AddressRefused, match="internal") as refused:
        await got("https://model.example/v1", names=names)

    assert "model.example" in refused.value.hint
    assert "INSIGHT_INTERNAL_HOSTS" in refused.value.hint


@pytest.mark.parametrize("address", PUBLIC)
async def test_a_public_address_is_not(address: str) -> None:
    assert not is_internal(address)
    host = f"[{address}]" if ":" in address else address

    assert await checked_addresses(httpx2.URL(f"https://{host}/"), internal_hosts=()) == [address]


@pytest.mark.parametrize("host", SPELLINGS)
async def test_no_spelling_of_an_internal_address_passes(host: str) -> None:
    with pytest.raises((AddressRefused, httpx2.InvalidURL)):
        await got(f"https://{host}/v1")
    with pytest.raises(AddressRefused):
        check_url(f"https://{host}/v1", internal_hosts=())


@pytest.mark.parametrize("host", [host for host in SPELLINGS if host.isascii() and not host.startswith("[")])
async def test_what_the_url_does_not_show_its_look_up_does(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outgoing.addresses._spelt", lambda _: None)

    with pytest.raises((AddressRefused, httpx2.ConnectError, httpx2.InvalidURL)):
        await got(f"https://{host}/v1")


@pytest.mark.parametrize("url", NO_URLS)
def test_what_is_no_public_https_url_is_refused_without_its_text(url: str) -> None:
    with pytest.raises(AddressRefused) as refused:
        check_url(url, internal_hosts=("127.0.0.1",) if "@" in url else ())

    assert "INSIGHT_INTERNAL_HOSTS" in refused.value.hint
    assert "secret" not in f"{refused.value} {refused.value.hint}"


async def test_a_host_that_is_named_may_be_internal_and_unencrypted_and_no_other() -> None:
    with place() as inside:
        response = await got(f"http://127.0.0.1:{inside.port}/v1", "127.0.0.1")
        by_name = await got(f"http://LocalHost:{inside.port}/v2", "localhost")
        for other in ("127.0.0.2", "localhost", "2130706433", "[::ffff:127.0.0.1]"):
            with pytest.raises(AddressRefused):
                await got(f"http://{other}:{inside.port}/v1", "127.0.0.1")

    assert (response.text, by_name.text) == ("ok", "ok")
    assert [path for _, path in inside.asked] == ["/v1", "/v2"]


async def test_a_redirect_leads_no_further_than_a_url_of_the_settings() -> None:
    with place() as inside:
        for location in (
            f"http://localhost:{inside.port}/secret",
            f"https://localhost:{inside.port}/secret",
            f"//127.1:{inside.port}/secret",
            f"http://0x7f000001:{inside.port}/secret",
        ):
            inside.location = location
            with pytest.raises((AddressRefused, httpx2.InvalidURL)):
                await got(f"http://127.0.0.1:{inside.port}/", "127.0.0.1")
        inside.location = "/secret"
        await got(f"http://127.0.0.1:{inside.port}/", "127.0.0.1")

    assert [path for _, path in inside.asked] == ["/"] * 5 + ["/secret"]


async def test_a_name_that_changes_between_look_ups_is_connected_to_as_it_was_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # 127.0.0.2 stands for a public address, so that a real connection can be seen to go there.
    monkeypatch.setattr("outgoing.addresses.is_internal", lambda address: address != "127.0.0.2")
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    names = Names(model_example=[["127.0.0.2"], ["127.0.0.1"]])
    with (
        place("127.0.0.2", authority.issue_cert("model.example")) as outside,
        place("127.0.0.1", authority.issue_cert("model.example")) as inside,
    ):
        url = f"https://model.example:{outside.port}/v1"
        async with httpx2.AsyncClient(
            transport=GuardedTransport((), resolve=names, verify=trusting), timeout=5
        ) as client:
            response = await client.get(url)
            assert names.asked == ["model.example"]  # once, so there is no second answer to go by
            with pytest.raises(AddressRefused):
                await client.get(url)

    assert response.text == "ok"
    assert outside.asked == [("model.example", "/v1")]
    assert inside.asked == []


async def test_the_certificate_has_to_be_of_the_name_though_the_number_is_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("outgoing.addresses.is_internal", lambda _: False)
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with place("127.0.0.1", authority.issue_cert("other.example", "127.0.0.1")) as other:
        url = f"https://model.example:{other.port}/v1"

        with pytest.raises(httpx2.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await got(url, names=Names(model_example=[["127.0.0.1"]]), verify=trusting)

    assert other.asked == []


async def test_one_address_that_nobody_answers_at_is_not_all_that_a_host_has() -> None:
    with place() as inside:
        names = Names(internal_example=[["127.0.0.9", "127.0.0.1"]])

        response = await got(f"http://internal.example:{inside.port}/v1", "internal.example", names=names)

    assert response.text == "ok"


async def test_a_look_up_that_hangs_ends_with_the_time_out_of_the_connection() -> None:
    async def hang(host: str, port: int) -> list[str]:
        await asyncio.sleep(60)
        return []

    async with httpx2.AsyncClient(transport=GuardedTransport((), resolve=hang), timeout=0.1) as client:
        with pytest.raises(httpx2.ConnectTimeout):
            await client.get("https://model.example/")


async def test_a_proxy_of_the_environment_is_used_and_is_no_way_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(internal_example=[["10.0.0.7"]])
    with place() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(httpx2.ProxyError):
            await got("https://model.example/v1", names=names)  # a name that the proxy alone knows
        with pytest.raises(AddressRefused):
            await got("https://internal.example/v1", names=names)
        with pytest.raises(AddressRefused):
            await got("https://169.254.169.254/latest", names=names)
        monkeypatch.setenv("NO_PROXY", "model.example")
        with pytest.raises(httpx2.ConnectError, match="no address"):
            await got("https://model.example/v1", names=names)

    assert proxy.asked == [("CONNECT", "model.example:443")]


# What makes connections by HTTP.
_MAKERS = re.compile(
    r"\b(httpx2?\.(Async)?Client\(|(Async)?OpenAI\(|Default\w*HttpxClient\(|\w*OAuth2Client\)|urlopen\(|ClientSession\("
    r"|PyJWKClient\(|HTTPS?Connection\(|import requests|httpx2?\.(get|post|stream|request)\()"
)


def test_every_way_out_is_guarded_but_that_to_the_service_itself() -> None:
    files = [file for root in ("api", "workers", "ml", "clients") for file in (REPOSITORY / root).rglob("*.py")]
    texts = {str(file.relative_to(REPOSITORY)): file.read_text(encoding="utf-8") for file in files}
    ways = {file: "GuardedTransport" in text for file, text in texts.items() if _MAKERS.search(text)}

    assert ways == {
        "api/issuer.py": True,
        "clients/chatbot/served.py": True,
        "clients/planner/llm/exchange.py": True,
        "workers/streaming.py": True,
        "clients/sdk/asynchronous.py": False,
        "clients/sdk/synchronous.py": False,
    }


@pytest.fixture
def _sign_in_as_before() -> Iterator[None]:
    usual = StarletteOAuth2App.client_cls
    yield
    StarletteOAuth2App.client_cls = usual


@pytest.mark.usefixtures("_sign_in_as_before")
async def test_an_issuer_leads_the_sign_in_no_further_than_it_may_go_itself() -> None:
    guard_sign_in(ChatSettings(INSIGHT_INTERNAL_HOSTS="127.0.0.1"))
    with place() as issuer:
        async with StarletteOAuth2App.client_cls(client_id="chat", client_secret="s") as client:
            answered = await client.request("GET", f"http://127.0.0.1:{issuer.port}/discovery", withhold_token=True)
            for endpoint in (f"http://localhost:{issuer.port}/token", "https://169.254.169.254/token"):
                with pytest.raises(AddressRefused):
                    await client.fetch_token(endpoint, code="code")

    assert answered.status_code == 200
    assert [path for _, path in issuer.asked] == ["/discovery"]


async def test_a_source_inside_is_refused_for_good_and_an_issuer_inside_is_lost(tmp_path: Path) -> None:
    with place() as inside:
        reached = Api(url=f"https://127.0.0.1:{inside.port}", key=None, every=timedelta(seconds=1), budgets=())
        async with httpx2.AsyncClient(transport=GuardedTransport(())) as client:
            poller = Poller(
                CoinGecko(), reached, client=client, ledger=Ledger(tmp_path / "ledger.db"), send=send_nothing
            )
            with pytest.raises(ApiRefused, match="internal") as refused:
                await poller.ask(CoinGecko().questions()[0])
        keys = IssuerKeys(f"https://127.0.0.1:{inside.port}/keys")
        with pytest.raises(Unavailable):
            await keys.find("first", "ES256")
        await keys.close()

    assert "INSIGHT_INTERNAL_HOSTS" in refused.value.hint
    assert inside.asked == []


async def send_nothing(messages: Sequence[object]) -> None:
    """Take the messages, and leave them."""
