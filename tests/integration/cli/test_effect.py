"""What commands say about a strategy's effect, in front of a proxy that is scripted."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from optictl.proof.standin import Reply, Seen, StandIn, completion
from testing.support import PROXY_KEY
from tests.integration.cli.helpers import (
    OPTICTL,
    assert_envelope,
    attached,
    environment,
    in_terminal,
    optictl,
)

PARAGRAPH = "I like this answer. It is clear, it explains each step, and its result is correct."
FULL = {"effect": "full", "samples": "3/3", "evidence": "3 of 3 distinct candidates"}
LOST = {"effect": "none", "degraded": "ratings_unreadable", "samples": "3/3"}
WEAK = {"effect": "weak", "degraded": "candidates_repeated", "samples": "2/3"}
RAN = {"trace": "feed", "upstream-calls": "4", "upstream-completions": "6"}


def trace(strategy: str, content: bool) -> dict[str, Any]:
    call = {"purpose": "rating", "model": "jerry-xl", "start": 0.0, "seconds": 1.0, "status": 200}
    call |= {"error": "", "completions": 1, "prompt_tokens": 5, "completion_tokens": 19}
    call |= {"codes": ["ratings_unreadable"]}
    call |= {"messages": [], "answers": [PARAGRAPH]} if content else {}
    whole = {"trace": "feed", "strategy": strategy, "base_model": "jerry-xl", "seconds": 1.0}
    whole |= {"status": 200, "code": "", "prompt_tokens": 5, "completion_tokens": 19}
    whole |= {"effect": "none", "degraded": ["ratings_unreadable"], "fixed": ["samples"]}
    whole |= {"messages": [], "answers": ["Answer: 42"]} if content else {}
    return {**whole, "calls": [call]}


@dataclass
class Proxy:
    """A scripted proxy: strategy -> what its headers say of the effect."""

    effects: dict[str, dict[str, str]] = field(default_factory=dict)
    content: bool = False
    #: The first request of a strategy is answered at once, the others when this is set.
    go_on: threading.Event = field(default_factory=threading.Event)
    asked: list[str] = field(default_factory=list)

    def respond(self, seen: Seen) -> Reply | None:
        if seen.path == "/guard/traces/feed":
            return Reply(body=trace("bon", self.content))
        if seen.body is None or "-" not in seen.model:
            return None
        strategy = seen.model.removesuffix("-jerry-xl")
        self.content = seen.headers.get("x-optillm-trace-content") == "1"
        self.asked.append(strategy)
        if len(self.asked) > 1:
            self.go_on.wait(30)
        headers = {**RAN, "strategy": strategy, "upstream-models": "jerry-xl"}
        headers |= self.effects.get(strategy, FULL)
        named = {f"x-optillm-{name}": value for name, value in headers.items()}
        return Reply(body=completion(seen.body, "Answer: 42"), headers=named)


@pytest.fixture
def proxy() -> Proxy:
    made = Proxy()
    made.go_on.set()
    return made


@pytest.fixture
def root(proxy: Proxy, tmp_path: Path) -> Iterator[Path]:
    upstream = StandIn()
    with (
        StandIn(models=("bon-jerry-xl",), respond=proxy.respond).running() as served,
        upstream.running(),
    ):
        yield attached(tmp_path / "root", served.base_url, upstream.base_url)


def test_smoke_fails_without_effect_and_quotes_the_call(
    proxy: Proxy, root: Path, tmp_path: Path
) -> None:
    proxy.effects = {"bon": LOST}
    done = optictl("smoke", "bon-jerry-xl", "--root", root, home=tmp_path)
    assert done.code == 1
    said = done.out.splitlines()
    assert said[0].startswith(
        "fail  bon-jerry-xl  ratings held no number that can be read, so they counted as 0"
    )
    assert (
        "  cause    the rating model answered with a paragraph: "
        '"I like this answer. It is clear, it explains each step, a..."'
    ) in said
    assert any(re.match(r"  fix +keep effect\.ratings on", line) for line in said)
    assert "The strategy had no effect: see bon-jerry-xl" in said
    assert PARAGRAPH not in done.out + done.err
    assert PROXY_KEY not in done.out + done.err


def test_smoke_warns_where_a_part_is_lost(proxy: Proxy, root: Path, tmp_path: Path) -> None:
    proxy.effects = {"moa": WEAK}
    done = optictl("smoke", "moa-jerry-xl", "--root", root, "-o", "json", home=tmp_path)
    assert done.code == 0
    (result,) = assert_envelope(done.data, "smoke", "ok")
    assert result["status"] == "warn"
    data = result["data"]
    assert (data["effect"], data["codes"]) == ("weak", ["candidates_repeated"])
    assert data["samples"] == {"distinct": 2, "asked": 3}


def test_smoke_shows_the_evidence(proxy: Proxy, root: Path, tmp_path: Path) -> None:
    done = optictl("smoke", "moa-jerry-xl", "--root", root, home=tmp_path)
    assert done.code == 0
    assert done.out.startswith("pass  moa-jerry-xl  3 of 3 distinct candidates; 4 calls")


def test_a_trace_without_the_callers_wish_shows_no_content(
    proxy: Proxy, root: Path, tmp_path: Path
) -> None:
    proxy.effects = {"bon": LOST}
    words = ["smoke", "bon-jerry-xl", "--root", root, "--trace"]
    for more in ([], ["-o", "json"]):
        done = optictl(*words, *more, home=tmp_path)
        assert done.code == 1
        assert PARAGRAPH not in done.out
    asked = optictl(*words, "--content", home=tmp_path)
    assert PARAGRAPH in asked.out
    assert re.search(r"^effect: none; fixed: samples$", asked.out, re.M)
    assert re.search(r"^rating .* 200 +ratings_unreadable$", asked.out, re.M)


def test_smoke_all_prints_each_model_when_it_ends(proxy: Proxy, root: Path, tmp_path: Path) -> None:
    proxy.go_on.clear()
    command = [OPTICTL, "smoke", "--all", "--root", root]
    with subprocess.Popen(
        command, env=environment(tmp_path), stdout=subprocess.PIPE, text=True, cwd=tmp_path
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        # the second model has no answer yet
        assert len(set(proxy.asked)) <= 2
        assert first.startswith("pass  moa-jerry-xl ")
        proxy.go_on.set()
        rest = process.stdout.read()
    assert process.returncode == 0
    assert [line.split()[1] for line in rest.splitlines() if line.startswith("pass")] == [
        "bon-jerry-xl",
        "plansearch-jerry-xl",
        "self_consistency-jerry-xl",
    ]
    assert rest.endswith("All good\n(4 pass)\n")


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_on_a_terminal_nothing_is_drawn_over(
    proxy: Proxy, root: Path, tmp_path: Path, columns: int
) -> None:
    proxy.effects = {"bon": LOST, "plansearch": WEAK}
    done = in_terminal("smoke", "--all", "--root", root, home=tmp_path, columns=columns)
    assert done.code == 1
    for model in ("moa", "bon", "plansearch", "self_consistency"):
        heads = [line for line in done.lines if re.match(rf"(pass|warn|fail)  {model}-jer", line)]
        assert len(heads) == 1


def test_compare_counts_the_answers_with_effect(proxy: Proxy, root: Path, tmp_path: Path) -> None:
    proxy.effects = {"bon": LOST}
    prompts = tmp_path / "prompts.jsonl"
    question = {"prompt": "How much?", "expected": {"number": 42}}
    prompts.write_text("".join(json.dumps({"id": f"q{n}", **question}) + "\n" for n in range(3)))
    words = ["compare", "--root", root, "--prompts", prompts, "--resume", "kept.jsonl"]
    done = optictl(*words, "--models", "bon-jerry-xl", "--models", "moa-jerry-xl", home=tmp_path)
    assert done.code == 0, done.err
    rows = {line.split()[0]: line for line in done.out.splitlines() if line}
    # a row begins with the name, a sentence with the name and a colon
    assert "  0 of 3  " in rows["bon"]
    assert "  3 of 3  " in rows["moa"]
    assert " of " not in rows["(plain)"]
    assert "bon: 0 of 3 answers with effect" in done.out
    kept = [json.loads(line) for line in (tmp_path / "kept.jsonl").read_text().splitlines()]
    assert [r["codes"] for r in kept if r.get("effect") == "none"] == [["ratings_unreadable"]] * 3
