"""fleet: the same deployment on several hosts, through Ansible."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optictl.cli import help_pages
from optictl.cli.options import (
    FLEET,
    OUTPUT,
    FleetCall,
    ForceOption,
    SourceOption,
    YesOption,
    command,
    fleet,
    need_fleet_extra,
)
from optictl.cli.questions import ask
from optictl.output.console import Terminal

if TYPE_CHECKING:
    from optictl.fleet.rollout import Report

BatchOption = Annotated[
    str,
    typer.Option(
        "--batch", metavar="N,N%", help="Hosts at a time: one canary, then a quarter of them each."
    ),
]
_BATCH = "1,25%"


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    group = typer.Typer(
        cls=help_pages.Group,
        no_args_is_help=True,
        help="The same deployment on several hosts, through Ansible"
        " (needs the extra: uv tool install 'optictl[fleet]').",
        epilog="Example: optictl fleet apply -i inventory.yml",
    )
    for name, function, example in (
        ("plan", plan, "plan -i inventory.yml"),
        ("apply", apply, "apply -i inventory.yml --limit gate1"),
        ("status", status, "status -i inventory.yml --output json"),
        ("upgrade", upgrade, "upgrade 0.3.13 -i inventory.yml"),
        ("rollback", rollback, "rollback -i inventory.yml"),
        ("check", check, "check -i inventory.yml"),
        ("smoke", smoke, "smoke moa-jerry-xl -i inventory.yml"),
    ):
        example = f"optictl fleet {example}"
        command(group, name, function, example=example, shared=FLEET, resolve=fleet)
    add = partial(command, group)
    example = "optictl fleet wheelhouse --architecture aarch64 --python 3.12"
    add("wheelhouse", wheelhouse, example=example, shared=(OUTPUT,))
    add("collections", collections, example="optictl fleet collections")
    app.add_typer(group, name="fleet", rich_help_panel="Several hosts")


def plan(call: FleetCall, wheelhouse: SourceOption = None, force: ForceOption = False) -> int:
    """Show what `fleet apply` would do on each host. Changes nothing there."""
    from optictl.fleet import rollout

    return _end(call, rollout.plan(call.hosts, None, wheelhouse, force, call.terminal.note))


def apply(
    call: FleetCall,
    batch: BatchOption = _BATCH,
    wheelhouse: SourceOption = None,
    yes: YesOption = False,
    force: ForceOption = False,
) -> int:
    """Deploy to each host: build, prove, activate, check, smoke.

    The roll-out stops at the first failure, and that host rolls back.
    The same command continues with the others.
    """
    return _roll(call, None, batch, wheelhouse, yes, force)


def upgrade(
    call: FleetCall,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="Of OptiLLM, such as 0.3.13.")],
    batch: BatchOption = _BATCH,
    wheelhouse: SourceOption = None,
    yes: YesOption = False,
    force: ForceOption = False,
) -> int:
    """Roll another version of OptiLLM out, as `fleet apply` does.
    Where the inventory pins one, change it there.
    """
    return _roll(call, version, batch, wheelhouse, yes, force)


def _roll(
    call: FleetCall,
    version: str | None,
    batch: str,
    source: Path | None,
    yes: bool,
    force: bool,
) -> int:
    from optictl.fleet import rollout

    serial, say = _serial(batch), call.terminal.note
    found = rollout.roll_out(
        call.hosts, version, serial, source, force, _ask(call.terminal, yes), say
    )
    return _end(call, found, shlex.join(["optictl", *sys.argv[1:]]))


def rollback(call: FleetCall, batch: BatchOption = _BATCH, yes: YesOption = False) -> int:
    """Return to the previous release on each host, proven in the same way.
    The first failure stops it.
    """
    from optictl.fleet import rollout

    found = rollout.rollback(
        call.hosts, _serial(batch), _ask(call.terminal, yes), call.terminal.note
    )
    # a second rollback of a host would return to where it began: the others alone continue
    words = ["optictl", "fleet", "rollback"]
    words += [word for name in call.hosts.inventory for word in ("-i", name)]
    words += ["--batch", batch]
    if call.hosts.vault_password_file:
        words += ["--vault-password-file", str(call.hosts.vault_password_file)]
    return _end(call, found, shlex.join([*words, "--limit", ",".join(found.remaining)]))


def status(call: FleetCall) -> int:
    """Release, health, drift and restarts of each host, and which hosts differ from most."""
    from optictl.fleet import rollout

    return _end(call, rollout.status(call.hosts, call.terminal.note))


def check(
    call: FleetCall,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="ID", help="One check or family; repeatable."),
    ] = None,
) -> int:
    """Check every invariant of each host. It only reads, and costs no token."""
    from optictl.fleet import rollout

    return _end(call, rollout.check(call.hosts, only or [], call.terminal.note))


def smoke(
    call: FleetCall,
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Such as moa-jerry-xl.")],
) -> int:
    """Send one real request per model on each host and prove what it caused. Costs tokens."""
    from optictl.fleet import rollout

    return _end(call, rollout.smoke(call.hosts, models, call.terminal.note))


def wheelhouse(
    terminal: Terminal,
    architecture: Annotated[
        str, typer.Option("--architecture", metavar="NAME", help="x86_64 or aarch64.")
    ],
    python: Annotated[
        str, typer.Option("--python", metavar="X.Y", help="CPython's version on the host.")
    ],
    glibc: Annotated[
        str, typer.Option("--glibc", metavar="X.Y", help="The version of the host's C library.")
    ] = "2.34",
    version: Annotated[str, typer.Option("--version", metavar="VERSION", help="Of OptiLLM.")] = "",
    profile: Annotated[str, typer.Option("--profile", help="proxy or full.")] = "proxy",
    wheels: SourceOption = None,
) -> int:
    """Make the wheelhouse of one kind of host on this controller:
    every wheel, checked against the lock, and optictl's.
    """
    from optictl.cli.wheelhouse import platform_of
    from optictl.deployment.config import Config
    from optictl.host.wheels import cache
    from optictl.output.wheelhouses import NewWheelhouse
    from optictl.releases import wheelhouse as making

    need_fleet_extra()
    kind = platform_of(architecture, python, glibc)
    wanted = making.Request(kind, (version or Config().optillm.version,), profile)
    with terminal.progress("fetching") as say:
        made = making.make(cache() / kind.name, wanted, wheels, say)
    return terminal.finish(NewWheelhouse(made))


def collections(terminal: Terminal) -> None:
    """Print where the Ansible collection optictl.optillm is, for ANSIBLE_COLLECTIONS_PATH."""
    from optictl.host import playbooks

    terminal.message(str(playbooks.COLLECTIONS))


def _serial(batch: str) -> list[int | str]:
    from optictl.fleet import rollout

    try:
        return rollout.batches(batch)
    except ValueError:
        raise typer.BadParameter(
            "numbers or percentages with commas, such as 1,25%", param_hint="--batch"
        ) from None


def _ask(terminal: Terminal, yes: bool) -> Callable[[list[str]], None]:
    def confirm(names: list[str]) -> None:
        terminal.ready()
        shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
        hosts = "host" if len(names) == 1 else "hosts"
        ask(yes, f"Change {len(names)} {hosts} ({shown})?", "optictl fleet plan")

    return confirm


def _end(call: FleetCall, found: Report, again: str = "") -> int:
    """Print the hosts. `again`: the command that continues."""
    from optictl.fleet import playbook_events
    from optictl.output.hosts import Hosts

    headline = playbook_events.headline(found.results)
    return call.terminal.finish(
        Hosts(found.results, headline, found.code, again if found.remaining else "")
    )
