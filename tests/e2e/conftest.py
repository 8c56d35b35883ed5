"""The chatbot as a process of its own, and a browser before it. Every look is kept as a picture, in pytest's folder."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from tests.clients.conftest import running, running_key
from tests.server import Server, serve
from tests.services import free_port, required_binary
from tests.test_cli import INSIGHT

__all__ = ["running", "running_key", "serve"]

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


@dataclass(frozen=True, slots=True)
class Chat:
    """A running `insight chat`, and the folder it keeps things in."""

    url: str
    folder: Path


StartChat = Callable[..., Chat]


@pytest.fixture(scope="session")
def start_chat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartChat]:
    """Start a chatbot before a service, with a key or without one; it ends with the session."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(url: str, *, key: str | None) -> Chat:
        folder, port = tmp_path_factory.mktemp("chat"), free_port()
        environment = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
        environment |= {"INSIGHT_API_URL": url, "INSIGHT_CHAT_FOLDER": str(folder), "INSIGHT_CHAT_PORT": str(port)}
        environment |= {"INSIGHT_API_KEY": key} if key else {}
        with (folder / "chat.log").open("ab") as log:
            process = subprocess.Popen([INSIGHT, "chat"], env=environment, stdout=log, stderr=log)
        processes.append(process)
        chat = Chat(f"http://127.0.0.1:{port}", folder)
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


@pytest.fixture(scope="session")
def chat(start_chat: StartChat, running: Server, running_key: str) -> Chat:
    """A chatbot that signs in with the key of its environment."""
    return start_chat(running.url, key=running_key)


@pytest.fixture(scope="session")
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
        expect(self.page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")
        self.page.wait_for_timeout(300)  # charts and fades are drawn after the script has ended
        self.page.screenshot(path=self._pictures / f"{name}.png")

    def ask(self, question: str) -> Locator:
        """The reply to the question."""
        replies = self.page.get_by_test_id("stChatMessage")
        before = replies.count()
        self.page.get_by_test_id("stChatInputTextArea").fill(question)
        self.page.keyboard.press("Enter")
        expect(replies).to_have_count(before + 2)
        expect(self.page.get_by_text("Looking it up…")).to_have_count(0)
        return replies.nth(before + 1)

    def reply(self) -> Locator:
        """The last reply."""
        return self.page.get_by_test_id("stChatMessage").last


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
