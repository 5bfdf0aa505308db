"""`optictl compare` before it asks anything: what is wrong is told, and no token is spent."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from optictl.cli import app
from testing.support import free_port
from tests.integration.cli.helpers import ESCAPE, assert_envelope, attached, in_terminal, optictl


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A deployment with keys, whose upstream and proxy do not answer."""
    return attached(
        tmp_path / "root",
        f"http://127.0.0.1:{free_port()}/v1",
        f"http://127.0.0.1:{free_port()}/v1",
    )


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--prompts", "nosuch.jsonl"], "nosuch.jsonl"),
        (["--save", "nosuch/page.html"], "there is no directory"),
        (["--resume", "nosuch/answers.jsonl"], "there is no directory"),
        (["--price-prompt", "1"], "both prices"),
        (["--budget-tokens", "0"], "--budget-tokens"),
    ],
)
def test_a_wrong_command_line(
    words: list[str], named: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = CliRunner().invoke(app, ["compare", "--root", str(root), *words])
    assert (outcome.exit_code, outcome.stdout) == (2, "")
    assert named in " ".join(ESCAPE.sub("", outcome.stderr).replace("│", " ").split())
    assert list(tmp_path.glob("*.jsonl")) == []


@pytest.mark.parametrize(
    ("model", "named"),
    [("moa-jery-xl", "did you mean 'moa-jerry-xl'?"), ("z3-jerry-xl", "z3-jerry-xl is not")],
)
def test_an_unknown_model(model: str, named: str, root: Path, tmp_path: Path) -> None:
    outcome = optictl("compare", "--root", root, "--models", model, home=tmp_path)
    assert (outcome.code, outcome.out) == (2, "")
    assert named in outcome.err
    assert list(tmp_path.glob("*.jsonl")) == []


def test_every_bad_line_of_a_file(root: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a", "expected": "b"}\n{\n{"prompt": "a"}\n')
    outcome = optictl(
        "compare", "--root", root, "--prompts", "bad.jsonl", "-o", "json", home=tmp_path
    )
    assert outcome.code == 1
    assert_envelope(outcome.data, "compare", "failed")
    assert [p["line"] for p in outcome.data["error"]["problems"]] == [2, 3]
    assert "line 2: not valid JSON" in outcome.err
    assert "line 3: expected: is missing" in outcome.err


def test_a_file_that_is_no_comparison_stays_as_it_is(root: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("a text of mine\nwithout an end")
    outcome = optictl("compare", "--root", root, "--resume", "mine.txt", home=tmp_path)
    assert outcome.code == 1
    assert "cannot be resumed" in outcome.err
    assert (tmp_path / "mine.txt").read_text() == "a text of mine\nwithout an end"


def test_other_questions_are_no_resumption(root: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "a", "expected": "b"}\n')
    words = [
        "compare",
        "--root",
        root,
        "--resume",
        "answers.jsonl",
        "--prompts",
        prompts,
        "--models",
        "moa-jerry-xl",
    ]
    assert optictl(*words, home=tmp_path).code == 1  # nothing answers; the file is begun
    prompts.write_text('{"prompt": "a", "expected": "c"}\n')
    outcome = optictl(*words, home=tmp_path)
    assert outcome.code == 1
    assert "has other questions" in outcome.err


def test_without_the_upstreams_key(root: Path, tmp_path: Path) -> None:
    (root / "etc/optillm-proxy/env").write_text("OPENAI_API_KEY=\n")
    outcome = optictl("compare", "--root", root, home=tmp_path)
    assert outcome.code == 1
    assert "OPENAI_API_KEY" in outcome.err


def test_a_budget_that_is_too_small_for_a_single_question(root: Path, tmp_path: Path) -> None:
    outcome = optictl(
        "compare", "--root", root, "--budget-tokens", "100", "-o", "json", home=tmp_path
    )
    assert outcome.code == 1
    assert_envelope(outcome.data, "compare", "failed")
    assert (
        "--budget-tokens 100 may be too small for the first question"
        in outcome.data["error"]["what"]
    )
    assert "requests to come" not in outcome.err
    enough = outcome.data["error"]["remedy"].split()[2]
    # then it asks, and nothing answers
    again = optictl("compare", "--root", root, "--budget-tokens", enough, home=tmp_path).err
    assert re.search(r"the proxy at \S+ does not answer", again)


def test_a_budget_that_is_too_small_is_refused_before_the_question(
    root: Path, tmp_path: Path
) -> None:
    words = ["compare", "--root", root, "--budget-tokens"]
    refused = in_terminal(*words, "100", home=tmp_path, columns=120)
    assert refused.code == 1
    assert "may be too small for the first question" in " ".join(refused.lines)
    assert "Send these requests?" not in refused.out
    # enough for the first question only: said with the question
    said = in_terminal(
        *words, "2000", home=tmp_path, columns=120, typed="n\n", prompt="Send these requests?"
    )
    assert said.code == 1
    assert "2000 tokens may end it earlier (estimate for all: " in " ".join(said.lines)
    assert "nothing was changed" in said.out
    assert list(tmp_path.glob("*.jsonl")) == []


def test_a_file_that_cannot_be_written(root: Path, tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").symlink_to("elsewhere")  # never followed
    outcome = optictl("compare", "--root", root, "--resume", "answers.jsonl", home=tmp_path)
    assert outcome.code == 1
    assert "cannot write the answers" in outcome.err
    assert "--resume" in outcome.err


def test_nothing_answers(root: Path, tmp_path: Path) -> None:
    outcome = optictl("compare", "--root", root, "--models", "moa-jerry-xl", home=tmp_path)
    assert outcome.code == 1
    assert re.search(r"the proxy at \S+ does not answer", outcome.err)
    assert "upstream calls and" in outcome.err
    assert "optictl check" in outcome.err
    assert "compare --resume" in outcome.err
