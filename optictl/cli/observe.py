"""status, logs and top: what the service does."""

from __future__ import annotations

from typing import Annotated

import typer

from optictl.cli import completion, options
from optictl.cli.options import Call


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    add = options.deployment_commands(app, "A deployment")
    add("status", status, example="optictl status --output json", shared=options.PLACE_AND_OUTPUT)
    add("logs", logs, example="sudo optictl logs --follow", shared=options.PLACE_AND_OUTPUT)
    add("top", top, example="sudo optictl top --interval 5", shared=options.DEPLOYMENT_AND_OUTPUT)


def status(call: Call) -> int:
    """One screen: state, release, restarts, memory, health tiers,
    the last problem, the next command.
    """
    from optictl.observe import status
    from optictl.output.observations import StatusReport

    return call.terminal.finish(StatusReport(status.read_status(call.paths, call.config_path)))


_SinceOption = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="As journalctl takes it: '1 hour ago'."),
]
_ErrorsOption = Annotated[
    bool, typer.Option("--errors", help="Failed requests, refusals and problems only.")
]
_StrategyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--strategy",
        metavar="NAME",
        autocompletion=completion.strategies,
        help="Only requests of this strategy. May be repeated.",
    ),
]
_StatusOption = Annotated[
    list[str] | None,
    typer.Option("--status", metavar="STATUS", help="Such as 502 or 5xx. May be repeated."),
]
_TraceOption = Annotated[
    str,
    typer.Option(
        "--trace", metavar="ID", help="The request of this trace; the first characters will do."
    ),
]
_LinesOption = Annotated[int, typer.Option("--lines", "-n", min=1, help="How many of the newest.")]


def logs(
    call: Call,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow new entries.")] = False,
    since: _SinceOption = None,
    errors: _ErrorsOption = False,
    strategy: _StrategyOption = None,
    status: _StatusOption = None,
    trace: _TraceOption = "",
    lines: _LinesOption = 50,
) -> None:
    """Read the journal of all units of the deployment: requests in columns, all else as it is.
    It holds no prompt and no key.

    An entry that is not of the service has the name of its unit: next is the second process of a
    restart.
    """
    from optictl.observe.logs import Filter, is_status, read
    from optictl.output import observations

    for text in status or ():
        if not is_status(text):
            raise typer.BadParameter(
                f"{text!r} is not a status such as 502 or 5xx", param_hint="--status"
            )
    for name in strategy or ():
        _refuse_unknown_strategy(call, name)
    chosen = Filter(errors, tuple(strategy or ()), tuple(status or ()), trace)
    entries = read(call.paths, chosen, follow=follow, since=since, lines=lines)
    observations.logs(call.terminal, call.paths, entries)


def _refuse_unknown_strategy(call: Call, name: str) -> None:
    """Wrong usage for a strategy that no OptiLLM has, and that this deployment does not enable."""
    from optictl.deployment import model_names
    from optictl.deployment.config import suggest

    enabled = call.config().strategies
    if name not in (*enabled, *model_names.WORDS):
        hint = suggest(name, [*enabled, *sorted(model_names.WORDS)])
        raise typer.BadParameter(f"there is no strategy {name!r}{hint}", param_hint="--strategy")


def top(
    call: Call,
    interval: Annotated[
        float,
        typer.Option(
            "--interval", metavar="SECONDS", min=0.2, max=3600, help="The refresh interval."
        ),
    ] = 2.0,
    count: Annotated[
        int | None, typer.Option("--count", metavar="N", min=1, help="Exit after N refreshes.")
    ] = None,
) -> int:
    """Watch the running service: readiness, requests in flight, rates, tokens, latency,
    restarts, memory.

    In a terminal a live screen: p pauses, ? shows a help, q quits.
    When piped, one line per refresh; with --output json, one object.
    """
    from optictl.host import processes
    from optictl.observe.top import run
    from optictl.output import observations
    from optictl.requests import smoke

    config, key = call.config(), smoke.keys(call.paths, None).proxy
    try:
        with (
            processes.raise_on_signals(),
            observations.top(call.terminal, call.paths.name, interval) as show,
        ):
            ready = run.run(config, call.paths, key, show, interval=interval, count=count)
    except processes.TerminatedBySignal as signal:
        return signal.code
    return 0 if ready else 1
