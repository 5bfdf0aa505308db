"""The journal: one JSON line for every request, and never what a client or an upstream said."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from optictl.guard import health_probe
from optictl.proof.standin import Reply
from testing.support import PROXY_KEY, UPSTREAM_KEY, Server, wait_until

from .helpers import BOOM, MARK, Pair, assert_silent, events, guarded_pair, journal_of, spent

pytestmark = pytest.mark.slow

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def running(release: Path) -> Iterator[Pair]:
    flags = ["--max-upstream-calls", "5", "--max-body-bytes", "10000"]
    with guarded_pair(
        release, strategies=["moa", "bon", "self_consistency", "rstar", "coc"], extra=flags
    ) as pair:
        yield pair


@pytest.fixture
def pair(running: Pair) -> Pair:
    return running.fresh()


def written_by(
    pair: Pair, request: Callable[[Server], httpx.Response]
) -> tuple[httpx.Response, list[dict[str, Any]]]:
    """An answer, and every line that the journal gained by the request."""
    before = len(events(pair.server))
    response = request(pair.server)
    # the line is written before the answer is sent, but perhaps not yet read back from the file
    wait_until(
        lambda: any(
            line["event"] in ("request", "refused") for line in events(pair.server)[before:]
        )
    )
    return response, events(pair.server)[before:]


def test_the_start_is_told_in_two_lines(pair: Pair) -> None:
    loaded, serving = [
        event for event in events(pair.server) if event["event"] in ("loaded", "serving")
    ]
    assert loaded == {
        "event": "loaded",
        "optillm": os.environ.get("OPTICTL_TEST_OPTILLM", "0.3.12"),
        "strategies": ["bon", "moa", "rstar", "self_consistency"],
        "missing": ["coc"],
    }
    assert serving["port"] == int(pair.server.url.split(":")[2].split("/")[0])


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_is_one_line_with_its_numbers(pair: Pair, stream: bool) -> None:
    response, lines = written_by(
        pair, lambda server: server.ask("moa-jerry-xl", MARK, stream=stream)
    )
    (line,) = lines
    prompt, completion = spent(pair.upstream)
    seconds = line.pop("seconds")
    assert 0 <= seconds < 30
    assert line == {
        "event": "request",
        "trace": response.headers["x-optillm-trace"],
        "strategy": "moa",
        "base_model": "jerry-xl",
        "status": 200,
        "code": "",
        "upstream_calls": 3,
        "upstream_failures": 0,
        "upstream_statuses": [200],
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "effect": "full",
        "degraded": [],
        "fixed": [],
    }


@pytest.mark.parametrize(
    ("request_of", "status", "code"),
    [
        (lambda server: server.ask("jerry-xl", MARK), 400, "strategy_prefix_required"),
        (lambda server: server.ask(f"{MARK}-jerry-xl", MARK), 400, "strategy_not_enabled"),
        (lambda server: server.ask("coc-jerry-xl", MARK), 400, "strategy_not_loaded"),
        (lambda server: server.ask("moa-large", MARK), 400, "base_model_unknown"),
        (lambda server: server.post(content=MARK.encode(), headers=JSON), 400, "invalid_json"),
        (lambda server: server.post([MARK]), 400, "invalid_request"),
        (lambda server: server.ask("moa-jerry-xl", MARK, n=MARK), 400, "invalid_request"),
        (lambda server: server.post({"model": MARK}, key="wrong-" + MARK), 401, "invalid_api_key"),
        (lambda server: server.post({"model": MARK}, key=None), 401, "invalid_api_key"),
        (lambda server: server.get(f"/{MARK}"), 400, "not_found"),
        (lambda server: server.get("/v1/chat/completions"), 405, "method_not_allowed"),
        (lambda server: server.ask("moa-jerry-xl", MARK * 1000), 413, "body_too_large"),
        (
            lambda server: server.post(content=MARK.encode(), headers={"content-type": MARK}),
            415,
            "unsupported_media_type",
        ),
    ],
)
def test_a_refusal_is_one_line_without_the_clients_words(
    pair: Pair, request_of: Callable[[Server], httpx.Response], status: int, code: str
) -> None:
    response, lines = written_by(pair, request_of)
    assert response.status_code == status
    assert lines == [{"event": "refused", "status": status, "code": code}]
    assert_silent(pair.server)


def _with_mark(server: Server, value: str) -> httpx.Response:
    """What `optictl check` sends to see that the door is locked."""
    headers = {health_probe.HEADER.encode(): value.encode()}
    return httpx.get(f"{server.url}/models", headers=headers, timeout=30, verify=False)


def test_a_probe_of_the_locked_door_is_no_refusal_in_the_log(pair: Pair) -> None:
    _, lines = written_by(pair, lambda server: server.get("/v1/models", key=None))
    assert len(lines) == 1
    before = len(events(pair.server))
    assert _with_mark(pair.server, health_probe.mark(PROXY_KEY)).status_code == 401
    _, lines = written_by(pair, lambda server: server.get("/v1/models", key=None))
    assert len(events(pair.server)) == before + len(lines) == before + 1


@pytest.mark.parametrize(
    "value",
    [
        "",
        "1",
        "x:y",
        health_probe.mark("another key"),
        health_probe.mark(PROXY_KEY, 1_000_000_000),
        "\u0662:" + health_probe.mark(PROXY_KEY).partition(":")[2],
    ],
    # marks have the time, and processes that share the tests must give them the same names
    ids=["none", "no signature", "no time", "another key", "too old", "no ASCII digit"],
)
def test_nobody_else_can_hide_a_refusal(pair: Pair, value: str) -> None:
    _, lines = written_by(pair, lambda server: _with_mark(server, value))
    assert lines == [{"event": "refused", "status": 401, "code": "invalid_api_key"}]


def test_a_request_that_used_up_its_calls_is_one_line(pair: Pair) -> None:
    _, lines = written_by(pair, lambda server: server.ask("rstar-jerry-xl", MARK))
    (line,) = lines
    assert (line["event"], line["status"], line["upstream_calls"]) == ("request", 400, 5)


@pytest.mark.parametrize("strategy", ["moa", "bon", "self_consistency"])
@pytest.mark.parametrize(("status", "answer"), [(400, 400), (500, 502)])
def test_what_an_upstream_quotes_is_not_repeated(
    pair: Pair, strategy: str, status: int, answer: int
) -> None:
    # content filters and parsers love to send the prompt back, and a wrong key with it
    words = f"cannot answer {MARK!r} for the key {UPSTREAM_KEY} from {PROXY_KEY}"
    pair.upstream.respond = lambda seen: Reply(status, {"error": {"message": words}})
    response, lines = written_by(pair, lambda server: server.ask(f"{strategy}-jerry-xl", MARK))
    assert response.status_code == answer
    assert sum(line["event"] == "request" for line in lines) == 1
    # OptiLLM's own messages are reduced to the place that wrote them
    others = [line for line in lines if line["event"] != "request"]
    assert others or status == 400
    assert all(
        set(line) <= {"event", "level", "at", "exception", "statement", "strategy"}
        for line in others
    )
    assert_silent(pair.server)


def test_answers_are_not_written_down(pair: Pair) -> None:
    _, lines = written_by(pair, lambda server: server.ask("rstar-jerry-xl", MARK))
    assert sum(line["event"] == "request" for line in lines) == 1
    assert "stand-in" not in pair.server.journal()


def test_health_and_models_write_nothing(pair: Pair) -> None:
    before = pair.server.journal()
    assert pair.server.get("/health", key=None).status_code == 200
    assert pair.server.get("/v1/models").status_code == 200
    _, lines = written_by(pair, lambda server: server.ask("moa-jerry-xl"))
    assert len(lines) == 1
    assert len(events(pair.server)) == len(before.splitlines()) + 1


def test_requests_at_the_same_time_write_whole_lines(pair: Pair) -> None:
    before = len(journal_of(pair.server))
    pair.upstream.respond = lambda seen: (
        BOOM if "fails" in str((seen.body or {}).get("messages")) else None
    )
    with ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(
                lambda i: pair.server.ask("moa-jerry-xl", f"{MARK} {'fails' * (i % 2)}"), range(40)
            )
        )
    wait_until(lambda: len(journal_of(pair.server)) == before + 40)
    told = {line["trace"]: line["status"] for line in journal_of(pair.server)[before:]}
    assert told == {answer.headers["x-optillm-trace"]: answer.status_code for answer in answers}
    assert_silent(pair.server)
