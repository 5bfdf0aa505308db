"""check: every invariant of a deployment."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optictl.cli import completion, options
from optictl.cli.options import Call

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optictl.checks.engine import Check
    from optictl.operations.examination import Examination


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    add = options.deployment_commands(app, "Proof")
    add(
        "check",
        check,
        example="optictl check --only health --output json",
        shared=(*options.DEPLOYMENT, options.CHECK_OUTPUT),
    )


_OnlyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="ID",
        autocompletion=completion.checks,
        help="One check or one family (health). May be repeated.",
    ),
]
_ListedOption = Annotated[
    bool, typer.Option("--list", help="List the checks and what each expects; run none.")
]
_AttackOption = Annotated[
    bool,
    typer.Option(
        "--attack",
        help="Also run escape attempts inside the installed sandbox, from another unit (root).",
    ),
]
_ExplainOption = Annotated[
    str | None,
    typer.Option(
        "--explain",
        metavar="ID",
        autocompletion=completion.check_ids,
        help="Say what one check proves, how, and why it matters; run none.",
    ),
]
_TextfileOption = Annotated[
    Path | None,
    typer.Option(
        "--textfile",
        metavar="PATH",
        help="Also write the metrics there, whole, for node_exporter (*.prom).",
    ),
]
_WithoutOption = Annotated[
    list[str] | None,
    typer.Option(
        "--without",
        metavar="ID",
        autocompletion=completion.checks,
        help="Leave out one check or one family. May be repeated.",
    ),
]
_DampOption = Annotated[
    Path | None,
    typer.Option(
        "--damp",
        metavar="FILE",
        help="Remember runs there: exit with 1 only after several consecutive failures.",
    ),
]
_FailAfterOption = Annotated[
    int,
    typer.Option(
        "--fail-after", metavar="N", min=1, help="With --damp: consecutive failures until 1."
    ),
]
_WellAfterOption = Annotated[
    int,
    typer.Option("--well-after", metavar="N", min=1, help="With --damp: recovers after N passes."),
]
_WatchOption = Annotated[
    int | None,
    typer.Option(
        "--watch",
        metavar="SECONDS",
        min=1,
        max=86_400,
        help="Repeat with pauses of SECONDS, and print only what changed, until Ctrl-C.",
    ),
]
_LitellmConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--litellm-config",
        metavar="PATH",
        help="LiteLLM's configuration, instead of the one optictl.yaml names.",
    ),
]
_LitellmEnvOption = Annotated[
    Path | None,
    typer.Option(
        "--litellm-env", metavar="PATH", help="The file with LiteLLM's environment variables."
    ),
]


def check(
    call: Call,
    only: _OnlyOption = None,
    listed: _ListedOption = False,
    attack: _AttackOption = False,
    explain: _ExplainOption = None,
    textfile: _TextfileOption = None,
    without: _WithoutOption = None,
    damp: _DampOption = None,
    fail_after: _FailAfterOption = 3,
    well_after: _WellAfterOption = 2,
    watch: _WatchOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Leave out passed checks.")] = False,
    litellm_config: _LitellmConfigOption = None,
    litellm_env: _LitellmEnvOption = None,
) -> int:
    """Check every invariant of a deployment and of the live process.
    It only reads, and costs no token.

    Ctrl-C ends --watch with the exit code of the last run: 0 if no check failed, else 1.
    """
    from optictl.operations.examination import Examination
    from optictl.output.check_results import Catalog

    checks = _selected([explain] if explain else only, without, bool(explain))
    if explain or listed:
        return call.terminal.finish(Catalog(checks, bool(explain)))
    _refuse_unfit(call, damp, watch, attack)
    place = (call.paths, call.config_path, call.explicit)
    examination = Examination(*place, checks, litellm_config, litellm_env, attack, textfile)
    if damp is not None:
        return _damped(call, examination, damp.absolute(), fail_after, well_after, quiet)
    if watch is not None:
        return _watch(call, examination, watch, quiet)
    return _once(call, examination, quiet)


def _refuse_unfit(call: Call, damp: Path | None, watch: int | None, attack: bool) -> None:
    """Options that exclude each other end the command before a check runs."""
    form = call.terminal.form
    if damp is not None and (attack or watch is not None or form != "text"):
        raise typer.BadParameter(
            "goes with --output text, and without --watch and --attack", param_hint="--damp"
        )
    if watch is not None and (attack or form not in ("text", "json")):
        raise typer.BadParameter(
            "goes with --output text or json, and without --attack", param_hint="--watch"
        )


def _selected(
    only: Sequence[str] | None, without: Sequence[str] | None, explain: bool
) -> list[Check]:
    chosen = _named("--explain" if explain else "--only", only)
    left_out = _named("--without", without) if without else []
    return [check for check in chosen if check not in left_out]


def _named(option: str, names: Sequence[str] | None) -> list[Check]:
    from optictl.checks import catalog

    try:
        return catalog.select(names or ())
    except KeyError as unknown:
        from optictl.deployment.config import suggest

        ids = [check.id for check in catalog.all_checks()]
        hint = suggest(unknown.args[0], [*ids, *(id.partition(".")[0] for id in ids)])
        raise typer.BadParameter(
            f"there is no check or family {unknown}{hint or '; optictl check --list shows them'}",
            param_hint=option,
        ) from None


def _once(call: Call, examination: Examination, quiet: bool) -> int:
    from optictl.output.check_results import NagiosResults, Results

    with call.terminal.progress("checking"):
        results = examination()
    kind = NagiosResults if call.terminal.form == "nagios" else Results
    report = kind(results, quiet, examination.seconds, deployment=call.paths.name)
    return call.terminal.finish(report)


def _damped(
    call: Call, examination: Examination, file: Path, fail_after: int, well_after: int, quiet: bool
) -> int:
    from optictl.operations import examination as examinations
    from optictl.output.check_results import Damped

    results = examination()
    before, now = examinations.damped(results, file, fail_after, well_after)
    needed = well_after if now.failed else fail_after
    return call.terminal.finish(Damped(results, quiet, before=before, now=now, needed=needed))


def _watch(call: Call, examination: Examination, seconds: int, quiet: bool) -> int:
    """Repeat until Ctrl-C. Returns the exit code of the last run, 130 if none ended."""
    from optictl.operations import examination as examinations
    from optictl.output import check_results

    code = 130
    with suppress(KeyboardInterrupt):
        for checked in examinations.rounds(examination, seconds):
            code = 0 if checked.good else 1
            check_results.round_of_checks(call.terminal, checked, quiet=quiet)
    return code
