"""upgrade, rollback and releases: from one release to another, and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optictl.cli import options
from optictl.cli.options import Call
from optictl.cli.questions import ask, confirm, refuse_blocked

if TYPE_CHECKING:
    from optictl.operations.canary import Proof
    from optictl.operations.installation import Installation


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    add = options.deployment_commands(app, "Releases")
    add(
        "upgrade",
        upgrade,
        example="sudo optictl upgrade 0.3.13",
        shared=options.DEPLOYMENT_AND_OUTPUT,
    )
    add("rollback", rollback, example="sudo optictl rollback", shared=options.DEPLOYMENT_AND_OUTPUT)
    add(
        "releases",
        releases,
        example="optictl releases --output json",
        shared=options.PLACE_AND_OUTPUT,
    )


@dataclass(frozen=True)
class _Choices:
    """How a plan is confirmed and built."""

    yes: bool = False
    force: bool = False
    python: Path | None = None
    wheelhouse: Path | None = None


_VersionArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[VERSION]",
        help="Of OptiLLM, such as 0.3.13. Default: what the configuration asks for.",
    ),
]
_LockOption = Annotated[
    Path | None,
    typer.Option(
        "--lock",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="Your own hash lock for this version.",
    ),
]
_ResolveOption = Annotated[
    bool,
    typer.Option(
        "--resolve",
        help="Make a lock for a version that has none, and show what changes.",
    ),
]
_CanaryOnlyOption = Annotated[
    bool, typer.Option("--canary-only", help="Build and prove it; do not activate it.")
]
_BuildOnlyOption = Annotated[
    bool,
    typer.Option(
        "--build-only",
        help="Build it and start it once; ask no model, do not activate it.",
    ),
]


def upgrade(
    call: Call,
    version: _VersionArgument = None,
    lock: _LockOption = None,
    resolve: _ResolveOption = False,
    canary_only: _CanaryOnlyOption = False,
    build_only: _BuildOnlyOption = False,
    dry_run: options.DryRunOption = False,
    yes: options.YesOption = False,
    force: options.ForceOption = False,
    wheelhouse: options.WheelhouseOption = None,
    python: options.PythonOption = None,
    secrets_come: options.SecretsComeOption = False,
) -> int:
    """Upgrade to another version of OptiLLM: build it, prove it against the live upstream,
    activate it, prove it again.

    Every enabled strategy is asked twice: that costs tokens.
    If anything fails, it is rolled back (exit 4).
    """
    from optictl.operations import upgrade
    from optictl.operations.installation import Circumstances

    given = Circumstances(python, secrets_come)
    wanted = version or call.config().optillm.version
    if (lock is not None or resolve) and _new_lock(call, wanted, lock, resolve, dry_run, yes):
        return 0

    def plan() -> Installation:
        place = (call.config(), call.config_path, call.paths)
        planned = upgrade.plan_upgrade(*place, wanted, given)
        return upgrade.up_to_the_proof(planned) if canary_only else planned

    choices = _Choices(yes, force, python, wheelhouse.absolute() if wheelhouse else None)
    if build_only and not dry_run:
        return _build(call, plan(), choices)
    following = f"upgrade {wanted}" if canary_only else "rollback"
    return _change(call, plan, choices, dry_run=dry_run, canary=canary_only, following=following)


def rollback(
    call: Call,
    dry_run: options.DryRunOption = False,
    yes: options.YesOption = False,
    force: options.ForceOption = False,
) -> int:
    """Return to the previous release, proven in the same way as an upgrade. Costs tokens."""
    from optictl.operations import upgrade

    def plan() -> Installation:
        return upgrade.plan_rollback(call.config(), call.config_path, call.paths)

    return _change(call, plan, _Choices(yes, force), dry_run=dry_run)


def releases(call: Call) -> int:
    """List the releases on this machine: version, closure, when, size, state."""
    from optictl.output.release_tables import Releases
    from optictl.releases import store

    return call.terminal.finish(Releases(store.listing(call.paths)))


def _new_lock(
    call: Call, version: str, lock: Path | None, resolve: bool, dry_run: bool, yes: bool
) -> bool:
    """Keep a lock with this deployment's own, after showing what it means.

    Returns whether the command ends there: only the plan was asked for.
    """
    from optictl.operations import resolve as resolving
    from optictl.output.release_tables import LockPlan, NewLock

    config, found = call.config(), None
    if lock is not None and resolve:
        raise typer.BadParameter("--lock and --resolve exclude each other")
    if lock is not None:
        target, text = resolving.own_lock(config, call.paths, version, lock)
    else:
        with call.terminal.progress("resolving") as say:
            found = resolving.resolve(config, call.paths, version, say)
        call.terminal.preview(NewLock(found))
        target, text = found.path, found.text
    if dry_run:
        call.terminal.finish(LockPlan(str(target), found))
        return True
    ask(yes, f"Keep this lock as {target}?")
    resolving.keep_lock(target, text)
    return False


def _build(call: Call, installation: Installation, choices: _Choices) -> int:
    from optictl.operations import install
    from optictl.operations.steps import BuildRelease
    from optictl.output import plans
    from optictl.output.release_tables import Built

    terminal, release = call.terminal, installation.want.name
    if any(isinstance(step, BuildRelease) for step in installation.steps):
        ask(choices.yes, f"Build {release}?")
        done = plans.done(terminal)
        with terminal.progress("building") as say:
            install.build_beside(installation, choices.python, choices.wheelhouse, say, done)
    return terminal.finish(Built(release))


def _change(
    call: Call,
    plan: Callable[[], Installation],
    choices: _Choices,
    *,
    dry_run: bool,
    canary: bool = False,
    following: str = "",
) -> int:
    """Show a plan; apply it, if it is confirmed. `following`: the command that may come next."""
    from optictl.output.plans import Plan
    from optictl.output.release_tables import Switched

    installation = plan()
    if dry_run:
        return call.terminal.finish(Plan(installation, choices.force))
    call.terminal.preview(Plan(installation, choices.force))
    refuse_blocked(call.terminal, installation)
    proofs: list[Proof] = []
    if installation.steps:
        force = confirm(installation, choices.yes, choices.force)
        proofs = _apply(call, installation, plan, choices, force)
    words = "Activate it" if canary else "To return to the previous release"
    hint = f"{words}: {call.paths.command(following)}" if following else ""
    done = Switched(installation.want.name, bool(installation.steps), not canary, proofs, hint)
    return call.terminal.finish(done)


def _apply(
    call: Call,
    installation: Installation,
    plan: Callable[[], Installation],
    choices: _Choices,
    force: bool,
) -> list[Proof]:
    from optictl.host import processes
    from optictl.operations import upgrade
    from optictl.output import plans
    from optictl.output.release_tables import Comparison

    proofs: list[Proof] = []

    def report(proof: Proof) -> None:
        proofs.append(proof)
        call.terminal.preview(Comparison(proof))

    with call.terminal.progress("changing") as say, processes.raise_on_signals():
        upgrade.prove_and_switch(
            installation,
            plan,
            call.config(),
            choices.python,
            choices.wheelhouse,
            say,
            plans.done(call.terminal),
            force=force,
            report_proof=report,
        )
    return proofs
