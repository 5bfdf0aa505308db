"""The words and the parser of the real OptiLLM: the grammar of model names must agree with them."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optictl.deployment import model_names
from optictl.guard import fingerprints

pytestmark = pytest.mark.slow


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


def test_the_built_in_words_are_those_of_the_real_optillm(release: Path) -> None:
    assert set(model_names.BUILT_IN) == set(
        _assigned(_package(release) / "server.py", "known_approaches")
    )


def test_the_plugin_words_are_those_of_the_real_optillm(release: Path) -> None:
    slugs = {
        _assigned(path, "SLUG") for path in (_package(release) / "plugins").glob("*_plugin.py")
    }
    assert set(model_names.PLUGINS) == slugs - {"compact"}


def test_the_words_are_read_from_the_release(release: Path) -> None:
    words = fingerprints.words(_package(release).parent)
    assert words - {"compact"} == model_names.WORDS
    assert ("compact" in words) is (_package(release) / "plugins/compact_plugin.py").is_file()


def test_a_package_that_cannot_be_read_has_no_words(tmp_path: Path) -> None:
    (tmp_path / "optillm/plugins").mkdir(parents=True)
    assert fingerprints.words(tmp_path) == frozenset()
    (tmp_path / "optillm/server.py").write_text("known_approaches = [")
    (tmp_path / "optillm/plugins/a_plugin.py").write_text("SLUG = 'a'\n")
    (tmp_path / "optillm/plugins/b_plugin.py").write_text("SLUG = name()\n")
    assert fingerprints.words(tmp_path) == {"a"}


#: What a module needs to run a model's code, to start programs or to open addresses.
_MEANS = re.compile(
    r"\bexec\(|\bnbconvert\b|create_subprocess|import requests|from selenium|web_search_plugin"
)


def _sources(plugin: Path) -> list[Path]:
    """A plugin's file, and those of the package that belongs to it."""
    return [plugin, *(plugin.parent / plugin.stem.removesuffix("_plugin")).rglob("*.py")]


def test_every_strategy_with_the_means_needs_a_permission(release: Path) -> None:
    package = _package(release)
    with_means = {
        _assigned(path, "SLUG")
        for path in (package / "plugins").glob("*_plugin.py")
        if any(_MEANS.search(source.read_text()) for source in _sources(path))
    }
    assert _MEANS.search((package / "z3_solver.py").read_text())
    assert with_means | {"z3"} == set(model_names.CODE_EXECUTION)


#: Runs in the release: OptiLLM imported, its plugins loaded as at start.
#: For each line of names that it reads, it prints a line of what OptiLLM parsed.
_PARSER = """
import json, sys
sys.argv = ["optillm"]
answers, sys.stdout = sys.stdout, sys.stderr
from optillm import server
server.load_plugins()
words = {"built_in": list(server.known_approaches), "plugins": list(server.plugin_approaches)}
print(json.dumps(words), file=answers, flush=True)
for line in sys.stdin:
    words = server.known_approaches, server.plugin_approaches
    parsed = [server.parse_combined_approach(name, *words) for name in json.loads(line)]
    print(json.dumps(parsed), file=answers, flush=True)
"""


class Installed:
    """The installed OptiLLM's parser in a separate process, and the words that it has loaded."""

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


def test_the_installed_optillm_has_no_word_that_is_not_known(installed: Installed) -> None:
    assert set(installed.built_in) == set(model_names.BUILT_IN)
    assert set(installed.plugins) <= {*model_names.PLUGINS, "compact"}
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


@pytest.mark.parametrize("name", ["moa-x", "proxy-large", "leap-1", "a&b-c", "moa", "moa-"])
def test_what_is_refused_would_not_have_arrived(installed: Installed, name: str) -> None:
    ((_, strategies, base),) = installed.parse([f"bon-{name}"])
    assert model_names.base_model_problem(name) is not None
    assert (strategies, base) != (["bon"], name)
