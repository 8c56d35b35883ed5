"""What documents are asked: the right page among the first three passages, or that they do not say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from clients.documents.errors import NoText
from clients.documents.library import Library
from tests.clients.documents.asked import ANSWERED, BITCOIN, EMAILS, MARKETS, METRICS, UNANSWERED
from tests.clients.documents.made import made_pdf

HANDBOOK = (
    "Returns. Customers may send goods back within 45 days of delivery. The parcel label is printed at home.",
    "Shipping. Orders over 60 dollars travel free of charge. Express couriers deliver on Saturdays as well.",
    "Vouchers. A voucher expires twelve months after it was issued, and cannot be exchanged for cash.",
    "Warehouse. The depot in Antwerp holds 14,000 pallets. Forklifts are inspected every quarter.",
    "Privacy. Addresses are deleted five years after the last order. The data officer is Ingrid Solberg.",
)
HANDBOOK_ASKED = (
    ("How many days after delivery can goods be sent back?", 1),
    ("From which amount do orders travel free of charge?", 2),
    ("Do couriers deliver on Saturdays?", 2),
    ("When does a voucher expire?", 3),
    ("How many pallets does the depot hold?", 4),
    ("How often are forklifts inspected?", 4),
    ("Who is the data officer?", 5),
    ("When are addresses deleted?", 5),
)


@pytest.fixture(scope="module")
def handbook(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """A library with one document, which no test changes."""
    library = Library(tmp_path_factory.mktemp("handbook"))
    library.add("handbook.pdf", made_pdf(HANDBOOK))
    return library


@pytest.mark.parametrize(("question", "page"), HANDBOOK_ASKED)
def test_the_page_that_answers_is_cited_and_quoted(handbook: Library, question: str, page: int) -> None:
    reply = handbook.answer(question)

    assert reply.is_found
    assert reply.passages[0].page == page
    assert reply.passages[0].document == "handbook.pdf"
    assert " ".join(HANDBOOK[page - 1].split()) == reply.passages[0].text


@pytest.mark.parametrize("question", UNANSWERED)
def test_what_no_document_answers_is_not_in_the_documents(handbook: Library, question: str) -> None:
    reply = handbook.answer(question)

    assert not reply.is_found
    assert reply.passages == ()
    assert reply.text == "That is not in the documents."


def test_the_samples_answer_nine_in_ten_and_nothing_is_made_up(
    samples: Path, library: Library, record_property: Callable[[str, object], None]
) -> None:
    for name in (BITCOIN, METRICS, MARKETS, EMAILS):
        library.add(name, (samples / name).read_bytes())

    missed = []
    for question, document, pages in ANSWERED:
        passages = library.answer(question).passages
        if not any(passage.document == document and passage.page in pages for passage in passages):
            missed.append(question)
    made_up = [question for question in UNANSWERED if library.answer(question).is_found]

    record_property(
        "score",
        f"{len(ANSWERED) - len(missed)} of {len(ANSWERED)} on the right page, missed: {missed}\n"
        f"{len(UNANSWERED) - len(made_up)} of {len(UNANSWERED)} not found",
    )
    assert len(missed) <= 0.1 * len(ANSWERED)
    assert made_up == []


def test_a_scan_is_reported_as_one(samples: Path, library: Library) -> None:
    with pytest.raises(NoText, match="pictures"):
        library.add("scan.pdf", (samples / "scanned-page-without-text-layer.pdf").read_bytes())


def test_a_scan_that_tests_make_is_reported_as_one_and_pages_without_text_are_counted(library: Library) -> None:
    with pytest.raises(NoText, match="pictures"):
        library.add("scan.pdf", made_pdf(["", ""]))

    assert library.add("half.pdf", made_pdf(["Some words.", ""])).empty_pages == 1
    assert [document.name for document in library.documents()] == ["half.pdf"]


def test_a_follow_up_is_understood_with_the_question_before(handbook: Library) -> None:
    alone = handbook.answer("and how many pallets does it hold?")
    after = handbook.answer("who inspects them?", before=["How often are forklifts inspected?"])

    assert alone.passages[0].page == 4
    assert after.passages[0].page == 4


def test_a_document_that_comes_again_replaces_the_first(library: Library) -> None:
    library.add("handbook.pdf", made_pdf(HANDBOOK))
    library.add("handbook.pdf", made_pdf(["A voucher expires after three weeks."]))

    reply = library.answer("When does a voucher expire?")

    assert [document.pages for document in library.documents()] == [1]
    assert [passage.text for passage in reply.passages] == ["A voucher expires after three weeks."]


@pytest.mark.parametrize(
    "question",
    ["", "?", "the", '"', "a OR b) NOT (", "NEAR(x y)", "voucher*", "text: voucher", "x" * 100_000, "\0\ud800"],
)
def test_no_question_is_an_error(handbook: Library, question: str) -> None:
    handbook.answer(question)
