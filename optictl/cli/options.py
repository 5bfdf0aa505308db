"""The options that commands share, and what they resolve to."""

from __future__ import annotations

import enum
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from optictl.deployment.config import Config
    from optictl.deployment.paths import Paths


class Output(str, enum.Enum):
    """How results are written."""

    text = "text"
    json = "json"


class CheckOutput(str, enum.Enum):
    """How the results of checks are written."""

    text = "text"
    json = "json"
    nagios = "nagios"
    prometheus = "prometheus"


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="PATH",
        envvar="OPTICTL_CONFIG",
        readable=False,  # we say it better, with what mends it
        help="Configuration file instead of the deployment's own.",
    ),
]
RootOption = Annotated[
    Path | None,
    typer.Option(
        "--root",
        metavar="DIR",
        envvar="OPTICTL_ROOT",
        readable=False,
        help="A deployment wholly below DIR.",
    ),
]
UserOption = Annotated[
    bool,
    typer.Option("--user", help="Your own deployment (XDG directories) instead of the system's."),
]


NameOption = Annotated[
    str,
    typer.Option(
        "--name",
        metavar="NAME",
        envvar="OPTICTL_NAME",
        help="Which deployment of this host. Default: optillm-proxy.",
    ),
]


def _command(context: Any) -> str:
    """What the command is called below optictl, such as "check" or "fleet status"."""
    above = context.parent
    group = f"{_command(above)} " if above is not None and above.parent is not None else ""
    return f"{group}{context.info_name}"


def _told(context: typer.Context, output: Any) -> Any:
    from optictl.cli import failures

    failures.json_command = _command(context) if output.value == "json" else None
    return output


OutputOption = Annotated[
    Output,
    typer.Option("--output", "-o", callback=_told, help="text for people, json for programs."),
]
CheckOutputOption = Annotated[
    CheckOutput,
    typer.Option(
        "--output",
        "-o",
        callback=_told,
        help="text for people; json, nagios (its exit codes too) or prometheus.",
    ),
]
KeyFileOption = Annotated[
    Path | None,
    typer.Option(
        "--key-file", metavar="FILE", exists=True, help="Key to send, instead of the proxy key."
    ),
]
SaveOption = Annotated[
    Path | None,
    typer.Option("--save", metavar="FILE", dir_okay=False, help="Also draw it, as one HTML file."),
]
ContentOption = Annotated[
    bool, typer.Option("--content", help="With the prompts and answers of every call.")
]
WheelhouseOption = Annotated[
    Path | None,
    typer.Option(
        "--wheelhouse",
        metavar="DIR",
        exists=True,
        file_okay=False,
        help="Install from these wheels, offline.",
    ),
]
PythonOption = Annotated[
    Path | None,
    typer.Option(
        "--python", metavar="PATH", exists=True, dir_okay=False, help="Build on this interpreter."
    ),
]
ForceOption = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Overwrite local changes; replace a service written by hand. A backup is kept.",
    ),
]
SecretsComeOption = Annotated[
    bool,
    typer.Option(
        "--secrets-come", hidden=True, help="The caller writes the secrets before it installs."
    ),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", envvar="OPTICTL_YES", help="Do not ask.")]


def refuse_no_directory(option: str, file: Path | None) -> None:
    """A file that cannot be made where it is wanted ends the command before anything is spent."""
    if file is not None and not file.absolute().parent.is_dir():
        raise typer.BadParameter(
            f"there is no directory {file.absolute().parent}", param_hint=option
        )


def save_page(path: Path, text: str, content: bool) -> None:
    """Write an HTML page; with prompts and answers in it, for the caller alone."""
    from optictl.host import files

    files.write(path.absolute(), text, 0o600 if content else 0o644)


@dataclass(frozen=True)
class Place:
    """Which deployment a command is about."""

    paths: Paths
    config_path: Path
    explicit: bool

    def config(self) -> Config:
        """Its configuration; the defaults where there is no file and none was named."""
        from optictl.facts import config_file

        return config_file.load(self.config_path, required=self.explicit)


def place(config: Path | None, root: Path | None, user: bool, name: str) -> Place:
    """The deployment that the options name. From here on messages spell commands for its caller."""
    from optictl.deployment import paths
    from optictl.host import program
    from optictl.output import console

    if root is not None and user:
        raise typer.BadParameter("--root and --user exclude each other")
    if problem := paths.name_problem(name):
        raise typer.BadParameter(problem, param_hint="--name")
    found = (
        paths.user(os.environ, name)
        if user
        else paths.system(root.absolute() if root else None, name)
    )
    found = _on_disk(found)
    console.invocation = program.invocation(found.scope, found.is_private, os.environ, sys.argv)
    return Place(found, config.absolute() if config else found.config, config is not None)


def _on_disk(paths: Paths) -> Paths:
    """The same places with links resolved in what a sandbox binds: systemd follows none of them there."""
    if paths.scope == "user":
        return paths
    return replace(paths, opt=paths.opt.resolve(), home=paths.home.resolve())
