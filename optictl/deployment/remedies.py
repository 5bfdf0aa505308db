"""Shell commands that fix a file of the operator. Pure: path and problem in, command out."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from optictl.deployment.paths import Paths
from optictl.guard import envfile, invariants
from optictl.guard.envfile import Problem

_COMMAND = re.compile(r"\boptictl (check|install|trace)\b(?! --)")


def for_deployment(remedy: str, paths: Paths) -> str:
    """A remedy with its commands for this deployment. They are the last words of a clause."""
    return _COMMAND.sub(lambda found: paths.command(found[1]), remedy)


def unset(path: Path, name: str) -> str:
    """The command that deletes the lines of a file that set this name.

    `name` may be several names, separated by |.
    """
    lines = rf"/^\s*(export\s+)?({name})\s*=/d"
    return f"sed -i -E {shlex.quote(lines)} {shlex.quote(str(path))}"


def by_kind(problems: Sequence[Problem]) -> dict[str, list[Problem]]:
    """The problems of an env file: kind -> problems, in the order in which to fix them."""
    # commands with line numbers come before one that deletes lines
    kinds = sorted(
        dict.fromkeys(problem.kind for problem in problems), key=lambda kind: kind == "export"
    )
    return {kind: [problem for problem in problems if problem.kind == kind] for kind in kinds}


def of_env_file(path: Path, content: bytes) -> list[str]:
    """The commands that fix an env file, one for each kind of problem."""
    problems_by_kind = by_kind(envfile.read(content).problems)
    return [_fix(path, content, kind, problems) for kind, problems in problems_by_kind.items()]


def _fix(file: Path, content: bytes, kind: str, problems: Sequence[Problem]) -> str:
    """The command that fixes the lines with this kind of problem."""
    path = shlex.quote(str(file))

    def each(edit: str) -> str:
        edits = " ".join(shlex.quote(f"-e{problem.line}{edit}") for problem in problems)
        return f"sed -i -E {edits} {path}"

    def recoded(encoding: str) -> str:
        # write to the same file: it keeps its mode, and no other file ever contains the key
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
    """Whether Python can decode it as UTF-8. systemd also refuses noncharacters."""
    try:
        return bool(content.decode())
    except UnicodeDecodeError:
        return False


def _without_export(file: Path, names: set[str]) -> str:
    """The command that removes `export`, and the lines with forbidden variables."""
    forbidden = sorted(invariants.forbidden_variables(names))
    commands = [unset(file, "|".join(forbidden))] if forbidden else []
    if names.difference(forbidden):
        edit = r"s/^([[:blank:]]*)export[[:blank:]]+/\1/"
        commands.append(f"sed -i -E {shlex.quote(edit)} {shlex.quote(str(file))}")
    return " && ".join(commands)
