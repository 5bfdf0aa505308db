"""Streams: the final text comes as the model writes it."""

from __future__ import annotations

import itertools
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from optictl.guard import traces
from testing.support import Server

from . import slow
from .helpers import events, wait_until_logged
from .slow import Failure, SlowModel

pytestmark = pytest.mark.slow

#: Seconds of a call of the slow model.
CALL = 0.5
LIVE = ("moa", "plansearch", "re2")
WHOLE = ("bon", "self_consistency", "cot_reflection")
ALL = (*LIVE, *WHOLE, "rto")


@dataclass
class Streamed:
    """A stream as it came. Times in seconds since it was asked for."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    head_after: float = 0.0
    #: time -> line
    lines: list[tuple[float, str]] = field(default_factory=list)

    @property
    def chunks(self) -> list[tuple[float, dict[str, Any]]]:
        found = []
        for when, line in self.lines:
            if line.startswith("data: {"):
                found.append((when, json.loads(line.removeprefix("data: "))))
        return found

    def deltas(self, name: str = "content", index: int = 0) -> list[tuple[float, str]]:
        return [
            (when, choice["delta"][name])
            for when, chunk in self.chunks
            for choice in chunk.get("choices", [])
            if choice["index"] == index and choice["delta"].get(name)
        ]

    @property
    def text(self) -> str:
        return "".join(text for _, text in self.deltas())

    @property
    def finish(self) -> str:
        choices = [choice for _, chunk in self.chunks for choice in chunk.get("choices", [])]
        return next(one["finish_reason"] for one in choices if one["finish_reason"])

    @property
    def error(self) -> dict[str, Any] | None:
        return next((chunk["error"] for _, chunk in self.chunks if "error" in chunk), None)


def stream(server: Server, model: str, **fields: Any) -> Streamed:
    body = {"model": model, "messages": [{"role": "user", "content": "q"}], "stream": True}
    found, since = Streamed(), time.monotonic()
    with httpx.stream(
        "POST",
        f"{server.url}/chat/completions",
        json={**body, **fields},
        headers={"Authorization": f"Bearer {server.key}"},
        timeout=60,
    ) as response:
        found.status, found.headers = response.status_code, dict(response.headers)
        found.head_after = time.monotonic() - since
        for line in response.iter_lines():
            found.lines.append((time.monotonic() - since, line))
    return found


def is_last(strategy: str, body: dict[str, Any]) -> bool:
    """Whether this is the call whose text is the answer."""
    return traces.purpose(strategy, body["messages"]) == "final"


def served(
    release: Path, *extra: str, seconds: float = CALL, **options: Any
) -> AbstractContextManager[tuple[Server, SlowModel]]:
    return slow.served(release, ALL, extra, SlowModel(seconds, **options))


@pytest.fixture(scope="module")
def one(release: Path) -> Iterator[tuple[Server, SlowModel]]:
    with served(release) as pair:
        yield pair


@pytest.mark.parametrize("strategy", LIVE)
def test_the_final_text_comes_as_it_is_written(
    strategy: str, one: tuple[Server, SlowModel]
) -> None:
    server, _ = one
    found = stream(server, f"{strategy}-jerry-xl", stream_options={"include_usage": True})
    texts = found.deltas()
    assert found.head_after < 0.8
    assert len(texts) == 10
    assert texts[-1][0] - texts[0][0] > 0.7 * CALL
    assert found.finish == "stop"
    assert found.lines[-2][1] == "data: [DONE]"
    usage = found.chunks[-1][1]["usage"]
    assert usage["completion_tokens"] > 0
    assert found.headers["x-optillm-strategy"] == strategy


@pytest.mark.parametrize("strategy", ALL)
def test_it_is_the_text_that_comes_without_a_stream(
    strategy: str, one: tuple[Server, SlowModel]
) -> None:
    server, model = one
    model.answer = lambda body, _number: (
        None
        if traces.purpose("bon", body["messages"]) == "rating"
        else f"  a text with <output>space</output> to {len(body['messages'])} messages \n"
    )
    whole = server.ask(f"{strategy}-jerry-xl", "q").json()["choices"][0]
    found = stream(server, f"{strategy}-jerry-xl")
    assert found.text == whole["message"]["content"]
    assert found.finish == whole["finish_reason"]


@pytest.mark.parametrize("strategy", WHOLE)
def test_a_text_that_is_chosen_comes_in_pieces(
    strategy: str, one: tuple[Server, SlowModel]
) -> None:
    server, model = one
    model.answer = lambda body, _number: (
        None
        if traces.purpose("bon", body["messages"]) == "rating"
        else f"<output>{'long text ' * 1000}</output>"
    )
    found = stream(server, f"{strategy}-jerry-xl")
    assert len(found.text) > 9000
    assert max(len(line) for _, line in found.lines) < 4096
    assert found.finish == "stop"


def test_several_answers_come_side_by_side(one: tuple[Server, SlowModel]) -> None:
    server, model = one
    model.answer = lambda _body, number: f"this is answer number {number} of them"
    found = stream(server, "re2-jerry-xl", n=2)
    both = [found.deltas(index=index) for index in (0, 1)]
    assert all(len(texts) > 6 for texts in both)
    assert both[0][0][0] < both[1][-1][0]
    assert both[1][0][0] < both[0][-1][0]


def test_a_comment_comes_while_nothing_else_is_sent(release: Path) -> None:
    with served(release, seconds=11.0) as (server, _):
        found = stream(server, "bon-jerry-xl")
        comments = [when for when, line in found.lines if line.startswith(":")]
        gaps = [later - sooner for sooner, later in itertools.pairwise(comments)]
        assert len(comments) >= 3
        assert max(gaps) < 10.5
        assert found.text


@pytest.mark.parametrize("stream_it", [False, True])
def test_an_error_before_the_first_byte_has_its_status(release: Path, stream_it: bool) -> None:
    failure = Failure(401, {"error": {"message": "no such key", "code": "401"}})
    with served(release, answer=lambda _body, _number: failure) as (server, _):
        response = server.ask("moa-jerry-xl", stream=stream_it)
        assert response.status_code == 502
        assert "no such key" in response.json()["error"]["message"]


@pytest.mark.parametrize("body", [{"error": {"message": "the model fell over"}}, {}])
@pytest.mark.parametrize("strategy", LIVE)
def test_an_error_in_the_text_is_an_event(
    strategy: str, body: dict[str, Any], one: tuple[Server, SlowModel], release: Path
) -> None:
    """With an error event of the upstream, and without a word. OpenAI's client raises it."""
    server, model = one
    model.answer = lambda asked, _number: (
        Failure(500, body, after=3) if is_last(strategy, asked) else "a text"
    )
    found = stream(server, f"{strategy}-jerry-xl")
    assert (found.status, found.text) == (200, "the fi")
    assert found.error is not None
    assert found.error["code"] == "upstream_failed"
    assert set(found.error) == {"message", "type", "param", "code"}
    raised = _raised_by_the_sdk(release, server, f"{strategy}-jerry-xl")
    assert raised.startswith("APIError ")
    assert body.get("error", {}).get("message", "the upstream did not answer") in raised


_SDK = """
import os, sys, openai
client = openai.OpenAI(api_key=os.environ["KEY"], base_url=sys.argv[1], max_retries=0)
messages = [{"role": "user", "content": "q"}]
try:
    for chunk in client.chat.completions.create(model=sys.argv[2], messages=messages, stream=True):
        pass
except openai.APIError as error:
    print(type(error).__name__, error)
"""


def _raised_by_the_sdk(release: Path, server: Server, model: str) -> str:
    """What OpenAI's client of the release makes of a stream: class and message of its exception."""
    done = subprocess.run(
        [str(release / ".venv/bin/python"), "-I", "-c", _SDK, server.url, model],
        env={"KEY": server.key},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def test_a_text_that_the_limit_ended_comes_as_it_is(release: Path) -> None:
    def cut(body: dict[str, Any], number: int) -> str:
        return f"text {number} to {len(body['messages'])}"

    with served(release, answer=cut) as (server, model):
        model.finish = lambda body: "length" if is_last("moa", body) else "stop"
        found = stream(server, "moa-jerry-xl")
        assert found.finish == "length"
        assert found.text.startswith("text 2")
        trace = server.get(f"/guard/traces/{found.headers['x-optillm-trace']}").json()
        assert trace["degraded"] == ["final_cut"]


def test_without_the_fix_the_text_waits_for_optillm(release: Path) -> None:
    with served(release, "--effect", "none") as (server, model):
        found = stream(server, "moa-jerry-xl")
        assert [bool(call.body.get("stream")) for call in model.calls] == [False, True, True]
        assert len(found.deltas()) == 1


def test_calls_do_not_stream_when_they_may_not(release: Path) -> None:
    with served(release, "--stream-calls", "no") as (server, model):
        assert server.ask("moa-jerry-xl").status_code == 200
        assert not any(call.body.get("stream") for call in model.calls)
        found = stream(server, "moa-jerry-xl")
        assert len(found.deltas()) == 10


def test_a_model_that_cannot_stream_is_no_error(one: tuple[Server, SlowModel]) -> None:
    server, model = one
    model.answer = lambda _body, _number: "a text"
    model.streams = False
    try:
        found = stream(server, "moa-jerry-xl")
    finally:
        model.streams = True
    assert (found.text, found.finish) == ("a text", "stop")


def test_a_model_whose_streams_are_empty_is_asked_for_the_whole(release: Path) -> None:
    """LiteLLM makes such a stream of a server that ignores `stream`."""
    with served(release, seconds=0.05) as (server, model):
        model.streams_empty = True
        found = stream(server, "plansearch-jerry-xl")
        assert found.text.startswith("answer")
        # the first call is made twice; then the guard knows
        assert [bool(call.body.get("stream")) for call in model.calls] == [True, *[False] * 4]
        model.calls.clear()
        assert server.ask("moa-jerry-xl").status_code == 200
        assert not any(call.body.get("stream") for call in model.calls)


class TestProgress:
    def test_each_step_is_shown_as_reasoning(self, release: Path) -> None:
        with served(release, "--progress", "reasoning", seconds=0.3) as (server, _):
            lines = "".join(text for _, text in stream_reasoning(server, "bon-jerry-xl"))
            steps = [line.rpartition(",")[0] for line in lines.splitlines()]
            assert steps == ["candidate 3 of 3", "rating 1 of 3", "rating 2 of 3", "rating 3 of 3"]
            moa = "".join(text for _, text in stream_reasoning(server, "moa-jerry-xl"))
            assert [line.split(",")[0] for line in moa.splitlines()] == [
                "candidate 3 of 3",
                "critique",
                "final",
            ]
            assert "final" not in "".join(
                text for _, text in stream(server, "moa-jerry-xl").deltas()
            )

    def test_it_is_off_unless_it_is_asked_for(self, one: tuple[Server, SlowModel]) -> None:
        assert stream_reasoning(one[0], "bon-jerry-xl") == []


def stream_reasoning(server: Server, model: str) -> list[tuple[float, str]]:
    return stream(server, model).deltas("reasoning_content")


def test_the_log_and_the_trace_tell_a_stream_like_any_other(
    one: tuple[Server, SlowModel],
) -> None:
    server, model = one
    model.answer = lambda _body, _number: None
    found = stream(server, "moa-jerry-xl")
    line = wait_until_logged(server, found.headers["x-optillm-trace"])
    assert (line["status"], line["upstream_calls"], line["effect"]) == (200, 3, "full")
    assert line["completion_tokens"] > 0
    assert events(server)
