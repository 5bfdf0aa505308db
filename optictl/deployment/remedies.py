"""Commands that put a file of the operator in order. Pure: a path and what is wrong in, a line for a shell out."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from optictl.guard import envfile, invariants
from optictl.guard.envfile import Problem


def unset(path: Path, name: str) -> str:
    """The command that deletes the lines of a file that set this name, or one of several with | between them."""
    lines = rf"/^\s*(export\s+)?({name})\s*=/d"
    return f"sed -i -E {shlex.quote(lines)} {shlex.quote(str(path))}"


def by_kind(problems: Sequence[Problem]) -> dict[str, list[Problem]]:
    """kind -> the problems of an env file, in the order in which their commands can be run."""
    # commands that name lines come before one that deletes some
    kinds = sorted(
        dict.fromkeys(problem.kind for problem in problems), key=lambda kind: kind == "export"
    )
    return {kind: [problem for problem in problems if problem.kind == kind] for kind in kinds}


def of_env_file(path: Path, content: bytes) -> list[str]:
    """The commands, one for each kind of problem, after which an env file is read as it is meant."""
    alike = by_kind(envfile.read(content).problems)
    return [_readable(path, content, kind, problems) for kind, problems in alike.items()]


def _readable(file: Path, content: bytes, kind: str, problems: Sequence[Problem]) -> str:
    """The command after which the lines with this kind of problem are read as they are meant."""
    path = shlex.quote(str(file))

    def each(edit: str) -> str:
        edits = " ".join(shlex.quote(f"-e{problem.line}{edit}") for problem in problems)
        return f"sed -i -E {edits} {path}"

    def recoded(encoding: str) -> str:
        # written into the same file: it keeps its mode, and no other one ever holds the key
        script = f"text=$(iconv -f {encoding} -t UTF-8 {path}) && printf '%s\\n' \"$text\" > {path}"
        return f"sh -c {shlex.quote(script)}"

    match kind:
        case "utf-16":
            return recoded(str(envfile.utf_16(content)))
        case "not-utf-8":
            return each("s/^/# /") if _decodes(content) else recoded("LATIN1")
        case "nul":
            return f"sed -i 's/\\x00//g' {path}"
        case "bom":
            return f"env LC_ALL=C sed -i '1s/^\\xEF\\xBB\\xBF//' {path}"
        case "export":
            return _without_export(file, {problem.name for problem in problems})
        case "comment":
            return each(r"s/\\+\r?$//")
        case "name" | "no-sign" | "long":
            return each("s/^/# /")
        case _:
            return f"${{EDITOR:-vi}} +{problems[0].line} {path}"


def _decodes(content: bytes) -> bool:
    """Whether it is UTF-8 for everyone but systemd, which takes no noncharacters."""
    try:
        return bool(content.decode())
    except UnicodeDecodeError:
        return False


def _without_export(file: Path, names: set[str]) -> str:
    """The command that takes `export` away, and the variables that must not be there at all."""
    forbidden = sorted(invariants.forbidden_variables(names))
    commands = [unset(file, "|".join(forbidden))] if forbidden else []
    if names.difference(forbidden):
        edit = r"s/^([[:blank:]]*)export[[:blank:]]+/\1/"
        commands.append(f"sed -i -E {shlex.quote(edit)} {shlex.quote(str(file))}")
    return " && ".join(commands)
