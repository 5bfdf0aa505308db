"""The common HTTP clients and OpenAI's SDK: answers, streams, errors, bodies that are too large."""

from __future__ import annotations

import asyncio
import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import openai
import pydantic
import pytest
import requests

from optictl.proof.standin import Reply, Seen, completion
from testing.support import STRATEGIES, Server

from .helpers import BOOM, Pair, guarded_pair

pytestmark = pytest.mark.slow

MAX_BYTES = 100_000
ANSWER = "The answer is 4."
QUESTION = [{"role": "user", "content": "What is 2 + 2?"}]


@pytest.fixture(scope="module")
def running(release: Path) -> Iterator[Pair]:
    flags = ["--max-body-bytes", str(MAX_BYTES)]
    with guarded_pair(release, strategies=[*STRATEGIES, "re2"], extra=flags) as pair:
        yield pair


@pytest.fixture
def pair(running: Pair) -> Pair:
    pair = running.fresh()
    pair.upstream.respond = _answer
    return pair


def _answer(seen: Seen) -> Reply | None:
    return Reply(body=completion(seen.body, ANSWER)) if seen.body else None


@dataclass(frozen=True)
class Got:
    """What a client received. `headers`: names in lower case."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Client = Callable[[str, dict[str, str], bytes], Got]


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _httpx(url: str, headers: dict[str, str], body: bytes) -> Got:
    got = httpx.post(url, headers=headers, content=body, timeout=30)
    return Got(got.status_code, got.content, _lower(got.headers))


def _requests(url: str, headers: dict[str, str], body: bytes) -> Got:
    got = requests.post(url, headers=headers, data=body, timeout=30)
    return Got(got.status_code, got.content, _lower(got.headers))


def _aiohttp(url: str, headers: dict[str, str], body: bytes) -> Got:
    async def send() -> Got:
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, headers=headers, data=body) as got,
        ):
            return Got(got.status, await got.read(), _lower(got.headers))

    return asyncio.run(send())


def _urllib(url: str, headers: dict[str, str], body: bytes) -> Got:
    request = urllib.request.Request(url, data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as got:
            return Got(got.status, got.read(), _lower(got.headers))
    except urllib.error.HTTPError as error:
        return Got(error.code, error.read(), _lower(error.headers))


def _curl(url: str, headers: dict[str, str], body: bytes) -> Got:
    named = [word for name, value in headers.items() for word in ("-H", f"{name}: {value}")]
    done = subprocess.run(
        ["curl", "-sS", "--max-time", "30", "-i", *named, "--data-binary", "@-", url],
        input=body,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    head, _, rest = done.stdout.partition(b"\r\n\r\n")
    while head.startswith(b"HTTP/1.1 100"):
        head, _, rest = rest.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(": ") for line in lines)
    return Got(int(first.split()[1]), rest, {name.lower(): value for name, _, value in pairs})


CLIENTS = {
    "httpx": _httpx,
    "requests": _requests,
    "aiohttp": _aiohttp,
    "urllib": _urllib,
    "curl": _curl,
}
every_client = pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)


def send(server: Server, client: Client, body: Any, key: str = "") -> Got:
    headers = {
        "Authorization": f"Bearer {key or server.key}",
        "Content-Type": "application/json",
    }
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client(f"{server.url}/chat/completions", headers, raw)


def body_for(model: str = "moa-jerry-xl", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": QUESTION, **more}


@every_client
def test_a_client_gets_an_answer(pair: Pair, client: Client) -> None:
    got = send(pair.server, client, body_for())
    assert got.status == 200, got.body
    assert got.json["choices"][0]["message"]["content"] == ANSWER
    assert got.headers["x-optillm-upstream-calls"] == "3"


@every_client
def test_a_client_reads_a_stream(pair: Pair, client: Client) -> None:
    got = send(pair.server, client, body_for(stream=True))
    assert got.status == 200, got.body
    assert got.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in got.body.decode().splitlines() if line.startswith("data: ")]
    assert lines.pop() == "data: [DONE]"
    deltas = [json.loads(line[6:])["choices"][0]["delta"] for line in lines]
    assert "".join(delta.get("content", "") for delta in deltas) == ANSWER


@every_client
@pytest.mark.parametrize(
    ("body", "key", "status", "code"),
    [
        (body_for("moa-nothing"), "", 400, "base_model_unknown"),
        (b"{", "", 400, "invalid_json"),
        (body_for(), "wrong", 401, "invalid_api_key"),
    ],
    ids=["model", "json", "key"],
)
def test_a_client_reads_a_refusal(
    pair: Pair, client: Client, body: Any, key: str, status: int, code: str
) -> None:
    got = send(pair.server, client, body, key)
    assert got.status == status, got.body
    assert got.json["error"]["code"] == code
    assert pair.upstream.seen == []


@every_client
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_reads_a_failure(pair: Pair, client: Client, stream: bool) -> None:
    pair.upstream.respond = lambda seen: BOOM
    got = send(pair.server, client, body_for(stream=stream))
    assert (got.status, got.json["error"]["code"]) == (502, "upstream_failed")


@every_client
@pytest.mark.parametrize("size", [MAX_BYTES + 1, 3_000_000, 30_000_000])
def test_a_client_that_sends_too_much_reads_why(pair: Pair, client: Client, size: int) -> None:
    """It reads only when it has sent its body: a closed connection would hide the reason."""
    body = body_for(user="x" * size)
    got = send(pair.server, client, body)
    assert got.status == 413, got.body
    assert got.json["error"]["code"] == "body_too_large"
    assert send(pair.server, client, body_for()).status == 200


@every_client
def test_a_client_without_a_key_that_sends_much_reads_why(pair: Pair, client: Client) -> None:
    got = send(pair.server, client, body_for(user="x" * 3_000_000), "wrong")
    assert (got.status, got.json["error"]["code"]) == (401, "invalid_api_key")


# OpenAI's SDK


@pytest.fixture
def sdk(pair: Pair) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=pair.server.url, api_key=pair.server.key, max_retries=0) as client:
        yield client


def ask(sdk: openai.OpenAI, model: str = "moa-jerry-xl", **more: Any) -> Any:
    return sdk.chat.completions.create(model=model, messages=QUESTION, **more)


@pytest.mark.parametrize("strategy", [*STRATEGIES, "re2"])
def test_the_sdk_gets_a_typed_answer(sdk: openai.OpenAI, strategy: str) -> None:
    answer = ask(sdk, f"{strategy}-jerry-xl")
    assert answer.object == "chat.completion"
    assert answer.model == f"{strategy}-jerry-xl"
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", ANSWER)
    assert (choice.finish_reason, choice.index) == ("stop", 0)
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens > 0
    assert usage.completion_tokens_details.reasoning_tokens == 0
    assert usage.prompt_tokens_details.cached_tokens == 0


def test_the_sdk_gets_as_many_answers_as_it_asks_for(sdk: openai.OpenAI) -> None:
    answer = ask(sdk, n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert {choice.message.content for choice in answer.choices} == {ANSWER}


def test_the_sdk_reads_a_stream(sdk: openai.OpenAI) -> None:
    chunks = list(ask(sdk, stream=True, stream_options={"include_usage": True}))
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].usage.total_tokens > 0
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == ANSWER
    with sdk.chat.completions.stream(model="re2-jerry-xl", messages=QUESTION) as stream:
        assert stream.get_final_completion().choices[0].message.content == ANSWER


def test_the_sdk_reads_a_conversation_with_a_system_message(sdk: openai.OpenAI) -> None:
    said = [
        {"role": "system", "content": "Be brief."},
        *QUESTION,
        {"role": "assistant", "content": "5"},
        {"role": "user", "content": "Are you sure?"},
    ]
    answer = sdk.chat.completions.create(model="self_consistency-jerry-xl", messages=said)
    assert answer.choices[0].message.content == ANSWER


@pytest.mark.parametrize(
    ("options", "error", "code"),
    [
        ({"model": "moa-nothing"}, openai.BadRequestError, "base_model_unknown"),
        ({"max_tokens": -1}, openai.BadRequestError, "invalid_request"),
        ({"n": 1.0}, openai.BadRequestError, "invalid_request"),
        ({"n": 100}, openai.BadRequestError, "upstream_call_limit"),
        ({"user": "x" * 3_000_000}, openai.APIStatusError, "body_too_large"),
    ],
)
def test_the_sdk_raises_the_error_with_its_code(
    sdk: openai.OpenAI, options: dict[str, Any], error: type[openai.APIStatusError], code: str
) -> None:
    with pytest.raises(error) as raised:
        ask(sdk, **options)
    assert raised.value.code == code
    assert raised.value.param in (*options, None)


def test_the_sdk_does_not_repeat_what_a_retry_cannot_change(pair: Pair) -> None:
    refused = {"error": {"message": "too long", "code": "context_length_exceeded"}}
    pair.upstream.respond = lambda seen: Reply(400, refused)
    client = openai.OpenAI(base_url=pair.server.url, api_key=pair.server.key)
    with client, pytest.raises(openai.BadRequestError) as raised:
        ask(client)
    assert raised.value.code == "context_length_exceeded"
    assert len(pair.upstream.calls()) <= 2


class Sum(pydantic.BaseModel):
    """What the structured answers of these tests are."""

    total: int
    reason: str


def _structured(seen: Seen) -> Reply | None:
    """A model that writes JSON only where it is asked for it."""
    body = seen.body or {}
    is_asked = body.get("response_format", {}).get("type") == "json_schema"
    text = Sum(total=4, reason="2 and 2").model_dump_json() if is_asked else ANSWER
    return Reply(body=completion(body, text)) if seen.body else None


@pytest.mark.parametrize("strategy", ["moa", "self_consistency", "re2"])
def test_the_sdk_parses_a_structured_answer(pair: Pair, sdk: openai.OpenAI, strategy: str) -> None:
    pair.upstream.respond = _structured
    answer = sdk.chat.completions.parse(
        model=f"{strategy}-jerry-xl", messages=QUESTION, response_format=Sum
    )
    assert answer.choices[0].message.parsed == Sum(total=4, reason="2 and 2")
    with sdk.chat.completions.stream(
        model=f"{strategy}-jerry-xl", messages=QUESTION, response_format=Sum
    ) as stream:
        assert stream.get_final_completion().choices[0].message.parsed.total == 4


def test_the_sdk_reads_a_refusal_of_the_model(pair: Pair, sdk: openai.OpenAI) -> None:
    def refuse(seen: Seen) -> Reply | None:
        whole = completion(seen.body or {})
        for choice in whole["choices"]:
            choice["message"] |= {"content": None, "refusal": "I will not."}
        return Reply(body=whole) if seen.body else None

    pair.upstream.respond = refuse
    answer = sdk.chat.completions.parse(
        model="moa-jerry-xl", messages=QUESTION, response_format=Sum
    )
    assert answer.choices[0].message.parsed is None
    assert answer.choices[0].message.refusal == "I will not."


def test_a_tool_call_with_typed_arguments(pair: Pair, sdk: openai.OpenAI) -> None:
    """As `instructor` asks: the answer is a call of a tool, whose arguments are the structure."""
    arguments = Sum(total=4, reason="2 and 2").model_dump_json()
    function = {"name": "Sum", "arguments": arguments}
    call = {"id": "call_1", "type": "function", "function": function}

    def respond(seen: Seen) -> Reply | None:
        whole = completion(seen.body or {}, ANSWER)
        if (seen.body or {}).get("tools"):
            for choice in whole["choices"]:
                choice["message"] |= {"content": None, "tool_calls": [call]}
                choice["finish_reason"] = "tool_calls"
        return Reply(body=whole) if seen.body else None

    pair.upstream.respond = respond
    tool = openai.pydantic_function_tool(Sum)
    choice = {"type": "function", "function": {"name": "Sum"}}
    answer = ask(sdk, tools=[tool], tool_choice=choice)
    (called,) = answer.choices[0].message.tool_calls
    assert Sum.model_validate_json(called.function.arguments).total == 4
    assert answer.choices[0].finish_reason == "tool_calls"


def test_the_sdk_lists_the_models(sdk: openai.OpenAI) -> None:
    names = [model.id for model in sdk.models.list()]
    assert "moa-jerry-xl" in names
    assert "jerry-xl" not in names
    assert sdk.models.retrieve("moa-jerry-xl").id == "moa-jerry-xl"
    with pytest.raises(openai.NotFoundError):
        sdk.models.retrieve("jerry-xl")


def test_a_field_for_optillm_does_not_choose_the_strategy(pair: Pair, sdk: openai.OpenAI) -> None:
    ask(sdk, "re2-jerry-xl", extra_body={"optillm_approach": "moa"})
    assert len(pair.upstream.calls()) == 1


def test_a_quoted_tag_in_an_earlier_turn_is_text(pair: Pair, sdk: openai.OpenAI) -> None:
    tag = "<optillm_approach>moa</optillm_approach>"
    said = [
        {"role": "user", "content": f"What does {tag} mean?"},
        {"role": "assistant", "content": f"{tag} chose a strategy."},
        {"role": "user", "content": "Thank you."},
    ]
    answer = sdk.chat.completions.create(model="re2-jerry-xl", messages=said)
    assert answer.choices[0].message.content == ANSWER
    (seen,) = pair.upstream.calls()
    assert str((seen.body or {})["messages"]).count(tag) >= 2
