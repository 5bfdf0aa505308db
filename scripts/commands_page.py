"""docs/reference/command-line.md from the Typer application; `python -m scripts.docs` writes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.main import get_command

from optictl.cli import app
from optictl.cli.help_pages import Parameter, paragraphs, parameters, plain

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


def _walk(command: Any, name: str, panel: str) -> Iterator[Command]:
    children = getattr(command, "commands", None)
    if children is None or not name:
        yield Command(
            name,
            panel,
            paragraphs(command.help),
            plain(command.epilog).removeprefix("Example: "),
            tuple(parameters(command)),
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
