"""config and schema: the configuration as it is read, and JSON Schemas.

The schemas are those of what optictl reads and prints.
"""

from __future__ import annotations

import typer

from optictl.cli import help_pages
from optictl.cli.options import DEPLOYMENT, Call, command, deployment
from optictl.output.console import Terminal


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    config = typer.Typer(
        cls=help_pages.Group,
        no_args_is_help=True,
        help="About the configuration file.",
        epilog="Example: optictl config show",
    )
    command(
        config,
        "schema",
        config_schema,
        example="optictl config schema > optictl.schema.json",
    )
    command(
        config,
        "show",
        show,
        example="optictl config show --config my.yaml",
        shared=DEPLOYMENT,
        resolve=deployment,
    )
    app.add_typer(config, name="config", rich_help_panel="Artefacts")
    schemas = typer.Typer(
        cls=help_pages.Group,
        no_args_is_help=True,
        help="JSON Schemas of what optictl prints.",
        epilog="Example: optictl schema envelope",
    )
    command(
        schemas,
        "envelope",
        envelope,
        example="optictl schema envelope > envelope.schema.json",
    )
    # with one command only, typer would take it for the group itself
    schemas.callback()(lambda: None)
    app.add_typer(schemas, name="schema", rich_help_panel="Artefacts")


def show(call: Call) -> None:
    """Print the configuration as optictl reads it, defaults filled in."""
    from optictl.deployment.render import configuration

    call.terminal.raw(configuration(call.config()))


def config_schema(terminal: Terminal) -> None:
    """Print the JSON Schema of optictl.yaml, for editors."""
    from optictl.deployment import config
    from optictl.output.envelope import dump

    terminal.raw(dump(config.schema()) + "\n")


def envelope(terminal: Terminal) -> None:
    """Print the JSON Schema of what a command prints with --output json."""
    from optictl.output import envelope

    terminal.raw(envelope.dump(envelope.schema()) + "\n")
