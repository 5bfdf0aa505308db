"""OptiLLM's model-name grammar, also against the words and the parser of the real OptiLLM."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optictl import models

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
    assert models.split(name, STRATEGIES, BASES) == expected


@settings(deadline=None)
@given(st.sampled_from(STRATEGIES), st.sampled_from(BASES))
def test_split_undoes_the_join(strategy: str, base: str) -> None:
    assert models.split(f"{strategy}-{base}", STRATEGIES, BASES) == (strategy, base)


@pytest.mark.parametrize("word", ["moa", "re2", "z3", "self_consistency", "my_plugin", "3d"])
def test_slugs(word: str) -> None:
    assert models.is_slug(word)


@pytest.mark.parametrize("word", ["", "a-b", "a&b", "a|b", "A", "a b", "_a", "a\n", "ä"])
def test_no_slugs(word: str) -> None:
    assert not models.is_slug(word)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("moa-x", "cuts off"),
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
    assert reason in (models.base_model_problem(name) or "")


def test_the_dangerous_ones_are_words() -> None:
    assert models.DANGEROUS <= models.WORDS
    assert models.NOT_STRATEGIES <= models.WORDS
    assert models.DANGEROUS.isdisjoint({"moa", "bon", "plansearch", "self_consistency"})


def _package(release: Path) -> Path:
    return next((release / ".venv" / "lib").glob("python3.*")) / "site-packages" / "optillm"


def _assigned(path: Path, name: str) -> Any:
    """The literal that a module assigns to a name at its top level."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            return ast.literal_eval(node.value)
    raise AssertionError(f"{path.name} assigns no {name}")


Parser = Callable[[str, list[str], dict[str, None]], tuple[str, list[str], str]]


@pytest.fixture(scope="module")
def real_parser(release: Path) -> Parser:
    """OptiLLM's own `parse_combined_approach`, taken out of its source: importing it would start half of OptiLLM."""
    tree = ast.parse((_package(release) / "server.py").read_text())
    function = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "parse_combined_approach")
    space: dict[str, Any] = {}
    exec(compile(ast.Module([function], []), "server.py", "exec"), space)
    return space["parse_combined_approach"]  # type: ignore[no-any-return]


@pytest.mark.slow
def test_the_built_in_words_are_those_of_the_real_optillm(release: Path) -> None:
    assert set(models.BUILT_IN) == set(_assigned(_package(release) / "server.py", "known_approaches"))


@pytest.mark.slow
def test_the_plugin_words_are_those_of_the_real_optillm(release: Path) -> None:
    slugs = {_assigned(path, "SLUG") for path in (_package(release) / "plugins").glob("*_plugin.py")}
    assert set(models.PLUGINS) == slugs


@pytest.mark.slow
@settings(deadline=None)
@given(
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,12}", fullmatch=True)
    | st.lists(st.sampled_from([*sorted(models.WORDS), "auto", "x", "", "a&b", "a|b"]), min_size=1, max_size=3).map("-".join),
    strategy=st.sampled_from(sorted(models.WORDS - {"none"})),
)
def test_what_passes_reaches_the_upstream_unchanged(real_parser: Parser, name: str, strategy: str) -> None:
    """The rule for base models against the real parser: what is allowed is never mangled."""
    if models.base_model_problem(name) is None:
        plugins = dict.fromkeys(models.PLUGINS)
        assert real_parser(f"{strategy}-{name}", list(models.BUILT_IN), plugins) == ("SINGLE", [strategy], name)
        assert real_parser(name, list(models.BUILT_IN), plugins) == ("SINGLE", ["none"], name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["moa-x", "proxy-large", "leap-1", "a&b-c"])
def test_what_is_refused_would_not_have_arrived(real_parser: Parser, name: str) -> None:
    _, approaches, base = real_parser(f"bon-{name}", list(models.BUILT_IN), dict.fromkeys(models.PLUGINS))
    assert models.base_model_problem(name) is not None
    assert (approaches, base) != (["bon"], name)
