"""compare: what strategies are worth."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from optictl.cli.options import (
    ConfigOption,
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


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    epilog = "Example: optictl compare --budget-tokens 200000 --save worth.html"
    app.command("compare", rich_help_panel="Proof", epilog=epilog)(compare)


def compare(
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--models", metavar="MODEL", help="Such as moa-jerry-xl. May be repeated. Default: all."
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--prompts",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help='Your own questions, a line each: {"prompt": ..., "expected": text, {"number": ...} or {"regex": ...}}.',
        ),
    ] = None,
    budget_tokens: Annotated[
        int | None,
        typer.Option(
            "--budget-tokens",
            metavar="N",
            min=1,
            help="Stop before it takes more tokens than that.",
        ),
    ] = None,
    price_prompt: Annotated[
        float | None,
        typer.Option("--price-prompt", metavar="PRICE", min=0, help="Of a million prompt tokens."),
    ] = None,
    price_completion: Annotated[
        float | None,
        typer.Option(
            "--price-completion", metavar="PRICE", min=0, help="Of a million completion tokens."
        ),
    ] = None,
    save: SaveOption = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            "--resume",
            metavar="FILE",
            dir_okay=False,
            help="Go on with this file of answers (or begin it).",
        ),
    ] = None,
    content: Annotated[
        bool, typer.Option("--content", help="Keep the texts of the answers, too.")
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", metavar="SECONDS", min=1, help="Per request. Default: timeouts.request."
        ),
    ] = None,
    config: ConfigOption = None,
    root: RootOption = None,
    user: UserOption = False,
    name: NameOption = NAME,
    output: OutputOption = Output.text,
) -> None:
    """Ask the plain model and each strategy the same questions: what is right, what it costs, and what is noise.

    The plain model is asked at LiteLLM, strategies at the proxy, one request at a time. Costs tokens.

    Every answer is kept in a file: an interrupted comparison goes on where it was.
    """
    from optictl.errors import OptictlError
    from optictl.host import processes
    from optictl.output import console, request_results
    from optictl.requests import smoke
    from optictl.requests.compare import page, run
    from optictl.requests.compare.summary import Prices

    if (price_prompt is None) != (price_completion is None):
        raise typer.BadParameter(
            "both prices are needed for a cost", param_hint="--price-prompt, --price-completion"
        )
    prices = (
        None
        if price_prompt is None or price_completion is None
        else Prices(price_prompt, price_completion)
    )
    refuse_no_directory("--save", save)
    refuse_no_directory("--resume", resume)
    where = place(config, root, user, name)
    deployed = where.config()
    try:
        comparison = run.begin(
            deployed, models or [], prompts and prompts.absolute(), resume and resume.absolute()
        )
    except run.UnknownModel as unknown:
        raise typer.BadParameter(str(unknown), param_hint="--models") from None
    if prices and len({s.base_model for s in comparison.subjects}) > 1:
        raise typer.BadParameter(
            "prices are those of one base model: name its strategies with --models",
            param_hint="--price",
        )
    keys = smoke.keys(where.paths, None)
    if not keys.upstream:
        raise OptictlError(
            f"LiteLLM's key cannot be read in {where.paths.env}",
            remedy="run it with sudo, or set OPENAI_API_KEY there",
        )
    flags = [
        *(["--config", str(where.config_path)] if where.explicit else []),
        *(["--content"] if content else []),
    ]
    flags += ["--save", str(save.absolute())] if save else []
    flags += (
        ["--price-prompt", f"{price_prompt:g}", "--price-completion", f"{price_completion:g}"]
        if prices
        else []
    )
    flags += [word for model in models or [] for word in ("--models", model)]
    again = where.paths.command(comparison.command(budget_tokens, *flags))
    total = len(comparison.questions) * len(comparison.subjects)
    try:
        with (
            processes.raise_on_signals(),
            console.steps("comparing", total - len(comparison.left), total) as say,
        ):
            whole = run.ask(
                comparison,
                deployed,
                keys,
                timeout=timeout,
                budget=budget_tokens,
                keep=content,
                remedy=f"{where.paths.command('check')} names what is wrong; then go on: {again}",
                say=say,
            )
    except processes.TerminatedBySignal as told:
        console.note(f"{len(comparison.records)} answers are kept in {comparison.file}")
        console.note(f"go on: {again}")
        raise typer.Exit(told.code) from None
    rows = comparison.rows(prices)
    if save is not None:
        text = page.render_page(
            rows,
            comparison.questions,
            comparison.records,
            content=content,
            priced=prices is not None,
            when=time.strftime("%Y-%m-%d %H:%M"),
        )
        save_page(save, text, content)
    more = None if whole else where.paths.command(comparison.command(comparison.enough, *flags))
    raise typer.Exit(
        0
        if request_results.compared(rows, str(comparison.file), budget_tokens, more, output.value)
        else 1
    )
