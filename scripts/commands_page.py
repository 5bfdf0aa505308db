"""docs/reference/command-line.md from the Typer application; `python -m scripts.docs` writes it."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.text import Text
from typer.main import get_command

from optictl.cli import app

PAGE = Path(__file__).resolve().parent.parent / "docs/reference/command-line.md"
#: An option that this many commands have is listed once, in front of the commands.
SHARED_BY = 6
_HEAD = """\
# Command line

`python -m scripts.docs` writes this page from the program's help. `optictl COMMAND --help` prints
the same text, `man optictl` too. [Exit codes](exit-codes.md) and [JSON output](json.md) have
separate pages.

Every command takes `--help`. `NO_COLOR` switches colours off.
`optictl --install-completion` installs completion for your shell.
"""


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


@dataclass(frozen=True)
class Command:
    """One command. `name` is what is typed behind `optictl`, "" for optictl itself."""

    name: str
    panel: str
    help: tuple[str, ...]
    example: str
    parameters: tuple[Parameter, ...]

    @property
    def arguments(self) -> list[Parameter]:
        return [p for p in self.parameters if p.is_argument]

    @property
    def options(self) -> list[Parameter]:
        return [p for p in self.parameters if not p.is_argument]

    @property
    def usage(self) -> str:
        """The line that is typed."""
        return " ".join(["optictl", self.name, "[OPTIONS]", *(a.value for a in self.arguments)])


def plain(text: str | None) -> str:
    """A help text without Rich's markup, on one line."""
    return " ".join(Text.from_markup(text or "").plain.split())


def _paragraphs(text: str | None) -> tuple[str, ...]:
    return tuple(plain(part) for part in (text or "").split("\n\n") if part.strip())


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


def _parameter(param: Any) -> Parameter:
    is_argument = param.param_type_name == "argument"
    value = _value(param)
    if is_argument:
        value = value if param.required or value.startswith("[") else f"[{value}]"
        value += "..." if param.nargs == -1 else ""
    names = value if is_argument else ", ".join(param.opts)
    return Parameter(names, value, plain(param.help), tuple(_notes(param)), is_argument)


def _walk(command: Any, name: str, panel: str) -> Iterator[Command]:
    shown = [p for p in command.params if not getattr(p, "hidden", False)]
    children = getattr(command, "commands", None)
    if children is None or not name:
        yield Command(
            name,
            panel,
            _paragraphs(command.help),
            plain(command.epilog).removeprefix("Example: "),
            tuple(map(_parameter, shown)),
        )
    for child_name, child in (children or {}).items():
        if not getattr(child, "hidden", False):
            below = getattr(child, "rich_help_panel", None) or panel
            yield from _walk(child, f"{name} {child_name}".strip(), str(below))


def commands() -> list[Command]:
    """optictl itself, then every command in the order of the help."""
    return list(_walk(get_command(app), "", ""))


def shared_options(of: list[Command]) -> list[Parameter]:
    """The options that many commands have, each once."""
    count = Counter(option for command in of for option in command.options)
    return [option for option, times in count.items() if times >= SHARED_BY]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _row(parameter: Parameter) -> str:
    typed = parameter.names
    if parameter.value and not parameter.is_argument:
        typed += f" {parameter.value}"
    return f"| `{_cell(typed)}` | {_cell(parameter.text)} |"


def _table(parameters: list[Parameter]) -> str:
    return "\n".join(["| Option | Meaning |", "|---|---|", *map(_row, parameters)])


def _section(command: Command, shared: list[Parameter]) -> str:
    parts = [f"### optictl {command.name}", *command.help, f"```\n{command.usage}\n```"]
    own = [p for p in command.parameters if p not in shared]
    if own:
        parts.append(_table(own))
    if also := [p.names.split(", ")[0] for p in command.options if p in shared]:
        parts.append(f"Shared options: {', '.join(f'`{name}`' for name in also)}.")
    if command.example:
        parts.append(f"Example: `{command.example}`")
    return "\n\n".join(parts)


def page() -> str:
    """The whole page."""
    own, *others = commands()
    shared = shared_options(others)
    parts = [_HEAD.rstrip(), "## optictl", *own.help, _table(list(own.parameters))]
    parts += ["## Shared options", _table(shared)]
    for panel in dict.fromkeys(command.panel for command in others):
        parts.append(f"## {panel}")
        parts += [_section(command, shared) for command in others if command.panel == panel]
    return "\n\n".join(parts) + "\n"
