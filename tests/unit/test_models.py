"""OptiLLM's model-name grammar, also against the words and the parser of the real OptiLLM."""

from __future__ import annotations

import ast
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optictl.deployment import model_names

STRATEGIES = ("moa", "bon", "self_consistency")
BASES = ("jerry-xl", "xl", "a-b")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("moa-jerry-xl", ("moa", "jerry-xl")),
        ("self_consistency-jerry-xl", ("self_consistency", "jerry-xl")),
        ("moa-xl", ("moa", "xl")),
        ("bon-a-b", ("bon", "a-b")),
        ("jerry-xl", None),
        ("moa", None),
        ("moa-", None),
        ("-jerry-xl", None),
        ("", None),
        ("mcts-jerry-xl", None),
        ("moa-tom", None),
        ("moa-bon-jerry-xl", None),
        ("moa&bon-jerry-xl", None),
        ("Moa-jerry-xl", None),
        ("moa-jerry-xl ", None),
        ("proxy-moa-jerry-xl", None),
    ],
)
def test_split(name: str, expected: tuple[str, str] | None) -> None:
    assert model_names.split(name, STRATEGIES, BASES) == expected


@given(st.sampled_from(STRATEGIES), st.sampled_from(BASES))
def test_split_undoes_the_join(strategy: str, base: str) -> None:
    assert model_names.split(f"{strategy}-{base}", STRATEGIES, BASES) == (strategy, base)


@pytest.mark.parametrize("word", ["moa", "re2", "z3", "self_consistency", "my_plugin", "3d"])
def test_slugs(word: str) -> None:
    assert model_names.is_slug(word)


@pytest.mark.parametrize("word", ["", "a-b", "a&b", "a|b", "A", "a b", "_a", "a\n", "ä"])
def test_no_slugs(word: str) -> None:
    assert not model_names.is_slug(word)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("moa-x", "cuts off"),
        ("moa", "nothing would be left"),
        ("moa-", "nothing would be left"),
        ("Moa-x", "lower case only"),
        ("RE2-x", "lower case only"),
        ("proxy-large", "cuts off"),
        ("router", "cuts off"),
        ("a&b", "one after the other"),
        ("a|b", "side by side"),
        ("auto", "OptiLLM's own"),
        ("", "is not a model name"),
        ("a b", "is not a model name"),
        ("$x", "is not a model name"),
    ],
)
def test_a_base_model_that_would_not_arrive(name: str, reason: str) -> None:
    assert reason in (model_names.base_model_problem(name) or "")


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("jerry-xl", "prefix", "no strategy prefix"),
        ("gpt-4o", "prefix", "no strategy prefix"),
        ("", "prefix", "no strategy prefix"),
        ("openai/moa-jerry-xl", "prefix", "no strategy prefix"),
        ("Moa-jerry-xl", "prefix", "lower case only"),
        ("mcts-jerry-xl", "strategy", "'mcts' is not an enabled strategy"),
        ("none-jerry-xl", "strategy", "'none' is not an enabled strategy"),
        ("moa-bon-xl", "strategy", "'moa-bon' is not an enabled strategy"),
        ("moa&bon-jerry-xl", "strategy", "joins strategies"),
        ("moa|bon-jerry-xl", "strategy", "joins strategies"),
        ("moa-tom", "base model", "'tom' is not among base_models"),
        ("moa-proxy-large", "base model", "cuts off"),
        ("moa-a&b", "base model", "one after the other"),
        ("moa", "base model", "no base model follows"),
        ("moa-", "base model", "no base model follows"),
    ],
)
def test_a_name_that_the_door_refuses(name: str, kind: str, reason: str) -> None:
    refusal = model_names.refusal(name, STRATEGIES, BASES)
    assert refusal is not None
    assert refusal[0] == kind
    assert reason in refusal[1]


@pytest.mark.parametrize("name", ["moa-jerry-xl", "bon-a-b", "self_consistency-xl"])
def test_a_name_that_the_door_lets_in(name: str) -> None:
    assert model_names.refusal(name, STRATEGIES, BASES) is None


def test_the_dangerous_ones_are_words() -> None:
    assert model_names.DANGEROUS <= model_names.WORDS
    assert model_names.NOT_STRATEGIES <= model_names.WORDS
    assert model_names.DANGEROUS.isdisjoint({"moa", "bon", "plansearch", "self_consistency"})


def _package(release: Path) -> Path:
    return next((release / ".venv" / "lib").glob("python3.*")) / "site-packages" / "optillm"


def _assigned(path: Path, name: str) -> Any:
    """The literal that a module assigns to a name at its top level."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == name for t in node.targets
        ):
            return ast.literal_eval(node.value)
    raise AssertionError(f"{path.name} assigns no {name}")


@pytest.mark.slow
def test_the_built_in_words_are_those_of_the_real_optillm(release: Path) -> None:
    assert set(model_names.BUILT_IN) == set(
        _assigned(_package(release) / "server.py", "known_approaches")
    )


@pytest.mark.slow
def test_the_plugin_words_are_those_of_the_real_optillm(release: Path) -> None:
    slugs = {
        _assigned(path, "SLUG") for path in (_package(release) / "plugins").glob("*_plugin.py")
    }
    assert set(model_names.PLUGINS) == slugs


#: Runs in the release: OptiLLM imported, its plugins loaded as at start; a line of names in, a line of what it parsed out.
_PARSER = """
import json, sys
sys.argv = ["optillm"]
answers, sys.stdout = sys.stdout, sys.stderr
from optillm import server
server.load_plugins()
words = {"built_in": list(server.known_approaches), "plugins": list(server.plugin_approaches)}
print(json.dumps(words), file=answers, flush=True)
for line in sys.stdin:
    parsed = [server.parse_combined_approach(n, server.known_approaches, server.plugin_approaches) for n in json.loads(line)]
    print(json.dumps(parsed), file=answers, flush=True)
"""


class Installed:
    """The installed OptiLLM's own parser in a process of its own, and the words that it has loaded."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin
        assert process.stdout
        self._to, self._from = process.stdin, process.stdout
        said = json.loads(self._from.readline())
        self.built_in: list[str] = said["built_in"]
        self.plugins: list[str] = said["plugins"]

    def parse(self, names: list[str]) -> list[tuple[str, list[str], str]]:
        self._to.write(json.dumps(names) + "\n")
        self._to.flush()
        return [tuple(parsed) for parsed in json.loads(self._from.readline())]


@pytest.fixture(scope="module")
def installed(release: Path) -> Iterator[Installed]:
    command = [str(release / ".venv/bin/python"), "-I", "-c", _PARSER]
    # a directory without plugins of its own, and no variable that changes a default
    with subprocess.Popen(
        command,
        cwd=release / "work",
        env={"HOME": "/nonexistent", "OPENAI_API_KEY": "none"},
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        yield Installed(process)
        assert process.stdin
        process.stdin.close()


@pytest.mark.slow
def test_the_installed_optillm_has_no_word_that_is_not_known(installed: Installed) -> None:
    assert set(installed.built_in) == set(model_names.BUILT_IN)
    assert set(installed.plugins) <= set(model_names.PLUGINS)
    assert "proxy" in installed.plugins


_parts = st.sampled_from(
    [
        *sorted(model_names.WORDS),
        "auto",
        "x",
        "jerry",
        "",
        "Moa",
        "MOA",
        "a&b",
        "moa&bon",
        "a|b",
        "moa|bon",
        "&",
        "|",
    ]
)
_names = (
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:/@+&|-]{0,12}", fullmatch=True)
    | st.lists(_parts, max_size=5).map("-".join)
    | st.text(max_size=8)
)


@pytest.mark.slow
@settings(max_examples=60)
@given(names=st.lists(_names, min_size=1, max_size=60))
def test_names_are_parsed_as_the_installed_optillm_parses_them(
    installed: Installed, names: list[str]
) -> None:
    words = {*installed.built_in, *installed.plugins}
    for name, (_, strategies, base) in zip(names, installed.parse(names), strict=True):
        assert model_names.parse(name, words) == (
            [] if strategies == ["none"] and base == name else strategies,
            base,
        ), name


@pytest.mark.slow
@settings(max_examples=60)
@given(
    bases=st.lists(_names, min_size=1, max_size=60),
    strategy=st.sampled_from(["moa", "bon", "plansearch", "self_consistency"]),
)
def test_a_base_model_that_is_not_refused_arrives_whole(
    installed: Installed, bases: list[str], strategy: str
) -> None:
    whole = installed.parse([f"{strategy}-{base}" for base in bases])
    alone = installed.parse(bases)
    for base, with_strategy, plain in zip(bases, whole, alone, strict=True):
        arrives = with_strategy == ("SINGLE", [strategy], base) and plain == (
            "SINGLE",
            ["none"],
            base,
        )
        assert arrives or model_names.base_model_problem(base) is not None, base


@pytest.mark.slow
@pytest.mark.parametrize("name", ["moa-x", "proxy-large", "leap-1", "a&b-c", "moa", "moa-"])
def test_what_is_refused_would_not_have_arrived(installed: Installed, name: str) -> None:
    ((_, strategies, base),) = installed.parse([f"bon-{name}"])
    assert model_names.base_model_problem(name) is not None
    assert (strategies, base) != (["bon"], name)
