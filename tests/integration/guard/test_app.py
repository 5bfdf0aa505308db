"""Bad input at the door: a 4xx in OpenAI's shape, before OptiLLM or the upstream sees anything."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from optictl.guard import GUARD_VERSION
from optictl.proof.standin import Reply
from testing.support import STRATEGIES

from .helpers import MARK, Pair, assert_refused, assert_silent, error_of, guarded_pair, raw, text_of

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def running(release: Path) -> Iterator[Pair]:
    with guarded_pair(release) as pair:
        yield pair


@pytest.fixture
def pair(running: Pair) -> Iterator[Pair]:
    yield running.fresh()
    # whatever it was given: the service answers, and its journal is clean
    assert text_of(running.server.ask("self_consistency-jerry-xl", "still there?"))
    assert_silent(running.server)


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b" ",
        b"{",
        b"{]",
        b'{"model": "moa-jerry-xl",}',
        b"{'model': 1}",
        b"\xff\xfe{}",
        b"\x00",
        b"nope",
        b"NaN",
        b'{"temperature": Infinity}',
        b'{"model": "\xc3\x28"}',
        b'{"a": 1} {"b": 2}',
        b'{"a": "\n"}',
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b'{"n": ' + b"9" * 5000 + b"}",
        MARK.encode(),
        b"model=moa-jerry-xl",
    ],
    ids=lambda content: repr(content[:16]),
)
def test_a_body_that_is_no_json(pair: Pair, content: bytes) -> None:
    assert_refused(pair.server.post(content=content, headers=JSON), 400, "invalid_json")
    assert pair.upstream.seen == []


@pytest.mark.parametrize(
    "body",
    ["null", "[]", '"text"', "1", "true", "-0.5", '[{"model": "moa-jerry-xl"}]'],
)
def test_json_that_is_no_object(pair: Pair, body: str) -> None:
    error = assert_refused(
        pair.server.post(content=body.encode(), headers=JSON), 400, "invalid_request"
    )
    assert error["message"] == "the body must be a JSON object"


GOOD: dict[str, Any] = {"model": "moa-jerry-xl", "messages": [user(MARK)]}


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"model": None}, "model"),
        ({"model": 5}, "model"),
        ({"model": ""}, "model"),
        ({"model": ["moa-jerry-xl"]}, "model"),
        ({"model": {"id": "moa-jerry-xl"}}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": MARK}, "messages"),
        ({"messages": [None]}, "messages[0]"),
        ({"messages": [MARK]}, "messages[0]"),
        ({"messages": [[user("x")]]}, "messages[0]"),
        ({"messages": [user("x"), 7]}, "messages[1]"),
        ({"messages": [{}]}, "messages[0].role"),
        ({"messages": [{"content": MARK}]}, "messages[0].role"),
        ({"messages": [{"role": None, "content": MARK}]}, "messages[0].role"),
        ({"messages": [{"role": "wizard", "content": MARK}]}, "messages[0].role"),
        ({"messages": [{"role": ["user"], "content": MARK}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [user(None)]}, "messages[0].content"),
        ({"messages": [user(5)]}, "messages[0].content"),
        ({"messages": [user({"type": "text", "text": MARK})]}, "messages[0].content"),
        ({"messages": [user("x"), {"role": "system", "content": None}]}, "messages[1].content"),
        ({"messages": [user([MARK])]}, "messages[0].content"),
        ({"messages": [user([{}])]}, "messages[0].content"),
        ({"messages": [user([{"type": "text"}])]}, "messages[0].content"),
        ({"messages": [user([{"type": "text", "text": 5}])]}, "messages[0].content"),
        ({"messages": [user([{"type": 5, "text": MARK}])]}, "messages[0].content"),
        ({"messages": [user("")]}, "user message"),
        ({"messages": [user(" \n ")]}, "user message"),
        ({"messages": [user([])]}, "user message"),
        (
            {"messages": [user([{"type": "input_audio", "input_audio": {"data": ""}}])]},
            "user message",
        ),
        ({"messages": [{"role": "assistant", "content": None}]}, "user message"),
        ({"messages": [user("\ud800 half")]}, "surrogate"),
        ({"messages": [{"role": "system", "content": "\udfff"}, user("x")]}, "surrogate"),
        ({"n": 0}, "n must"),
        ({"n": "2"}, "n must"),
        ({"n": True}, "n must"),
        ({"n": 1.0}, "n must"),
        ({"n": [1]}, "n must"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -5}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"max_tokens": 1e9}, "max_tokens"),
        ({"max_tokens": 2**31}, "max_tokens"),
        ({"max_completion_tokens": {}}, "max_completion_tokens"),
        ({"stream": "true"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"stream": 1.0}, "stream"),
        ({"stream": []}, "stream"),
        ({"stream_options": True}, "stream_options"),
        ({"stream_options": ["include_usage"]}, "stream_options"),
    ],
    ids=lambda value: json.dumps(value)[:60],
)
def test_a_field_of_a_wrong_type_is_named(pair: Pair, change: dict[str, Any], place: str) -> None:
    body = json.dumps({**GOOD, **change}).encode()  # half a surrogate pair travels as an escape
    error = assert_refused(pair.server.post(content=body, headers=JSON), 400, "invalid_request")
    assert place in error["message"]
    assert error["type"] == "invalid_request_error"
    assert error["param"].startswith(next(iter(change)))  # as OpenAI's API names it
    assert pair.upstream.seen == []


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "GZIP", "gzip, identity"])
def test_a_compressed_body(pair: Pair, encoding: str) -> None:
    headers = {**JSON, "content-encoding": encoding}
    content = gzip.compress(json.dumps(GOOD).encode())
    response = pair.server.post(content=content, headers=headers)
    error = assert_refused(response, 415, "unsupported_media_type")
    assert "compressed" in error["message"]
    assert response.headers["accept-encoding"] == "identity"
    assert pair.upstream.seen == []


def test_a_body_with_the_encoding_identity(pair: Pair) -> None:
    headers = {**JSON, "content-encoding": "identity"}
    assert text_of(pair.server.post(content=json.dumps(GOOD).encode(), headers=headers))


@pytest.mark.parametrize("name", ["model", "messages"])
def test_a_missing_field_is_named(pair: Pair, name: str) -> None:
    body = {key: value for key, value in GOOD.items() if key != name}
    assert name in assert_refused(pair.server.post(body), 400, "invalid_request")["message"]


@pytest.mark.parametrize(
    "change",
    [
        {
            "n": None,
            "max_tokens": None,
            "stream": None,
            "stream_options": None,
            "optillm_approach": None,
        },
        {"messages": [user([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])]},
        {"messages": [{"role": "assistant"}, user("x")]},
        {"messages": [{"role": "system", "content": "What is 2 + 2?"}]},
        {"messages": [{"role": "developer", "content": "What is 2 + 2?"}]},
        {"messages": [{"role": "assistant", "content": "What is 2 + 2?"}]},
        {"messages": [user("\U0001f600 \u0000 \u2028 \x7f")]},
        {"stream_options": {"include_usage": "yes"}},
        {"max_tokens": 2**31 - 1, "max_completion_tokens": 1},
        {"": 1, "\ud800": 2, "\u00e9": 3, "x" * 9000: 4},
        {"optillm_approach": ""},
    ],
    ids=lambda value: json.dumps(value)[:60],
)
def test_odd_but_good_requests_pass(pair: Pair, change: dict[str, Any]) -> None:
    assert text_of(pair.server.post(content=json.dumps({**GOOD, **change}).encode(), headers=JSON))


@pytest.mark.parametrize(
    "kind",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "x",
    ],
)
def test_a_wrong_content_type(pair: Pair, kind: str | None) -> None:
    headers = {} if kind is None else {"content-type": kind}
    response = pair.server.post(content=json.dumps(GOOD).encode(), headers=headers)
    assert_refused(response, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "APPLICATION/JSON", 'application/json; x="y;z"']
)
def test_every_spelling_of_json_is_json(pair: Pair, kind: str) -> None:
    assert text_of(
        pair.server.post(content=json.dumps(GOOD).encode(), headers={"content-type": kind})
    )


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/v1/",
        "/v1/completions",
        "/v1/chat/completions/",
        "/v1/embeddings",
        "/v1/responses",
        "/v1//chat/completions",
        "/V1/CHAT/COMPLETIONS",
        "/health/",
        "/static/x",
        "/v1/chat/../models",
        "/%2e%2e/etc/passwd",
    ],
)
def test_a_wrong_path(pair: Pair, path: str) -> None:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {pair.server.key}\r\n"
        "Connection: close\r\nContent-Length: 0\r\n\r\n"
    )
    answer = raw(pair.server, head.encode())
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]["code"] == "not_found"


@pytest.mark.parametrize(
    "head",
    [
        b"NONSENSE\r\n\r\n",
        b"GET /health HTTP/3.0\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"BREW /health HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /h\xc3\xa9alth HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://[::1/health HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n",
        b"GET /health HTTP/1.1\nHost: x\n\n",
        b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x00\xc8" + b"\x01" * 200,
    ],
)
def test_a_head_that_is_not_valid_is_an_error_in_json(pair: Pair, head: bytes) -> None:
    answer = raw(pair.server, head)
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert b"content-type: application/json\r\n" in answer
    error = json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]
    assert (error["code"], error["type"]) == ("invalid_request", "invalid_request_error")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", CHAT, "POST"),
        ("PUT", CHAT, "POST"),
        ("OPTIONS", CHAT, "POST"),
        ("DELETE", "/v1/models", "GET"),
        ("POST", "/v1/models", "GET"),
        ("POST", "/health", "GET"),
        ("POST", "/v1/models/moa-jerry-xl", "GET"),
    ],
)
def test_a_wrong_method(pair: Pair, method: str, path: str, allowed: str) -> None:
    url = pair.server.url.removesuffix("/v1") + path
    response = httpx.request(
        method, url, headers={"Authorization": f"Bearer {pair.server.key}"}, timeout=30
    )
    assert_refused(response, 405, "method_not_allowed")
    assert response.headers["allow"] == allowed


def test_the_lists_and_the_health_answer(pair: Pair) -> None:
    assert pair.server.get("/health", key=None).json() == {"status": "ok"}
    models = pair.server.get("/v1/models")
    assert [model["id"] for model in models.json()["data"]] == [
        f"{strategy}-jerry-xl" for strategy in sorted(STRATEGIES)
    ]
    assert models.headers["x-optillm-guard"] == GUARD_VERSION
    head = httpx.head(
        f"{pair.server.url}/models",
        headers={"Authorization": f"Bearer {pair.server.key}"},
        timeout=30,
    )
    assert (head.status_code, head.content) == (200, b"")


def test_a_method_that_http_does_not_have(pair: Pair) -> None:
    answer = raw(pair.server, b"BREW /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert b'"code": "invalid_request"' in answer


def test_one_model_of_the_list(pair: Pair) -> None:
    model = pair.server.get("/v1/models/moa-jerry-xl").json()
    assert (model["id"], model["object"], model["owned_by"]) == ("moa-jerry-xl", "model", "optillm")
    for name in ("jerry-xl", "moa-jerry", "z3-jerry-xl", "moa-jerry-xl/x"):
        assert_refused(pair.server.get(f"/v1/models/{name}"), 404, "model_unknown")


def test_a_base_model_that_the_upstream_does_not_serve_is_not_offered(release: Path) -> None:
    with guarded_pair(release, base_models=["jerry-xl", "kaatje"]) as pair:
        models = pair.server.get("/v1/models").json()["data"]
        assert {model["id"].rpartition("moa-")[2] for model in models} >= {"jerry-xl"}
        assert not any("kaatje" in model["id"] for model in models)
        assert_refused(pair.server.get("/v1/models/moa-kaatje"), 404, "model_unknown")


@pytest.mark.parametrize(
    "reply",
    [
        Reply(500, {"error": {"message": "the database is down"}}),
        Reply(200, {"object": "list"}),
        Reply(200, []),
        Reply(302, {}, {"Location": "http://127.0.0.1:1/"}),
    ],
)
def test_without_the_upstreams_list_there_is_none(pair: Pair, reply: Reply) -> None:
    pair.fresh().upstream.respond = lambda seen: reply if seen.method == "GET" else None
    for path in ("/v1/models", "/v1/models/moa-jerry-xl"):
        assert_refused(pair.server.get(path), 502, "upstream_failed")
    pair.fresh()


def test_health_answers_while_many_wait_for_the_model_list(pair: Pair) -> None:
    pair.fresh()
    late = Reply(body={"data": []}, delay=4)
    pair.upstream.respond = lambda seen: late if seen.method == "GET" else None
    asking = [threading.Thread(target=pair.server.get, args=["/v1/models"]) for _ in range(20)]
    try:
        for thread in asking:
            thread.start()
        while len(pair.upstream.seen) < 8:
            assert any(thread.is_alive() for thread in asking)
            time.sleep(0.01)
        assert pair.server.get("/health", key=None).status_code == 200
    finally:
        for thread in asking:
            thread.join()
        pair.fresh()


@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions", "/nowhere"])
@pytest.mark.parametrize(
    "header",
    [
        None,
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer wrong",
        b"Basic KEY",
        b"KEY",
        b"Bearer KEYx",
        b"Bearer KE",
        b"Bearer KEY KEY",
        b"Bearer \xe9\xff",
        b"Bearer K\xc3\x89Y",
        b"Token KEY",
    ],
)
def test_no_key_or_a_wrong_one(pair: Pair, path: str, header: bytes | None) -> None:
    key = pair.server.key.encode()
    value = header and header.replace(b"KEY", key).replace(b"KE", key[:-1])
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\n"
        "Connection: close\r\nContent-Type: application/json\r\n"
    ).encode()
    if value is not None:
        head += b"Authorization: " + value + b"\r\n"
    body = json.dumps(GOOD).encode()
    answer = raw(pair.server, head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    assert answer.startswith(b"HTTP/1.1 401 "), answer
    assert b"\r\nwww-authenticate: bearer\r\n" in answer.lower()
    assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]["code"] == "invalid_api_key"
    assert pair.upstream.seen == []


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_right_key(pair: Pair, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {pair.server.key}"}
    assert text_of(
        httpx.post(f"{pair.server.url}/chat/completions", json=GOOD, headers=headers, timeout=30)
    )


#: The test puts the service's key in the place of KEY.
POST_WITH_KEY = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer KEY\r\n"
POST_JSON_WITH_KEY = POST_WITH_KEY + b"Content-Type: application/json\r\n"


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nAuthorization Bearer KEY\r\n\r\n",
        POST_WITH_KEY + b"Content-Length: -1\r\n\r\n",
        POST_WITH_KEY + b"Content-Length: KEY\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX(KEY): y\r\n\r\n",
        POST_JSON_WITH_KEY + b"Content-Length: 500\r\n\r\n{",
        POST_JSON_WITH_KEY + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}",
        POST_JSON_WITH_KEY + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
    ],
    ids=range(11),
)
def test_what_is_hardly_http(pair: Pair, data: bytes) -> None:
    # the fixture looks for a key in the journal and for a service that still answers
    answer = raw(pair.server, data.replace(b"KEY", pair.server.key.encode()), finish=True)
    assert not answer.startswith((b"HTTP/1.1 5", b"HTTP/1.1 2")), answer


def test_a_refusal_of_the_door_is_no_page_of_html(pair: Pair) -> None:
    response = httpx.get(pair.server.url, timeout=30)
    assert response.status_code == 401
    assert error_of(response)["type"] == "authentication_error"
