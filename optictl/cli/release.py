"""upgrade, rollback, releases: from one release to another, and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optictl.cli.deployment import ask, confirm, plan_as_json, refuse_blocked, show_plan
from optictl.cli.options import (
    ConfigOption,
    ForceOption,
    NameOption,
    Output,
    OutputOption,
    Place,
    PythonOption,
    RootOption,
    SecretsComeOption,
    UserOption,
    WheelhouseOption,
    YesOption,
    place,
)
from optictl.deployment.paths import NAME

if TYPE_CHECKING:
    from collections.abc import Callable

    from optictl.operations.installation import Installation


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    panel = "Releases"
    app.command("upgrade", rich_help_panel=panel, epilog="Example: sudo optictl upgrade 0.3.13")(
        upgrade
    )
    app.command("rollback", rich_help_panel=panel, epilog="Example: sudo optictl rollback")(
        rollback
    )
    app.command(
        "releases", rich_help_panel=panel, epilog="Example: optictl releases --output json"
    )(releases)


def upgrade(
    version: Annotated[
        str | None,
        typer.Argument(
            metavar="[VERSION]",
            help="Of OptiLLM, such as 0.3.13. Default: what the configuration asks for.",
        ),
    ] = None,
    lock: Annotated[
        Path | None,
        typer.Option(
            "--lock",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="A hash lock of your own for this version.",
        ),
    ] = None,
    resolve: Annotated[
        bool,
        typer.Option(
            "--resolve",
            help="Make a lock for a version that none is held for, and show what changes.",
        ),
    ] = False,
    canary_only: Annotated[
        bool, typer.Option("--canary-only", help="Build and prove it beside; switch nothing.")
    ] = False,
    build_only: Annotated[
        bool,
        typer.Option(
            "--build-only", help="Build it beside and start it once; ask no model, switch nothing."
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
    yes: YesOption = False,
    force: ForceOption = False,
    wheelhouse: WheelhouseOption = None,
    python: PythonOption = None,
    secrets_come: SecretsComeOption = False,
    config: ConfigOption = None,
    root: RootOption = None,
    user: UserOption = False,
    name: NameOption = NAME,
    output: OutputOption = Output.text,
) -> None:
    """Go to another version of OptiLLM: build it beside, prove it against the live upstream, switch, prove it again.

    Every enabled strategy is asked twice: that costs tokens. If anything fails, it is rolled back (exit 4).
    """
    from optictl.operations import upgrade as upgrading
    from optictl.operations.installation import Circumstances
    from optictl.output import console

    where = place(config, root, user, name)
    given = Circumstances(python, secrets_come)
    wanted = version or where.config().optillm.version
    if lock is not None or resolve:
        _new_lock(where, wanted, lock, resolve, dry_run, yes, output)
        if dry_run:
            raise typer.Exit(0)

    def plan() -> Installation:
        planned = upgrading.plan_upgrade(
            where.config(), where.config_path, where.paths, wanted, given
        )
        return upgrading.up_to_the_proof(planned) if canary_only else planned

    installation = plan()
    if dry_run:
        _shown(installation, "upgrade", output, force)
        raise typer.Exit(1 if installation.blockers else 0)
    if build_only:
        _build(installation, yes, wheelhouse, python, output)
        raise typer.Exit(0)
    _go("upgrade", where, installation, plan, yes, force, wheelhouse, python, canary_only, output)
    if output is Output.text and installation.steps:
        next_one = f"Put it in force: {where.paths.command(f'upgrade {wanted}')}"
        console.message(
            next_one if canary_only else f"Back again: {where.paths.command('rollback')}"
        )


def _new_lock(
    where: Place,
    version: str,
    lock: Path | None,
    resolve: bool,
    dry_run: bool,
    yes: bool,
    output: Output,
) -> None:
    """Put a lock where this deployment's own are, after showing what it means."""
    from optictl.operations import resolve as resolving
    from optictl.output import console, release_tables

    deployed = where.config()
    if lock is not None and resolve:
        raise typer.BadParameter("--lock and --resolve exclude each other")
    if lock is not None:
        target, text = resolving.own_lock(deployed, where.paths, version, lock)
    else:
        with console.progress("resolving") as say:
            found = resolving.resolve(deployed, where.paths, version, say)
        if output is Output.text:
            release_tables.resolution(found)
        elif dry_run:
            console.envelope("upgrade", [found.as_dict()], True)
        target, text = found.path, found.text
    if dry_run:
        console.note(f"the lock would be kept as {target}")
        return
    ask(yes, f"Keep this lock as {target}?")
    resolving.keep_lock(target, text)


def _shown(installation: Installation, command: str, output: Output, force: bool) -> None:
    if output is Output.json:
        plan_as_json(command, installation)
    else:
        show_plan(installation, force)


def _build(
    installation: Installation,
    yes: bool,
    wheelhouse: Path | None,
    python: Path | None,
    output: Output,
) -> None:
    from optictl.operations import install
    from optictl.operations.steps import BuildRelease
    from optictl.output import console, plans

    if any(isinstance(step, BuildRelease) for step in installation.steps):
        ask(yes, f"Build {installation.want.name}?")
        with console.progress("building") as say:
            install.build_beside(
                installation, python, wheelhouse.absolute() if wheelhouse else None, say, plans.done
            )
    if output is Output.json:
        console.envelope("upgrade", [], True, release=installation.want.name, switched=False)
    else:
        console.message(f"{installation.want.name} is built and was not put in force.")


def _go(
    command: str,
    where: Place,
    installation: Installation,
    plan: Callable[[], Installation],
    yes: bool,
    force: bool,
    wheelhouse: Path | None,
    python: Path | None,
    canary_only: bool,
    output: Output,
) -> None:
    from optictl.host import processes
    from optictl.operations import upgrade as upgrading
    from optictl.operations.canary import Proof
    from optictl.output import console, plans, release_tables

    text = output is Output.text
    if text:
        _shown(installation, command, output, force)
    refuse_blocked(installation)
    proofs: list[Proof] = []
    if installation.steps:
        force = confirm(installation, yes, force)

        def proven(proof: Proof) -> None:
            proofs.append(proof)
            if text:
                release_tables.comparison(proof.new, proof.current)

        with console.progress(command) as say, processes.raise_on_signals():
            upgrading.apply(
                installation,
                plan,
                where.config(),
                python,
                wheelhouse.absolute() if wheelhouse else None,
                say,
                plans.done,
                force=force,
                report_proof=proven,
            )
    if not text:
        results = [r.as_dict() for proof in proofs for r in proof.new]
        beside = [r.as_dict() for proof in proofs for r in proof.current]
        console.envelope(
            command,
            results,
            True,
            release=installation.want.name,
            current=beside,
            switched=not canary_only,
        )
    elif canary_only:
        console.message(f"{installation.want.name} is proven and was not put in force.")
    elif installation.steps:
        console.message(f"{installation.want.name} is in force.")


def rollback(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
    yes: YesOption = False,
    force: ForceOption = False,
    config: ConfigOption = None,
    root: RootOption = None,
    user: UserOption = False,
    name: NameOption = NAME,
    output: OutputOption = Output.text,
) -> None:
    """Go back to the release that was in force before, proven in the same way as an upgrade. Costs tokens."""
    from optictl.operations import upgrade as upgrading

    where = place(config, root, user, name)

    def plan() -> Installation:
        return upgrading.plan_rollback(where.config(), where.config_path, where.paths)

    installation = plan()
    if dry_run:
        _shown(installation, "rollback", output, force)
        raise typer.Exit(1 if installation.blockers else 0)
    _go("rollback", where, installation, plan, yes, force, None, None, False, output)


def releases(
    root: RootOption = None,
    user: UserOption = False,
    name: NameOption = NAME,
    output: OutputOption = Output.text,
) -> None:
    """List the releases on this machine: version, closure, when, size, state."""
    from optictl.output import console, release_tables
    from optictl.releases import store as listing

    where = place(None, root, user, name)
    found = listing.listing(where.paths)
    if output is Output.json:
        console.envelope("releases", [one.as_dict() for one in found], True)
    else:
        release_tables.releases(found)
