"""Conversations about metrics, without a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from clients.chatbot.caller import owner_of, runs_out_at
from clients.chatbot.conversation import CombinedReply, Conversation, DataReply, Outcome, Topic
from clients.chatbot.desk import Desk
from clients.chatbot.settings import ChatSettings
from clients.chatbot.suggestions import suggested_questions
from clients.chatbot.understood import chips_of
from clients.documents.reply import DocumentReply
from clients.planner import Action, KeylessPlanner, Snapshot
from clients.sdk import ApiError
from tests.clients.chatbot.identity import IdentityProvider
from tests.clients.documents.made import made_pdf
from tests.server import Server

SignIn = Callable[..., Desk]


@pytest.fixture
def sign_in(running: Server, tmp_path: Path) -> Iterator[SignIn]:
    """Sign somebody in, who is signed out with the test."""
    desks: list[Desk] = []

    def sign_in(credential: str, folder: Path = tmp_path) -> Desk:
        desks.append(Desk(running.url, credential=credential, folder=folder))
        return desks[-1]

    yield sign_in
    for desk in desks:
        desk.close()


@pytest.fixture
def desk(sign_in: SignIn, running_key: str) -> Desk:
    return sign_in(running_key)


def last(conversation: Conversation) -> DataReply:
    reply = conversation.turns[-1].reply
    assert isinstance(reply, DataReply)
    return reply


def test_a_question_is_answered_and_the_next_one_goes_on(desk: Desk) -> None:
    desk.ask(Topic.DATA, "revenue by location")

    reply = last(desk.ask(Topic.DATA, "only Chicago"))

    assert reply.outcome is Outcome.ANSWERED
    assert reply.answer is not None
    assert [row["customer__location"] for row in reply.answer.rows] == ["Chicago"]


def test_what_is_unclear_comes_back_with_choices_one_of_which_answers_it(desk: Desk) -> None:
    unclear = last(desk.ask(Topic.DATA, "growth"))

    answered = last(desk.ask(Topic.DATA, unclear.choices[0]))

    assert (unclear.outcome, answered.outcome) == (Outcome.UNCLEAR, Outcome.ANSWERED)


def test_a_cause_is_declined(desk: Desk) -> None:
    assert last(desk.ask(Topic.DATA, "why did revenue fall?")).outcome is Outcome.DECLINED


def test_a_piece_that_is_taken_away_is_left_out_and_the_conversation_goes_on_from_there(desk: Desk) -> None:
    reply = last(desk.ask(Topic.DATA, "revenue by location in March 2019"))
    assert reply.request is not None
    chips = chips_of(reply.request, desk.analyst.snapshot)
    (period,) = (chip for chip in chips if chip.key == "time_range")

    less = last(desk.take_away(0, period))
    then = last(desk.ask(Topic.DATA, "only Chicago"))

    assert less.request == {"metrics": ["total_revenue"], "group_by": ["customer__location"]}
    assert then.request is not None
    assert then.request["group_by"] == ["customer__location"]
    assert then.request["where"][0]["values"] == ["Chicago"]
    assert "time_range" not in then.request


def test_the_last_metric_cannot_be_taken_away(desk: Desk) -> None:
    reply = last(desk.ask(Topic.DATA, "revenue"))
    assert reply.request is not None

    assert len(desk.take_away(0, *chips_of(reply.request, desk.analyst.snapshot)).turns) == 1


def test_a_conversation_is_found_again_with_fresh_answers_and_no_answer_was_kept(
    desk: Desk, sign_in: SignIn, running_key: str, tmp_path: Path
) -> None:
    said = desk.ask(Topic.DATA, "revenue by month")
    answer = last(said).answer
    assert answer is not None
    again = sign_in(running_key)

    (entry,) = again.history.entries(Topic.DATA)
    reopened = again.reopen(entry.id)

    assert reopened is not None
    assert (entry.name, reopened.questions) == ("revenue by month", ("revenue by month",))
    assert last(reopened).answer == answer | {"meta": last(reopened).answer.meta}  # type: ignore[union-attr]
    kept = b"".join(file.read_bytes() for file in tmp_path.rglob("conversations.db"))
    assert b"revenue by month" in kept
    assert str(answer.rows[0]["total_revenue"]).encode() not in kept
    assert running_key.encode() not in kept


def test_a_reopened_conversation_shows_no_more_than_the_rights_of_now(
    desk: Desk, sign_in: SignIn, running: Server, tmp_path: Path
) -> None:
    conversation = desk.ask(Topic.DATA, "customers by gender")
    assert last(conversation).outcome is Outcome.ANSWERED
    other = sign_in(running.key("less", role="chicago"), tmp_path / "other")
    other.history.save(conversation)

    reopened = other.reopen(conversation.id)

    assert reopened is not None
    assert last(reopened).outcome is not Outcome.ANSWERED
    assert last(reopened).answer is None


def test_conversations_are_renamed_and_deleted_and_nothing_of_them_stays(desk: Desk, tmp_path: Path) -> None:
    id_ = desk.ask(Topic.DATA, "revenue in Chicago").id
    desk.rename(id_, "Windy city")
    assert [entry.name for entry in desk.history.entries(Topic.DATA)] == ["Windy city"]

    desk.delete(id_)

    assert desk.history.entries(Topic.DATA) == []
    assert desk.open[Topic.DATA].turns == ()
    assert all(b"Chicago" not in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def test_each_topic_keeps_its_own_conversation(desk: Desk) -> None:
    desk.ask(Topic.DATA, "revenue")
    desk.ask(Topic.DOCUMENTS, "what is the budget?")

    assert desk.open[Topic.DATA].questions == ("revenue",)
    assert desk.open[Topic.DOCUMENTS].questions == ("what is the budget?",)


def test_users_have_folders_of_their_own_that_only_the_owner_of_the_process_may_read(
    desk: Desk, sign_in: SignIn, running: Server, tmp_path: Path
) -> None:
    desk.ask(Topic.DATA, "revenue")
    other = sign_in(running.key("other"))

    assert other.history.entries(Topic.DATA) == []
    folders = [folder for folder in tmp_path.iterdir() if folder.is_dir()]
    assert len(folders) == 2
    assert {folder.stat().st_mode & 0o077 for folder in folders} == {0}


def test_a_caller_is_known_by_what_the_service_verifies_and_not_by_the_secret() -> None:
    first, second = owner_of("http://x", "mi_abc_secret1"), owner_of("http://x", "mi_abc_secret2")
    token = "e30.eyJpc3MiOiAiaSIsICJzdWIiOiAicyIsICJleHAiOiAxfQ.x"
    later = "e30.eyJpc3MiOiAiaSIsICJzdWIiOiAicyIsICJleHAiOiAyfQ.y"

    assert first == second
    assert owner_of("http://x", token) == owner_of("http://x", later)
    names = {owner_of("http://x", each) for each in (None, "mi_abc_s", "mi_abd_s", token, "whatever", "what.ever")}
    assert len(names) == 6
    assert owner_of("http://y", "mi_abc_s") not in names


def test_an_unknown_key_and_a_service_that_is_away_are_said(running: Server, tmp_path: Path) -> None:
    with pytest.raises(ApiError) as unknown:
        Desk(running.url, credential="mi_no_key", folder=tmp_path)
    with pytest.raises(ApiError) as away:
        Desk("http://127.0.0.1:9", credential="mi_no_key", folder=tmp_path)

    assert unknown.value.status == 401
    assert away.value.code == "unreachable"
    assert list(tmp_path.iterdir()) == []  # nobody has a folder before the service knows them


PLAN = (
    "The spring campaign starts on 14 March. Its budget is 82,000 dollars, most of it for email.",
    "Customers may send goods back within 45 days of delivery, in their original packaging.",
)
BOTH = [
    ("What was our revenue in March, and when does the spring campaign start?", "total_revenue", 1),
    ("How many days do customers have to send goods back and how many orders were there in May?", "order_count", 2),
    ("Units sold in Chicago; what is the budget of the spring campaign?", "units_sold", 1),
    ("Is the revenue of March 2019 above the budget of the spring campaign?", "total_revenue", 1),
    ("Orders by month compared with the packaging in which goods may be sent back?", "order_count", 2),
    ("Umsatz im März und within how many days of delivery may customers send goods back?", "total_revenue", 2),
]


@pytest.mark.parametrize("topic", list(Topic))
@pytest.mark.parametrize(("question", "metric", "page"), BOTH)
def test_a_question_of_two_parts_is_answered_from_both_and_says_which_is_from_where(
    desk: Desk, topic: Topic, question: str, metric: str, page: int
) -> None:
    desk.library.add("plan.pdf", made_pdf(PLAN))

    reply = desk.ask(topic, question).turns[-1].reply

    assert isinstance(reply, CombinedReply)
    assert reply.figure.request is not None
    assert reply.figure.request["metrics"] == [metric]
    assert reply.figure.answer is not None
    assert reply.statement.passages[0].page == page
    assert reply.asked_figure in question
    assert reply.asked_statement in question


@pytest.mark.parametrize(
    "question",
    [
        "revenue and orders by month",
        "What is our profit margin and the weather in Mongolia?",
        "When does the spring campaign start, and why?",
        "revenue in March",
    ],
)
def test_nothing_is_cut_in_two_that_is_one_question_or_has_an_answer_on_one_side_alone(
    desk: Desk, question: str
) -> None:
    desk.library.add("plan.pdf", made_pdf(PLAN))

    assert isinstance(desk.ask(Topic.DATA, question).turns[-1].reply, DataReply)


def test_a_conversation_about_documents_does_not_ask_the_metrics_for_what_a_document_says(desk: Desk) -> None:
    desk.library.add("plan.pdf", made_pdf(PLAN))

    reply = desk.ask(Topic.DOCUMENTS, "What is the budget, and when does the spring campaign start?").turns[-1].reply

    assert isinstance(reply, DocumentReply)


def test_a_reply_of_two_parts_goes_on_is_kept_without_its_answers_and_forgets_a_deleted_document(
    desk: Desk, sign_in: SignIn, running_key: str, tmp_path: Path
) -> None:
    desk.library.add("plan.pdf", made_pdf(PLAN))
    said = desk.ask(Topic.DATA, BOTH[0][0])
    then = last(desk.ask(Topic.DATA, "and in April?"))
    assert then.request == {
        "metrics": ["total_revenue"], "time_range": {"start": "2019-04-01", "end": "2019-04-30"},
    }  # fmt: skip
    assert all(b"82,000" not in file.read_bytes() for file in tmp_path.rglob("conversations.db"))

    reopened = sign_in(running_key).reopen(said.id)
    desk.delete_document("plan.pdf")

    assert reopened is not None
    kept = reopened.turns[0].reply
    assert isinstance(kept, CombinedReply)
    assert kept.statement.passages[0].page == 1
    gone = desk.open[Topic.DATA].turns[0].reply
    assert isinstance(gone, CombinedReply)
    assert gone.statement.passages == ()


def test_a_model_at_an_address_inside_is_a_reply_that_says_what_to_do(
    sign_in: SignIn, running_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSIGHT_LLM_MODEL", "m")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")

    reply = last(sign_in(running_key).ask(Topic.DATA, "revenue by month"))

    assert reply.outcome is Outcome.FAILED
    assert "not encrypted" in reply.text
    assert "INSIGHT_INTERNAL_HOSTS" in reply.hint


def test_a_token_says_when_it_runs_out_and_a_key_does_not() -> None:
    token = "e30.eyJpc3MiOiAiaSIsICJzdWIiOiAicyIsICJleHAiOiAxfQ.x"

    assert runs_out_at(token) == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    for other in ("mi_abc_secret", "", "a.b", "e30.e30.x", "a.!.c"):
        assert runs_out_at(other) is None


def test_whose_token_it_is_the_service_checks(
    running: Server, provider: IdentityProvider, sign_in: SignIn, tmp_path: Path
) -> None:
    ada, kim = sign_in(provider.token("ada")), sign_in(provider.token("kim"))

    assert "average_order_value" in ada.analyst.snapshot.metrics
    assert set(kim.analyst.snapshot.metrics) == {"total_revenue", "units_sold"}
    ada.ask(Topic.DATA, "revenue")
    assert kim.history.entries(Topic.DATA) == []
    assert len(sign_in(provider.token("ada")).history.entries(Topic.DATA)) == 1  # another token of the same person
    for bad in (provider.token("ada", audience="chatbot"), provider.token("ada", exp=1), provider.token("ada") + "x"):
        with pytest.raises(ApiError) as refused:
            sign_in(bad)
        assert refused.value.status == 401


@pytest.mark.parametrize(
    "given",
    [
        {"metadata_url": "https://login.example/x"},
        {"metadata_url": "http://login.example/x"},
        {"metadata_url": "https://user:secret@login.example/x"},
        {"redirect_url": "https://chat.example/elsewhere"},
        {"cookie_secret": "short"},
        {"token": "refresh"},
    ],
)
def test_half_a_sign_in_or_an_unsafe_one_stops_the_start(given: dict[str, str]) -> None:
    whole = {
        "metadata_url": "https://login.example/.well-known/openid-configuration",
        "client_id": "chat",
        "client_secret": "s",
        "redirect_url": "https://chat.example/oauth2callback",
        "cookie_secret": "c" * 32,
    }
    settings = ChatSettings(**{f"oidc_{name}": value for name, value in whole.items()})
    changed = given if given.get("metadata_url") == "https://login.example/x" else whole | given

    assert settings.sign_in_secrets["auth"]["expose_tokens"] == ["access"]
    assert ChatSettings().sign_in_secrets == {}
    with pytest.raises(ValidationError):
        ChatSettings(**{f"oidc_{name}": value for name, value in changed.items()})


def test_suggested_questions_are_ones_that_the_catalog_answers(snapshot: Snapshot) -> None:
    questions = suggested_questions(snapshot)

    assert len(questions) == 4
    assert {KeylessPlanner(snapshot).plan([question]).action for question in questions} == {Action.QUERY}


def test_a_narrow_role_is_suggested_nothing_that_it_may_not_see(sign_in: SignIn, running: Server) -> None:
    narrow = sign_in(running.key("narrow", role="narrow"))

    for question in narrow.suggestions:
        assert last(narrow.ask(Topic.DATA, question)).outcome is Outcome.ANSWERED
