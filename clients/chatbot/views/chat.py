"""The page of conversations."""

from __future__ import annotations

import streamlit as st

from clients.chatbot.conversation import Conversation, DataReply, Outcome, Topic, Turn
from clients.chatbot.desk import Desk
from clients.chatbot.understood import chips_of
from clients.chatbot.views.answers import show_answer
from clients.chatbot.views.documents import show_library, show_passages
from clients.chatbot.views.places import TO_ASK, current_desk
from clients.chatbot.views.plain import label, say
from clients.documents.reply import DocumentReply

_TITLES = {Topic.DATA: "Data", Topic.DOCUMENTS: "Documents"}
_PLACEHOLDERS = {
    Topic.DATA: "Ask about your metrics, such as: revenue by month",
    Topic.DOCUMENTS: "Ask about your documents",
}
_TOPIC = "topic"
_CHOSEN = "topic_chosen"


def page() -> None:
    """Show the open conversation on the chosen topic, and take the next question."""
    desk = current_desk()
    topic = _chosen_topic()
    _conversations(desk, topic)
    if topic is Topic.DOCUMENTS:
        show_library(desk)
    conversation = desk.open[topic]
    if not conversation.turns:
        _welcome(desk, topic)
    for position, turn in enumerate(conversation.turns):
        _show_turn(desk, conversation, position, turn)
    asked = st.chat_input(_PLACEHOLDERS[topic], max_chars=2_000) or st.session_state.pop(TO_ASK, None)
    if asked and asked.strip():
        _ask(desk, topic, asked.strip())


def _chosen_topic() -> Topic:
    # A widget's own state is forgotten while another page is shown, and one whose default changes is another widget.
    if _CHOSEN not in st.session_state:
        st.session_state[_CHOSEN] = st.session_state.get(_TOPIC, Topic.DATA)
    st.segmented_control(
        "Mode", list(Topic), format_func=_TITLES.__getitem__, required=True, label_visibility="collapsed", key=_CHOSEN
    )
    st.session_state[_TOPIC] = topic = Topic(st.session_state[_CHOSEN])
    return topic


def _welcome(desk: Desk, topic: Topic) -> None:
    if topic is Topic.DATA:
        st.subheader("What would you like to know?")
        for number, question in enumerate(desk.suggestions):
            _asking_button(question, key=f"suggestion-{number}")
    elif desk.library.documents():
        st.subheader("What do your documents say?")


def _show_turn(desk: Desk, conversation: Conversation, position: int, turn: Turn) -> None:
    with st.chat_message("user"):
        say(turn.question)
    key = f"{conversation.id}-{position}"
    with st.chat_message("assistant", avatar=":material/insights:"):
        match turn.reply:
            case DataReply():
                _show_data(desk, turn.reply, position, key=key, is_last=turn is conversation.turns[-1])
            case DocumentReply():
                show_passages(turn.reply)
            case None:
                say("This was not answered; ask again.")


def _show_data(desk: Desk, reply: DataReply, position: int, *, key: str, is_last: bool) -> None:
    match reply.outcome:
        case Outcome.ANSWERED:
            _show_chips(desk, reply, position, key)
            show_answer(reply, desk.analyst, url=desk.url, key=key)
        case Outcome.FAILED:
            st.error(label(reply.text), icon=":material/error:")
            st.caption(label(reply.hint))
            if reply.request is not None and st.button("Try again", key=f"{key}-again", icon=":material/refresh:"):
                desk.answer_anew(Topic.DATA, position)
                st.rerun()
        case Outcome.UNCLEAR | Outcome.DECLINED:
            say(reply.text)
    if is_last:  # an old question is not open any more
        for number, choice in enumerate(reply.choices):
            _asking_button(choice, key=f"{key}-choice-{number}")


def _show_chips(desk: Desk, reply: DataReply, position: int, key: str) -> None:
    """What was understood; a piece that is clicked away is left out of the next request."""
    chips = list(chips_of(reply.request or {}, desk.analyst.snapshot))
    name = f"{key}-chips"

    def changed() -> None:
        gone = [chip for chip in chips if chip not in st.session_state[name]]
        st.session_state[name] = chips  # this turn stays as it was; the change is a turn of its own
        desk.take_away(position, *gone)

    st.pills(
        "Understood as (click a piece to take it away)",
        chips,
        default=None if name in st.session_state else chips,
        selection_mode="multi",
        format_func=lambda chip: label(chip.text),
        key=name,
        on_change=changed,
    )


def _asking_button(question: str, *, key: str) -> None:
    def asked() -> None:
        st.session_state[TO_ASK] = question

    st.button(label(question), key=key, on_click=asked)


def _ask(desk: Desk, topic: Topic, question: str) -> None:
    with st.chat_message("user"):
        say(question)
    with st.chat_message("assistant", avatar=":material/insights:"), st.spinner("Looking it up…"):
        desk.ask(topic, question)
    st.rerun()


def _conversations(desk: Desk, topic: Topic) -> None:
    with st.sidebar:
        st.subheader("Conversations")
        if st.button("New conversation", icon=":material/add:", width="stretch"):
            desk.begin(topic)
            st.rerun()
        for entry in desk.history.entries(topic):
            is_open = entry.id == desk.open[topic].id
            named, more = st.columns([5, 2], vertical_alignment="center", gap="small")
            with named:
                if st.button(
                    label(entry.name),
                    key=f"open-{entry.id}",
                    type="primary" if is_open else "tertiary",
                    width="stretch",
                ):
                    with st.spinner("Asking anew…"):
                        desk.reopen(entry.id)
                    st.rerun()
            with more:
                _more(desk, entry.id, entry.name)


def _more(desk: Desk, id_: str, name: str) -> None:
    with st.popover("", icon=":material/more_vert:", key=f"more-{id_}", help="Rename or delete", type="tertiary"):
        with st.form(f"rename-{id_}", border=False):
            wanted = st.text_input("Name", name, max_chars=80)
            if st.form_submit_button("Rename") and wanted.strip():
                desk.rename(id_, wanted.strip())
                st.rerun()
        if st.button("Delete conversation", key=f"delete-{id_}", icon=":material/delete:"):
            desk.delete(id_)
            st.rerun()
