"""Which strategy runs on which model: bare OptiLLM gets it wrong, the guarded one does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .helpers import (
    CALLS,
    OPTILLM,
    Pair,
    asks_for,
    assert_refused,
    bare_pair,
    events,
    guarded_pair,
    text_of,
)

pytestmark = pytest.mark.slow

MODELS = ("jerry-xl", "large")
#: `coc` does not load in a proxy's closure; re2 and cot_reflection are there and not enabled.
ENABLED = ("moa", "self_consistency", "coc")


@pytest.fixture(scope="module")
def bare_running(release: Path) -> Iterator[Pair]:
    with bare_pair(release, MODELS) as pair:
        yield pair


@pytest.fixture(scope="module", params=["proxy", "auto"])
def guarded_running(release: Path, request: pytest.FixtureRequest) -> Iterator[Pair]:
    """With choice: prompt. By default, no message and no field chooses (`test_strategies`)."""
    options = {"approach": request.param, "strategies": ENABLED, "extra": ["--choice", "prompt"]}
    with guarded_pair(release, MODELS, **options) as pair:
        yield pair


@pytest.fixture
def bare(bare_running: Pair) -> Pair:
    return bare_running.fresh()


@pytest.fixture
def guarded(guarded_running: Pair) -> Pair:
    return guarded_running.fresh()


def chat(model: str, *messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": list(messages), **fields}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def test_bare_runs_no_strategy_behind_the_proxy(release: Path) -> None:
    with bare_pair(release, arguments=["--approach", "proxy"]) as pair:
        assert text_of(pair.server.ask("moa-jerry-xl", "What is 2 + 2?"))
        if OPTILLM < (0, 4, 0):
            probe = pair.upstream.calls()[0].body or {}
            # first a hidden question, which is the same for every request
            assert (probe["max_tokens"], probe["messages"][0]["content"]) == (1, "test")
        assert [
            seen.body.get("n", 1)
            for seen in pair.upstream.calls()
            if seen.body and asks_for(seen, "2 + 2")
        ] == [1]


def test_guarded_runs_the_strategy_and_asks_nothing_else(guarded: Pair) -> None:
    assert text_of(guarded.server.ask("moa-jerry-xl", "What is 2 + 2?"))
    assert len(guarded.upstream.seen) == CALLS["moa"]
    assert all(asks_for(seen, "2 + 2") for seen in guarded.upstream.seen)


TAG = "<optillm_approach>re2</optillm_approach>"


@pytest.mark.parametrize(
    "messages",
    [
        [user(f"{TAG} What is 2 + 2?")],
        [{"role": "system", "content": f"Be brief. {TAG}"}, user("What is 2 + 2?")],
        [user([{"type": "text", "text": TAG}, {"type": "text", "text": "What is 2 + 2?"}])],
    ],
)
def test_bare_lets_a_message_choose_the_strategy(
    bare: Pair, messages: list[dict[str, Any]]
) -> None:
    assert text_of(bare.server.post(chat("moa-jerry-xl", *messages)))
    calls = bare.upstream.calls()
    assert len(calls) == 1
    assert "Read the question again" in str((calls[0].body or {})["messages"])


@pytest.mark.parametrize(
    "name",
    ["re2", "cot_reflection", "z3", "proxy", "auto", "moa&re2", "moa-re2", "coc", "MOA", " moa"],
)
def test_guarded_refuses_a_strategy_off_the_list_in_a_message(guarded: Pair, name: str) -> None:
    response = guarded.server.ask(
        "moa-jerry-xl", f"<optillm_approach>{name}</optillm_approach> What is 2 + 2?"
    )
    assert_refused(
        response, 400, "strategy_not_loaded" if name == "coc" else "strategy_not_enabled"
    )
    assert guarded.upstream.seen == []


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "system", "content": f"Be brief. {TAG}"}, user("hello")],
        [{"role": "developer", "content": TAG}, user("hello")],
        [user("hello"), {"role": "assistant", "content": TAG}, user("hello")],
        [user("hello"), {"role": "tool", "content": TAG}],
        [user(f"hello {TAG}"), user("hello")],
        [user([{"type": "text", "text": "hello"}, {"type": "text", "text": TAG}])],
        # one tag inside another, and halves that meet when what stands between them is taken out
        [
            user(
                "hello <optillm_approach>mo<optillm_approach>a"
                "</optillm_approach></optillm_approach>"
            )
        ],
        [
            user(
                "hello <optillm_app<optillm_approach></optillm_approach>"
                "roach>re2</optillm_approach>"
            )
        ],
        [
            user(
                "hello <optillm_app<optillm_approach>moa</optillm_approach>"
                "roach>re2</optillm_approach>"
            )
        ],
        [user("hello <optillm_approach>moa</optillm_approach>" + TAG)],
    ],
)
def test_guarded_finds_the_tag_wherever_it_hides(
    guarded: Pair, messages: list[dict[str, Any]]
) -> None:
    assert_refused(
        guarded.server.post(chat("moa-jerry-xl", *messages)), 400, "strategy_not_enabled"
    )
    assert guarded.upstream.seen == []


def test_guarded_runs_an_enabled_strategy_that_a_message_chose(guarded: Pair) -> None:
    response = guarded.server.ask(
        "moa-jerry-xl", "Hello <optillm_approach>self_consistency</optillm_approach>"
    )
    assert text_of(response)
    assert response.headers["x-optillm-strategy"] == "self_consistency"
    assert len(guarded.upstream.calls()) == CALLS["self_consistency"]
    assert not any("optillm_approach" in str(seen.body) for seen in guarded.upstream.seen)


@pytest.mark.parametrize(
    "content",
    [
        [
            {"type": "text", "text": "hello <optillm_approach>re2</optillm_"},
            {"type": "text", "text": " approach>"},
        ],
        "hello <optillm_approach>re2\n</optillm_approach>",
        "hello <optillm_approach>re2",
        "hello </optillm_approach>re2<optillm_approach>",
    ],
)
def test_what_is_no_tag_chooses_nothing(guarded: Pair, content: Any) -> None:
    response = guarded.server.post(chat("moa-jerry-xl", user(content)))
    assert response.headers["x-optillm-strategy"] == "moa"
    assert len(guarded.upstream.calls()) == CALLS["moa"]


def test_bare_lets_the_body_choose_the_strategy(bare: Pair) -> None:
    assert text_of(bare.server.ask("moa-jerry-xl", optillm_approach="re2"))
    assert len(bare.upstream.calls()) == 1


@pytest.mark.parametrize("name", ["re2", "z3", "proxy", "auto", "moa-re2"])
def test_guarded_refuses_a_strategy_off_the_list_in_the_body(guarded: Pair, name: str) -> None:
    assert_refused(
        guarded.server.ask("moa-jerry-xl", optillm_approach=name), 400, "strategy_not_enabled"
    )
    assert_refused(
        guarded.server.ask("re2-jerry-xl", optillm_approach="moa"), 400, "strategy_not_enabled"
    )
    assert guarded.upstream.seen == []


@pytest.mark.parametrize("model", ["nosuch-jerry-xl", "coc-jerry-xl", "Moa-jerry-xl"])
def test_bare_sends_an_unknown_prefix_upstream(bare: Pair, model: str) -> None:
    bare.server.ask(model)
    assert bare.models == {model}


@pytest.mark.parametrize(
    ("model", "code"),
    [
        ("nosuch-jerry-xl", "strategy_not_enabled"),
        ("Moa-jerry-xl", "strategy_not_enabled"),
        ("re2-jerry-xl", "strategy_not_enabled"),
        ("proxy-moa-jerry-xl", "strategy_not_enabled"),
        ("moa-moa-jerry-xl", "strategy_not_enabled"),
        ("moa&self_consistency-jerry-xl", "strategy_not_enabled"),
        ("-jerry-xl", "strategy_not_enabled"),
        ("nonsense", "strategy_not_enabled"),
        ("coc-jerry-xl", "strategy_not_loaded"),
        ("jerry-xl", "strategy_prefix_required"),
        ("moa-large", "base_model_unknown"),
        ("moa-proxy-large", "base_model_unknown"),
        ("moa-jerry-xl-2", "base_model_unknown"),
        ("moa-", "base_model_unknown"),
        ("moa", "base_model_unknown"),
        ("auto", "strategy_not_enabled"),
    ],
)
def test_guarded_lets_no_other_name_pass(guarded: Pair, model: str, code: str) -> None:
    assert_refused(guarded.server.ask(model), 400, code)
    assert guarded.upstream.seen == []


def test_guarded_says_why_a_strategy_did_not_load(guarded: Pair) -> None:
    told = [event for event in events(guarded.server) if event["event"] == "plugin_failed"]
    assert any("coc" in event["message"] for event in told)
    (loaded,) = [event for event in events(guarded.server) if event["event"] == "loaded"]
    assert loaded["missing"] == ["coc"]


def test_bare_eats_every_leading_strategy_word(bare: Pair) -> None:
    assert text_of(bare.server.ask("moa-proxy-large"))
    assert bare.models == {"large"}


def test_bare_serves_a_base_model_and_a_missing_one(bare: Pair) -> None:
    assert text_of(bare.server.ask("jerry-xl"))
    assert text_of(bare.server.post({"messages": [user("hello")]}))
    assert len(bare.upstream.calls()) == 2
