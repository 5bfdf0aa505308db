"""Help pages: what a command's parameters say, and their layout for any width of a terminal.

A help text is plain: brackets in it are brackets, and no mark-up is read in it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from rich.console import Console

#: From this width on, what an option means stands beside it; on less it stands below it.
_TWO_COLUMNS = 80
#: Longer lines are hard to read.
_WIDEST = 100
#: A name that is longer than this has a line for itself.
_LONGEST_NAME = 27


@dataclass(frozen=True)
class Parameter:
    """One option or argument. `names` are as typed; `value` is "" for a flag."""

    names: str
    value: str
    help: str
    notes: tuple[str, ...]
    is_argument: bool = False

    @property
    def text(self) -> str:
        """What it means, with its default and its environment variable."""
        return " ".join([self.help, *(f"{note}." for note in self.notes)]).strip()

    @property
    def typed(self) -> str:
        """The names with the value, the short name first: `-o, --output text|json`."""
        short_first = sorted(self.names.split(", "), key=lambda name: name.startswith("--"))
        names = self.names if self.is_argument else ", ".join(short_first)
        return names if self.is_argument else f"{names} {self.value}".rstrip()


def _value(param: Any) -> str:
    if getattr(param, "is_flag", False):
        return ""
    if param.metavar:
        return str(param.metavar)
    kind = param.type_descriptor.annotation
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return "|".join(str(member.value) for member in kind)
    return {int: "N", float: "N", str: "TEXT"}.get(kind, "VALUE")


def _notes(param: Any) -> Iterator[str]:
    default = param.default.value if isinstance(param.default, enum.Enum) else param.default
    if param.required and param.param_type_name == "option":
        yield "Required"
    if default not in (None, False, (), [], "") and "Default:" not in (param.help or ""):
        yield f"Default: {default}"
    if param.envvar:
        yield f"Environment: {param.envvar}"


def plain(text: str | None) -> str:
    """A help text on one line."""
    return " ".join((text or "").split())


def paragraphs(text: str | None) -> tuple[str, ...]:
    """The paragraphs of a help text, each on one line."""
    return tuple(plain(part) for part in (text or "").split("\n\n") if part.strip())


def parameter(param: Any) -> Parameter:
    """What the help says of one parameter of Typer's."""
    is_argument = param.param_type_name == "argument"
    value = _value(param)
    if is_argument:
        value = value if param.required or value.startswith("[") else f"[{value}]"
        value += "..." if param.nargs == -1 and not value.endswith(("...", "...]")) else ""
    names = value if is_argument else ", ".join(param.opts)
    return Parameter(names, value, plain(param.help), tuple(_notes(param)), is_argument)


def parameters(command: Any) -> list[Parameter]:
    """What the help says of the parameters of a command, in the order of its source."""
    return [parameter(p) for p in command.params if not getattr(p, "hidden", False)]


class Command(TyperCommand):
    """A command whose help page fits any terminal."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _print(_page(self, ctx))


class Group(TyperGroup):
    """A group of commands whose help page fits any terminal."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _print([*_page(self, ctx)])


class Root(Group):
    """optictl itself. Without a command it prints one screen instead of the help page."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            _print(_overview(self, ctx))
            raise typer.Exit(2)
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed


# -- the text


@dataclass(frozen=True)
class _Lines:
    """Text of a help page. `title`: bold. `rows`: pairs of a name and what it means."""

    text: str = ""
    title: str = ""
    rows: tuple[tuple[str, str], ...] = ()


def _page(command: Command | Group, context: Any) -> Iterator[_Lines]:
    """What a help page says."""
    shown = parameters(command)
    arguments = [p.value for p in shown if p.is_argument]
    tail = ["COMMAND [ARGS]..."] if isinstance(command, Group) else arguments
    yield _Lines(" ".join(["Usage:", context.command_path, "[OPTIONS]", *tail]))
    for paragraph in paragraphs(command.help):
        yield _Lines(paragraph)
    groups = {"Arguments": [p for p in shown if p.is_argument]}
    groups["Options"] = [p for p in shown if not p.is_argument]
    for title, members in groups.items():
        rows = [(p.typed, p.text) for p in members]
        rows += [("-h, --help", "Show this help.")] if title == "Options" else []
        if rows:
            yield _Lines(title=title, rows=tuple(rows))
    if isinstance(command, Group):
        yield from _commands(command)
    if command.epilog:
        yield _Lines(plain(command.epilog))


def _commands(group: Group) -> Iterator[_Lines]:
    panels: dict[str, list[tuple[str, str]]] = {}
    for name, inner in group.commands.items():
        if not getattr(inner, "hidden", False):
            panel = getattr(inner, "rich_help_panel", None)
            title = panel if isinstance(panel, str) else "Commands"
            panels.setdefault(title, []).append((name, first_sentence(inner.help)))
    for title, rows in panels.items():
        yield _Lines(title=title, rows=tuple(rows))


def first_sentence(text: str | None) -> str:
    """The first sentence of a help text."""
    whole = next(iter(paragraphs(text)), "")
    return whole.partition(". ")[0].rstrip(".") + "."


#: The commands on one screen: those that belong together, and what they do.
OVERVIEW: tuple[tuple[tuple[str, ...], str], ...] = (
    (("init",), "write configuration and key"),
    (("install", "uninstall"), "build, prove, activate"),
    (("start", "stop", "restart"), "control the service"),
    (("status", "logs", "top"), "what the service does"),
    (("run",), "the service in the foreground"),
    (("upgrade", "rollback", "releases"), "another OptiLLM, and back"),
    (("check",), "every invariant; no tokens"),
    (("smoke", "trace"), "a real request, and its calls"),
    (("compare",), "are strategies worth it?"),
    (("demo",), "everything, in a directory"),
    (("render", "render-unit"), "print a unit or another file"),
    (("config", "schema"), "show configuration, schemas"),
    (("fleet",), "several hosts, with Ansible"),
    (("wheelhouse", "sbom"), "all wheels; bill of materials"),
)


def _overview(group: Group, context: Any) -> Iterator[_Lines]:
    """One screen: the commands, those that belong together on one line."""
    yield _Lines(f"Usage: {context.command_path} [OPTIONS] COMMAND [ARGS]...")
    yield _Lines(next(iter(paragraphs(group.help)), ""))
    known = {name for names, _ in OVERVIEW for name in names}
    rows = [(", ".join(names), words) for names, words in OVERVIEW]
    rows += [
        (name, first_sentence(inner.help))
        for name, inner in group.commands.items()
        if name not in known and not inner.hidden
    ]
    yield _Lines(title="Commands", rows=tuple(rows))
    name = context.command_path
    yield _Lines(f"{name} COMMAND --help explains a command, {name} --help lists all options.")


# -- the layout


def _print(page: Iterable[_Lines]) -> None:
    """Print a help page, with an empty line between its parts."""
    from optictl.output.console import Terminal

    console = Terminal().out
    width = min(console.width, _WIDEST) if console.is_terminal or console.width < 200 else 80
    for number, part in enumerate(page):
        if number:
            console.print()
        if part.title:
            console.print(part.title, style="bold", markup=False)
        for line in _filled(part.text, width) if part.text else ():
            console.print(line, markup=False, soft_wrap=True)
        _print_rows(console, part.rows, width)


def _print_rows(console: Console, rows: Sequence[tuple[str, str]], width: int) -> None:
    from rich.text import Text

    column = max((len(name) for name, _ in rows if len(name) <= _LONGEST_NAME), default=0) + 4
    is_wide = width >= _TWO_COLUMNS or all(column + len(text) <= width for _, text in rows)
    column = column if is_wide else 6
    for name, meaning in rows:
        lines = _filled(meaning, width - column)
        head = Text("  ").append(name, "cyan")
        if is_wide and head.cell_len + 2 <= column:
            head.append(" " * (column - head.cell_len) + (lines.pop(0) if lines else ""))
        console.print(head, soft_wrap=True)
        for line in lines:
            console.print(" " * column + line, markup=False, soft_wrap=True)


def _filled(text: str, width: int) -> list[str]:
    """Lines of at most this width. They end at spaces: no word is split."""
    import textwrap

    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
