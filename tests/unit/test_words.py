"""Plain words in every text, and no comment names a file or an option that does not exist."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import typer.main

from optictl.cli import app

ROOT = Path(__file__).resolve().parents[2]

#: The word, and what to write in its place.
BANNED = {
    r"mend(s|ed|ing)?": "fix",
    r"anew": "again, or: rebuild",
    r"who(ever|mever)": "name the client, the user or the process",
    r"(some|no)body( else)?": "name the client, the user or the process",
    r"in force": "active",
    r"dear(est|er)": "the most expensive; more expensive",
    r"reckon(s|ed)?": "estimate",
    r"so many": "N",
    r"of (its|their) own": "its own ...",
    r"(?<!\[)(?<!bold )(?<!dim )(red|green)(?! hat)": "failed, passed",
}
WORDS = re.compile(r"\b(" + "|".join(BANNED) + r")\b", re.IGNORECASE)

#: Where a word is no prose: code in backticks, a quoted word, a single word or id.
QUOTED = re.compile(r"`[^`\n]+`|\"\w+\"|'\w+'")
IDENTIFIER = re.compile(r"[\w./-]*")


@dataclass(frozen=True)
class Text:
    """A piece of text that people read. `line` is where it begins."""

    place: str
    line: int
    text: str

    def banned(self) -> Iterator[str]:
        """Every banned word of it, with its place."""
        prose = QUOTED.sub(lambda span: "-" * len(span.group()), " ".join(self.text.split(" ")))
        for match in WORDS.finditer(re.sub(r"\s", " ", prose)):
            line = self.line + self.text[: match.start()].count("\n")
            yield f"{self.place}:{line}: {match.group()!r} (plain: {plain(match.group())})"


def plain(word: str) -> str:
    return next(
        better for pattern, better in BANNED.items() if re.fullmatch(pattern, word, re.IGNORECASE)
    )


def python_files(*directories: str) -> Iterator[Path]:
    for directory in directories:
        yield from sorted((ROOT / directory).rglob("*.py"))


def place_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def comments(path: Path) -> Iterator[Text]:
    """Comments; those on lines that follow each other are one text."""
    begun, lines = 0, list[str]()
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type != tokenize.COMMENT:
            continue
        if lines and token.start[0] != begun + len(lines):
            yield Text(place_of(path), begun, "\n".join(lines))
            lines = []
        begun = begun if lines else token.start[0]
        lines.append(token.string.lstrip("#: "))
    if lines:
        yield Text(place_of(path), begun, "\n".join(lines))


def docstrings(path: Path) -> Iterator[Text]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            literal = node.body[0].value  # type: ignore[attr-defined]
            yield Text(place_of(path), literal.lineno, literal.value)


def literals(path: Path) -> Iterator[Text]:
    """Texts in the code, the docstrings among them; single words and ids are left out."""
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and not IDENTIFIER.fullmatch(node.value)
        ):
            yield Text(place_of(path), node.lineno, node.value)


def help_texts() -> Iterator[Text]:
    def walk(command: object, name: str) -> Iterator[Text]:
        for holder, label in [
            (command, name),
            *((p, f"{name} {p.name}") for p in getattr(command, "params", ())),
        ]:
            for field in ("help", "short_help", "epilog"):
                yield Text(f"help of {label}", 0, getattr(holder, field, None) or "")
        for child, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, f"{name} {child}")

    yield from walk(typer.main.get_command(app), "optictl")


def whole_files() -> Iterator[Text]:
    pages = [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]
    templates = [p for p in (ROOT / "templates").rglob("*") if p.suffix in (".j2", ".md", ".css")]
    for path in sorted([*pages, *templates]):
        yield Text(place_of(path), 1, path.read_text())


def texts() -> Iterator[Text]:
    for path in python_files("optictl"):
        yield from comments(path)
        yield from literals(path)
    for path in python_files("scripts", "testing", "benchmarks", "tests"):
        yield from docstrings(path)
    yield from help_texts()
    yield from whole_files()


def test_no_banned_word() -> None:
    found = [line for text in texts() for line in text.banned()]
    assert found == [], "\n".join(found)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("how it mends a plan", ["mends"]),
        ("The release in\nforce stays", ["in force"]),
        ("Whoever calls, somebody else waits", ["Whoever", "somebody else"]),
        ("the first red ends it", ["red"]),
        ("see `release.in-force` and `mend`, drawn in \"red\" or 'green'", []),
        ("amend, a bold red line, Red Hat, a redirect", []),
    ],
)
def test_the_search_sees_the_words(text: str, words: list[str]) -> None:
    assert [re.findall(r"'([^']+)'", line)[0] for line in Text("x", 1, text).banned()] == [
        " ".join(word.split()) for word in words
    ]


def test_the_search_names_the_line() -> None:
    assert next(Text("x", 5, "one\ntwo\nmended").banned()).startswith("x:7: 'mended'")


def test_the_search_reads_every_kind_of_text() -> None:
    places = {text.place.split("/")[0].split()[0] for text in texts() if text.text}
    assert places == {
        "CHANGELOG.md",
        "README.md",
        "benchmarks",
        "docs",
        "help",
        "optictl",
        "scripts",
        "templates",
        "testing",
        "tests",
    } | {path.name for path in ROOT.glob("*.md")}


#: Spans in backticks of comments and docstrings.
SPAN = re.compile(r"``?([^`\n]+)``?")
FILE = re.compile(r"[\w.-]+(/[\w.-]+)+\.(py|sh|md|json|toml|j2|yaml|service|socket|timer)")
OPTION = re.compile(r"--[a-z][\w-]*")

#: Files of other programs, of releases and of machines, and files that a test makes.
NOT_OURS = re.compile(r"optillm/|gunicorn/|litellm/proxy/|work/|\.optillm/|opt/")


@cache
def known_options() -> frozenset[str]:
    """Every option that the code declares or passes on."""
    options = set[str]()
    for path in python_files("optictl", "scripts", "testing", "benchmarks"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for declared in node.value.split("/"):
                    if OPTION.fullmatch(declared.partition("=")[0]):
                        options.add(declared.partition("=")[0])
    return frozenset(["--help", *options])


def is_a_file(name: str, beside: Path) -> bool:
    places = (ROOT, ROOT / "optictl", ROOT / "templates", *beside.parents)
    return any((place / name).exists() for place in places)


def missing_names(path: Path) -> Iterator[str]:
    """Files and options that a comment or a docstring names in backticks and that do not exist."""
    for text in (*comments(path), *docstrings(path)):
        for span in SPAN.findall(text.text):
            if FILE.fullmatch(span) and not NOT_OURS.match(span) and not is_a_file(span, path):
                yield f"{text.place}:{text.line}: there is no file {span}"
            if span.startswith(("--", "optictl ")):
                for option in OPTION.findall(span):
                    if option not in known_options():
                        yield f"{text.place}:{text.line}: there is no option {option}"


def test_comments_name_what_exists() -> None:
    every = python_files("optictl", "scripts", "testing", "benchmarks", "tests")
    found = [line for path in every for line in missing_names(path)]
    assert found == [], "\n".join(found)


def test_the_search_for_names_sees_what_is_missing(tmp_path: Path) -> None:
    path = ROOT / "tests/unit/test_words.py"
    assert is_a_file("checks/engine.py", path)
    assert not is_a_file("checks/registry.py", path)
    assert "--root" in known_options()
    assert "--rooot" not in known_options()
