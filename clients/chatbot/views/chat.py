"""The page of conversations."""

from __future__ import annotations

import streamlit as st

from clients.chatbot.conversation import CombinedReply, Conversation, DataReply, Outcome, Topic, Turn
from clients.chatbot.desk import Desk
from clients.chatbot.understood import chips_of
from clients.chatbot.views.answers import show_answer
from clients.chatbot.views.documents import show_library, show_passages
from clients.chatbot.views.places import PAGES, REFUSED, TO_ASK, TO_EXPLORE, current_desk
from clients.chatbot.views.plain import label, say
from clients.documents.reply import DocumentReply

_TITLES = {Topic.DATA: "Data", Topic.DOCUMENTS: "Documents"}
_PLACEHOLDERS = {
    Topic.DATA: "Ask about your metrics, such as: revenue by month",
    Topic.DOCUMENTS: "Ask about your documents",
}
# Streamlit scrolls to the end of a reply, where its tools are; whoever asked looks for the sentence and the chart. The
# script is these words alone. It runs when its text changes, so once for each turn, until what is drawn stands still.
_TO_THE_LAST_QUESTION = """<script>/* {turn} */
(() => {{
  let left = 50, most = 200, timer;
  const again = () => {{
    const asked = [...document.querySelectorAll('[data-testid="stChatMessage"]')].at(-2);
    const top = asked?.getBoundingClientRect().top;
    // A wheel ends the scrolling of Streamlit's own that is under way, which would go on to the end otherwise.
    asked?.closest('[data-testid="stAppScrollToBottomContainer"]')?.dispatchEvent(new WheelEvent("wheel"));
    if (asked) {{ asked.style.scrollMarginTop = "4rem"; asked.scrollIntoView({{block: "start"}}); }}
    if (asked && Math.abs(asked.getBoundingClientRect().top - top) > 2) left = 50;
    if (left-- > 0 && most-- > 0) timer = setTimeout(again, 100);
  }};
  again();
  for (const kind of ["wheel", "touchstart", "keydown", "pointerdown"])
    addEventListener(kind, (event) => event.isTrusted && clearTimeout(timer), {{capture: true}});
}})();
</script>"""
_TOPIC = "topic"
_CHOSEN = "topic_chosen"


def page() -> None:
    """Show the open conversation on the chosen topic, and take the next question."""
    if TO_EXPLORE in st.session_state:
        st.switch_page(st.session_state[PAGES]["explore"])
    desk = current_desk()
    topic = _chosen_topic()
    _take_question(topic)
    _conversations(desk, topic)
    if topic is Topic.DOCUMENTS:
        show_library(desk)
    conversation, waiting = desk.open[topic], _waiting(topic)
    # Each in a place of its own: a question that moved once it is answered would stand there twice for a moment.
    welcome, talk = st.container(), st.container()
    if not conversation.turns and not waiting:
        with welcome:
            _welcome(desk, topic)
    with talk:
        for position, turn in enumerate(conversation.turns):
            _show_turn(desk, conversation, position, turn, is_last=turn is conversation.turns[-1] and not waiting)
        if waiting:
            _ask(desk, topic, waiting)
        if conversation.turns:
            where = f"{''.join(filter(str.isalnum, conversation.id))} {len(conversation.turns)}"
            st.html(_TO_THE_LAST_QUESTION.format(turn=where), unsafe_allow_javascript=True)


def _take_question(topic: Topic) -> None:
    typed, taken = f"typed-{topic}", f"taken-{topic}"

    def take() -> None:
        st.session_state[taken] = st.session_state[typed]
        _hear(topic, st.session_state[typed])

    question = st.chat_input(
        _PLACEHOLDERS[topic],
        max_chars=2_000,
        key=typed,
        on_submit=take,
        submit_mode="disable",  # of two that come within one run, Streamlit hands on the last alone
    )
    # A run that is ended before it comes here counts as one without the field: who types just then is not called back.
    if question and question != st.session_state.pop(taken, None):
        _hear(topic, question)


def _chosen_topic() -> Topic:
    # A widget's own state is forgotten while another page is shown, and one whose default changes is another widget.
    if _CHOSEN not in st.session_state:
        st.session_state[_CHOSEN] = st.session_state.get(_TOPIC, Topic.DATA)
    st.segmented_control(
        "Mode", list(Topic), format_func=_TITLES.__getitem__, required=True, label_visibility="collapsed", key=_CHOSEN
    )
    # A page that is loaded anew while its script still runs may hand back nothing for once.
    topic = Topic(st.session_state[_CHOSEN] or st.session_state.get(_TOPIC, Topic.DATA))
    st.session_state[_TOPIC] = topic
    return topic


def _welcome(desk: Desk, topic: Topic) -> None:
    if topic is Topic.DATA:
        st.subheader("What would you like to know?")
        for number, question in enumerate(desk.suggestions):
            _asking_button(topic, question, key=f"suggestion-{number}")
    elif desk.library.documents():
        st.subheader("What do your documents say?")


def _show_turn(desk: Desk, conversation: Conversation, position: int, turn: Turn, *, is_last: bool) -> None:
    with st.chat_message("user"):
        say(turn.question)
    key = f"{conversation.id}-{position}"
    with st.chat_message("assistant", avatar=":material/insights:"):
        match turn.reply:
            case DataReply():
                _show_data(desk, conversation.topic, turn.reply, position, key=key, is_last=is_last)
            case DocumentReply():
                show_passages(turn.reply)
            case CombinedReply():
                st.caption(f"**From the metrics**, asked: {label(turn.reply.asked_figure)}")
                _show_data(desk, conversation.topic, turn.reply.figure, position, key=key, is_last=is_last)
                st.caption(f"**From your documents**, asked: {label(turn.reply.asked_statement)}")
                show_passages(turn.reply.statement)
            case None:
                say("This was not answered; ask again.")


def _show_data(desk: Desk, topic: Topic, reply: DataReply, position: int, *, key: str, is_last: bool) -> None:
    match reply.outcome:
        case Outcome.ANSWERED:
            if topic is Topic.DATA:  # where a request without the piece can be the next turn
                _show_chips(desk, reply, position, key)
            show_answer(reply, desk.analyst, url=desk.url, key=key)
        case Outcome.FAILED:
            st.error(label(reply.text), icon=":material/error:")
            st.caption(label(reply.hint))
            if reply.request is not None:
                again = (topic, position)
                st.button(
                    "Try again", key=f"{key}-again", icon=":material/refresh:", on_click=desk.answer_anew, args=again
                )
        case Outcome.UNCLEAR | Outcome.DECLINED:
            say(reply.text)
    if is_last:  # an old question is not open any more
        for number, choice in enumerate(reply.choices):
            _asking_button(Topic.DATA, choice, key=f"{key}-choice-{number}")


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


def _asking_button(topic: Topic, question: str, *, key: str) -> None:
    st.button(label(question), key=key, on_click=_hear, args=(topic, question))


def _hear(topic: Topic, question: str) -> None:
    # What a widget says, it says to one run of the script; whatever else is clicked meanwhile ends that run and begins
    # another, which is not told. So a question waits in the session until it is answered.
    if question.strip():
        _waiting(topic).append(question.strip())
        st.session_state.pop(REFUSED, None)


def _waiting(topic: Topic) -> list[str]:
    """The questions on the topic that are still to be answered."""
    questions: list[str] = st.session_state.setdefault(f"{TO_ASK}-{topic}", [])
    return questions


def _ask(desk: Desk, topic: Topic, waiting: list[str]) -> None:
    """Answer the first of the questions that wait."""
    with st.chat_message("user"):
        say(waiting[0])
    with st.chat_message("assistant", avatar=":material/insights:"), st.spinner("Looking it up…"):
        try:
            desk.ask(topic, waiting[0])
        finally:  # before anything is drawn, which is where a run may end
            del waiting[0]
    st.rerun()


def _conversations(desk: Desk, topic: Topic) -> None:
    # Clicks are callbacks, as a question is: what stands behind `if st.button(…)` is lost with a run that ends early.
    with st.sidebar:
        st.subheader("Conversations")
        st.button(
            "New conversation", icon=":material/add:", width="stretch", on_click=lambda: _forget(desk.begin(topic))
        )
        for entry in desk.history.entries(topic):
            named, more = st.columns([5, 2], vertical_alignment="center", gap="small")
            named.button(
                label(entry.name),
                key=f"open-{entry.id}",
                type="primary" if entry.id == desk.open[topic].id else "tertiary",
                width="stretch",
                on_click=lambda id_=entry.id: _forget(desk.reopen(id_)),
            )
            with more:
                _more(desk, entry.id, entry.name)


def _forget(_: object) -> None:
    """Nothing: a callback returns nothing, and the page is drawn anew from the desk anyway."""


def _more(desk: Desk, id_: str, name: str) -> None:
    wanted = f"name-{id_}"

    def rename() -> None:
        if text := st.session_state[wanted].strip():
            desk.rename(id_, text)

    with st.popover("", icon=":material/more_vert:", key=f"more-{id_}", help="Rename or delete", type="tertiary"):
        with st.form(f"rename-{id_}", border=False):
            st.text_input("Name", name, max_chars=80, key=wanted)
            st.form_submit_button("Rename", on_click=rename)
        st.button(
            "Delete conversation",
            key=f"delete-{id_}",
            icon=":material/delete:",
            on_click=desk.delete,
            args=(id_,),
        )
