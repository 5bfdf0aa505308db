"""Fingerprints of the parts of OptiLLM that the guard calls: some functions, and the strategies.

It reads the source files and imports nothing of OptiLLM. optictl also compares two releases with
it.
"""

from __future__ import annotations

import ast
import hashlib
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any

from .verified import VERIFIED

_SERVER = "optillm/server.py"
_PARSING = threading.Lock()
#: The functions of server.py that the guard calls.
_FUNCTIONS = ("execute_single_approach", "load_plugins", "none_approach", "parse_args")
#: strategy -> its files, for the strategies that are no plugins
_FILES = {
    "none": (),
    "mcts": ("mcts.py",),
    "bon": ("bon.py",),
    "moa": ("moa.py",),
    "rto": ("rto.py",),
    "z3": ("z3_solver.py",),
    "self_consistency": ("self_consistency.py",),
    "pvg": ("pvg.py",),
    "rstar": ("rstar.py",),
    "cot_reflection": ("cot_reflection.py",),
    "plansearch": ("plansearch.py",),
    "leap": ("leap.py",),
    "re2": ("reread.py",),
    "cepo": ("cepo/*.py",),
    "mars": ("mars/*.py",),
}


def fingerprint(source: str) -> str:
    """The digest of a source text, 12 hex digits.

    It ignores empty lines and white space at line ends.
    """
    lines = (line.rstrip() for line in source.splitlines())
    return hashlib.sha256("\n".join(line for line in lines if line).encode()).hexdigest()[:12]


def _parse(text: str) -> ast.Module:
    """The syntax tree of a source text.

    One at a time: CPython 3.11 counts the depth of all trees in one number, and may raise a
    SystemError when two threads parse (gh-106905). Checks run in threads.
    """
    with _PARSING:
        return ast.parse(text)


def _functions(text: str) -> dict[str, str]:
    """The source texts of the functions. "" for one that is missing."""
    lines = text.encode().splitlines(keepends=True)
    sources = {
        node.name: b"".join(lines[node.lineno - 1 : node.end_lineno]).decode()
        for node in _parse(text).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name in _FUNCTIONS
    }
    return {name: sources.get(name, "") for name in _FUNCTIONS}


def files(strategy: str) -> tuple[str, ...]:
    """The files of a strategy, as patterns below the package `optillm`."""
    plugin = (f"plugins/{strategy}_plugin.py", f"plugins/{strategy}/*.py")
    return _FILES.get(strategy, plugin)


def sources(site_packages: Path, strategies: Collection[str]) -> dict[str, str]:
    """The source texts: `optillm/server.py:parse_args` or `optillm/moa.py` -> text.

    Args:
        site_packages: the directory with the package `optillm`.
        strategies: the strategies whose files count.
    """
    package = site_packages / "optillm"
    server = package / "server.py"
    text = server.read_text(encoding="utf-8") if server.is_file() else ""
    texts = {f"{_SERVER}:{name}": source for name, source in _functions(text).items()}
    for strategy in sorted(strategies):
        for pattern in files(strategy):
            for path in sorted(package.glob(pattern)):
                if text := path.read_text(encoding="utf-8"):
                    texts[path.relative_to(site_packages).as_posix()] = text
    return texts


def words(site_packages: Path) -> frozenset[str]:
    """The words that this OptiLLM reads as strategies. Empty where it cannot be read."""
    package = site_packages / "optillm"
    names: set[str] = set()
    for path, name in [
        (package / "server.py", "known_approaches"),
        *((plugin, "SLUG") for plugin in sorted(package.glob("plugins/*_plugin.py"))),
    ]:
        try:
            value = _assigned(path.read_text(encoding="utf-8"), name)
        except (OSError, SyntaxError, ValueError):
            continue
        names.update([value] if isinstance(value, str) else value or ())
    return frozenset(names)


def _assigned(text: str, name: str) -> Any:
    """The literal that a module assigns to a name at its top level, or None."""
    for node in _parse(text).body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == name for target in node.targets
        ):
            return ast.literal_eval(node.value)
    return None


def fingerprints(site_packages: Path, strategies: Collection[str]) -> dict[str, str]:
    """The fingerprints of the parts. "" for a missing function."""
    return {
        part: fingerprint(text) if text else ""
        for part, text in sources(site_packages, strategies).items()
    }


def unknown(site_packages: Path, strategies: Collection[str]) -> list[str]:
    """The parts whose text is not in any version with which the guard's tests passed."""
    return [
        part
        for part, digest in fingerprints(site_packages, strategies).items()
        if digest not in VERIFIED.get(part, ())
    ]


def missing(site_packages: Path, strategies: Collection[str]) -> list[str]:
    """What the guard calls and this OptiLLM does not have: functions, and strategies' files."""
    parts = sources(site_packages, strategies)
    package = site_packages / "optillm"
    return [part for part, text in parts.items() if not text] + [
        f"optillm/{files(strategy)[0]}"
        for strategy in sorted(strategies)
        if files(strategy) and not any(any(package.glob(one)) for one in files(strategy))
    ]
