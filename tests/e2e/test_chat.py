"""The chatbot as people meet it: in a browser, before a real service."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.clients.documents.made import made_pdf
from tests.e2e.conftest import Chat, Line, Visit
from tests.server import Server

LAUNCH = "The spring campaign starts on 14 March.\n\nIts budget is 82,000 dollars, most of it for email."
RETURNS = "Customers may send goods back within 45 days of delivery, in their original packaging."


def test_a_question_is_answered_with_number_chart_table_meaning_and_request(chat: Chat, visit: Visit) -> None:
    visitor = visit(chat)
    expect(visitor.page.get_by_role("button", name="Total revenue by month")).to_be_visible()
    visitor.look("start")

    reply = visitor.ask("revenue by month")

    expect(reply.get_by_text("Total revenue by month: highest")).to_be_visible()
    expect(reply.get_by_test_id("stVegaLiteChart").locator("canvas, svg").first).to_be_visible()
    expect(reply.get_by_test_id("stDataFrame")).to_be_visible()
    expect(reply.get_by_text("Data up to 2019-12-31")).to_be_visible()
    visitor.look("series")
    expect(reply.get_by_text("Total revenue by month: highest")).to_be_in_viewport()
    reply.get_by_text("What is counted").click()
    expect(reply.get_by_text("(USD):")).to_be_visible()
    with visitor.page.expect_download() as downloaded:
        reply.get_by_test_id("stDownloadButton").click()
    rows = list(csv.DictReader(io.StringIO(downloaded.value.path().read_text(encoding="utf-8"))))
    assert len(rows) == 12
    assert set(rows[0]) == {"metric_time__month", "total_revenue"}
    reply.get_by_text("Show request").click()
    expect(reply.get_by_text("/v1/query")).to_be_visible()
    reply.get_by_role("tab", name="SQL").click()
    expect(reply.get_by_text("SELECT", exact=False).first).to_be_visible()
    visitor.look("request")


def test_a_follow_up_goes_on_and_a_piece_is_taken_away(chat: Chat, visit: Visit) -> None:
    visitor = visit(chat)
    visitor.ask("revenue by location")
    reply = visitor.ask("only Chicago and California")
    expect(visitor.page.get_by_test_id("stChatMessage")).to_have_count(4)
    piece = reply.get_by_test_id("stButtonGroup").get_by_role("button", name="where location is one of")
    expect(piece).to_be_visible()
    visitor.look("follow-up")

    piece.click()

    expect(visitor.page.get_by_test_id("stChatMessage")).to_have_count(6)
    less = visitor.reply_to("Total revenue by location")
    expect(less.get_by_text("Total revenue by location: highest")).to_be_visible()
    expect(less.get_by_role("button", name="where location is one of")).to_have_count(0)
    visitor.look("taken-away")


def test_no_question_is_lost_however_fast_they_come(chat: Chat, visit: Visit) -> None:
    visitor = visit(chat)
    field = visitor.page.get_by_test_id("stChatInputTextArea")
    for question in ("revenue by location", "only Chicago", "by month"):
        field.fill(question)
        field.press("Enter")  # while the one before is still being answered

    expect(visitor.reply_to("by month").get_by_text("where location is Chicago: highest")).to_be_visible()
    expect(visitor.page.get_by_test_id("stChatMessage")).to_have_count(6)


def test_what_is_unclear_is_asked_back_and_a_choice_is_a_button(chat: Chat, visit: Visit) -> None:
    visitor = visit(chat)
    reply = visitor.ask("growth")
    visitor.look("clarify")

    reply.get_by_role("button", name="Revenue growth, month on month").click()

    grown = visitor.reply_to("Revenue growth, month on month")
    expect(grown.get_by_text("Revenue growth, month on month by month: highest")).to_be_visible()
    declined = visitor.ask("why did revenue fall?")
    expect(declined.get_by_text("not why")).to_be_visible()
    visitor.look("declined")


def test_documents_are_uploaded_asked_cited_and_deleted_and_each_mode_keeps_its_history(
    chat: Chat, visit: Visit
) -> None:
    visitor = visit(chat)
    visitor.ask("revenue")
    visitor.page.get_by_role("radio", name="Documents").or_(
        visitor.page.get_by_role("button", name="Documents")
    ).first.click()
    field = visitor.page.locator("input[type=file]")
    field.set_input_files(
        [
            {"name": "plan.pdf", "mimeType": "application/pdf", "buffer": made_pdf([LAUNCH, RETURNS])},
            {"name": "scan.pdf", "mimeType": "application/pdf", "buffer": made_pdf([""])},
        ]
    )
    expect(visitor.page.get_by_text("Your documents (1)")).to_be_visible()
    expect(visitor.page.get_by_text("its pages are pictures")).to_be_visible()
    visitor.look("uploaded")

    found = visitor.ask("How many days do customers have to send goods back?")
    expect(found.get_by_text("plan.pdf, page 2").first).to_be_visible()
    expect(found.get_by_text("within 45 days")).to_be_visible()
    visitor.look("cited")
    missing = visitor.ask("What is the capital of Mongolia?")
    expect(missing.get_by_text("That is not in the documents.")).to_be_visible()
    both = visitor.ask("How many days do customers have to send goods back, and what was our revenue in March?")
    expect(both.get_by_text("From the metrics, asked: what was our revenue in March")).to_be_visible()
    expect(both.get_by_text("Total revenue, from 2019-03-01 to 2019-03-31:")).to_be_visible()
    expect(both.get_by_text("From your documents, asked: How many days do customers have")).to_be_visible()
    expect(both.get_by_text("within 45 days")).to_be_visible()
    visitor.look("both")

    visitor.page.get_by_text("Data", exact=True).first.click()
    expect(visitor.page.get_by_test_id("stChatMessage")).to_have_count(2)
    visitor.page.get_by_text("Documents", exact=True).first.click()
    expect(visitor.page.get_by_test_id("stChatMessage")).to_have_count(6)

    visitor.unfold("Your documents (1)")
    visitor.page.get_by_role("button", name="Delete", exact=True).first.click()
    expect(visitor.page.get_by_text("Your documents (0)")).to_be_visible()
    expect(visitor.page.get_by_text("within 45 days")).to_have_count(0)
    visitor.look("deleted")


def test_a_conversation_is_found_again_renamed_and_deleted(chat: Chat, visit: Visit) -> None:
    visit(chat).ask("units sold by category")
    visitor = visit(chat)
    visitor.page.get_by_role("button", name="units sold by category").click()
    expect(visitor.reply_to("units sold by category").get_by_text("rows.")).to_be_visible()
    visitor.look("reopened")
    sidebar = visitor.page.get_by_test_id("stSidebar")

    more = sidebar.get_by_test_id("stPopover").first
    more.get_by_role("button").click()
    visitor.page.get_by_label("Name").fill("Units")
    visitor.page.get_by_role("button", name="Rename").click()
    expect(sidebar.get_by_role("button", name="Units", exact=True)).to_be_visible()
    visitor.page.reload()
    expect(sidebar.get_by_role("button", name="Units", exact=True)).to_be_visible()
    more.get_by_role("button").click()
    visitor.page.get_by_role("button", name="Delete conversation").click()
    expect(sidebar.get_by_role("button", name="Units", exact=True)).to_have_count(0)


def test_a_request_is_put_together_by_hand(chat: Chat, visit: Visit) -> None:
    visitor = visit(chat)
    reply = visitor.ask("orders in Chicago by month")
    reply.get_by_role("button", name="Edit in Explore").click()
    expect(visitor.page.get_by_text("Only where")).to_be_visible()
    expect(visitor.page.get_by_text("highest")).to_be_visible()
    visitor.look("explore")

    visitor.page.get_by_text("Show request").click()

    expect(visitor.page.get_by_text('"Chicago"')).to_be_visible()
    visitor.look("explore-request")


def test_a_phone_shows_everything_without_scrolling_sideways(chat: Chat, visit: Visit) -> None:
    visitor = visit(chat, width=390, height=844)
    reply = visitor.ask("revenue by category")
    expect(reply.get_by_text("Total revenue by product category: highest")).to_be_visible()
    visitor.look("phone")
    expect(reply.get_by_text("Total revenue by product category: highest")).to_be_in_viewport()
    field = visitor.page.get_by_test_id("stChatInput").bounding_box()
    sentence = reply.get_by_text("Total revenue by product category: highest").bounding_box()
    chart = reply.get_by_test_id("stVegaLiteChart").bounding_box()
    assert field is not None
    assert sentence is not None
    assert chart is not None
    assert 0 < sentence["y"] < field["y"] - sentence["height"]
    assert chart["y"] < field["y"] - 200

    overflow = visitor.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")

    assert overflow <= 0
    box = reply.get_by_test_id("stVegaLiteChart").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390


@pytest.fixture
def fragile(line: Line) -> Iterator[Line]:
    """The line to the service; whatever a test does to it, the next one finds it whole."""
    yield line
    line.restore()


def test_without_a_key_one_signs_in_and_a_service_that_goes_away_is_said(
    chat: Chat, fragile: Line, running: Server, visit: Visit
) -> None:
    visitor = visit(chat)
    visitor.page.get_by_role("button", name="Sign out").click()
    key = visitor.page.locator("input[type=password]")
    key.fill("mi_unknown_key")
    visitor.page.get_by_role("button", name="Sign in").click()
    expect(visitor.page.get_by_text("does not know this key")).to_be_visible()
    visitor.look("unknown-key")
    key.fill(running.key(role="narrow"))
    visitor.page.get_by_role("button", name="Sign in").click()

    reply = visitor.ask("revenue by category")
    reply.get_by_text("Show request").click()
    reply.get_by_role("tab", name="SQL").click()
    expect(reply.get_by_text("does not see SQL")).to_be_visible()
    expect(visitor.ask("average order value").get_by_text("I do not know what")).to_be_visible()
    visitor.look("narrow")

    fragile.cut()
    down = visitor.ask("units sold")
    expect(down.get_by_text("cannot be reached")).to_be_visible()
    expect(down.get_by_text("insight serve")).to_be_visible()
    visitor.look("down")
    fragile.restore()
    down.get_by_role("button", name="Try again").click()
    expect(visitor.reply_to("units sold").get_by_text("Units sold:")).to_be_visible()
    assert json.dumps(visitor.page.context.cookies()).count("mi_") == 0
