"""man/optictl.1 and man/optictl.yaml.5, in roff, from the code, for `python -m scripts.docs`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from optictl import __version__
from optictl.cli.help_pages import Parameter
from scripts import commands_page, config_page
from scripts.commands_page import Command

_ROOT = Path(__file__).resolve().parent.parent
COMMAND, FILE = _ROOT / "man/optictl.1", _ROOT / "man/optictl.yaml.5"
_PLACES = (
    "These are the places of the system's deployment. With --name NAME the directories have that"
    " name. With --user they follow the XDG base directories. With --root DIR all of them are"
    " below DIR."
)


def escaped(text: str) -> str:
    """Text as roff takes it literally."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("^", "\\(ha")
    text = text.replace("~", "\\(ti").replace("`", "\\(ga")
    return f"\\&{text}" if text.startswith(".") else text


def _quoted(text: str) -> str:
    """A macro's argument."""
    return '"' + escaped(text).replace('"', "\\(dq") + '"'


def _title(name: str, section: int) -> str:
    version = f"optictl {__version__}"
    return f".TH {name} {section} {_quoted(_released())} {_quoted(version)} {_quoted('optictl')}"


def _released() -> str:
    """The day of the newest release."""
    changes = (_ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    found = re.search(r"^## \[\d[^]]*\] - (\d{4}-\d\d-\d\d)$", changes, re.M)
    return found[1] if found else ""


def _tagged(tag: str, text: str) -> Iterator[str]:
    yield from (".TP", f".B {_quoted(tag)}", escaped(text) or "\\&")


def _parameter(parameter: Parameter) -> Iterator[str]:
    yield ".TP"
    if parameter.is_argument or not parameter.value:
        yield f".B {_quoted(parameter.names)}"
    else:
        yield f".BI {_quoted(parameter.names + ' ')} {_quoted(parameter.value)}"
    yield escaped(parameter.text)


def _command(command: Command, shared: list[Parameter]) -> Iterator[str]:
    yield f".SS {_quoted(command.usage)}"
    for number, paragraph in enumerate(command.help):
        yield from ([".PP"] if number else [])
        yield escaped(paragraph)
    for parameter in command.parameters:
        if parameter not in shared:
            yield from _parameter(parameter)
    if also := [p.names.split(", ")[0] for p in command.options if p in shared]:
        yield from (".PP", escaped(f"Shared options: {', '.join(also)}."))
    if command.example:
        yield from (".PP", "Example:", ".PP", ".EX", escaped(f"    {command.example}"), ".EE")


def rows(page: str) -> Iterator[tuple[str, str]]:
    """The first two cells of each row of a page's first table, without backticks and links."""
    text = (_ROOT / "docs" / page).read_text(encoding="utf-8")
    table = text[text.index("\n|---|") :].lstrip("\n").partition("\n\n")[0]
    for line in re.findall(r"^\| (.+) \|$", table, re.M):
        cells = [
            re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", c).replace("`", "") for c in line.split(" | ")
        ]
        yield cells[0], cells[1]


def _environment(commands: Iterable[Command]) -> Iterator[tuple[str, str]]:
    """Variable -> the option that it stands for."""
    for command in commands:
        for option in command.options:
            for note in option.notes:
                if note.startswith("Environment: "):
                    yield note.removeprefix("Environment: "), option.names.split(", ")[0]


def command_page() -> str:
    """optictl(1)."""
    own, *others = commands = commands_page.commands()
    shared = commands_page.shared_options(others)
    lines = [
        _title("OPTICTL", 1),
        ".SH NAME",
        "optictl \\- run OptiLLM as a localhost service behind LiteLLM",
        ".SH SYNOPSIS",
        ".B optictl",
        "[\\fIOPTIONS\\fR] \\fICOMMAND\\fR [\\fIARGUMENTS\\fR]",
        ".SH DESCRIPTION",
        *(escaped(paragraph) for paragraph in own.help),
        ".SH OPTIONS",
    ]
    for parameter in own.parameters:
        lines += _parameter(parameter)
    lines += [".SH SHARED OPTIONS", "Each command lists which of these options it takes."]
    for parameter in shared:
        lines += _parameter(parameter)
    for panel in dict.fromkeys(command.panel for command in others):
        lines.append(f".SH {_quoted(panel.upper())}")
        for command in others:
            if command.panel == panel:
                lines += _command(command, shared)
    lines.append(".SH EXIT STATUS")
    for code, meaning in rows("reference/exit-codes.md"):
        lines += _tagged(code, meaning)
    lines.append(".SH ENVIRONMENT")
    for variable, option in sorted(dict(_environment(commands)).items()):
        lines += _tagged(variable, f"The value of {option}.")
    lines += _tagged("NO_COLOR", "Switches colours off.")
    lines.append(".SH FILES")
    for path, text in rows("reference/files.md"):
        lines += _tagged(path, text)
    lines += [".PP", escaped(_PLACES)]
    lines += [".SH SEE ALSO", ".BR optictl.yaml (5),", ".BR systemctl (1),", ".BR journalctl (1)"]
    return "\n".join(lines) + "\n"


def file_page() -> str:
    """optictl.yaml(5)."""
    top, *sections = config_page.sections()
    lines = [
        _title("OPTICTL.YAML", 5),
        ".SH NAME",
        "optictl.yaml \\- configuration of one deployment of OptiLLM",
        ".SH DESCRIPTION",
        escaped(
            "A YAML file. optictl init writes it with comments. An absent key has its default; an"
            " unknown key is an error. optictl reports every problem of the file at once and ends"
            " with 78. optictl config schema prints the JSON Schema of the file. Run optictl"
            " install after each change."
        ),
        ".SH TOP LEVEL",
    ]
    for section in (top, *sections):
        if section.name:
            lines += [f".SH {_quoted(section.name.upper())}", escaped(section.text)]
        for key in section.keys:
            text = f"{key.text} Value: {key.kind}. Default: {key.default}."
            lines += _tagged(key.path, text)
    lines += [".SH EXAMPLE", ".EX"]
    example = _EXAMPLE.strip().splitlines()
    lines += [escaped(f"    {line}") for line in example]
    lines += [".EE", ".SH FILES"]
    lines += _tagged("/etc/optillm-proxy/optictl.yaml", "The system's deployment.")
    lines += _tagged("~/.config/optillm-proxy/optictl.yaml", "The deployment of --user.")
    lines += [".SH SEE ALSO", ".BR optictl (1)"]
    return "\n".join(lines) + "\n"


_EXAMPLE = """
model: jerry-xl
base_models: [jerry-xl, jerry-s]
strategies: [moa, bon]
publish: {boost: moa-jerry-xl}
timeouts: {request: 900}
"""
