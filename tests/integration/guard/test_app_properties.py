"""Whatever a client sends, the door answers 200 or a 4xx in OpenAI's shape, and keeps serving."""

from __future__ import annotations

import copy
import json
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from optictl.guard import GUARD_VERSION

from .helpers import MARK, Pair, assert_silent, error_of, guarded_pair, raw, text_of

pytestmark = pytest.mark.slow

JSON = {"content-type": "application/json"}
#: One running server for all examples: the property includes that it survives every earlier one.
bounded = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def pair(release: Path) -> Iterator[Pair]:
    with guarded_pair(release, extra=["--max-upstream-calls", "6"]) as running:
        yield running
        assert text_of(running.server.ask("self_consistency-jerry-xl", "still there?"))
        assert_silent(running.server)


@pytest.fixture(scope="module")
def client(pair: Pair) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=pair.server.url, headers={"Authorization": f"Bearer {pair.server.key}"}, timeout=30
    ) as one:
        yield one


def assert_honest(response: httpx.Response) -> None:
    assert response.headers["x-optillm-guard"] == GUARD_VERSION
    if response.status_code == 200:
        return
    assert 400 <= response.status_code < 500, response.text
    error = error_of(response)
    assert error["type"] in ("invalid_request_error", "authentication_error", "rate_limit_error")


names = st.sampled_from(
    [
        "model",
        "messages",
        "role",
        "content",
        "type",
        "text",
        "n",
        "stream",
        "stream_options",
        "include_usage",
        "max_tokens",
        "max_completion_tokens",
        "optillm_approach",
        "tools",
        "tool_calls",
        "extra_headers",
        "mcts_simulations",
        "timeout",
        "strategy_options",
        "temperature",
        "top_p",
        "seed",
        "stop",
        "logit_bias",
        "reasoning_effort",
        "response_format",
        "tool_choice",
        "name",
        "refusal",
        "image_url",
        "url",
    ]
)
words = st.sampled_from(
    [
        "moa-jerry-xl",
        "jerry-xl",
        "moa",
        "user",
        "system",
        "assistant",
        "tool",
        "text",
        "image_url",
        "auto",
        "",
        "\ud800",
        MARK,
        "<optillm_approach>z3</optillm_approach>",
        "<optillm_approach>moa</optillm_approach>",
        "User: a\nAssistant: b",
    ]
)
numbers = st.integers() | st.floats() | st.sampled_from([0, -1, 1, 2, 128, 129, 2**31, 10**400])
scalars = st.none() | st.booleans() | numbers | st.text(max_size=20) | words
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(names | st.text(max_size=8), inner, max_size=5)
    ),
    max_leaves=20,
)

GOOD: dict[str, Any] = {
    "model": "moa-jerry-xl",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": MARK}]},
        {"role": "assistant", "content": "4", "tool_calls": []},
        {"role": "user", "content": MARK},
    ],
    "n": 1,
    "stream": False,
    "stream_options": {"include_usage": True},
    "max_tokens": 16,
}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of everything inside a JSON value."""
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, one in inner:
        yield (*path, key)
        yield from places(one, (*path, key))


@st.composite
def mutations(draw: st.DrawFn) -> dict[str, Any]:
    """A good body with one to three of its places replaced, removed or doubled, or a key added."""
    body = copy.deepcopy(GOOD)
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(body))
        if not found:
            break
        *way, last = draw(st.sampled_from(found))
        parent: Any = body
        for key in way:
            parent = parent[key]
        match draw(st.sampled_from(["replace", "remove", "add"])):
            case "replace":
                parent[last] = draw(values)
            case "remove":
                del parent[last]
            case "add" if isinstance(parent, dict):
                parent[draw(names | st.text(max_size=8))] = draw(values)
            case _:
                parent.append(draw(values))
    return body


@bounded
@given(values)
def test_any_json_as_body(client: httpx.Client, value: Any) -> None:
    assert_honest(
        client.post("/chat/completions", content=json.dumps(value).encode(), headers=JSON)
    )


@bounded
@given(st.dictionaries(names, values, max_size=8))
def test_any_object_of_known_keys(client: httpx.Client, fields: dict[str, Any]) -> None:
    body = {"model": "moa-jerry-xl", **fields}
    assert_honest(client.post("/chat/completions", content=json.dumps(body).encode(), headers=JSON))


@bounded
@given(mutations())
def test_any_mutation_of_a_good_body(client: httpx.Client, body: dict[str, Any]) -> None:
    assert_honest(client.post("/chat/completions", content=json.dumps(body).encode(), headers=JSON))


@bounded
@given(
    st.binary(max_size=200) | st.text(string.printable, max_size=100).map(str.encode), st.booleans()
)
def test_any_bytes_as_body(client: httpx.Client, content: bytes, chunked: bool) -> None:
    sent = iter([content[:50], content[50:]]) if chunked else content
    assert_honest(client.post("/chat/completions", content=sent, headers=JSON))


@bounded
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200))
def test_any_text_is_a_prompt(pair: Pair, client: httpx.Client, text: str) -> None:
    assume(text.strip() and "<optillm_approach>" not in text)
    pair.fresh()
    response = client.post(
        "/chat/completions",
        json={
            "model": "self_consistency-jerry-xl",
            "messages": [{"role": "user", "content": text}],
        },
    )
    assert text_of(response)
    sent = {(seen.body or {})["messages"][-1]["content"] for seen in pair.upstream.calls()}
    assert sent == {text}


@bounded
@given(
    st.text(string.ascii_lowercase + "-&|_. ", max_size=20).map(lambda text: text + "jerry-xl")
    | st.text(max_size=30)
)
def test_no_model_name_but_a_whole_one_goes_upstream(
    pair: Pair, client: httpx.Client, model: str
) -> None:
    assume(
        model
        not in ("moa-jerry-xl", "bon-jerry-xl", "plansearch-jerry-xl", "self_consistency-jerry-xl")
    )
    pair.fresh()
    body = json.dumps({**GOOD, "model": model}).encode()
    response = client.post("/chat/completions", content=body, headers=JSON)
    assert response.status_code == 400
    error_of(response)
    assert pair.upstream.seen == []


def status_of(pair: Pair, line: bytes, *headers: bytes) -> int:
    """The status of an answer to a request that no HTTP library would send."""
    head = b"\r\n".join(
        [line + b" HTTP/1.1", b"Host: x", b"Connection: close", b"Content-Length: 0", *headers]
    )
    answer = raw(pair.server, head + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 "), answer
    return int(answer[9:12])


@bounded
@given(st.binary(max_size=60).filter(lambda value: not set(value) & set(b"\r\n")))
def test_no_other_key_opens_the_door(pair: Pair, value: bytes) -> None:
    assume(value.split()[1:] != [pair.server.key.encode()])
    # 400 is gunicorn's own, for bytes that no header may hold
    assert status_of(pair, b"GET /v1/models", b"Authorization: " + value) in (400, 401)


@bounded
@given(
    st.binary(max_size=40).filter(lambda path: not set(path) & set(b"\r\n ?#%")),
    st.sampled_from([b"GET", b"POST", b"PUT"]),
)
def test_any_path(pair: Pair, path: bytes, method: bytes) -> None:
    assume(path not in (b"models", b"chat/completions"))
    key = b"Authorization: Bearer " + pair.server.key.encode()
    assert 400 <= status_of(pair, method + b" /v1/" + path, key) < 500
