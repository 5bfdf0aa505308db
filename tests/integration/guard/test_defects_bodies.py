"""What a request's body can do to bare OptiLLM, and cannot do to the guarded one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from optictl.proof.standin import Reply, StandIn, completion
from testing.support import UPSTREAM_KEY, guarded, proxy_config

from .helpers import (
    BOOM,
    OPTILLM,
    Pair,
    assert_refused,
    assert_silent,
    bare_pair,
    error_of,
    guarded_pair,
    text_of,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bare_running(release: Path) -> Iterator[Pair]:
    with bare_pair(release) as pair:
        yield pair


@pytest.fixture(scope="module")
def guarded_running(release: Path) -> Iterator[Pair]:
    with guarded_pair(release, strategies=["moa", "none", "mcts", "self_consistency"]) as pair:
        yield pair


@pytest.fixture
def bare_one(bare_running: Pair) -> Pair:
    return bare_running.fresh()


@pytest.fixture
def guarded_one(guarded_running: Pair) -> Pair:
    return guarded_running.fresh()


def test_bare_lets_a_body_replace_the_upstream_key(bare_one: Pair) -> None:
    bare_one.server.ask("none-jerry-xl", extra_headers={"Authorization": "Bearer stolen"})
    assert bare_one.bearers == {"Bearer stolen"}


def test_bare_fails_on_a_key_that_the_sdk_does_not_know(bare_one: Pair) -> None:
    assert bare_one.server.ask("none-jerry-xl", foo=1).status_code == 500


@pytest.mark.parametrize("model", ["moa-jerry-xl", "none-jerry-xl"])
def test_guarded_sends_no_unknown_key_of_the_body_upstream(guarded_one: Pair, model: str) -> None:
    keys: dict[str, Any] = {
        "extra_headers": {"Authorization": "Bearer stolen"},
        "extra_query": {"a": "b"},
        "extra_body": {"model": "other"},
        "timeout": 0.001,
        "foo": 1,
    }
    response = guarded_one.server.ask(model, **keys)
    assert text_of(response)
    assert response.headers["x-optillm-dropped"] == ",".join(sorted(keys))
    assert "Bearer stolen" not in guarded_one.bearers
    assert guarded_one.models == {"jerry-xl"}
    for seen in guarded_one.upstream.calls():
        body = dict(seen.body or {})
        # the mark of the guard, and that the call streams; nothing of the client
        assert body.pop("extra_headers") == {"x-optillm-hop": response.headers["x-optillm-trace"]}
        own = {"stream", "stream_options"}
        assert set(body) - own <= {"model", "messages", "n", "temperature", "max_tokens"}
        assert seen.path == "/v1/chat/completions"


def test_guarded_names_no_more_keys_than_a_header_can_hold(guarded_one: Pair) -> None:
    odd = {f"key {i}\r\nx-evil: \u00e9" + "y" * 99: 1 for i in range(2000)}
    response = guarded_one.server.ask("moa-jerry-xl", **odd)
    assert text_of(response)
    assert "x-evil" not in response.headers
    assert 0 < len(response.headers["x-optillm-dropped"]) < 2000


def test_bare_lets_one_request_break_a_strategy_for_everybody(bare_one: Pair) -> None:
    # only a restart mends it: no other test here may ask this server for mcts
    assert text_of(bare_one.server.ask("mcts-jerry-xl"))
    bare_one.server.ask("mcts-jerry-xl", mcts_simulations=0)
    is_fixed = OPTILLM >= (0, 3, 22)
    assert bare_one.server.ask("mcts-jerry-xl").status_code == (200 if is_fixed else 500)


def test_guarded_keeps_one_request_from_changing_the_next(guarded_one: Pair) -> None:
    response = guarded_one.server.ask(
        "mcts-jerry-xl", mcts_simulations=0, mcts_depth=-1, mcts_exploration="x"
    )
    assert text_of(response)
    assert response.headers["x-optillm-dropped"] == "mcts_depth,mcts_exploration,mcts_simulations"
    assert text_of(guarded_one.server.ask("mcts-jerry-xl"))


@pytest.mark.parametrize("body", [b"null", b"[]", b'"text"', b'{"messages": null}'])
def test_bare_answers_bad_bodies_with_a_page_of_html(bare_one: Pair, body: bytes) -> None:
    response = bare_one.server.post(content=body, headers={"content-type": "application/json"})
    assert response.status_code == 500
    assert response.headers["content-type"].startswith("text/html")
    assert "Traceback" in bare_one.server.journal()


def test_bare_does_not_refuse_a_message_without_content(bare_one: Pair) -> None:
    response = bare_one.server.post({"messages": [{"role": "user"}]})
    assert response.status_code == (200 if OPTILLM >= (0, 4, 0) else 500)


@pytest.mark.parametrize(
    "body", [b"null", b"[]", b'"text"', b'{"messages": null}', b'{"messages": [{"role": "user"}]}']
)
def test_guarded_answers_bad_bodies_with_an_error(guarded_one: Pair, body: bytes) -> None:
    response = guarded_one.server.post(content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert error_of(response)["type"] == "invalid_request_error"
    assert_silent(guarded_one.server)


@pytest.mark.parametrize("messages", [None, []])
def test_bare_works_on_a_request_without_messages(
    bare_one: Pair, messages: list[Any] | None
) -> None:
    body: dict[str, Any] = (
        {"model": "moa-jerry-xl"}
        if messages is None
        else {"model": "moa-jerry-xl", "messages": messages}
    )
    assert text_of(bare_one.server.post(body))
    assert len(bare_one.upstream.calls()) == 3


DIALOGUE = "Here it is.\nUser: hi\nAssistant: hello\nThat is all."


def test_bare_cuts_an_answer_that_quotes_a_conversation(bare_one: Pair) -> None:
    bare_one.upstream.respond = lambda seen: Reply(body=completion(seen.body or {}, DIALOGUE))
    assert text_of(bare_one.server.ask("moa-jerry-xl")) == "hello\nThat is all."


@pytest.mark.parametrize("strategy", ["moa", "self_consistency"])
@pytest.mark.parametrize(
    "answer", [DIALOGUE, "The field is called 'User:'.", "User:", "Assistant: 4"]
)
def test_guarded_leaves_an_answer_whole(guarded_one: Pair, strategy: str, answer: str) -> None:
    guarded_one.upstream.respond = lambda seen: Reply(body=completion(seen.body or {}, answer))
    assert text_of(guarded_one.server.ask(f"{strategy}-jerry-xl")) == answer


def test_bare_answers_lack_what_a_bill_needs(bare_one: Pair) -> None:
    whole = bare_one.server.ask("moa-jerry-xl").json()
    assert not {"id", "object", "created"} & set(whole)
    assert not {"prompt_tokens", "total_tokens"} & set(whole["usage"])
    assert whole["model"] == "jerry-xl"


def test_bare_streams_never_tell_the_usage(bare_one: Pair) -> None:
    response = bare_one.server.ask(
        "moa-jerry-xl", stream=True, stream_options={"include_usage": True}
    )
    assert "usage" not in response.text


@pytest.mark.parametrize("count", [0, "2", None])
def test_bare_takes_any_n(bare_one: Pair, count: Any) -> None:
    response = bare_one.server.ask("moa-jerry-xl", n=count)
    assert response.status_code == 500 or response.json()["choices"] == []


@pytest.mark.parametrize("count", [0, -1, "2", 1.5, True, 129, 10**30])
def test_guarded_takes_a_small_positive_n(guarded_one: Pair, count: Any) -> None:
    assert_refused(guarded_one.server.ask("moa-jerry-xl", n=count), 400, "invalid_request")
    assert guarded_one.upstream.seen == []


_OPEN, _CLOSE = "<optillm_approach>", "</optillm_approach>"


@pytest.mark.parametrize(
    "text",
    [
        _OPEN * 60_000,
        (_OPEN + _CLOSE) * 50_000,
        "<optillm_" * 50_000 + f"{_OPEN}x{_CLOSE}" + f"approach>x{_CLOSE}" * 50_000,
    ],
    ids=["never closed", "empty", "one inside another"],
)
def test_a_text_full_of_tags_does_not_hold_up_everybody(guarded_one: Pair, text: str) -> None:
    # a search from every opening one takes minutes, without letting any other thread run
    begun = time.monotonic()
    response = guarded_one.server.ask("moa-jerry-xl", "hello " + text)
    assert response.status_code in (200, 400)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("whole", [True, False], ids=["as rendered", "provider only"])
def test_an_outage_is_over_when_it_is_over(release: Path, whole: bool) -> None:
    # OptiLLM's proxy plugin calls a provider that failed once unhealthy, for 30 s or for ever
    with StandIn(key=UPSTREAM_KEY).running() as upstream:
        config = proxy_config(upstream.base_url)
        config = config if whole else config.split("routing:")[0]
        with guarded(release, upstream.base_url, config=config) as server:
            upstream.respond = lambda seen: BOOM
            assert_refused(server.ask("moa-jerry-xl"), 502, "upstream_failed")
            upstream.respond = None
            assert text_of(server.ask("moa-jerry-xl"))
