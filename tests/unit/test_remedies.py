"""Remedies name commands that work for this deployment."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import optictl
from optictl.cli import app
from optictl.deployment import paths, remedies
from optictl.deployment.invocation import Invocation

SOURCES = sorted(Path(optictl.__file__).parent.rglob("*.py"))
PLACE = paths.system(Path("/srv/a b"), "second")
CONFIG = "/srv/my config.yaml"
INVOCATION = Invocation(place=PLACE.flags, config=f"--config '{CONFIG}'", inventory="-i hosts.yml")
#: A command in a message, up to the end of its clause.
COMMAND = re.compile(
    r"(?<![\w./@-])optictl (?=[a-z-])([^;,)`\n]*?)"
    r"(?= (?:&&|\|\||>|beside) |[;,)`\n]|: |$)"
)


@pytest.mark.parametrize(
    ("remedy", "expected"),
    [
        ("raise it, then optictl install", "raise it, then optictl install --root /srv/a"),
        (
            "optictl check names what is wrong; find it with optictl trace",
            "optictl check --root /srv/a names what is wrong; find it with optictl trace "
            "--root /srv/a",
        ),
        ("optictl check --root /srv/a", "optictl check --root /srv/a"),
        ("use another model", "use another model"),
        ("", ""),
    ],
)
def test_every_command_is_for_the_deployment(remedy: str, expected: str) -> None:
    assert remedies.for_deployment(remedy, paths.system(Path("/srv/a"))) == expected


def test_the_usual_deployment_needs_no_flags() -> None:
    assert remedies.for_deployment("optictl install", paths.system()) == "optictl install"


def _text(node: ast.expr) -> str | None:
    """A literal, with VALUE for each expression in it."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_text(part) or "VALUE" for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return f"{_text(left) or ''}{_text(right) or ''}"
        case _:
            return None


def _docstrings(tree: ast.Module) -> set[int]:
    nodes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, nodes) and node.body]
    return {id(b[0].value) for b in bodies if isinstance(b[0], ast.Expr)}


def texts(source: str) -> Iterator[str]:
    """What a module can say with a command in it: its literals, and its calls of `command`."""
    tree = ast.parse(source)
    # a part of a text is no text
    inner = {
        id(v) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for v in node.values
    }
    inner |= {id(v) for n in ast.walk(tree) if isinstance(n, ast.BinOp) for v in (n.left, n.right)}
    prose = _docstrings(tree) | inner
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "command":
            if node.args and (words := _text(node.args[0])) is not None:
                yield f"optictl {words}"
        elif isinstance(node, ast.expr) and id(node) not in prose:
            yield from (text for text in [_text(node) or ""] if "optictl " in text)


def parsed(words: list[str]) -> Any:
    """The context of a command line; None if no command takes its first words.

    What follows a command in a sentence is no part of it: words are left out from the end, up to
    its last option.
    """
    root = typer.main.get_command(app)
    least = max((i + 1 for i, word in enumerate(words) if word.startswith("-")), default=1)
    for length in range(len(words), least - 1, -1):
        context: Any = root.make_context("optictl", words[:length])
        try:
            while hasattr(context.command, "commands"):
                rest = [*context._protected_args, *context.args]
                name, inner, left = context.command.resolve_command(context, rest)
                context = inner.make_context(name, left, parent=context)
        except Exception:
            continue
        return context
    return None


KNOWN = tuple(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
#: Modules whose texts describe commands to readers of a schema, or begin an example of the help.
DESCRIPTIONS = ("envelope.py", "fleet.py")
#: A command that is named, not typed: a mark in a file, and a subject of a sentence.
NAMES = ("optictl render-litellm ", "optictl fleet needs")
OTHER = ("demo", "fleet", "schema", "config schema", "sbom", "wheelhouse")
MESSAGES = sorted(
    {
        found[0].strip()
        for path in SOURCES
        if "collections" not in path.parts and path.name not in DESCRIPTIONS
        for text in texts(path.read_text(encoding="utf-8"))
        for found in COMMAND.finditer(INVOCATION.spell(text))
        if found[1].split()[0] in KNOWN and not found[0].startswith(NAMES)
    }
)


def test_the_search_finds_remedies() -> None:
    assert len(MESSAGES) > 40
    assert any(" smoke " in message for message in MESSAGES)


@pytest.mark.parametrize("message", MESSAGES)
def test_every_command_in_a_message_is_one_of_this_deployment(message: str) -> None:
    words = shlex.split(message.replace("'s ", "s "))[1:]
    context = parsed(words)
    assert context is not None, message
    if not message.removeprefix("optictl ").startswith(OTHER):
        given = context.params
        assert given["user"] or given["root"] or given["name"] != "optillm-proxy", message
