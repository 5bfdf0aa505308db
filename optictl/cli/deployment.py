"""init, install, run: commands that change or run a deployment."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from optictl.cli.options import ConfigOption, Output, OutputOption, Place, RootOption, UserOption, YesOption, place


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    panel = "A deployment"
    app.command("init", rich_help_panel=panel, epilog="Example: sudo optictl init")(init)
    app.command("install", rich_help_panel=panel, epilog="Example: sudo optictl install --dry-run")(install)
    app.command("run", rich_help_panel=panel, epilog="Example: optictl run --root ~/optillm")(run)


def init(root: RootOption = None, user: UserOption = False, output: OutputOption = Output.text) -> None:
    """Write a commented optictl.yaml, the env file's skeleton and a fresh proxy key. Overwrites nothing."""
    from optictl import deploy, report

    where = place(None, root, user)
    made, kept = deploy.init(where.paths)
    if output is Output.json:
        items = [{**c.as_dict(), "diff": ""} for c in made] + [
            {"action": "keep", "target": str(p), "reason": "it exists"} for p in kept
        ]
        report.envelope("init", items, True)
        return
    for change in made:
        report.message(f"created  {change.target}")
    for path in kept:
        report.message(f"kept     {path}")
    report.message(
        f"\nNext: write LiteLLM's key into {where.paths.env} (OPENAI_API_KEY=...), then: {where.paths.command('install')}"
    )


def install(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
    yes: YesOption = False,
    wheelhouse: Annotated[
        Path | None,
        typer.Option("--wheelhouse", metavar="DIR", exists=True, file_okay=False, help="Install from these wheels, offline."),
    ] = None,
    python: Annotated[
        Path | None, typer.Option("--python", metavar="PATH", exists=True, dir_okay=False, help="Build on this interpreter.")
    ] = None,
    no_start: Annotated[bool, typer.Option("--no-start", help="Do not start the service (this version never does).")] = False,
    config: ConfigOption = None,
    root: RootOption = None,
    user: UserOption = False,
    output: OutputOption = Output.text,
) -> None:
    """Build the pinned release, prove it, write every artefact and put it in force.

    Shows the plan first. A second run changes nothing and says so.
    """
    from optictl import deploy, report

    where = place(config, root, user)
    installation = deploy.plan_install(where.config(), where.paths)
    text = output is Output.text
    if not installation.changes:
        if text:
            report.message("No changes.")
    elif text:
        report.changes(installation.changes)
    if dry_run:
        if not text:
            report.envelope("install", [c.as_dict() for c in installation.changes], True)
        return
    if installation.changes:
        _confirm(yes)
        with report.progress("installing") as say:
            deploy.apply_install(installation, python, wheelhouse.absolute() if wheelhouse else None, say, report.done)
    found = _checks(where)
    if text:
        report.headline("check")
    good = report.results("install", found, output.value)
    if text and good and installation.changes:
        report.message(f"Next: {where.paths.command('run')}")
        if not root and not user:
            report.message("Or as a service: systemctl daemon-reload && systemctl enable --now optillm-proxy.socket")
    raise typer.Exit(0 if good else 1)


def _confirm(yes: bool) -> None:
    from optictl.errors import OptictlError

    if yes:
        return
    if not sys.stdin.isatty():
        raise OptictlError("there is no terminal to ask at", remedy="look at the plan with --dry-run, then run it with --yes")
    typer.confirm("Apply these changes?", abort=True, err=True)


def _checks(where: Place) -> list:  # type: ignore[type-arg]
    """What `install` can judge: everything, but the live process only where one serves the port."""
    from optictl.checks import registry
    from optictl.checks.registry import Skip
    from optictl.checks.site import Site

    site = Site(where.paths, where.config_path)
    checks = registry.select(())
    try:
        site.live  # noqa: B018
    except Skip:
        checks = [c for c in checks if not c.live]
    # the build has just proven that it starts
    return registry.run([c for c in checks if c.id != "release.starts"], site)


def run(config: ConfigOption = None, root: RootOption = None, user: UserOption = False) -> None:
    """Run the deployment in the foreground, exactly as the unit would start it.

    Ctrl-C or SIGTERM drains: what is in flight is finished first. Started by root, the
    service runs as optillm-proxy (or nobody).
    """
    from optictl import foreground

    where = place(config, root, user)
    raise typer.Exit(foreground.run(where.config(), where.paths))
