"""init, install, run: commands that change or run a deployment."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
    from optictl.operations.initialize import Initialized
    from optictl.operations.installation import Installation
    from optictl.results import Result
    from optictl.takeover.handmade import HandMade


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    panel = "A deployment"
    app.command("init", rich_help_panel=panel, epilog="Example: sudo optictl init")(init)
    app.command("install", rich_help_panel=panel, epilog="Example: sudo optictl install --dry-run")(
        install
    )
    app.command(
        "uninstall", rich_help_panel=panel, epilog="Example: sudo optictl uninstall --dry-run"
    )(uninstall)
    app.command("start", rich_help_panel=panel, epilog="Example: sudo optictl start")(start)
    app.command("stop", rich_help_panel=panel, epilog="Example: sudo optictl stop")(stop)
    app.command("restart", rich_help_panel=panel, epilog="Example: sudo optictl restart")(restart)
    app.command("status", rich_help_panel=panel, epilog="Example: optictl status --output json")(
        status
    )
    app.command("logs", rich_help_panel=panel, epilog="Example: sudo optictl logs --follow")(logs)
    app.command("top", rich_help_panel=panel, epilog="Example: sudo optictl top --interval 5")(top)
    app.command("run", rich_help_panel=panel, epilog="Example: optictl run --root ~/optillm")(run)


def init(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be written, and write nothing.")
    ] = False,
    root: RootOption = None,
    user: UserOption = False,
    name: NameOption = NAME,
    output: OutputOption = Output.text,
) -> None:
    """Write a commented optictl.yaml, the env file's skeleton and a fresh proxy key. Overwrites nothing.

    Where a hand-made OptiLLM service exists, it takes over the values of its unit, and says which it cannot take and why.
    """
    from optictl.operations.initialize import initialize
    from optictl.output import console

    where = place(None, root, user, name)
    done = initialize(where.paths, dry_run)
    if output is Output.json:
        console.envelope("init", _initialized(done), True)
        return
    for change in done.made:
        console.message(f"{'would create' if dry_run else 'created '} {change.target}")
    for path in done.kept:
        console.message(f"kept     {path}")
    _tell_proposal(done)
    for other in done.others:
        console.message(f"\n{other.unit} runs OptiLLM and is not optictl's. {_take_over(other)}")
    console.message(f"\nNext: {_next(done, where)}")


def _take_over(other: HandMade) -> str:
    """What to do about a unit of another name."""
    from optictl.deployment.paths import name_problem

    name = other.unit.removesuffix(".service")
    if problem := name_problem(name):
        return f"optictl cannot take it over under that name: it {problem}."
    return f"To take that one over: optictl init --name {name}"


def _tell_proposal(done: Initialized) -> None:
    """What was read from a hand-made unit, for people."""
    from optictl.output import console

    if done.service is None or done.proposal is None:
        return
    console.message(f"\n{done.service.path} was not written by optictl. Its values:")
    for item in _proposal_items(done):
        words = {"take": "taken", "leave": "not taken", "differ": "differs"}[item["action"]]
        reason = item["reason"].replace(f" in {done.service.path}:", ", line ")
        console.message(f"{words:<10} {item['target']}: {reason}")
        if remedy := item.get("remedy"):
            console.message(f"{'':<10} -> {remedy}")


def _initialized(done: Initialized) -> list[dict[str, str]]:
    """The items of the JSON envelope."""
    items = [{**change.as_dict(), "diff": ""} for change in done.made]
    items += [
        {"action": "keep", "target": str(p), "reason": "it exists", "diff": ""} for p in done.kept
    ]
    items += _proposal_items(done)
    items += [
        {
            "action": "other",
            "target": str(o.path),
            "reason": "it runs OptiLLM",
            "diff": "",
            "remedy": _take_over(o),
        }
        for o in done.others
    ]
    return items


def _proposal_items(done: Initialized) -> list[dict[str, str]]:
    proposal, config = done.proposal, "optictl.yaml"
    if proposal is None:
        return []
    items = []
    kept = {path.name for path in done.kept}
    if config not in kept:
        items += [("take", s.key, f"{_value(s.value)} ({s.where})", "") for s in proposal.settings]
    if proposal.proxy_key and "proxy_key" not in kept:
        items.append(("take", "proxy_key", proposal.key_where, ""))
    if proposal.upstream_key and "env" not in kept:
        items.append(("take", "OPENAI_API_KEY", proposal.upstream_where, ""))
    for setting, value in done.differences:
        reason = f"{_value(setting.value)} in the unit ({setting.where}), {_value(value)} in optictl.yaml"
        items.append(("differ", setting.key, reason, "edit optictl.yaml, if the unit is right"))
    items += [("leave", n.what, n.why, n.remedy) for n in done.not_taken]
    return [
        {"action": action, "target": target, "reason": reason, "diff": "", "remedy": remedy}
        for action, target, reason, remedy in items
    ]


def _value(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _next(done: Initialized, where: Place) -> str:
    """The commands that follow."""
    paths = where.paths
    proposal = done.proposal
    has_key = proposal is not None and (
        proposal.upstream_key or proposal.upstream_where == str(paths.env)
    )
    write = "" if has_key else f"write LiteLLM's key into {paths.env} (OPENAI_API_KEY=...), then: "
    if proposal is None:
        return f"{write}{paths.command('install')}"
    shows, does = paths.command("install --dry-run"), paths.command("install --force")
    return f"{write}{shows} shows what changes; {does} replaces the unit"


def install(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
    yes: YesOption = False,
    wheelhouse: WheelhouseOption = None,
    python: PythonOption = None,
    no_start: Annotated[
        bool, typer.Option("--no-start", help="Write everything, but leave systemd alone.")
    ] = False,
    no_smoke: Annotated[
        bool, typer.Option("--no-smoke", help="Do not end with a real request, which costs tokens.")
    ] = False,
    force: ForceOption = False,
    secrets_come: SecretsComeOption = False,
    config: ConfigOption = None,
    root: RootOption = None,
    user: UserOption = False,
    name: NameOption = NAME,
    output: OutputOption = Output.text,
) -> None:
    """Build the pinned release, prove it, write every artefact and activate it.

    Shows the plan first. A second run changes nothing and says so. Under systemd it ends with check and one smoke.
    """
    from optictl.host import processes
    from optictl.operations import install as installing
    from optictl.operations.installation import Circumstances
    from optictl.output import check_results, console, plans

    where = place(config, root, user, name)
    given = Circumstances(python, secrets_come)

    def plan() -> Installation:
        return installing.plan_install(where.config(), where.paths, start=not no_start, given=given)

    installation = plan()
    text = output is Output.text
    if text:
        show_plan(installation, force)
    if dry_run:
        if not text:
            plan_as_json("install", installation)
        raise typer.Exit(1 if installation.blockers else 0)
    refuse_blocked(installation)
    if installation.steps:
        force = confirm(installation, yes, force)
        with console.progress("installing") as say, processes.raise_on_signals():
            installing.apply_install(
                installation,
                plan,
                python,
                wheelhouse.absolute() if wheelhouse else None,
                say,
                plans.done,
                force,
            )
    found = _checks(where)
    if installation.steps and not no_smoke and not no_start and not where.paths.is_private:
        found += _smoke(where, found)
    if text:
        console.headline("check")
    good = check_results.results("install", found, output.value)
    if text and good and not any(c.id == "process.guarded" for c in found):
        console.message(
            f"Next: {where.paths.command('run' if where.paths.is_private or no_start else 'start')}"
        )
    raise typer.Exit(0 if good else 1)


def _smoke(where: Place, checked: list[Result]) -> list[Result]:
    """One real request, where the service runs and every check of it is good: else it would tell nothing new."""
    from optictl.output import console
    from optictl.requests import smoke
    from optictl.results import good

    if not good(checked) or not any(
        r.id == "process.guarded" and r.status == "pass" for r in checked
    ):
        return []
    config = where.config()
    with console.progress("smoking") as say:
        smoked = smoke.run(
            config, smoke.keys(where.paths, None), list(config.published)[:1], None, None, None, say
        )
        return [one.result for one in smoked]


def show_plan(installation: Installation, force: bool) -> None:
    """What is in the way, what changes for the clients of a hand-made service, then each change."""
    from optictl.output import console, plans

    plans.problems(installation.problems)
    if installation.hand_made is not None and installation.steps:
        plans.takeover(installation.hand_made.unit, installation.table, forced=force)
    if installation.steps:
        plans.steps(installation.steps)
    else:
        console.message("No changes.")


def plan_as_json(command: str, installation: Installation) -> None:
    """The plan as the envelope: the changes, and with them what preflight found."""
    from optictl.output import console

    blockers = installation.blockers
    found = [problem.as_dict() for problem in console.spelled(installation.problems)]
    more: dict[str, Any] = {"problems": found} if found else {}
    if blockers:
        remedies = dict.fromkeys(p.remedy for p in console.spelled(blockers) if p.remedy)
        more["error"] = {
            "what": "; ".join(p.found for p in blockers),
            "remedy": "; ".join(remedies),
        }
    if installation.hand_made is not None:
        more["takeover"] = [row.as_dict() for row in installation.table]
    console.envelope(command, [c.as_dict() for c in installation.steps], not blockers, **more)


def refuse_blocked(installation: Installation) -> None:
    """End here, with exit code 1, where the plan that was shown would fail."""
    from optictl.cli import failures
    from optictl.operations import deployment_lock
    from optictl.output import console

    if not installation.blockers:
        return
    if failures.json_command:
        deployment_lock.refuse_blocked(installation)
    count = len(installation.blockers)
    console.note(
        f"nothing was changed: {count} problem{'s' if count > 1 else ''} above to fix first"
    )
    raise typer.Exit(1)


def confirm(installation: Installation, yes: bool, force: bool) -> bool:
    """Ask whether a shown plan is to be applied; whether edited files may be replaced.

    Raises:
        OptictlError: nobody can be asked, or files were edited and nobody said that they may go.
    """
    from optictl.operations import deployment_lock

    edited = [change.target for change in installation.steps if change.edited]
    if edited and not force:
        if yes or not sys.stdin.isatty():
            deployment_lock.refuse_edited(installation.steps, installation.paths, force)
        question = f"{', '.join(edited)} has local changes. Overwrite? A backup is kept."
        force = typer.confirm(question, abort=True, err=True)
    ask(yes)
    return force


def ask(yes: bool, question: str = "Apply these changes?", look: str = "--dry-run") -> None:
    """Go on only if that was said before, or is said now. `look`: what shows the plan alone."""
    from optictl.errors import NotConfirmed

    if yes:
        return
    if not sys.stdin.isatty():
        raise NotConfirmed(
            "there is no terminal to ask at",
            remedy=f"look at the plan with {look}, then run it with --yes",
        )
    typer.confirm(question, abort=True, err=True)


def _checks(where: Place) -> list[Result]:
    """What `install` can judge: everything, but the live process only where one serves the port."""
    from optictl.checks import catalog
    from optictl.errors import MissingFact
    from optictl.facts.deployment import Deployment

    deployment = Deployment(where.paths, where.config_path)
    checks = catalog.select(())
    try:
        deployment.live  # noqa: B018
    except MissingFact:
        checks = [c for c in checks if not c.live]
    # the build has just proven that it starts
    return catalog.run([c for c in checks if c.id != "release.starts"], deployment)


def run(
    config: ConfigOption = None,
    root: RootOption = None,
    user: UserOption = False,
    name: NameOption = NAME,
) -> None:
    """Run the deployment in the foreground, exactly as the unit would start it.

    What the unit refuses to start with, this refuses too (exit code 78).

    Ctrl-C or SIGTERM drains: what is in flight is finished first.

    Started by root, the service runs as optillm-proxy (or nobody).
    """
    from optictl.operations import foreground
    from optictl.output import console

    where = place(config, root, user, name)
    raise typer.Exit(
        foreground.run(where.config(), where.paths, where.config_path, console.note, console.error)
    )


def uninstall(
    purge: Annotated[
        bool, typer.Option("--purge", help="Also the configuration and the secrets.")
    ] = False,
    restore: Annotated[
        bool,
        typer.Option("--restore", help="Put the service back that was there before optictl's."),
    ] = False,
    force: ForceOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
    yes: YesOption = False,
    root: RootOption = None,
    user: UserOption = False,
    name: NameOption = NAME,
    output: OutputOption = Output.text,
) -> None:
    """Stop the service and remove what optictl made. Configuration and secrets stay unless --purge.

    A service that was written by hand and replaced is kept; --restore puts it back and starts it.
    """
    from optictl.deployment.config import Config
    from optictl.errors import ConfigError
    from optictl.facts import config_file
    from optictl.operations import previous_service, remove
    from optictl.output import console, plans

    where = place(None, root, user, name)
    changes = remove.plan_removal(where.paths, purge, restore)
    if output is Output.json and dry_run:
        console.envelope("uninstall", [c.as_dict() for c in changes], True)
        return
    if output is Output.text:
        plans.steps(changes)
        if not changes:
            console.message("Nothing is installed.")
        if not restore and (kept := previous_service.read_if_allowed(where.paths)) is not None:
            again = where.paths.command("uninstall --restore")
            console.message(
                f"Before optictl, {kept.unit} was written by hand; it is kept in {where.paths.before}."
            )
            console.message(f"To put it back: {again}")
    if dry_run or not changes:
        return
    ask(yes)
    try:
        config = config_file.load(where.config_path)
    except ConfigError:  # a broken configuration must not keep anybody from removing it
        config = Config()
    with console.progress("removing") as say:
        remove.apply_removal(changes, config, where.paths, purge, say, plans.done, force, restore)
    if output is Output.json:
        console.envelope("uninstall", [c.as_dict() for c in changes], True)


def start(root: RootOption = None, user: UserOption = False, name: NameOption = NAME) -> None:
    """Start the service under systemd; returns when the proxy answers."""
    from optictl.operations import service
    from optictl.output import console

    where = place(None, root, user, name)
    with console.progress("starting"):
        service.start(where.config(), where.paths)


def stop(root: RootOption = None, user: UserOption = False, name: NameOption = NAME) -> None:
    """Stop the service and its socket. What is in flight is finished first."""
    from optictl.operations import service
    from optictl.output import console

    where = place(None, root, user, name)
    with console.progress("stopping"):
        service.stop(where.config(), where.paths)


def restart(root: RootOption = None, user: UserOption = False, name: NameOption = NAME) -> None:
    """Restart without anybody waiting: a sibling serves on the same socket while the service drains."""
    from optictl.operations import service
    from optictl.output import console

    where = place(None, root, user, name)
    with console.progress("restarting") as say:
        service.restart(where.config(), where.paths, say)


def status(
    root: RootOption = None,
    user: UserOption = False,
    name: NameOption = NAME,
    output: OutputOption = Output.text,
) -> None:
    """One screen: state, release, restarts, memory, health tiers, the last problem, the next command."""
    from optictl.observe import status as looking
    from optictl.output import console, observations

    where = place(None, root, user, name)
    seen = looking.look(where.paths, where.config_path)
    seen = replace(seen, next=console.invocation.spell(seen.next))
    if output is Output.json:
        console.envelope("status", [seen.as_dict()], seen.good)
    else:
        observations.status(seen)
    raise typer.Exit(0 if seen.good else 1)


def logs(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as entries come.")] = False,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="As journalctl takes it: '1 hour ago'."),
    ] = None,
    errors: Annotated[
        bool, typer.Option("--errors", help="Failed requests, refusals and problems only.")
    ] = False,
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy", metavar="NAME", help="Requests of this one only. May be repeated."
        ),
    ] = None,
    status_wanted: Annotated[
        list[str] | None,
        typer.Option("--status", metavar="STATUS", help="Such as 502 or 5xx. May be repeated."),
    ] = None,
    trace: Annotated[
        str,
        typer.Option(
            "--trace", metavar="ID", help="The request of this trace, or of this beginning."
        ),
    ] = "",
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=1, help="How many of the newest.")
    ] = 50,
    root: RootOption = None,
    user: UserOption = False,
    name: NameOption = NAME,
    output: OutputOption = Output.text,
) -> None:
    """Read the service's journal: requests in columns, all else as it is. It holds no prompt and no key."""
    from optictl.observe import logs as log_reader
    from optictl.output import console, observations

    for text in status_wanted or ():
        if not log_reader.is_status(text):
            raise typer.BadParameter(
                f"{text!r} is no status such as 502 or 5xx", param_hint="--status"
            )
    where = place(None, root, user, name)
    wanted = log_reader.Filter(errors, tuple(strategy or ()), tuple(status_wanted or ()), trace)
    entries = log_reader.read(where.paths, wanted, follow=follow, since=since, lines=lines)
    if output is Output.text:
        observations.log_titles()
    found = False
    for entry in entries:
        found = True
        observations.log(entry, output.value)
    if not found:
        console.note("no entry of the journal fits")


def top(
    interval: Annotated[
        float,
        typer.Option(
            "--interval", metavar="SECONDS", min=0.2, max=3600, help="From one look to the next."
        ),
    ] = 2.0,
    count: Annotated[
        int | None, typer.Option("--count", metavar="N", min=1, help="End after so many looks.")
    ] = None,
    config: ConfigOption = None,
    root: RootOption = None,
    user: UserOption = False,
    name: NameOption = NAME,
    output: OutputOption = Output.text,
) -> None:
    """Watch the running service: readiness, what is in flight, rates, tokens, latency, restarts, memory.

    In a terminal a live screen: p pauses, q quits. In a pipe a line a look; with --output json an object a line.
    """
    from optictl.host import processes
    from optictl.observe.top import run as watching
    from optictl.output import observations
    from optictl.requests import smoke

    where = place(config, root, user, name)
    deployed, key = where.config(), smoke.keys(where.paths, None).proxy
    try:
        with (
            processes.raise_on_signals(),
            observations.top(where.paths.name, interval, output.value) as show,
        ):
            ready = watching.run(deployed, where.paths, key, show, interval=interval, count=count)
    except processes.TerminatedBySignal as told:
        raise typer.Exit(told.code) from None
    raise typer.Exit(0 if ready else 1)
