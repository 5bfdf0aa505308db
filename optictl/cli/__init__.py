"""The command line. A command parses, calls one function and hands its result to a `Terminal`."""

from __future__ import annotations

import sys

import typer

from optictl.cli import (
    artefacts,
    check,
    compare,
    demo,
    fleet,
    help_pages,
    init,
    install,
    observe,
    releases,
    sbom,
    schema,
    service,
    smoke,
    trace,
    wheelhouse,
)

app = typer.Typer(
    name="optictl",
    cls=help_pages.Root,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Install, guard, check and prove OptiLLM as a localhost service behind LiteLLM.",
    epilog="Try optictl demo --once: everything, on this machine, without root or LiteLLM.",
)
for module in (init, install, service, observe):
    module.register(app)
service.register_run(app)
for module in (
    releases,
    wheelhouse,
    check,
    smoke,
    demo,
    trace,
    compare,
    fleet,
    artefacts,
    sbom,
    schema,
):
    module.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        from optictl.cli.version import text

        sys.stdout.write(text())
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the versions and exit."
    ),
    debug: bool = typer.Option(
        False, "--debug", envvar="OPTICTL_DEBUG", help="Show tracebacks of internal errors."
    ),
) -> None:
    """A command reads `debug` from the context of the whole command line."""


def main() -> None:
    """The console script."""
    from optictl.cli import ending
    from optictl.host import streams

    streams.use_utf8()
    streams.prepare()
    sys.exit(ending.run(app, sys.argv[1:]))
