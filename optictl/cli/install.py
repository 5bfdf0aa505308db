"""install and uninstall."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optictl.cli import options
from optictl.cli.options import Call
from optictl.cli.questions import ask, confirm, refuse_blocked

if TYPE_CHECKING:
    from optictl.operations.installation import Installation


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    add = options.deployment_commands(app, "A deployment")
    add(
        "install",
        install,
        example="sudo optictl install --dry-run",
        shared=options.DEPLOYMENT_AND_OUTPUT,
    )
    add(
        "uninstall",
        uninstall,
        example="sudo optictl uninstall --dry-run",
        shared=options.PLACE_AND_OUTPUT,
    )


def install(
    call: Call,
    dry_run: options.DryRunOption = False,
    detailed_exitcode: options.DetailedOption = False,
    diff: options.DiffOption = options.Diff.changes,
    yes: options.YesOption = False,
    wheelhouse: options.WheelhouseOption = None,
    python: options.PythonOption = None,
    no_start: Annotated[
        bool, typer.Option("--no-start", help="Write everything, but leave systemd alone.")
    ] = False,
    no_smoke: Annotated[
        bool, typer.Option("--no-smoke", help="Do not end with a real request, which costs tokens.")
    ] = False,
    force: options.ForceOption = False,
    secrets_come: options.SecretsComeOption = False,
) -> int:
    """Build the pinned release, prove it, write every artefact and activate it.

    Shows the plan first. A second run changes nothing. Ends with check and one smoke (systemd).
    """
    from optictl.output.plans import Plan

    options.refuse_undetailed(detailed_exitcode, dry_run)
    plan = _planner(call, python, start=not no_start, secrets_come=secrets_come)
    installation = plan()
    shown = Plan(installation, force, diff == options.Diff.full, detailed_exitcode)
    if dry_run:
        return call.terminal.finish(shown)
    call.terminal.preview(shown)
    refuse_blocked(call.terminal, installation)
    if installation.steps:
        _apply(call, installation, plan, confirm(installation, yes, force), python, wheelhouse)
    return _prove(call, start=not no_start, smoke=bool(installation.steps) and not no_smoke)


def _planner(
    call: Call, python: Path | None, *, start: bool, secrets_come: bool
) -> Callable[[], Installation]:
    """What plans the installation: once to show it, once more under the lock."""
    from optictl.operations.install import plan_install
    from optictl.operations.installation import Circumstances

    given = Circumstances(python, secrets_come)
    return lambda: plan_install(call.config(), call.paths, start=start, given=given)


def _apply(
    call: Call,
    installation: Installation,
    plan: Callable[[], Installation],
    force: bool,
    python: Path | None,
    wheelhouse: Path | None,
) -> None:
    from optictl.operations.install import apply_install
    from optictl.output import plans

    wheels = wheelhouse.absolute() if wheelhouse else None
    done = plans.done(call.terminal)
    with call.changing("installing") as say:
        apply_install(installation, plan, python, wheels, say, done, force)


def _prove(call: Call, *, start: bool, smoke: bool) -> int:
    """Check the installation; then send one real request, where everything is well."""
    from optictl.checks import after_install
    from optictl.output.check_results import InstallResults
    from optictl.requests.smoke import first_smoke

    with call.terminal.progress("checking") as say:
        found = after_install.check(call.paths, call.config_path)
        if smoke and start and not call.paths.is_private:
            found += first_smoke(call.config(), call.paths, found, say)
    action = "run" if call.paths.is_private or not start else "start"
    return call.terminal.finish(InstallResults(found, next=call.paths.command(action)))


def uninstall(
    call: Call,
    purge: Annotated[
        bool, typer.Option("--purge", help="Also the configuration and the secrets.")
    ] = False,
    restore: Annotated[
        bool,
        typer.Option("--restore", help="Restore the service that was there before optictl's."),
    ] = False,
    force: options.ForceOption = False,
    dry_run: options.DryRunOption = False,
    detailed_exitcode: options.DetailedOption = False,
    yes: options.YesOption = False,
) -> int:
    """Stop the service and remove what optictl made. Configuration and secrets stay unless --purge.

    A service that was written by hand and replaced is kept; --restore puts it back and starts it.
    """
    from optictl.operations import remove
    from optictl.output import plans

    options.refuse_undetailed(detailed_exitcode, dry_run)
    changes = remove.plan_removal(call.paths, purge, restore)
    hints = [] if restore else remove.hints(call.paths)
    removal = plans.Removal(changes, hints, detailed_exitcode)
    if dry_run or not changes:
        return call.terminal.finish(removal)
    call.terminal.preview(removal)
    call.terminal.ready()
    ask(yes)
    done = plans.done(call.terminal)
    with call.changing("removing") as say:
        config = remove.config_or_default(call.config_path)
        remove.apply_removal(changes, config, call.paths, purge, say, done, force, restore)
    call.terminal.run_log.discard()  # nothing of the deployment stays
    return call.terminal.finish(plans.Removed(changes))
