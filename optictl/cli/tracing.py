"""trace: one request, call by call."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optictl.cli.options import (
    ConfigOption,
    ContentOption,
    KeyFileOption,
    NameOption,
    Output,
    OutputOption,
    RootOption,
    SaveOption,
    UserOption,
    place,
    refuse_no_directory,
    save_page,
)
from optictl.deployment.paths import NAME

if TYPE_CHECKING:
    from optictl.requests.tracing import Trace


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    epilog = "Example: optictl trace moa-jerry-xl 'Why is the sky blue?' --save sky.html"
    app.command("trace", rich_help_panel="Proof", epilog=epilog)(trace)


def trace(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Such as moa-jerry-xl.")],
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What to ask it.")],
    content: ContentOption = False,
    save: SaveOption = None,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", metavar="SECONDS", min=1, help="Default: timeouts.request."),
    ] = None,
    url: Annotated[
        str | None, typer.Option("--url", help="Another base URL, with /v1 (LiteLLM's, say).")
    ] = None,
    key_file: KeyFileOption = None,
    config: ConfigOption = None,
    root: RootOption = None,
    user: UserOption = False,
    name: NameOption = NAME,
    output: OutputOption = Output.text,
) -> None:
    """Send one request and draw what it did upstream: each call, when, for what, how long. Costs tokens.

    The service tells the purpose of a call where OptiLLM shows it.

    With --content it keeps prompts and answers too, in memory, until newer requests take their place.
    """
    from optictl.output import console
    from optictl.proof import evidence
    from optictl.requests import smoke, tracing
    from optictl.results import Result

    refuse_unfit(save, content, url)
    where = place(config, root, user, name)
    deployed = where.config()
    smoke.names(deployed, [model], every=False)
    keys = smoke.keys(where.paths, key_file)
    with console.progress("tracing") as say:
        say(f"asking {model}")
        headers = tracing.CONTENT_HEADERS if content else {}
        answer = smoke.ask(deployed, keys.proxy, model, prompt, timeout, url, headers)
        found = tracing.read(deployed, where.paths, smoke.keys(where.paths, None).proxy, answer)
    ok = answer.status == 200
    if output is Output.json:
        problem = "" if ok else evidence.error_message(answer)
        result = Result(
            id=model,
            title=f"{found.strategy} on {found.base_model}",
            status="pass" if ok else "fail",
            expected="an answer",
            found=problem or f"{len(found.calls)} calls",
            data={"trace": found.as_dict()},
        )
        console.envelope("trace", [result.as_dict()], ok)
    show([(model, found)], save, content, output)
    raise typer.Exit(0 if ok else 1)


def refuse_unfit(save: Path | None, content: bool, url: str | None, wanted: bool = True) -> None:
    """Options that cannot be followed end here, before a token is spent."""
    if (save or content) and not wanted:
        raise typer.BadParameter(
            "is for the trace: add --trace", param_hint="--save" if save else "--content"
        )
    if content and url:
        raise typer.BadParameter(
            "LiteLLM does not hand the wish on: leave --url out", param_hint="--content"
        )
    refuse_no_directory("--save", save)


def show(
    found: Sequence[tuple[str, Trace]], save: Path | None, content: bool, output: Output
) -> None:
    """Draw traces for people, and into a file."""
    if not found:
        return
    from optictl.output import console, request_results
    from optictl.requests import tracing

    if output is Output.text:
        for model, trace in found:
            request_results.waterfall(model, trace)
    if save is not None:
        save_page(save, tracing.page(found, time.strftime("%Y-%m-%d %H:%M")), content)
        console.note(f"drawn in {save}")
