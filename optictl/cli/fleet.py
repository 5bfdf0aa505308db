"""fleet: the same deployment on several hosts, through Ansible."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optictl.cli.options import ForceOption, Output, OutputOption, YesOption

if TYPE_CHECKING:
    from optictl.fleet.rollout import Report
    from optictl.host.playbooks import Hosts

fleet_app = typer.Typer(
    no_args_is_help=True,
    help="The same deployment on several hosts, through Ansible (needs the extra: uv tool install 'optictl\\[fleet]').",
    epilog="Example: optictl fleet apply -i inventory.yml",
)

InventoryOption = Annotated[
    list[str],
    typer.Option(
        "--inventory",
        "-i",
        metavar="INVENTORY",
        envvar="OPTICTL_INVENTORY",
        help="Ansible's inventory: a file, a directory, or host names with commas. May be repeated.",
    ),
]
LimitOption = Annotated[
    str,
    typer.Option("--limit", "-l", metavar="PATTERN", help="Only these hosts, as Ansible takes it."),
]
BatchOption = Annotated[
    str,
    typer.Option(
        "--batch", metavar="N,N%", help="Hosts at a time: one canary, then a quarter of them each."
    ),
]
ForksOption = Annotated[
    int,
    typer.Option("--forks", metavar="N", min=1, help="Hosts at the same moment, within a batch."),
]
VaultOption = Annotated[
    Path | None,
    typer.Option(
        "--vault-password-file",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="As Ansible takes it.",
    ),
]
SourceOption = Annotated[
    Path | None,
    typer.Option(
        "--wheelhouse",
        metavar="DIR",
        exists=True,
        file_okay=False,
        help="Take wheels from here, not from an index.",
    ),
]
_BATCH = "1,25%"


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    for name, command, example in (
        ("plan", plan, "optictl fleet plan -i inventory.yml"),
        ("apply", apply, "optictl fleet apply -i inventory.yml --limit gate1"),
        ("status", status, "optictl fleet status -i inventory.yml --output json"),
        ("upgrade", upgrade, "optictl fleet upgrade 0.3.13 -i inventory.yml"),
        ("rollback", rollback, "optictl fleet rollback -i inventory.yml"),
        ("check", check, "optictl fleet check -i inventory.yml"),
        ("smoke", smoke, "optictl fleet smoke moa-jerry-xl -i inventory.yml"),
        ("wheelhouse", wheelhouse, "optictl fleet wheelhouse --architecture aarch64 --python 3.12"),
        ("collections", collections, "optictl fleet collections"),
    ):
        fleet_app.command(name, epilog=f"Example: {example}")(command)
    app.add_typer(fleet_app, name="fleet", rich_help_panel="Several hosts")


def _hosts(inventory: list[str], limit: str, forks: int, vault: Path | None) -> Hosts:
    """The hosts that the options name, once it is sure that Ansible is there."""
    from optictl.host import playbooks

    _need_extra()
    for name in inventory:
        if "," not in name and not Path(name).exists():
            raise typer.BadParameter(f"there is no {name}", param_hint="--inventory")
    return playbooks.Hosts(tuple(inventory), limit, forks, vault.absolute() if vault else None)


def _need_extra() -> None:
    from optictl.errors import missing_extra
    from optictl.host import playbooks

    if missing := playbooks.missing():
        raise missing_extra(missing)


def _serial(batch: str) -> list[int | str]:
    from optictl.fleet import rollout

    try:
        return rollout.batches(batch)
    except ValueError:
        raise typer.BadParameter(
            "numbers or percentages with commas, such as 1,25%", param_hint="--batch"
        ) from None


def _ask(yes: bool) -> Callable[[list[str]], None]:
    from optictl.cli.deployment import ask

    def confirm(names: list[str]) -> None:
        shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
        ask(
            yes,
            f"Go on with {len(names)} {'host' if len(names) == 1 else 'hosts'} ({shown})?",
            "optictl fleet plan",
        )

    return confirm


def _end(command: str, found: Report, output: Output, again: str = "") -> None:
    """The table or the envelope, and the exit code. `again`: the command that continues."""
    from optictl.fleet import playbook_events
    from optictl.output import hosts as output_hosts

    more = again if found.remaining else ""
    output_hosts.fleet(
        f"fleet {command}",
        found.results,
        playbook_events.headline(found.results),
        more,
        output.value,
        ok=found.code == 0,
    )
    raise typer.Exit(found.code)


def _again() -> str:
    """This command as it was typed."""
    return shlex.join(["optictl", *sys.argv[1:]])


def plan(
    inventory: InventoryOption,
    limit: LimitOption = "",
    forks: ForksOption = 10,
    vault_password_file: VaultOption = None,
    wheelhouse: SourceOption = None,
    force: ForceOption = False,
    output: OutputOption = Output.text,
) -> None:
    """Tell what `fleet apply` would do on each host. Changes nothing there."""
    from optictl.fleet import rollout
    from optictl.output import console

    hosts = _hosts(inventory, limit, forks, vault_password_file)
    found = rollout.plan(hosts, None, wheelhouse, force, console.note)
    _end("plan", found, output)


def apply(
    inventory: InventoryOption,
    limit: LimitOption = "",
    batch: BatchOption = _BATCH,
    forks: ForksOption = 10,
    vault_password_file: VaultOption = None,
    wheelhouse: SourceOption = None,
    yes: YesOption = False,
    force: ForceOption = False,
    output: OutputOption = Output.text,
) -> None:
    """Have the deployment on each host: build beside, prove, switch, check, smoke. The first red stops it.

    That host goes back by itself, those not reached stay as they are; the same command continues.
    """
    _roll(
        "apply",
        None,
        inventory,
        limit,
        batch,
        forks,
        vault_password_file,
        wheelhouse,
        yes,
        force,
        output,
    )


def upgrade(
    version: Annotated[str, typer.Argument(metavar="VERSION", help="Of OptiLLM, such as 0.3.13.")],
    inventory: InventoryOption,
    limit: LimitOption = "",
    batch: BatchOption = _BATCH,
    forks: ForksOption = 10,
    vault_password_file: VaultOption = None,
    wheelhouse: SourceOption = None,
    yes: YesOption = False,
    force: ForceOption = False,
    output: OutputOption = Output.text,
) -> None:
    """Roll another version of OptiLLM out, as `fleet apply` does. Where the inventory pins one, change it there."""
    _roll(
        "upgrade",
        version,
        inventory,
        limit,
        batch,
        forks,
        vault_password_file,
        wheelhouse,
        yes,
        force,
        output,
    )


def _roll(
    command: str,
    version: str | None,
    inventory: list[str],
    limit: str,
    batch: str,
    forks: int,
    vault: Path | None,
    source: Path | None,
    yes: bool,
    force: bool,
    output: Output,
) -> None:
    from optictl.fleet import rollout
    from optictl.output import console

    serial = _serial(batch)
    hosts = _hosts(inventory, limit, forks, vault)
    found = rollout.apply(hosts, version, serial, source, force, _ask(yes), console.note)
    _end(command, found, output, _again())


def rollback(
    inventory: InventoryOption,
    limit: LimitOption = "",
    batch: BatchOption = _BATCH,
    forks: ForksOption = 10,
    vault_password_file: VaultOption = None,
    yes: YesOption = False,
    output: OutputOption = Output.text,
) -> None:
    """Go back to the release of before on each host, proven in the same way. The first red stops it."""
    from optictl.fleet import rollout
    from optictl.output import console

    serial = _serial(batch)
    hosts = _hosts(inventory, limit, forks, vault_password_file)
    found = rollout.rollback(hosts, serial, _ask(yes), console.note)
    # a host that is done would go forth again
    words = [
        "optictl",
        "fleet",
        "rollback",
        *(word for one in inventory for word in ("-i", one)),
        "--batch",
        batch,
    ]
    words += ["--vault-password-file", str(vault_password_file)] if vault_password_file else []
    _end("rollback", found, output, shlex.join([*words, "--limit", ",".join(found.remaining)]))


def status(
    inventory: InventoryOption,
    limit: LimitOption = "",
    forks: ForksOption = 10,
    vault_password_file: VaultOption = None,
    output: OutputOption = Output.text,
) -> None:
    """Release, health, drift and restarts of each host, and which hosts differ from most."""
    from optictl.fleet import rollout
    from optictl.output import console

    hosts = _hosts(inventory, limit, forks, vault_password_file)
    found = rollout.status(hosts, console.note)
    _end("status", found, output)


def check(
    inventory: InventoryOption,
    limit: LimitOption = "",
    forks: ForksOption = 10,
    vault_password_file: VaultOption = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="ID", help="One check or family; repeatable."),
    ] = None,
    output: OutputOption = Output.text,
) -> None:
    """Judge every invariant of each host. Reads, never writes, costs no token."""
    from optictl.fleet import rollout
    from optictl.output import console

    hosts = _hosts(inventory, limit, forks, vault_password_file)
    found = rollout.check(hosts, only or [], console.note)
    _end("check", found, output)


def smoke(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Such as moa-jerry-xl.")],
    inventory: InventoryOption,
    limit: LimitOption = "",
    forks: ForksOption = 10,
    vault_password_file: VaultOption = None,
    output: OutputOption = Output.text,
) -> None:
    """Send one real request per model on each host and prove what it caused. Costs tokens."""
    from optictl.fleet import rollout
    from optictl.output import console

    hosts = _hosts(inventory, limit, forks, vault_password_file)
    found = rollout.smoke(hosts, models, console.note)
    _end("smoke", found, output)


def _numbers(text: str, hint: str) -> list[int]:
    words = text.split(".")
    if len(words) != 2 or not all(word.isdigit() for word in words):
        raise typer.BadParameter("two numbers with a dot, such as 3.12", param_hint=hint)
    return [int(word) for word in words]


def wheelhouse(
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
    output: OutputOption = Output.text,
) -> None:
    """Make the wheelhouse of one kind of host on this controller: every wheel, checked against the lock, optictl's own too."""
    from optictl.deployment.config import Config
    from optictl.output import console

    _need_extra()
    if architecture not in ("x86_64", "aarch64"):
        raise typer.BadParameter("x86_64 or aarch64", param_hint="--architecture")
    from optictl.fleet import wheelhouse as making
    from optictl.fleet.targets import target

    kind = target(architecture, _numbers(python, "--python"), _numbers(glibc, "--glibc"))
    with console.progress("fetching") as say:
        made = making.make(kind, version or Config().optillm.version, profile, wheels, say)
    if output is Output.json:
        console.envelope(
            "fleet wheelhouse",
            [{"id": made.target, "status": "pass", "data": made.as_dict()}],
            True,
        )
    else:
        size = sum(one.size for one in made.files) / 1e6
        console.message(f"{made.directory}: {len(made.files)} files, {size:.0f} MB")


def collections() -> None:
    """Print where the Ansible collection optictl.optillm is, for ANSIBLE_COLLECTIONS_PATH."""
    from optictl.host import playbooks
    from optictl.output import console

    console.message(str(playbooks.COLLECTIONS))
