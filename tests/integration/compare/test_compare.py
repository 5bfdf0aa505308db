"""`optictl compare` with the real OptiLLM: what it asks, what it keeps, and how it goes on."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from optictl.proof.standin import Reply, Seen, StandIn, completion
from testing.support import PROXY_KEY, UPSTREAM_KEY
from tests.integration.cli.helpers import (
    OPTICTL,
    Outcome,
    assert_envelope,
    attached,
    environment,
    in_terminal,
    optictl,
)
from tests.integration.guard.helpers import CALLS, Pair, guarded_pair

pytestmark = pytest.mark.slow

QUESTIONS = 8


@dataclass
class Service:
    """A guarded OptiLLM, and a root whose configuration and keys are its own."""

    pair: Pair
    root: Path


@pytest.fixture(scope="module")
def service(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with guarded_pair(release) as pair:
        root = attached(tmp_path_factory.mktemp("root"), pair.server.url, pair.upstream.base_url)
        yield Service(pair, root)


@pytest.fixture
def upstream(service: Service) -> StandIn:
    service.pair.fresh().upstream.respond = respond
    return service.pair.upstream


@pytest.fixture
def root(service: Service) -> Path:
    return service.root


def is_plain(seen: Seen) -> bool:
    """A question as it was asked; a strategy adds its own messages or words."""
    messages = (seen.body or {})["messages"]
    return (
        len(messages) == 1
        and re.fullmatch(r"Question \d+: how much is it\?", messages[0]["content"]) is not None
    )


def respond(seen: Seen) -> Reply | None:
    """A model that knows the answer only when it is asked by a strategy."""
    if (
        seen.method != "POST"
        or seen.body is None
        or seen.headers.get("authorization") != f"Bearer {UPSTREAM_KEY}"
    ):
        return None
    return Reply(
        body=completion(
            seen.body, "Secretly thought. Answer: 5" if is_plain(seen) else "7 of 10. Answer: 42"
        )
    )


def held_after(upstream: StandIn, calls: int) -> threading.Event:
    """N calls are answered; the others wait until the event is set."""
    gate = threading.Event()

    def hold(seen: Seen) -> Reply | None:
        if len(upstream.calls()) > calls:
            gate.wait(60)
        return respond(seen)

    upstream.respond = hold
    return gate


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    lines = [
        {"id": f"q{n}", "prompt": f"Question {n}: how much is it?", "expected": {"number": 42}}
        for n in range(QUESTIONS)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def compare(root: Path, home: Path, *arguments: str | Path) -> Outcome:
    return optictl("compare", "--root", root, *arguments, home=home)


def spent(upstream: StandIn) -> int:
    """The tokens that the upstream reported, counted again here."""
    return sum(
        completion(
            seen.body, (reply := respond(seen)) and reply.body["choices"][0]["message"]["content"]
        )["usage"]["total_tokens"]
        for seen in upstream.calls()
        if seen.body
    )


def test_the_plain_model_and_every_strategy(
    root: Path, upstream: StandIn, prompts: Path, tmp_path: Path
) -> None:
    answers, page = tmp_path / "answers.jsonl", tmp_path / "page.html"
    prices = ["--price-prompt", "1", "--price-completion", "10"]
    outcome = compare(
        root,
        tmp_path,
        "--prompts",
        prompts,
        "--resume",
        answers,
        "--save",
        page,
        "-o",
        "json",
        *prices,
    )
    assert outcome.code == 0, outcome.err
    rows = {
        r["data"]["strategy"]: r["data"] for r in assert_envelope(outcome.data, "compare", "ok")
    }
    assert {s: (r["right"], r["answered"], r["calls"]) for s, r in rows.items()} == {
        "": (0, QUESTIONS, QUESTIONS),
        **{s: (QUESTIONS, QUESTIONS, QUESTIONS * calls) for s, calls in CALLS.items()},
    }
    for strategy in CALLS:
        beside = rows[strategy]["beside"]
        assert (beside["verdict"], beside["gained"], beside["lost"]) == ("better", QUESTIONS, 0)
        assert beside["p"] == pytest.approx(4 * 2 / 2**QUESTIONS)
        assert 0 < rows[strategy]["p50"] <= rows[strategy]["p95"]
    # the plain model is asked at the upstream itself, with its key, and every token is in the sums
    assert sum(map(is_plain, upstream.calls())) == QUESTIONS
    assert {seen.model for seen in upstream.calls()} == {"jerry-xl"}
    assert (
        outcome.data["tokens"]
        == spent(upstream)
        == sum(r["prompt_tokens"] + r["completion_tokens"] for r in rows.values())
    )
    plain = rows[""]
    assert plain["cost"] == pytest.approx(
        (plain["prompt_tokens"] + 10 * plain["completion_tokens"]) / 1e6
    )
    assert outcome.data["page"] == str(page)
    shown = page.read_text()
    assert f"optictl compare --price-prompt 1 --price-completion 10 --prompts {prompts}" in shown
    assert "OptiLLM 0.3.12" in shown
    assert "1 a million prompt tokens" in shown
    # texts and keys are nowhere, and the file is for its owner
    kept = answers.read_text() + outcome.out + outcome.err + page.read_text()
    assert not [
        word for word in ("Secretly", PROXY_KEY, UPSTREAM_KEY, "how much is it") if word in kept
    ]
    assert answers.stat().st_mode & 0o777 == 0o600
    # nothing is asked twice
    upstream.seen.clear()
    again = compare(root, tmp_path, "--resume", answers, "-o", "json")
    assert (again.code, upstream.calls(), again.data["tokens"]) == (0, [], outcome.data["tokens"])


def test_a_budget_is_not_passed_and_what_is_left_is_asked_later(
    root: Path, upstream: StandIn, prompts: Path, tmp_path: Path
) -> None:
    answers = tmp_path / "answers.jsonl"
    words = ["--prompts", prompts, "--models", "moa-jerry-xl", "--resume", answers, "-o", "json"]
    first = compare(root, tmp_path, *words, "--budget-tokens", "800")
    assert first.code == 0, first.err
    assert first.data["left_out"] > 0
    assert 300 < first.data["tokens"] == spent(upstream) <= 800
    tight = compare(root, tmp_path, *words[2:], "--budget-tokens", "800")
    assert (tight.data["tokens"], tight.data["left_out"]) == (
        first.data["tokens"],
        first.data["left_out"],
    )
    text = compare(root, tmp_path, *words[2:-2], "--budget-tokens", "800")
    # no further request fits into the budget
    assert "requests to come" not in text.err
    assert f"Left out: {first.data['left_out']} of {2 * QUESTIONS} requests" in text.out
    more = re.search(r"^More: optictl (.*)$", text.out, re.MULTILINE)
    assert more is not None
    rest = optictl(
        *shlex.split(more[1]), "-o", "json", home=tmp_path
    )  # its budget is enough for all that is left
    assert rest.code == 0, rest.err
    assert rest.data["left_out"] == 0
    assert rest.data["tokens"] == spent(upstream)
    assert {r["id"]: r["data"]["answered"] for r in rest.data["results"]} == {
        "jerry-xl": QUESTIONS,
        "moa-jerry-xl": QUESTIONS,
    }


def test_killed_in_the_middle_it_goes_on(
    root: Path, upstream: StandIn, prompts: Path, tmp_path: Path
) -> None:
    answers = tmp_path / "answers.jsonl"
    gate = held_after(upstream, 12)
    words = ["compare", "--root", str(root), "--models", "moa-jerry-xl", "--resume", str(answers)]
    process = subprocess.Popen(
        [OPTICTL, *words, "--prompts", prompts], env=environment(tmp_path), cwd=tmp_path
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (
        not answers.exists() or answers.read_text().count("\n") < 5
    ):
        time.sleep(0.02)
    second = optictl(*words, home=tmp_path)
    process.kill()
    process.wait()
    gate.set()
    assert second.code == 1
    assert "another optictl writes" in second.err
    whole = answers.read_text()
    with answers.open("a") as file:
        file.write('{"question": "q7", "mod')  # as a kill in the middle of a write would leave it
    upstream.respond = respond
    outcome = optictl(*words, "-o", "json", home=tmp_path)
    assert outcome.code == 0, outcome.err
    assert [r["data"]["answered"] for r in outcome.data["results"]] == [QUESTIONS, QUESTIONS]
    assert answers.read_text().startswith(whole)
    assert len([json.loads(line) for line in answers.read_text().splitlines()]) == 1 + 2 * QUESTIONS


def test_ctrl_c_names_the_command_that_goes_on(
    root: Path, upstream: StandIn, prompts: Path, tmp_path: Path
) -> None:
    upstream.respond = lambda seen: (reply := respond(seen)) and Reply(body=reply.body, delay=1)
    words = [
        "--root",
        str(root),
        "--prompts",
        str(prompts),
        "--models",
        "moa-jerry-xl",
        "--content",
        "--yes",
    ]
    stopped = in_terminal(
        "compare", *words, home=tmp_path, columns=300, typed="\x03", prompt="moa-jerry-xl: right"
    )
    assert stopped.code == 130
    assert "Traceback" not in stopped.out
    assert "\x1b[?25h" in stopped.out  # the cursor is back
    said = next(line for line in stopped.lines if line.startswith("go on: "))
    upstream.respond = respond
    outcome = optictl(
        *shlex.split(said.removeprefix("go on: optictl ")), "--save", "page.html", home=tmp_path
    )
    assert outcome.code == 0, outcome.err
    assert f"{QUESTIONS}/{QUESTIONS}" in outcome.out
    # in a pipe: what is to come, a line for each request, and where the answers are
    begun, *requests, drawn, ended = outcome.err.splitlines()
    assert re.fullmatch(
        r"\d+ requests to come, with about \d+ upstream calls and \d+ tokens, at an unknown price",
        begun,
    )
    assert requests[-1].startswith(f"{len(requests)} of {len(requests)}: ")
    assert begun.startswith(f"{len(requests)} ")
    assert ended.startswith("every answer is in ")
    assert drawn == f"the page is {tmp_path / 'page.html'}"
    (kept,) = tmp_path.glob("optictl-compare-*.jsonl")
    assert kept.read_text().count("Answer: 42") == QUESTIONS
    page = tmp_path / "page.html"
    assert "Secretly thought" in page.read_text()
    assert page.stat().st_mode & 0o777 == 0o600
    shown = in_terminal("compare", "--root", root, "--resume", kept, home=tmp_path, columns=80)
    # a path is never split
    assert max(len(line) for line in shown.lines if kept.name not in line) <= 80
    assert any(
        re.match(r"moa +8/8 +68-100 +(\d of \d +)?24 ", line) and "better" in line
        for line in shown.lines
    )


def test_where_nothing_answers_it_stops_and_says_so(
    root: Path, upstream: StandIn, prompts: Path, tmp_path: Path
) -> None:
    upstream.respond = lambda seen: (
        Reply(500, {"error": {"message": "out of order"}}) if seen.method == "POST" else None
    )
    answers = tmp_path / "answers.jsonl"
    words = [
        "--prompts",
        prompts,
        "--models",
        "self_consistency-jerry-xl",
        "--resume",
        answers,
        "-o",
        "json",
    ]
    outcome = compare(root, tmp_path, *words)
    assert outcome.code == 1
    assert assert_envelope(outcome.data, "compare", "failed") == []
    what = "jerry-xl failed, and without it there is nothing left to compare"
    assert outcome.data["error"]["what"] == what
    assert "out of order" in outcome.err
    # one request was enough to know it
    assert len(answers.read_text().splitlines()) == 2
    upstream.respond = respond
    mended = compare(root, tmp_path, *words)
    assert mended.code == 0
    assert [r["data"]["answered"] for r in mended.data["results"]] == [QUESTIONS, QUESTIONS]


def test_one_that_fails_is_no_wrong_answer(
    root: Path, upstream: StandIn, prompts: Path, tmp_path: Path
) -> None:
    whole: list[Seen] = []

    def fail_later(seen: Seen) -> Reply | None:
        """The first answer of the strategy is one; after it, its calls fail."""
        if seen.method != "POST" or is_plain(seen):
            return respond(seen)
        whole.append(seen)
        if len(whole) <= CALLS["moa"]:
            return respond(seen)
        return Reply(500, {"error": {"message": "out of order"}})

    upstream.respond = fail_later
    outcome = compare(
        root, tmp_path, "--prompts", prompts, "--models", "moa-jerry-xl", "-o", "json"
    )
    assert outcome.code == 1
    plain, moa = outcome.data["results"]
    assert (plain["status"], plain["data"]["answered"]) == ("pass", QUESTIONS)
    # after three in a row it is left alone: every failure may have cost tokens
    assert (moa["status"], moa["data"]["answered"], moa["data"]["failed"]) == ("fail", 1, 3)
    assert moa["data"]["left_out"] == QUESTIONS - 4
    assert "out of order" in moa["data"]["error"]
    assert moa["data"]["beside"]["pairs"] == 1


def test_sigterm_leaves_a_file_that_goes_on(
    root: Path, upstream: StandIn, prompts: Path, tmp_path: Path
) -> None:
    answers = tmp_path / "answers.jsonl"
    gate = held_after(upstream, 24)
    words = [
        OPTICTL,
        "compare",
        "--root",
        str(root),
        "--prompts",
        str(prompts),
        "--resume",
        str(answers),
    ]
    process = subprocess.Popen(
        words, env=environment(tmp_path), cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (
        not answers.exists() or answers.read_text().count("\n") < 4
    ):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    gate.set()
    assert process.returncode == 143
    assert "go on: optictl compare --resume" in said


def test_on_a_terminal_it_asks_before_it_spends(
    root: Path, upstream: StandIn, prompts: Path, tmp_path: Path
) -> None:
    words = ["compare", "--root", root, "--prompts", prompts, "--models", "moa-jerry-xl"]
    refused = in_terminal(*words, home=tmp_path, columns=100, typed="n\r", prompt="[y/N]")
    assert refused.code == 1
    said = f"{2 * QUESTIONS} requests to come, with about {QUESTIONS * (1 + CALLS['moa'])} upstream"
    assert any(line.startswith(said) for line in refused.lines)
    assert upstream.calls() == []
    assert list(tmp_path.glob("optictl-compare-*")) == []
    agreed = in_terminal(*words, home=tmp_path, columns=100, typed="y\r", prompt="[y/N]")
    assert agreed.code == 0
    assert upstream.calls() != []


def test_with_samples_of_the_plain_model(
    root: Path, upstream: StandIn, prompts: Path, tmp_path: Path
) -> None:
    """Two of three plain answers are right: the majority is, where a single one may not be."""
    plain = 0

    def vary(seen: Seen) -> Reply | None:
        nonlocal plain
        if seen.body is None or not is_plain(seen):
            return respond(seen)
        plain += 1
        return Reply(body=completion(seen.body, f"Answer: {42 if plain % 3 else 41}"))

    upstream.respond = vary
    answers = tmp_path / "answers.jsonl"
    words = ["--prompts", prompts, "--models", "moa-jerry-xl", "--resume", answers, "-o", "json"]
    outcome = compare(root, tmp_path, *words, "--plain-samples")
    assert outcome.code == 0, outcome.err
    one, majority, moa = assert_envelope(outcome.data, "compare", "ok")
    assert [one["id"], majority["id"], moa["id"]] == ["jerry-xl", "jerry-xl x5", "moa-jerry-xl"]
    assert 0 < one["data"]["right"] < QUESTIONS
    assert (majority["data"]["right"], majority["data"]["answered"]) == (QUESTIONS, QUESTIONS)
    assert majority["data"]["calls"] == 5 * QUESTIONS
    assert moa["data"]["beside"]["gained"] > 0
    assert moa["data"]["beside_samples"]["gained"] == 0
    samples = [seen.body for seen in upstream.calls() if seen.body and is_plain(seen)]
    assert len(samples) == 5 * QUESTIONS
    # a further sample never comes from LiteLLM's cache
    assert sum(body.get("cache") == {"no-cache": True} for body in samples) == 4 * QUESTIONS
    upstream.seen.clear()
    again = compare(root, tmp_path, *words, "--plain-samples")
    assert (again.code, upstream.calls()) == (0, [])
    assert again.data["results"] == outcome.data["results"]
    assert "Answer" not in answers.read_text()
