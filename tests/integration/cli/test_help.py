"""What optictl says about itself: version, help, and how it takes a wrong command line."""

from __future__ import annotations

import itertools
import platform
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import optictl as package
from optictl.cli import app
from tests.integration.cli.helpers import ESCAPE, Outcome, optictl

EXAMPLE = re.compile(r"(?:Example:|Try) (?:sudo )?(optictl [^\n:]+)")


def commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command and group, as the words after `optictl`."""
    yield words
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*words, name))


ALL = list(commands(typer.main.get_command(app)))
#: What stands alone on a line, above a list.
TITLES = {"Options", "Arguments", "Commands", "A deployment", "Releases", "Proof", "Artefacts"}
TITLES |= {"Several hosts"}


def within(*words: str) -> Outcome:
    """A command line in this process: most of what each takes is Python starting."""
    done = CliRunner().invoke(app, words, env={"COLUMNS": "80"})
    return Outcome(done.exit_code, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def helps() -> dict[tuple[str, ...], Outcome]:
    """`--help` of every command, in a pipe."""
    return {words: within(*words, "--help") for words in ALL}


def test_the_commands_of_the_contract_are_there() -> None:
    names = {words[0] for words in ALL if words}
    assert names >= {
        "init",
        "install",
        "render",
        *(
            f"render-{name}"
            for name in (
                *("unit", "socket", "upstream-socket", "upstream-service"),
                *("check-unit", "check-timer", "env", "proxy-config", "litellm"),
            )
        ),
        "check",
        "smoke",
        "run",
        "demo",
        "config",
    }


def test_version(tmp_path: Path) -> None:
    said = optictl("--version", home=tmp_path)
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0] == f"optictl {package.__version__}"
    assert re.fullmatch(r"commit  (unknown|[0-9a-f]{12}(-dirty)?)", lines[1])
    assert re.fullmatch(r"OptiLLM 0\.3\.12, 0\.3\.13, .+", lines[2])
    assert lines[3].startswith(f"Python  {platform.python_version()} (")
    assert len(lines) == 4


def test_every_help_fits_80_columns_and_goes_to_stdout(
    helps: dict[tuple[str, ...], Outcome],
) -> None:
    for words, outcome in helps.items():
        assert (outcome.code, outcome.err) == (0, ""), words
        assert max(map(len, outcome.out.splitlines())) <= 80, words


def test_every_help_has_an_example(helps: dict[tuple[str, ...], Outcome]) -> None:
    assert [words for words, outcome in helps.items() if not EXAMPLE.search(outcome.out)] == []


def test_every_example_is_a_command_line_that_exists(helps: dict[tuple[str, ...], Outcome]) -> None:
    examples = {
        EXAMPLE.findall(outcome.out)[-1]
        for outcome in helps.values()
        if EXAMPLE.search(outcome.out)
    }
    assert len(examples) > 10
    for example in examples:
        words = shlex.split(example.split(">")[0])[1:]
        # --help after the rest: unknown commands and options are refused before it counts
        assert CliRunner().invoke(app, [*words, "--help"]).exit_code == 0, example


def test_every_option_is_explained(helps: dict[tuple[str, ...], Outcome]) -> None:
    def unexplained(command: Any, words: tuple[str, ...] = ()) -> Iterator[str]:
        for parameter in command.params:
            if not getattr(parameter, "help", None):
                yield " ".join((*words, parameter.name or "?"))
        for name, inner in getattr(command, "commands", {}).items():
            assert inner.help, name
            yield from unexplained(inner, (*words, name))

    assert list(unexplained(typer.main.get_command(app))) == []


def test_no_help_breaks_a_line_in_the_middle(helps: dict[tuple[str, ...], Outcome]) -> None:
    """A paragraph fills its lines: where the next word would have fitted, no line ends."""
    for words, outcome in helps.items():
        for line, following in itertools.pairwise(outcome.out.splitlines()):
            is_prose = following[:1].isalpha() and line[:1].isalpha() and line not in TITLES
            if is_prose and not following.startswith("Example:"):
                whole = len(line.rstrip()) + 1 + len(following.split()[0])
                assert whole > 80, (words, line, following)


def test_no_flag_has_a_value_and_no_help_shows_a_type(
    helps: dict[tuple[str, ...], Outcome],
) -> None:
    for words, outcome in helps.items():
        assert not re.search(r"<\w+>|\[x|\[default|\[env", outcome.out), words


def test_brackets_are_shown_as_they_are(helps: dict[tuple[str, ...], Outcome]) -> None:
    assert "uv tool install 'optictl[fleet]'" in " ".join(helps[("fleet",)].out.split())
    assert "[VERSION]" in helps[("upgrade",)].out


def test_help_is_asked_for_with_either_flag(
    helps: dict[tuple[str, ...], Outcome], tmp_path: Path
) -> None:
    assert optictl("check", "-h", home=tmp_path) == helps[("check",)]


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_without_a_command_it_shows_every_command_on_one_screen(columns: int) -> None:
    done = CliRunner().invoke(app, [], env={"COLUMNS": str(columns)})
    assert done.exit_code == 2
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Usage: optictl")
    assert len(lines) <= 24
    assert max(map(len, lines)) <= columns
    shown = [line for line in lines if line.startswith("  ")]
    typed = {name for line in shown for name in re.split(", *", line.strip().split("  ")[0])}
    group = typer.main.get_command(app)
    assert typed == {name for name, inner in group.commands.items() if not inner.hidden}  # type: ignore[attr-defined]


def test_an_older_spelling_is_hidden_and_does_the_same() -> None:
    group = typer.main.get_command(app)
    hidden = [name for name, inner in group.commands.items() if inner.hidden]  # type: ignore[attr-defined]
    assert len(hidden) == 8
    for name in hidden:
        word = name.removeprefix("render-")
        old, new = within(name, "--root", "/nowhere"), within("render", word, "--root", "/nowhere")
        assert old == new
        assert new.code == 0
        assert new.out


#: A wrong command line, and what of it the message names.
WRONG = [
    (["nonsense"], "nonsense"),
    (["instal"], "instal"),
    (["--nonsense"], "--nonsense"),
    (["check", "--nonsense"], "--nonsense"),
    (["render-unit", "extra"], "extra"),
    (["check", "--output", "xml"], "xml"),
    (["check", "--only", "health", "--only", "nosuch"], "nosuch"),
    (["check", "--only"], "--only"),
    (["smoke", "--timeout", "0", "moa-jerry-xl"], "--timeout"),
    (["smoke", "--timeout", "soon", "moa-jerry-xl"], "--timeout"),
    (["smoke", "--key-file", "nosuch", "moa-jerry-xl"], "nosuch"),
    (["install", "--wheelhouse", "nosuch"], "nosuch"),
    (["install", "--python", "nosuch"], "nosuch"),
    (["init", "--root", "here", "--user"], "--user"),
    (["check", "--root", "here", "--user"], "--user"),
    (["config", "nosuch"], "nosuch"),
    (["smoke"], "MODEL"),
    (["logs", "--status", "bad"], "--status"),
]


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        outcomes = {" ".join(words): within(*words) for words, _ in WRONG}
    assert list(home.iterdir()) == []
    return outcomes


@pytest.mark.parametrize(
    ("arguments", "named"), [(" ".join(words), named) for words, named in WRONG]
)
def test_a_wrong_command_line_is_2_and_says_what(
    arguments: str, named: str, refused: dict[str, Outcome]
) -> None:
    outcome = refused[arguments]
    assert (outcome.code, outcome.out) == (2, "")
    assert named in ESCAPE.sub("", outcome.err)
    assert "Traceback" not in outcome.err
