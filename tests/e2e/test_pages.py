"""The page that describes the API, in a browser: all of it comes from this service, and a request can be tried."""

from __future__ import annotations

from urllib.parse import urlsplit

from playwright.sync_api import Browser, expect

from tests.server import Server


def test_a_request_is_tried_and_no_other_host_is_asked(browser: Browser, running: Server, running_key: str) -> None:
    with browser.new_page() as page:
        asked, faults = set[str](), list[str]()
        page.on("request", lambda request: asked.add(request.url))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.goto(f"{running.url}/docs")
        page.get_by_role("button", name="Authorize").click()
        key = page.locator(".auth-container").filter(has_text="HTTPBearer")
        key.get_by_role("textbox").fill(running_key)
        key.get_by_role("button", name="Apply credentials").click()
        page.get_by_role("button", name="Close").first.click()
        operation = page.locator("#operations-operations-list_publications")
        operation.get_by_role("button").first.click()
        operation.get_by_role("button", name="Try it out").click()
        operation.get_by_role("button", name="Execute").click()

        answer = operation.locator(".live-responses-table .response")
        expect(answer).to_contain_text('"current": true')
        expect(answer.locator(".response-col_status")).to_have_text("200")

    assert {urlsplit(url).netloc for url in asked if not url.startswith("data:")} == {urlsplit(running.url).netloc}
    assert f"{running.url}/v1/publications" in asked
    assert faults == []  # nothing that it tried was refused by its policy
