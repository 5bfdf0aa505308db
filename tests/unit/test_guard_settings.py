"""The flags of the guard for effect, parallel calls and progress."""

from __future__ import annotations

from pathlib import Path

import pytest

from optictl.guard import settings
from optictl.guard.settings import FIXES, Settings


@pytest.fixture
def parse(tmp_path: Path) -> Parse:
    return Parse(tmp_path)


class Parse:
    """The settings of a command line with these flags besides those that it must have."""

    def __init__(self, directory: Path) -> None:
        self.key = directory / "proxy_key"
        self.key.write_text("a key\n")

    def __call__(self, *flags: str) -> Settings:
        words = ["--host", "127.0.0.1", "--port", "4020", "--base-url", "http://127.0.0.1:4000/v1"]
        words += ["--approach", "proxy", "--model", "jerry-xl", "--strategies", "moa"]
        return settings.parse([*words, "--optillm-api-key", f"@{self.key}", *flags])


def test_an_older_unit_names_none_of_them_and_gets_the_defaults(parse: Parse) -> None:
    read = parse()
    assert (read.parallel_calls, read.progress) == (16, "off")
    assert read.effect == FIXES
    assert read.budget_tokens == {"critique": 4096, "rating": 1024}


@pytest.mark.parametrize(
    ("text", "fixes"),
    [
        ("samples,votes", ("samples", "votes")),
        ("ratings", ("ratings",)),
        ("none", ()),
        ("", ()),
        (",".join(FIXES), FIXES),
    ],
)
def test_the_fixes_that_are_on(parse: Parse, text: str, fixes: tuple[str, ...]) -> None:
    assert parse("--effect", text).effect == fixes


def test_the_token_limits_of_steps(parse: Parse) -> None:
    assert parse("--budget-tokens", "critique=100,rating=50").budget_tokens == {
        "critique": 100,
        "rating": 50,
    }
    assert parse("--budget-tokens", "rating=7").budget_tokens == {"critique": 4096, "rating": 7}
    assert parse().budget_tokens["rating"] == 1024  # one command line does not change the next


@pytest.mark.parametrize(
    ("flag", "text", "said"),
    [
        ("--effect", "sample", "unknown fix 'sample'"),
        ("--effect", "none,samples", "unknown fix 'none'"),
        ("--budget-tokens", "critic=5", "'critic=5' is not a step with its token limit"),
        ("--budget-tokens", "rating=0", "'rating=0'"),
        ("--budget-tokens", "rating", "'rating'"),
        ("--budget-tokens", "rating=many", "'rating=many'"),
        ("--budget-tokens", "rating=\u00b2", "is not a step"),
        ("--progress", "on", "invalid choice: 'on'"),
        ("--parallel-calls", "many", "invalid int value: 'many'"),
    ],
)
def test_a_wrong_value_is_named(
    parse: Parse, flag: str, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(flag, text)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_parallel_calls_and_progress(parse: Parse) -> None:
    read = parse("--parallel-calls", "1", "--progress", "reasoning")
    assert (read.parallel_calls, read.progress) == (1, "reasoning")


def test_a_release_records_the_flags() -> None:
    flags = {"--effect", "--budget-tokens", "--parallel-calls", "--progress"}
    assert flags <= set(settings.flags())
