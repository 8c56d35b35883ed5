"""The chatbot as a process of its own, and a browser before it. Every look is kept as a picture, in pytest's folder."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from tests.clients.chatbot.identity import IdentityProvider
from tests.clients.conftest import provider, running, running_key
from tests.server import Server
from tests.services import free_port, required_binary
from tests.test_cli import INSIGHT

__all__ = ["provider", "running", "running_key"]

# Streamlit imports for two seconds and draws in one; a busy machine gets twenty times that.
_PATIENCE_S = 15.0
# As root, without a screen, and without calling home.
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# Two frames, as it begins to move with the next one; a movement that is taken back has ended, too.
_ONCE_IT_STANDS = """async folded => {
    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
    await Promise.allSettled(folded.getAnimations({subtree: true}).map(moving => moving.finished));
}"""


@dataclass(frozen=True, slots=True)
class Chat:
    """A running `insight chat`, and the folder it keeps things in."""

    url: str
    folder: Path


StartChat = Callable[..., Chat]


@pytest.fixture(scope="session")
def start_chat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartChat]:
    """Start a chatbot before a service, with a key, or with somebody who signs people in; it ends with the session."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(url: str, *, provider: IdentityProvider | None = None, key: str | None = None) -> Chat:
        folder, port = tmp_path_factory.mktemp("chat"), free_port()
        chat = Chat(f"http://127.0.0.1:{port}", folder)
        environment = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
        environment |= {"INSIGHT_API_URL": url, "INSIGHT_CHAT_FOLDER": str(folder), "INSIGHT_CHAT_PORT": str(port)}
        environment |= {"INSIGHT_API_KEY": key} if key else {}
        environment |= provider.chat_settings(chat.url) if provider else {}
        with (folder / "chat.log").open("ab") as log:
            process = subprocess.Popen([INSIGHT, "chat"], env=environment, stdout=log, stderr=log)
        processes.append(process)
        _wait_for(chat, process)
        return chat

    yield start
    for process in processes:
        process.kill()
        process.wait()


def _wait_for(chat: Chat, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            if httpx.get(f"{chat.url}/_stcore/health", timeout=1).is_success:
                return
        except httpx.HTTPError:
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"the chatbot did not start:\n{(chat.folder / 'chat.log').read_text()[-3_000:]}")
        time.sleep(0.1)


class Line:
    """What stands between chatbot and service, and can be cut: a service that is away, without starting it anew."""

    def __init__(self, server: Server) -> None:
        self.port = free_port()
        self._target = ("127.0.0.1", server.port)
        self._listener: socket.socket | None = None
        self._open: list[socket.socket] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def restore(self) -> None:
        """Let connections through. Idempotent."""
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port))
            Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        """Break every connection, and refuse new ones. Idempotent."""
        for each in (self._listener, *self._open):
            if each is not None:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()
        self._listener, self._open = None, []

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(self._target)
                self._open += [near, far]
                for source, target in ((near, far), (far, near)):
                    Thread(target=_passed_on, args=(source, target), daemon=True).start()


def _passed_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while content := source.recv(65_536):
            target.sendall(content)
    for each in (source, target):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="session")
def line(running: Server) -> Iterator[Line]:
    """The chatbot's line to the service."""
    line = Line(running)
    line.restore()
    yield line
    line.cut()


@pytest.fixture(scope="session")
def chat(start_chat: StartChat, line: Line, running_key: str) -> Chat:
    """A chatbot that signs in with the key of its environment; all walks share it."""
    return start_chat(line.url, key=running_key)


@pytest.fixture(scope="module")  # while it lives, a loop runs in this process, and no asynchronous test could
def browser() -> Iterator[Browser]:
    """A headless Chromium, where one is installed."""
    binary = required_binary("chromium")
    expect.set_options(timeout=_PATIENCE_S * 1_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=list(_FLAGS))
        yield browser
        browser.close()


class Visitor:
    """Somebody before the page; every look is a picture."""

    def __init__(self, page: Page, pictures: Path) -> None:
        self.page = page
        self._pictures = pictures

    def look(self, name: str) -> None:
        """Keep what there is to be seen, once it stands still."""
        self.stands_still()
        self.page.wait_for_timeout(
            300
        )  # charts and fades are drawn after the script has ended; nothing is tested by it
        self.page.screenshot(path=self._pictures / f"{name}.png")

    def ask(self, question: str) -> Locator:
        """The reply to the question, once it is all there."""
        field = self.page.get_by_test_id("stChatInputTextArea")
        field.fill(question)
        field.press("Enter")
        return self.reply_to(question)

    def reply_to(self, question: str) -> Locator:
        """The last reply, once it is all there and is one to this question."""
        messages = self.page.get_by_test_id("stChatMessage")
        expect(messages.nth(-2)).to_contain_text(question)
        self.stands_still()
        return messages.last

    def unfold(self, title: str) -> None:
        """Open what is folded, and wait until all of it stands: a click this fast misses a button that still moves."""
        found = self.page.get_by_text(title)
        found.click()
        found.locator("xpath=ancestor::details").evaluate(_ONCE_IT_STANDS)

    def stands_still(self) -> None:
        """Wait until nothing is computed any more; what ran before has left the page then."""
        expect(self.page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")


@pytest.fixture
def visit(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Visitor]]:
    """Open the chatbot in a browser that knows nothing yet."""
    pictures = tmp_path_factory.getbasetemp() / "pictures"
    pictures.mkdir(exist_ok=True)
    contexts = []

    def open_(chat: Chat, *, width: int = 1_100, height: int = 1_000) -> Visitor:
        context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True)
        contexts.append(context)
        context.set_default_timeout(_PATIENCE_S * 1_000)
        page = context.new_page()
        page.goto(chat.url)
        return Visitor(page, pictures)

    yield open_
    for context in contexts:
        context.close()


Visit = Callable[..., Visitor]
