"""A client's messages and the texts that stand for them: nothing is lost, nothing is added."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optictl.guard import conversation, request_schema
from optictl.guard.conversation import Message
from optictl.guard.request_schema import Body
from optictl.guard.responses import Refused

PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
LINK = {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}}


def text(words: str) -> Message:
    return {"type": "text", "text": words}


def body(*messages: Message, **fields: Any) -> Body:
    return request_schema.parse({"model": "moa-m", "messages": list(messages), **fields})


def user(content: Any, **fields: Any) -> Message:
    return {"role": "user", "content": content, **fields}


CALL = {"id": "c1", "type": "function", "function": {"name": "rain", "arguments": '{"at": "Bern"}'}}
ASSISTANT = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "3 mm"}


class TestMessages:
    def test_a_lone_message_is_as_it_was_written(self) -> None:
        said = conversation.of(body(user("What is 2 + 2?")).messages)
        assert (said.system, said.query) == ("", "What is 2 + 2?")
        own = [{"role": "system", "content": ""}, user("What is 2 + 2?")]
        assert said.in_place(own) == own

    @pytest.mark.parametrize(
        ("parts", "expected"),
        [
            ([text("a"), text("b")], "ab"),
            ([text("a "), text(""), text(" b")], "a  b"),
            ([text("")], ""),
            ([], ""),
            ([text("a"), PICTURE], [text("a"), PICTURE]),
            ([{**text("a"), "cache_control": {"type": "ephemeral"}}], None),
        ],
    )
    def test_parts_stay_or_are_joined_without_blanks(self, parts: Any, expected: Any) -> None:
        found = body(user(parts), user("q")).messages[0]["content"]
        assert found == (parts if expected is None else expected)

    def test_every_part_that_is_lost_is_named(self) -> None:
        audio = {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}
        file = {"type": "file", "file": {"file_id": "f"}}
        found = body(user([text("hear"), audio, file, PICTURE]))
        assert found.messages == [user([text("hear"), PICTURE])]
        assert found.dropped == ["file", "input_audio"]

    def test_nothing_else_is_dropped(self) -> None:
        messages = [
            {"role": "developer", "content": "Be brief."},
            user("Rain?", name="ann"),
            ASSISTANT,
            RESULT,
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
            {"role": "assistant", "content": "", "refusal": "Never."},
            user([text("And here?"), LINK]),
        ]
        found = body(*messages)
        assert found.messages == messages
        assert found.dropped == []

    def test_what_is_not_set_is_not_sent(self) -> None:
        empty: Message = {"role": "assistant", "content": "4", "tool_calls": [], "refusal": None}
        assert body(empty, user("q")).messages[0] == {"role": "assistant", "content": "4"}
        missing = {"role": "assistant"}
        assert body(missing, user("q")).messages[0] == {"role": "assistant", "content": ""}

    @pytest.mark.parametrize(
        ("message", "param"),
        [
            (user([{"type": "text"}]), "messages[0].content"),
            (user([{"type": "image_url"}]), "messages[0].content"),
            (user([{"type": "image_url", "image_url": {"url": ""}}]), "messages[0].content"),
            (user([{"type": "refusal", "refusal": 1}]), "messages[0].content"),
            (user("q", name=5), "messages[0].name"),
            ({"role": "assistant", "tool_calls": "x"}, "messages[0].tool_calls"),
            ({"role": "assistant", "tool_calls": [1]}, "messages[0].tool_calls"),
            (user("\ud800"), "messages[0]"),
            (user("q", more="\ud800"), "messages[0]"),
        ],
    )
    def test_a_wrong_message_is_refused(self, message: Message, param: str) -> None:
        with pytest.raises(Refused) as refused:
            body(message)
        assert (refused.value.status, refused.value.param) == (400, param)

    @pytest.mark.parametrize(
        "messages",
        [[user("")], [user(" ")], [user([])], [RESULT], [{"role": "system", "content": ""}]],
    )
    def test_there_must_be_a_question(self, messages: list[Message]) -> None:
        with pytest.raises(Refused, match="user message"):
            body(*messages)

    def test_a_picture_alone_is_a_question(self) -> None:
        said = conversation.of(body(user([PICTURE])).messages)
        assert said.query == "[image]"
        assert said.in_place([user("[image]")]) == [user([PICTURE])]

    def test_instructions_alone_are_the_question(self) -> None:
        assert body({"role": "system", "content": "Tell a joke."}).messages == [
            user("Tell a joke.")
        ]

    def test_a_tag_leaves_every_part(self) -> None:
        tag = "<optillm_approach>bon</optillm_approach>"
        found = request_schema.parse(
            {"model": "moa-m", "messages": [user([text(f"{tag} a"), PICTURE])]}, prompt_chooses=True
        )
        assert found.choice == "bon"
        assert found.messages == [user([text("a"), PICTURE])]


class TestQuery:
    def test_several_turns_have_their_roles(self) -> None:
        messages = [
            {"role": "system", "content": "Be brief."},
            user("Rain?", name="ann"),
            {"role": "assistant", "content": "I look.", "tool_calls": [CALL]},
            RESULT,
            {"role": "developer", "content": "In millimetres."},
            user([text("So"), text("?"), PICTURE]),
        ]
        said = conversation.of(body(*messages).messages)
        assert said.system == "Be brief.\n\nIn millimetres."
        assert said.query.splitlines() == [
            "User (ann): Rain?",
            "Assistant: I look.",
            'Assistant called rain({"at": "Bern"})',
            "Tool (rain): 3 mm",
            "User: So?",
        ]
        assert said.has_tool_calls

    def test_a_lone_name_stays(self) -> None:
        assert conversation.of([user("Hi", name="ann")]).query == "ann: Hi"

    def test_a_lone_answer_has_its_role(self) -> None:
        assert conversation.of([{"role": "assistant", "content": "4"}]).query == "Assistant: 4"


SYSTEM = {"role": "system", "content": "Be brief."}
LATER = {"role": "developer", "content": "In French."}
TURNS = [user([text("Look"), PICTURE], name="ann"), ASSISTANT, RESULT, LATER, user([LINK])]


class TestPlaces:
    @pytest.fixture
    def said(self) -> conversation.Conversation:
        return conversation.of([SYSTEM, *TURNS])

    def test_the_messages_take_the_places_of_their_texts(
        self, said: conversation.Conversation
    ) -> None:
        rate = [{"role": "system", "content": "Rate."}, {"role": "assistant", "content": "a"}]
        own = [{"role": "system", "content": said.system}, user(said.query), *rate]
        assert said.in_place(own) == [SYSTEM, *TURNS, *rate]
        assert said.is_whole_in(own)

    def test_a_prompt_that_quotes_them_has_the_images(
        self, said: conversation.Conversation
    ) -> None:
        prompt = f"The problem: {said.query}\nSolve it. It was: {said.query}"
        own = [{"role": "system", "content": said.system}, user(prompt), user("Now.")]
        found = said.in_place(own)
        assert found == [SYSTEM, LATER, user([text(prompt), PICTURE, LINK]), user("Now.")]
        assert not said.is_whole_in(own)

    def test_other_prompts_stay(self, said: conversation.Conversation) -> None:
        own = [{"role": "system", "content": "Solve."}, user("Derive more."), {"role": "x"}, 5]
        assert said.in_place(own) == own

    @pytest.mark.parametrize("messages", [None, "x", 5, {}])
    def test_anything_may_stand_there(self, said: conversation.Conversation, messages: Any) -> None:
        assert said.in_place(messages) == messages
        assert not said.is_whole_in(messages)

    def test_a_question_takes_its_place_once(self) -> None:
        said = conversation.of([user([text("Go on."), PICTURE])])
        own = [user("Go on."), {"role": "assistant", "content": "x"}, user("Go on.")]
        assert said.in_place(own) == [user([text("Go on."), PICTURE]), *own[1:]]

    @pytest.mark.parametrize(
        ("query", "prompt", "quotes"),
        [
            ("a", "Give that a mark", True),
            ("a", "Rate the solution", False),
            ("?", "Rate? Yes", True),
            ("2", "Level 21, then 2.", True),
            ("2", "Level 21, then 12", False),
        ],
    )
    def test_a_short_question_is_not_in_every_word(
        self, query: str, prompt: str, quotes: bool
    ) -> None:
        said = conversation.of([user([text(query), PICTURE])])
        assert (said.in_place([user(prompt)]) != [user(prompt)]) is quotes


_PARTS = st.sampled_from([text("a"), text(" b"), text(""), PICTURE, LINK])
_MESSAGES = st.lists(
    st.builds(
        lambda role, content: {"role": role, "content": content},
        st.sampled_from(["system", "developer", "user", "assistant", "tool"]),
        st.sampled_from(["", "x", "User: x", "Be brief."]) | st.lists(_PARTS, max_size=3),
    ),
    min_size=1,
    max_size=6,
)


@given(_MESSAGES)
def test_whatever_was_said_comes_whole_out_of_its_texts(messages: list[Message]) -> None:
    try:
        given_messages = body(*messages).messages
    except Refused:
        return
    said = conversation.of(given_messages)
    own = [{"role": "system", "content": said.system}, user(said.query)]
    found = said.in_place(own)
    empty = {"role": "system", "content": ""}
    # an empty system message is OptiLLM's own
    assert [m for m in found if m != empty] == [m for m in given_messages if m != empty] or (
        not said.system
    )
    assert said.images == [
        image for m in given_messages[len(said.leading) :] for image in _images(m["content"])
    ]
    assert json.dumps(found)


def _images(content: Any) -> list[Any]:
    return [part for part in content if part in (PICTURE, LINK)] if content != "" else []
