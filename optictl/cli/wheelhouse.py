"""wheelhouse: the wheels for a host without a package index."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optictl.cli.options import OUTPUT, SourceOption, command
from optictl.output.console import Terminal

if TYPE_CHECKING:
    from optictl.releases.targets import Target

ARCHITECTURES = ("x86_64", "aarch64")
PROFILES = ("proxy", "full")


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    command(
        app,
        "wheelhouse",
        wheelhouse,
        example="optictl wheelhouse wheels --python 3.11",
        shared=(OUTPUT,),
        panel="Releases",
    )


DirectoryArgument = Annotated[
    Path, typer.Argument(metavar="DIR", file_okay=False, help="Made if it does not exist.")
]
CPythonOption = Annotated[
    str,
    typer.Option(
        "--python", metavar="X.Y", help="CPython's version on the host. Default: as here."
    ),
]
ArchitectureOption = Annotated[
    str,
    typer.Option("--architecture", metavar="NAME", help="x86_64 or aarch64. Default: as here."),
]
GlibcOption = Annotated[
    str, typer.Option("--glibc", metavar="X.Y", help="The version of the host's C library.")
]
VersionsOption = Annotated[
    list[str] | None,
    typer.Option("--version", metavar="VERSION", help="Of OptiLLM. May be repeated."),
]
ProfileOption = Annotated[str, typer.Option("--profile", help="proxy or full.")]


def wheelhouse(
    terminal: Terminal,
    directory: DirectoryArgument,
    python: CPythonOption = "",
    architecture: ArchitectureOption = "",
    glibc: GlibcOption = "2.34",
    version: VersionsOption = None,
    profile: ProfileOption = "proxy",
    wheels: SourceOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the wheels to download, and stop.")
    ] = False,
) -> int:
    """Fill a directory with the wheels for a host without a network:
    OptiLLM's locked closure, optictl and uv.

    Every wheel is checked against the hashes of the lock. Wheels that are there are kept.
    """
    from optictl.deployment.config import Config
    from optictl.output.wheelhouses import NewWheelhouse, PlannedWheelhouse
    from optictl.releases import wheelhouse as making

    if profile not in PROFILES:
        raise typer.BadParameter("proxy or full", param_hint="--profile")
    python = python or f"{sys.version_info[0]}.{sys.version_info[1]}"
    target = platform_of(architecture or platform.machine(), python, glibc)
    versions = tuple(dict.fromkeys(version or [Config().optillm.version]))
    request = making.Request(target, versions, profile)
    directory = directory.absolute()
    if dry_run:
        missing = making.missing(directory, request)
        report = PlannedWheelhouse(directory, target, missing, len(request.all()))
        return terminal.finish(report)
    with terminal.progress("downloading") as say:
        made = making.make(directory, request, wheels, say)
    return terminal.finish(NewWheelhouse(made, python))


def platform_of(architecture: str, python: str, glibc: str) -> Target:
    """The platform that options name. Raises BadParameter for one that no lock supports."""
    from optictl.host import uv
    from optictl.releases.targets import target

    if architecture not in ARCHITECTURES:
        raise typer.BadParameter("x86_64 or aarch64", param_hint="--architecture")
    version = _numbers(python, "--python")
    if not uv.OLDEST <= version <= uv.NEWEST:
        raise typer.BadParameter(
            f"the locks are for CPython {uv.SUPPORTED}, not for {python}", param_hint="--python"
        )
    return target(architecture, version, _numbers(glibc, "--glibc"))


def _numbers(text: str, hint: str) -> tuple[int, int]:
    words = text.split(".")
    if len(words) != 2 or not all(word.isdecimal() for word in words):
        raise typer.BadParameter("two numbers with a dot, such as 3.12", param_hint=hint)
    return int(words[0]), int(words[1])
