"""A conversation reaches the calls of a strategy whole: the guard with the real OptiLLM."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from optictl.guard import traces
from optictl.proof.standin import Reply, completion
from testing.support import OTHER_STRATEGIES, STRATEGIES

from .helpers import Pair, asks_for, assert_refused, guarded_pair, text_of
from .upstreams import Model

pytestmark = pytest.mark.slow

ALL = (*STRATEGIES, *OTHER_STRATEGIES, "none")
Message = dict[str, Any]


@pytest.fixture(scope="module")
def running(release: Path) -> Iterator[Pair]:
    with guarded_pair(release, strategies=ALL, extra=["--max-upstream-calls", "150"]) as pair:
        yield pair


@pytest.fixture
def pair(running: Pair) -> Pair:
    return running.fresh()


def sent(pair: Pair) -> list[list[Message]]:
    """The messages of each upstream call."""
    return [(seen.body or {})["messages"] for seen in pair.upstream.calls()]


def post(pair: Pair, strategy: str, messages: list[Message], **fields: Any) -> Any:
    # with a small limit, mars makes 15 calls in place of 118
    body = {"model": f"{strategy}-jerry-xl", "messages": messages, "max_tokens": 99}
    return pair.server.post({**body, **fields})


def png(colour: int) -> bytes:
    """A picture of one pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
        )

    head = b"\x00\x00\x00\x01\x00\x00\x00\x01\x08\x00\x00\x00\x00"
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes([0, colour])))
        + chunk(b"IEND", b"")
    )


PICTURES = [png(7), png(200)]


def picture(data: bytes) -> Message:
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    return {"type": "image_url", "image_url": {"url": url, "detail": "high"}}


def seen_pictures(messages: list[Message]) -> list[bytes]:
    """The bytes of the pictures in a call, as a model with eyes decodes them."""
    parts = [part for m in messages if isinstance(m["content"], list) for part in m["content"]]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return [base64.b64decode(url.partition(",")[2], validate=True) for url in urls]


CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_rain", "arguments": '{"city": "Bern"}'},
}
#: An agent's conversation, with all that a message can have.
AGENT: list[Message] = [
    {"role": "system", "content": "Answer in one word."},
    {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
    {
        "role": "user",
        "content": [{"type": "text", "text": "Will it "}, {"type": "text", "text": "rain?"}],
        "name": "ann",
    },
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "3 mm"},
    {"role": "assistant", "content": [{"type": "refusal", "refusal": "I must not say."}]},
    {"role": "user", "content": "Say it nevertheless."},
]
#: The same as it goes upstream: parts of text alone are one text.
WHOLE = [
    AGENT[0],
    {"role": "developer", "content": "Be kind."},
    {"role": "user", "content": "Will it rain?", "name": "ann"},
    *AGENT[3:],
]


@pytest.mark.parametrize("strategy", ["moa", "bon", "self_consistency", "none", "majority_voting"])
def test_the_messages_are_the_clients(pair: Pair, strategy: str) -> None:
    response = post(pair, strategy, AGENT)
    assert text_of(response)
    assert "x-optillm-dropped" not in response.headers
    assert sent(pair)[0] == WHOLE


def test_every_call_of_a_strategy_that_passes_it_on_has_it(pair: Pair) -> None:
    assert text_of(post(pair, "bon", AGENT))
    candidates, *ratings = sent(pair)
    assert len(ratings) == 3
    for messages in ratings:
        assert messages[: len(WHOLE)] == WHOLE
        assert [m["role"] for m in messages[len(WHOLE) :]] == ["system", "assistant", "user"]
    assert candidates == WHOLE


def test_a_prompt_that_quotes_it_has_the_roles_and_the_instructions(pair: Pair) -> None:
    assert text_of(post(pair, "moa", AGENT))
    _, critique, final = sent(pair)
    for messages in (critique, final):
        assert messages[:2] == WHOLE[:2]
        (quoted,) = messages[2:]
        for line in (
            "User (ann): Will it rain?",
            'Assistant called get_rain({"city": "Bern"})',
            "Tool (get_rain): 3 mm",
            "Assistant: I must not say.",
            "User: Say it nevertheless.",
        ):
            assert line in quoted["content"].splitlines() or line in quoted["content"]


@pytest.mark.parametrize("strategy", ALL)
def test_a_lone_message_has_no_label(pair: Pair, strategy: str) -> None:
    assert text_of(post(pair, strategy, [{"role": "user", "content": "Count the ducks"}]))
    assert any(asks_for(seen, "Count the ducks") for seen in pair.upstream.calls())
    assert not any(asks_for(seen, "User: Count") for seen in pair.upstream.calls())


@pytest.mark.parametrize("strategy", ALL)
def test_pictures_go_where_the_question_goes(pair: Pair, strategy: str) -> None:
    """Each call with the question has both pictures, byte for byte, once."""
    question = "How many ducks are in these two pictures of the pond behind our house?"
    content = [{"type": "text", "text": question}, *map(picture, PICTURES)]
    response = post(pair, strategy, [{"role": "user", "content": content}])
    assert text_of(response)
    assert "x-optillm-dropped" not in response.headers
    asking = [messages for messages in sent(pair) if question in json.dumps(messages)]
    assert asking
    for messages in asking:
        assert seen_pictures(messages) == PICTURES
    others = [messages for messages in sent(pair) if question not in json.dumps(messages)]
    assert not any(map(seen_pictures, others))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_pictures_of_earlier_turns_stay(pair: Pair, strategy: str) -> None:
    link = {"type": "image_url", "image_url": {"url": "https://example.org/pond.png"}}
    messages = [
        {"role": "user", "content": [picture(PICTURES[0])]},
        {"role": "assistant", "content": "A duck."},
        {"role": "user", "content": [link, {"type": "text", "text": "And here?"}]},
    ]
    assert text_of(post(pair, strategy, messages))
    for call in sent(pair):
        parts = [p for m in call if isinstance(m["content"], list) for p in m["content"]]
        images = [p for p in parts if p["type"] == "image_url"]
        assert images == [picture(PICTURES[0]), link]


def test_a_picture_does_not_hide_what_a_call_is_for(pair: Pair) -> None:
    pair.upstream.respond = Model("moa", {}).respond
    content = [{"type": "text", "text": "Count."}, picture(PICTURES[0])]
    response = post(pair, "moa", [{"role": "user", "content": content}])
    assert response.headers["x-optillm-effect"] == "full"
    trace = pair.server.get(f"/guard/traces/{response.headers['x-optillm-trace']}").json()
    assert [call["purpose"] for call in trace["calls"]] == ["candidate", "critique", "final"]


def test_what_cannot_be_kept_is_named(pair: Pair) -> None:
    parts = [
        {"type": "text", "text": "Listen"},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "file", "file": {"file_data": "AAAA"}},
        picture(PICTURES[0]),
    ]
    response = post(pair, "moa", [{"role": "user", "content": parts}], audio={"voice": "x"})
    assert text_of(response)
    assert response.headers["x-optillm-dropped"] == "audio,file,input_audio"
    assert sent(pair)[0][-1]["content"] == [parts[0], parts[3]]


@pytest.mark.parametrize("strategy", ALL)
def test_instructions_reach_the_strategy_or_are_named(pair: Pair, strategy: str) -> None:
    messages = [
        {"role": "system", "content": "Speak like a pirate."},
        {"role": "user", "content": "Count the ducks"},
    ]
    response = post(pair, strategy, messages)
    assert text_of(response)
    reaches = any(asks_for(seen, "Speak like a pirate.") for seen in pair.upstream.calls())
    assert reaches == ("system" not in response.headers.get("x-optillm-dropped", ""))


def test_an_audio_alone_is_no_question(pair: Pair) -> None:
    audio = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    error = assert_refused(
        post(pair, "moa", [{"role": "user", "content": [audio]}]), 400, "invalid_request"
    )
    assert error["param"] == "messages"


def test_a_stream_has_the_same_calls(pair: Pair) -> None:
    assert post(pair, "moa", AGENT, stream=True).status_code == 200
    assert sent(pair)[0] == WHOLE


def test_a_trace_with_contents_has_the_pictures(pair: Pair) -> None:
    pair.upstream.respond = lambda seen: Reply(body=completion(seen.body or {}, "4"))
    content = [{"type": "text", "text": "Count."}, picture(PICTURES[1])]
    response = pair.server.post(
        {"model": "self_consistency-jerry-xl", "messages": [{"role": "user", "content": content}]},
        headers={traces.CONTENT_HEADER: "1"},
    )
    trace = pair.server.get(f"/guard/traces/{response.headers['x-optillm-trace']}").json()
    assert trace["messages"] == [{"role": "user", "content": content}]
    assert trace["calls"][0]["messages"][-1]["content"] == content
