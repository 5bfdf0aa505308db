"""check, smoke, demo: commands that look and prove."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optictl.cli import tracing
from optictl.cli.options import (
    CheckOutput,
    CheckOutputOption,
    ConfigOption,
    ContentOption,
    KeyFileOption,
    NameOption,
    Output,
    OutputOption,
    Place,
    RootOption,
    SaveOption,
    UserOption,
    place,
)
from optictl.deployment.paths import NAME

if TYPE_CHECKING:
    from optictl.checks.engine import Check
    from optictl.results import Result


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    panel = "Proof"
    app.command(
        "check", rich_help_panel=panel, epilog="Example: optictl check --only health --output json"
    )(check)
    app.command("smoke", rich_help_panel=panel, epilog="Example: optictl smoke moa-jerry-xl")(smoke)
    app.command("demo", rich_help_panel=panel, epilog="Example: optictl demo --once")(demo)


def check(
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", metavar="ID", help="One check or one family (health). May be repeated."
        ),
    ] = None,
    listed: Annotated[
        bool, typer.Option("--list", help="List the checks and what each expects; run none.")
    ] = False,
    attack: Annotated[
        bool,
        typer.Option(
            "--attack",
            help="Also try to break out of the installed sandbox, from a unit of its own (root).",
        ),
    ] = False,
    explain: Annotated[
        str | None,
        typer.Option(
            "--explain",
            metavar="ID",
            help="Say what one check proves, how, and why it matters; run none.",
        ),
    ] = None,
    textfile: Annotated[
        Path | None,
        typer.Option(
            "--textfile",
            metavar="PATH",
            help="Also write the metrics there, whole, for node_exporter (*.prom).",
        ),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            "--without", metavar="ID", help="Leave out one check or one family. May be repeated."
        ),
    ] = None,
    damp: Annotated[
        Path | None,
        typer.Option(
            "--damp",
            metavar="FILE",
            help="Remember rounds there: end with 1 after several bad ones in a row only.",
        ),
    ] = None,
    fail_after: Annotated[
        int,
        typer.Option("--fail-after", metavar="N", min=1, help="With --damp: bad rounds until 1."),
    ] = 3,
    well_after: Annotated[
        int, typer.Option("--well-after", metavar="N", min=1, help="Good rounds until 0 again.")
    ] = 2,
    watch: Annotated[
        int | None,
        typer.Option(
            "--watch",
            metavar="SECONDS",
            min=1,
            max=86_400,
            help="Do it again and again with pauses of SECONDS, and tell only what changed, until Ctrl-C.",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Leave out what is good.")] = False,
    litellm_config: Annotated[
        Path | None,
        typer.Option(
            "--litellm-config",
            metavar="PATH",
            help="LiteLLM's configuration, instead of the one optictl.yaml names.",
        ),
    ] = None,
    litellm_env: Annotated[
        Path | None,
        typer.Option(
            "--litellm-env", metavar="PATH", help="The file with LiteLLM's environment variables."
        ),
    ] = None,
    config: ConfigOption = None,
    root: RootOption = None,
    user: UserOption = False,
    name: NameOption = NAME,
    output: CheckOutputOption = CheckOutput.text,
) -> None:
    """Judge every invariant of a deployment and of the live process. Reads, never writes, costs no token.

    Ctrl-C ends --watch with the exit code of the last round: 0 good, 1 not.
    """
    from optictl.checks import nagios, prometheus
    from optictl.output import check_results, console
    from optictl.results import good

    checks = _selected("--explain" if explain else "--only", [explain] if explain else only)
    if without:
        left_out = _selected("--without", without)
        checks = [one for one in checks if one not in left_out]
    if explain:
        from optictl.checks import engine

        for one in checks:
            console.message(engine.explanation(one))
        return
    if listed:
        for one in checks:
            console.message(f"{one.id:<28} {one.expected}")
        return
    where = place(config, root, user, name)
    examination = _Examination(where, checks, litellm_config, litellm_env, attack, textfile)
    if damp is not None:
        if attack or watch is not None or output is not CheckOutput.text:
            raise typer.BadParameter(
                "goes with --output text, and without --watch and --attack", param_hint="--damp"
            )
        raise typer.Exit(_damped(examination(), damp.absolute(), fail_after, well_after, quiet))
    if watch is not None:
        if attack or output not in (CheckOutput.text, CheckOutput.json):
            raise typer.BadParameter(
                "goes with --output text or json, and without --attack", param_hint="--watch"
            )
        raise typer.Exit(_watch(examination, watch, output, quiet))
    with console.progress("checking"):
        found = examination()
    if output is CheckOutput.nagios:
        console.raw(nagios.nagios(console.spelled(found), examination.seconds))
        raise typer.Exit(nagios.nagios_code(found))
    if output is CheckOutput.prometheus:
        console.raw(prometheus.prometheus(found, examination.seconds, time.time()))
        raise typer.Exit(0 if good(found) else 1)
    raise typer.Exit(0 if check_results.results("check", found, output.value, quiet=quiet) else 1)


def _selected(option: str, names: list[str] | None) -> list[Check]:
    from optictl.checks import catalog

    try:
        return catalog.select(names or ())
    except KeyError as unknown:
        raise typer.BadParameter(
            f"there is no check or family {unknown}; optictl check --list shows them",
            param_hint=option,
        ) from None


@dataclass
class _Examination:
    """One round of checks, each time it is called. `seconds` is how long the last one took."""

    where: Place
    checks: list[Check]
    litellm_config: Path | None
    litellm_env: Path | None
    attack: bool
    textfile: Path | None
    seconds: float = 0.0

    def __call__(self) -> list[Result]:
        from optictl.checks import catalog, prometheus
        from optictl.errors import ConfigError
        from optictl.facts.deployment import Deployment
        from optictl.host import files

        deployment = Deployment(
            self.where.paths, self.where.config_path, self.litellm_config, self.litellm_env
        )
        if self.where.explicit:
            with suppress(
                ConfigError
            ):  # what is wrong in it is for config.valid to tell; that it is not there is an error
                self.where.config()
        since = time.monotonic()
        found = catalog.run(self.checks, deployment)
        if self.attack:
            from optictl.operations import escape_attempts

            found += escape_attempts.attack(deployment)
        self.seconds = time.monotonic() - since
        if self.textfile is not None:
            files.write(
                self.textfile.absolute(),
                prometheus.prometheus(found, self.seconds, time.time()),
                0o644,
            )
        return found


def _damped(found: list[Result], file: Path, fail_after: int, well_after: int, quiet: bool) -> int:
    """The exit code that this round and those before it deserve. All is told while something is wrong, else what changed."""
    from optictl.checks import nagios
    from optictl.host import files
    from optictl.output import check_results, console
    from optictl.results import good

    before = nagios.hysteresis(files.read(file))
    now = before.after(good(found), fail_after, well_after)
    files.write(file, now.dump(), 0o600)
    if now != before or not good(found):
        check_results.results("check", found, "text", quiet=quiet)
        enough, kind = (well_after, "good") if now.failed else (fail_after, "bad")
        verdict = "failed" if now.failed else "well"
        console.message(
            f"{verdict}, {now.against} of {enough} {kind} rounds against it"
            if now.against
            else verdict
        )
    return 1 if now.failed else 0


def _watch(examination: _Examination, seconds: int, output: CheckOutput, quiet: bool) -> int:
    """Rounds until Ctrl-C; the exit code of the last one, 130 if none ended."""
    from optictl.checks import watch
    from optictl.cli.failures import INTERRUPTED
    from optictl.output import check_results

    code = INTERRUPTED
    with suppress(KeyboardInterrupt):
        for one in watch.rounds(examination, lambda: time.sleep(seconds)):
            code = 0 if one.good else 1
            check_results.round_of_checks(one, output.value, quiet=quiet)
    return code


def smoke(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="MODEL...", help="Such as moa-jerry-xl.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every enabled strategy of every base model.")
    ] = False,
    prompt: Annotated[
        str | None, typer.Option("--prompt", help="Ask this instead of the built-in riddle.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", metavar="SECONDS", min=1, help="Per model. Default: timeouts.request."
        ),
    ] = None,
    url: Annotated[
        str | None, typer.Option("--url", help="Another base URL, with /v1 (LiteLLM's, say).")
    ] = None,
    key_file: KeyFileOption = None,
    trace: Annotated[
        bool,
        typer.Option("--trace", help="Also draw what each request did upstream, call by call."),
    ] = False,
    save: SaveOption = None,
    content: ContentOption = False,
    config: ConfigOption = None,
    root: RootOption = None,
    user: UserOption = False,
    name: NameOption = NAME,
    output: OutputOption = Output.text,
) -> None:
    """Send one real request per model and prove what it caused upstream. Costs tokens.

    Passes if the strategy that was asked for is seen to have run, on the base model alone, without a failed call.
    """
    from optictl.output import check_results, console
    from optictl.requests import smoke as smoke_requests
    from optictl.requests import tracing as trace_requests

    tracing.refuse_unfit(save, content, url, wanted=trace)
    where = place(config, root, user, name)
    deployed = where.config()
    if not models and not every:
        raise typer.BadParameter(
            f"no model was named; such as {next(iter(deployed.published))}, or --all",
            param_hint="MODEL...",
        )
    names = smoke_requests.names(deployed, models or [], every)
    keys = smoke_requests.keys(where.paths, key_file)
    with console.progress("smoking") as say:
        headers = trace_requests.CONTENT_HEADERS if content else {}
        smoked = smoke_requests.run(deployed, keys, names, prompt, timeout, url, say, headers)
        smoked, problems = (
            smoke_requests.traced(deployed, where.paths, smoked) if trace else (smoked, [])
        )
    ok = check_results.results("smoke", [one.result for one in smoked], output.value)
    tracing.show([(one.result.id, one.trace) for one in smoked if one.trace], save, content, output)
    for problem in problems:
        console.error(problem)
    raise typer.Exit(0 if ok and not problems else 1)


def demo(
    once: Annotated[bool, typer.Option("--once", help="Stop when everything is proven.")] = False,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--directory",
            metavar="DIR",
            help="Keep the demonstration here instead of in the cache.",
        ),
    ] = None,
) -> None:
    """Install, run, check and smoke OptiLLM against an embedded stand-in for LiteLLM.

    Needs no root, no systemd and no LiteLLM; no model is asked. A second run reuses the release.
    """
    from optictl.demo import show

    raise typer.Exit(show.demonstrate(directory.absolute() if directory else None, once))
