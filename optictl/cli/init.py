"""init: the files that the operator owns."""

from __future__ import annotations

from typing import Annotated

import typer

from optictl.cli import options
from optictl.cli.options import Call


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    add = options.deployment_commands(app, "A deployment")
    add("init", init, example="sudo optictl init", shared=options.PLACE_AND_OUTPUT)


def init(
    call: Call,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be written, and write nothing.")
    ] = False,
) -> int:
    """Write a commented optictl.yaml, a skeleton of the env file and a new proxy key.
    Overwrites nothing.

    If a hand-made OptiLLM service exists, the new files get its values.
    The output lists what is taken and what is not.
    """
    from optictl.operations.initialize import initialize
    from optictl.output.initialized import InitReport

    done = initialize(call.paths, dry_run)
    return call.terminal.finish(InitReport(done, call.paths, dry_run))
