"""sbom: what a release consists of."""

from __future__ import annotations

from typing import Annotated

import typer

from optictl.cli import options
from optictl.cli.options import Call


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    add = options.deployment_commands(app, "Artefacts")
    add("sbom", sbom, example="optictl sbom > optillm.cdx.json", shared=options.DEPLOYMENT)


def sbom(
    call: Call,
    version: Annotated[
        str,
        typer.Option(
            "--version", metavar="VERSION", help="Of OptiLLM. Default: the one of optictl.yaml."
        ),
    ] = "",
    program: Annotated[
        bool, typer.Option("--program", help="Of optictl itself, not of a release.")
    ] = False,
) -> None:
    """Print the software bill of materials (CycloneDX, JSON) of a release, from its lock."""
    from optictl import __version__
    from optictl.output.envelope import dump
    from optictl.releases import locks
    from optictl.releases.sbom import document

    if program:
        lock = locks.shipped_locks() / "optictl.txt"
        made = document("optictl", __version__, lock.read_text(encoding="utf-8"))
    else:
        config = call.config()
        wanted = version or config.optillm.version
        lock = locks.lock_file(wanted, config.optillm.profile, call.paths)
        made = document("optillm", wanted, lock.read_text(encoding="utf-8"))
    call.terminal.raw(dump(made) + "\n")
