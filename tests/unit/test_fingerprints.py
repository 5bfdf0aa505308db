"""What the guard calls of an OptiLLM, read from its source files."""

from __future__ import annotations

from pathlib import Path

import pytest

from optictl.guard import fingerprints

CALLED = ("execute_single_approach", "load_plugins", "none_approach", "parse_args")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """An OptiLLM with the called functions, `moa` and a plugin."""
    optillm = tmp_path / "optillm"
    (optillm / "plugins").mkdir(parents=True)
    functions = "".join(f"def {name}():\n    pass\n" for name in CALLED)
    (optillm / "server.py").write_text(functions)
    (optillm / "moa.py").write_text("x = 1\n")
    (optillm / "plugins/memory_plugin.py").write_text("SLUG = 'memory'\n")
    return optillm


def test_nothing_is_missing(package: Path) -> None:
    assert fingerprints.missing(package.parent, ["moa", "memory", "none"]) == []


def test_a_missing_function_is_named(package: Path) -> None:
    (package / "server.py").write_text("def parse_args():\n    pass\n")
    missing = fingerprints.missing(package.parent, ["moa"])
    assert missing == [f"optillm/server.py:{name}" for name in CALLED if name != "parse_args"]


def test_a_missing_strategy_is_named_by_its_file(package: Path) -> None:
    assert fingerprints.missing(package.parent, ["bon", "router"]) == [
        "optillm/bon.py",
        "optillm/plugins/router_plugin.py",
    ]
