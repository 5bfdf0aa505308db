"""upgrade, rollback and releases: from one release to another, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optictl.cli import completion, options
from optictl.cli.options import Call
from optictl.cli.questions import ask, confirm, refuse_blocked

if TYPE_CHECKING:
    from optictl.operations.canary import Proof
    from optictl.operations.installation import Installation
    from optictl.operations.resolve import Resolution
    from optictl.output.plans import Plan


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    add = options.deployment_commands(app, "Releases")
    add(
        "upgrade",
        upgrade,
        example="optictl upgrade --list && sudo optictl upgrade 0.3.13",
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
    shown: options.Diff = options.Diff.changes
    is_detailed: bool = False

    def plan(self, installation: Installation) -> Plan:
        """What people see of a plan, and what its exit code tells."""
        from optictl.output.plans import Plan

        is_full = self.shown == options.Diff.full
        return Plan(installation, self.force, is_full, self.is_detailed)


_VersionArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[VERSION]",
        autocompletion=completion.versions,
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
_ListOption = Annotated[
    bool,
    typer.Option(
        "--list",
        help="List the versions: with a lock, verified, released here, newest on the index.",
    ),
]
_CanaryOnlyOption = Annotated[
    bool, typer.Option("--canary-only", help="Build and prove it; do not activate it.")
]
_BuildOnlyOption = Annotated[
    bool,
    typer.Option(
        "--build-only",
        help="Build it and try its promises; ask no model, do not activate it.",
    ),
]


def upgrade(
    call: Call,
    version: _VersionArgument = None,
    lock: _LockOption = None,
    resolve: _ResolveOption = False,
    list_versions: _ListOption = False,
    canary_only: _CanaryOnlyOption = False,
    build_only: _BuildOnlyOption = False,
    dry_run: options.DryRunOption = False,
    detailed_exitcode: options.DetailedOption = False,
    diff: options.DiffOption = options.Diff.changes,
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

    `optictl upgrade --list` shows the versions, and asks no model.
    """
    if list_versions:
        return _list(call, alone=not (version or lock or resolve or canary_only or build_only))
    options.refuse_undetailed(detailed_exitcode, dry_run)
    wanted = _wanted(call, version)
    wheels = wheelhouse.absolute() if wheelhouse else None
    choices = _Choices(yes, force, python, wheels, diff, detailed_exitcode)
    ends = _Ends(dry_run, canary_only, build_only)
    with _new_lock(call, wanted, lock, resolve) as new:
        return _upgrade(call, wanted, new, choices, ends, secrets_come)


@dataclass(frozen=True)
class _Ends:
    """Where an upgrade ends before it activates anything."""

    dry_run: bool
    canary_only: bool
    build_only: bool


def _upgrade(
    call: Call,
    wanted: str,
    new: _NewLock | None,
    choices: _Choices,
    ends: _Ends,
    secrets_come: bool,
) -> int:
    from optictl.operations import upgrade
    from optictl.operations.installation import Circumstances
    from optictl.output.release_tables import LockPlan

    given = Circumstances(choices.python, secrets_come, new.file if new else None)

    def plan() -> Installation:
        place = (call.config(), call.config_path, call.paths)
        planned = upgrade.plan_upgrade(*place, wanted, given)
        return upgrade.up_to_the_proof(planned) if ends.canary_only else planned

    if ends.dry_run and new is not None:
        report = LockPlan(str(new.target), choices.plan(plan()), new.resolution)
        return call.terminal.finish(report)
    if ends.build_only and not ends.dry_run:
        return _build(call, plan(), choices)
    canary = ends.canary_only
    following = f"upgrade {wanted}" if canary else "rollback"
    return _change(call, plan, choices, dry_run=ends.dry_run, canary=canary, following=following)


def _list(call: Call, *, alone: bool) -> int:
    """The versions of OptiLLM. `alone`: nothing else was asked for."""
    from optictl.output.release_tables import Versions
    from optictl.releases import versions

    if not alone:
        raise typer.BadParameter("--list takes no version and no other way to upgrade")
    profile = call.config().optillm.profile
    with call.terminal.progress("asking the package index") as say:
        say("asking the package index for the newest OptiLLM")
        found = versions.read(call.paths, profile)
    return call.terminal.finish(Versions(found))


def _wanted(call: Call, version: str | None) -> str:
    """The version to upgrade to.

    Raises:
        UsageFailure: the command line names none that OptiLLM could have.
    """
    from optictl.releases import versions

    optillm = call.config().optillm
    if version is None:
        return optillm.version
    versions.refuse_malformed(version, call.paths, optillm.profile)
    return version


def rollback(
    call: Call,
    dry_run: options.DryRunOption = False,
    detailed_exitcode: options.DetailedOption = False,
    diff: options.DiffOption = options.Diff.changes,
    yes: options.YesOption = False,
    force: options.ForceOption = False,
) -> int:
    """Return to the previous release, proven in the same way as an upgrade. Costs tokens."""
    from optictl.operations import upgrade

    def plan() -> Installation:
        return upgrade.plan_rollback(call.config(), call.config_path, call.paths)

    options.refuse_undetailed(detailed_exitcode, dry_run)
    choices = _Choices(yes, force, shown=diff, is_detailed=detailed_exitcode)
    return _change(call, plan, choices, dry_run=dry_run)


def releases(call: Call) -> int:
    """List the releases on this machine: version, closure, when, size, state."""
    from optictl.output.release_tables import Releases
    from optictl.releases import store

    return call.terminal.finish(Releases(store.listing(call.paths)))


@dataclass(frozen=True)
class _NewLock:
    """A lock that is not kept yet: a file with it, where it belongs, and how it was made."""

    file: Path
    target: Path
    resolution: Resolution | None = None


@contextmanager
def _new_lock(
    call: Call, version: str, lock: Path | None, resolve: bool
) -> Iterator[_NewLock | None]:
    """The lock that the command line brings or asks for, None without one.

    Raises:
        Exit: the lock leads to a release that is refused; it was said.
    """
    from optictl.operations import resolve as resolving

    if lock is not None and resolve:
        raise typer.BadParameter("--lock and --resolve exclude each other")
    if lock is None and not resolve:
        yield None
        return
    found: Resolution | None = None
    if lock is not None:
        target, text = resolving.own_lock(call.config(), call.paths, version, lock)
    else:
        found = _resolution(call, version)
        target, text = found.path, found.text
    with resolving.unkept(target.name, text) as file:
        yield _NewLock(file, target, found)


def _resolution(call: Call, version: str) -> Resolution:
    """A new lock, once it is shown what it means.

    Raises:
        Exit: it leads to a release that is refused.
    """
    from optictl.errors import ReleaseRefused
    from optictl.operations import resolve as resolving
    from optictl.output.release_tables import NewLock, RefusedLock

    config = call.config()
    with call.terminal.progress("resolving") as say:
        found = resolving.resolve(config, call.paths, version, say)
    call.terminal.preview(NewLock(found))
    try:
        resolving.refuse(found, config, call.paths, version)
    except ReleaseRefused as refused:
        raise typer.Exit(call.terminal.finish(RefusedLock(found, refused))) from None
    return found


def _build(call: Call, installation: Installation, choices: _Choices) -> int:
    from optictl.operations import install, upgrade
    from optictl.operations.steps import BuildRelease
    from optictl.output import plans
    from optictl.output.release_tables import Built

    terminal, release = call.terminal, installation.want.name
    if any(isinstance(step, BuildRelease) for step in installation.steps):
        terminal.ready()
        ask(choices.yes, f"Build {release}?")
        done = plans.done(terminal)
        with call.changing("building") as say:
            install.build_beside(installation, choices.python, choices.wheelhouse, say, done)
    upgrade.keep_lock(installation)
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
    from optictl.output.release_tables import Switched

    installation = plan()
    if dry_run:
        return call.terminal.finish(choices.plan(installation))
    call.terminal.preview(choices.plan(installation))
    refuse_blocked(call.terminal, installation)
    proofs: list[Proof] = []
    if installation.steps:
        force = confirm(installation, choices.yes, choices.force)
        proofs = _apply(call, installation, plan, choices, force)
    words = "Activate it" if canary else "To return to the previous release"
    hint = f"{words}: {call.paths.command(following)}" if following else ""
    changed, problems = bool(installation.steps), installation.problems
    done = Switched(installation.want.name, changed, not canary, proofs, hint, problems)
    return call.terminal.finish(done)


def _apply(
    call: Call,
    installation: Installation,
    plan: Callable[[], Installation],
    choices: _Choices,
    force: bool,
) -> list[Proof]:
    from optictl.operations import upgrade
    from optictl.output import plans
    from optictl.output.release_tables import Comparison

    proofs: list[Proof] = []

    def report(proof: Proof) -> None:
        proofs.append(proof)
        call.terminal.preview(Comparison(proof))

    with call.changing("changing the release") as say:
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
