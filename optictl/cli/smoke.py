"""smoke: one real request per model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optictl.cli import completion, options
from optictl.cli.options import Call
from optictl.cli.trace import refuse_unfit, save_page

if TYPE_CHECKING:
    from optictl.deployment.config import Config
    from optictl.errors import OptictlError
    from optictl.requests.smoke import Smoked


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    add = options.deployment_commands(app, "Proof")
    add("smoke", smoke, example="optictl smoke moa-jerry-xl", shared=options.DEPLOYMENT_AND_OUTPUT)


_ModelsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="MODEL...", autocompletion=completion.models, help="Such as moa-jerry-xl."
    ),
]
_EveryOption = Annotated[
    bool, typer.Option("--all", help="Every enabled strategy of every base model.")
]
_PromptOption = Annotated[
    str | None, typer.Option("--prompt", help="Ask this instead of the built-in riddle.")
]
_TimeoutOption = Annotated[
    float | None,
    typer.Option(
        "--timeout", metavar="SECONDS", min=1, help="Per model. Default: timeouts.request."
    ),
]
_UrlOption = Annotated[
    str | None, typer.Option("--url", help="Another base URL, with /v1 (LiteLLM's, say).")
]
_TraceOption = Annotated[
    bool,
    typer.Option("--trace", help="Also draw what each request did upstream, call by call."),
]


def smoke(
    call: Call,
    models: _ModelsArgument = None,
    every: _EveryOption = False,
    prompt: _PromptOption = None,
    timeout: _TimeoutOption = None,
    url: _UrlOption = None,
    key_file: options.KeyFileOption = None,
    trace: _TraceOption = False,
    save: options.SaveOption = None,
    content: options.ContentOption = False,
) -> int:
    """Send one real request per model and prove what it caused upstream. Costs tokens.

    Passes if the requested strategy ran, on its base model alone, without a failed call,
    and had its effect. Warns if a part of the effect was lost.

    The service keeps prompts and answers of these requests in memory,
    until newer requests take their place.
    """
    from optictl.output import request_results
    from optictl.requests import smoke
    from optictl.requests.smoke import Asking

    refuse_unfit(save, content, url, wanted=trace)
    config = call.config()
    names = smoke.names(config, _models(config, models, every), every)
    keys = smoke.keys(call.paths, key_file)
    asking = Asking(prompt, timeout, url)
    ended = request_results.as_they_end(call.terminal, names)
    with call.terminal.progress("asking") as say:
        smoked = smoke.run(config, call.paths, keys, names, say, asking, ended)
        problems: Sequence[OptictlError] = []
        if trace:
            smoked, problems = smoke.traced(config, call.paths, smoked, content)
    return _report(call, smoked, problems, save, content)


def _models(config: Config, models: list[str] | None, every: bool) -> list[str]:
    if not models and not every:
        raise typer.BadParameter(
            f"no model was named; such as {next(iter(config.published))}, or --all",
            param_hint="MODEL...",
        )
    return models or []


def _report(
    call: Call,
    smoked: Sequence[Smoked],
    problems: Sequence[OptictlError],
    save: Path | None,
    content: bool,
) -> int:
    from optictl.output import request_results

    traces = [(one.result.id, one.trace) for one in smoked if one.trace]
    report = request_results.Smoked(
        [one.result for one in smoked], traces=traces, problems=problems, is_listed=True
    )
    code = call.terminal.finish(report)
    save_page(call, save, traces, content)
    for problem in problems:
        call.terminal.error(problem)
    return code
