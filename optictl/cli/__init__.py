"""The command line. Each command parses, calls one function and hands the result to report."""

from __future__ import annotations

import sys

import typer

from optictl.cli import artefacts, comparing, deployment, fleet, proof, release, tracing

app = typer.Typer(
    name="optictl",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Install, guard, check and prove OptiLLM as a localhost service behind LiteLLM.",
    epilog="Try [bold]optictl demo --once[/bold]: everything, on this machine, without root or LiteLLM.",
)
for module in (deployment, release, proof, tracing, comparing, fleet, artefacts):
    module.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        from optictl import __version__

        sys.stdout.write(f"optictl {__version__}\n")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version and exit."
    ),
    debug: bool = typer.Option(
        False, "--debug", envvar="OPTICTL_DEBUG", help="Show tracebacks of unexpected errors."
    ),
) -> None:
    from optictl.cli import failures

    failures.debug = debug


def main() -> None:
    """The console script."""
    from optictl.cli import failures

    sys.exit(failures.guarded(app))
