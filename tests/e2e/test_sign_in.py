"""Signing in at an issuer, in a browser: discovery, the code flow, and a token that the service checks itself."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import expect

from tests.clients.chatbot.identity import IdentityProvider
from tests.e2e.conftest import Chat, StartChat, Visit, Visitor
from tests.server import Server


@pytest.fixture(scope="module")
def signing(start_chat: StartChat, running: Server, running_key: str, provider: IdentityProvider) -> Chat:
    """A chatbot with an issuer; a key in its environment signs nobody in any more."""
    return start_chat(running.url, provider=provider, key=running_key)


def signed_in_as(visitor: Visitor, name: str) -> None:
    visitor.page.get_by_role("button", name="Sign in", exact=True).click()
    visitor.page.get_by_label("Name").fill(name)
    visitor.page.get_by_role("button", name="Continue").click()
    expect(visitor.page.get_by_text("What would you like to know?")).to_be_visible()


def test_who_signs_in_at_the_issuer_sees_what_the_role_in_the_token_sees(
    signing: Chat, provider: IdentityProvider, visit: Visit
) -> None:
    visitor = visit(signing)
    expect(visitor.page.get_by_role("button", name="Sign in", exact=True)).to_be_visible()
    visitor.look("sign-in")
    signed_in_as(visitor, "kim")

    expect(visitor.ask("revenue by category").get_by_text("Total revenue by product category: highest")).to_be_visible()
    expect(visitor.ask("average order value").get_by_text("I do not know what")).to_be_visible()  # of the role `narrow`
    visitor.look("signed-in")
    kept = json.dumps(visitor.page.context.storage_state()["origins"])
    assert "eyJ" not in kept
    assert all(cookie["httpOnly"] for cookie in visitor.page.context.cookies() if "user" in cookie["name"])

    visitor.page.get_by_role("button", name="Sign out").click()
    expect(visitor.page.get_by_role("button", name="Sign in", exact=True)).to_be_visible()
    signed_in_as(visitor, "ada")
    expect(visitor.ask("average order value").get_by_text("Average order value:")).to_be_visible()
    expect(visitor.page.get_by_role("button", name="revenue by category")).to_have_count(0)  # kim's
    assert provider.refused == []


def test_a_sign_in_that_has_run_out_is_said_and_renewed(
    signing: Chat, provider: IdentityProvider, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider, "lifetime_s", -60)  # as a token of an hour ago
    visitor = visit(signing)
    visitor.page.get_by_role("button", name="Sign in", exact=True).click()
    visitor.page.get_by_label("Name").fill("ada")
    visitor.page.get_by_role("button", name="Continue").click()
    expect(visitor.page.get_by_text("does not accept this sign-in any more")).to_be_visible()
    visitor.look("ran-out")

    monkeypatch.undo()
    visitor.page.get_by_role("button", name="Sign in again").click()
    visitor.page.get_by_label("Name").fill("ada")
    visitor.page.get_by_role("button", name="Continue").click()

    expect(visitor.page.get_by_text("What would you like to know?")).to_be_visible()
