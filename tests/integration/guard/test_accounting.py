"""Accounting and conversations, as plain objects."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optictl.guard import accounting, loops
from optictl.guard.exchanges import Run


def request(calls: int = 3, timeout: float = 60) -> accounting.Request:
    return accounting.Request("moa", "jerry-xl", max_calls=calls, timeout=timeout)


def enter(one: accounting.Request, call: accounting.Call) -> None:
    """A call that has its answer at once."""
    with one.calling(call, lambda: None):
        pass


def answered(**numbers: int) -> accounting.Call:
    return accounting.Call("jerry-xl", status=200, **numbers)


def test_the_call_beyond_the_limit_is_not_entered() -> None:
    one = request(calls=2)
    enter(one, answered())
    enter(one, answered())
    with pytest.raises(accounting.Abort) as first:
        enter(one, answered())
    assert (first.value.status, first.value.code) == (400, "upstream_call_limit")
    assert len(one.calls) == 2


def test_every_call_counts_its_tokens_and_failures() -> None:
    one = request()
    enter(one, answered(prompt_tokens=2, completion_tokens=1))
    enter(one, accounting.Call("jerry-xl", status=503))
    enter(one, answered(prompt_tokens=10, completion_tokens=5))
    assert (one.total("prompt_tokens"), one.total("completion_tokens")) == (12, 6)
    assert [call.status for call in one.failures] == [503]


@pytest.mark.parametrize(
    ("status", "failed"),
    [(0, True), (199, True), (200, False), (204, False), (302, True), (404, True)],
)
def test_only_a_2xx_is_a_success(status: int, failed: bool) -> None:
    assert accounting.Call("jerry-xl", status=status).failed is failed


def test_a_request_without_time_makes_no_call() -> None:
    one = request(timeout=0)
    with pytest.raises(accounting.Abort) as reason:
        enter(one, answered())
    assert (reason.value.status, reason.value.code) == (504, "request_timeout")
    assert one.calls == []


def test_the_first_reason_stands() -> None:
    one = request()
    first, second = (
        accounting.Abort(421, "loop_detected", "a"),
        accounting.Abort(504, "request_timeout", "b"),
    )
    one.abort(first)
    one.abort(second)
    assert one.aborted is first
    with pytest.raises(accounting.Abort) as reason:
        enter(one, answered())
    assert reason.value is first


def test_a_strategy_cannot_catch_an_abort() -> None:
    # they all write `except Exception` and try again
    assert not issubclass(accounting.Abort, Exception)


def test_the_limit_holds_with_many_threads() -> None:
    one = request(calls=50)
    refused = []

    def spend() -> None:
        for _ in range(20):
            try:
                enter(one, answered())
            except accounting.Abort as reason:
                refused.append(reason)

    threads = [threading.Thread(target=spend) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(one.calls) == 50
    assert len(refused) == 150


def test_attribution_is_a_matter_of_the_thread() -> None:
    mine, theirs = request(), request()
    run = Run()
    seen: list[object] = []

    def other() -> None:
        seen.append(accounting.current.get())
        with accounting.attributed_to(theirs, run):
            seen.append(accounting.current.get())

    with accounting.attributed_to(mine, run):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert accounting.current.get() == (mine, run)
    assert accounting.current.get() is None
    assert seen == [None, (theirs, run)]


texts = st.text(st.characters(exclude_characters="\0"), min_size=1).filter(str.strip)
conversations = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant"]), "content": texts}
    ),
    min_size=1,
    max_size=5,
)


@given(conversations)
def test_a_conversation_keeps_its_fingerprint_on_the_way(messages: list[dict[str, str]]) -> None:
    parts = [
        {**m, "content": [{"type": "text", "text": m["content"]}], "name": None} for m in messages
    ]
    developer = [
        {**m, "role": "developer" if m["role"] == "system" else m["role"]} for m in messages
    ]
    padded = [{"role": "system", "content": ""}, *messages, {"role": "assistant", "content": None}]
    stripped = [{**m, "content": f"\n{m['content']} "} for m in messages]
    marks = {loops.fingerprint(one) for one in (messages, parts, developer, padded, stripped)}
    assert len(marks) == 1


@given(conversations, conversations)
def test_other_conversations_have_other_fingerprints(
    left: list[dict[str, str]], right: list[dict[str, str]]
) -> None:
    def meaning(messages: list[dict[str, str]]) -> list[tuple[str, str]]:
        return [(message["role"], message["content"].strip()) for message in messages]

    assert (loops.fingerprint(left) == loops.fingerprint(right)) == (
        meaning(left) == meaning(right)
    )


_JSON = st.recursive(
    st.none() | st.integers() | st.text() | st.just("\ud800"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "type", "text"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.lists(_JSON, max_size=4))
def test_anything_has_a_fingerprint(messages: list[object]) -> None:
    assert len(loops.fingerprint(messages)) == 16


def test_only_waiting_calls_have_owners() -> None:
    conversations, first, second = loops.Conversations(), request(), request()
    a = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 5}
    b = {"messages": [{"role": "user", "content": "b"}], "max_tokens": 5}
    with conversations.waiting(a, first):
        with conversations.waiting(a, second), conversations.waiting(a, first):
            assert conversations.owners(a) == [first, second, first]
            assert conversations.owners(b) == []
            assert conversations.owners({"messages": a["messages"]}) == []
            renamed = {"messages": a["messages"], "max_completion_tokens": 5}
            assert conversations.owners(renamed) == [first, second, first]
        assert conversations.owners(a) == [first]
    assert conversations.owners(a) == []


def test_a_failing_call_does_not_wait_any_more() -> None:
    conversations, body = loops.Conversations(), {"messages": [{"role": "user", "content": "a"}]}
    with pytest.raises(OSError, match="gone"), conversations.waiting(body, request()):
        raise OSError("gone")
    assert conversations.owners(body) == []
