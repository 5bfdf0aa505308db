"""start, stop, restart and run: the service itself."""

from __future__ import annotations

import typer

from optictl.cli import options
from optictl.cli.options import Call


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    add = options.deployment_commands(app, "A deployment")
    add("start", start, example="sudo optictl start", shared=options.PLACE_AND_OUTPUT)
    add("stop", stop, example="sudo optictl stop", shared=options.PLACE_AND_OUTPUT)
    add("restart", restart, example="sudo optictl restart", shared=options.PLACE_AND_OUTPUT)


def register_run(app: typer.Typer) -> None:
    """Add `run`, which stands behind the commands that look."""
    add = options.deployment_commands(app, "A deployment")
    add("run", run, example="optictl run --root ~/optillm", shared=options.DEPLOYMENT)


def start(call: Call) -> int:
    """Start the service under systemd; returns when the proxy answers."""
    from optictl.operations import service
    from optictl.output.console import Report

    with call.changing("starting"):
        service.start(call.config(), call.paths)
    return call.terminal.finish(Report())


def stop(call: Call) -> int:
    """Stop the service and its socket. Requests in flight are finished first."""
    from optictl.operations import service
    from optictl.output.console import Report

    with call.changing("stopping"):
        service.stop(call.config(), call.paths)
    return call.terminal.finish(Report())


def restart(call: Call) -> int:
    """Restart without a pause: a second process serves on the same socket
    while the service drains.
    """
    from optictl.operations import service
    from optictl.output.console import Report

    with call.changing("restarting") as say:
        service.restart(call.config(), call.paths, say)
    return call.terminal.finish(Report())


def run(call: Call) -> int:
    """Run the deployment in the foreground, exactly as the unit would start it.

    It refuses to start with what the unit refuses (exit code 78).

    Ctrl-C or SIGTERM drains: requests in flight are finished first.

    Started by root, the service runs as the user optillm-proxy, or as 'nobody'.
    """
    from optictl.operations import foreground

    terminal = call.terminal
    return foreground.run(
        call.config(), call.paths, call.config_path, terminal.note, terminal.error
    )
