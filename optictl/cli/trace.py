"""trace: one request, call by call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optictl.cli import completion, options
from optictl.cli.options import Call

if TYPE_CHECKING:
    from optictl.requests.tracing import Trace


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    add = options.deployment_commands(app, "Proof")
    add(
        "trace",
        trace,
        example="optictl trace moa-jerry-xl 'Why is the sky blue?' --save sky.html",
        shared=options.DEPLOYMENT_AND_OUTPUT,
    )


_ModelArgument = Annotated[
    str,
    typer.Argument(metavar="MODEL", autocompletion=completion.models, help="Such as moa-jerry-xl."),
]
_TimeoutOption = Annotated[
    float | None,
    typer.Option("--timeout", metavar="SECONDS", min=1, help="Default: timeouts.request."),
]
_UrlOption = Annotated[
    str | None, typer.Option("--url", help="Another base URL, with /v1 (LiteLLM's, say).")
]


def trace(
    call: Call,
    model: _ModelArgument,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What to ask it.")],
    content: options.ContentOption = False,
    save: options.SaveOption = None,
    timeout: _TimeoutOption = None,
    url: _UrlOption = None,
    key_file: options.KeyFileOption = None,
) -> int:
    """Send one request and draw what it did upstream: each call, when, for what, how long.
    Costs tokens.

    The service names the purpose of a call where OptiLLM shows it.

    With --content it also keeps prompts and answers, in memory,
    until newer requests take their place.
    """
    from optictl.output.request_results import Traced
    from optictl.proof import evidence
    from optictl.requests import smoke, tracing

    refuse_unfit(save, content, url)
    config = call.config()
    smoke.names(config, [model], every=False)
    keys = smoke.keys(call.paths, key_file)
    with call.terminal.progress("asking") as say:
        say(f"asking {model}")
        headers = tracing.CONTENT_HEADERS if content else {}
        answer = smoke.ask(config, keys.proxy, model, prompt, timeout, url, headers)
        own_key = smoke.keys(call.paths, None).proxy
        recorded = tracing.read(config, call.paths, own_key, answer)
    problem = "" if answer.status == 200 else evidence.error_message(answer)
    code = call.terminal.finish(Traced(model, recorded, problem))
    save_page(call, save, [(model, recorded)], content)
    return code


def refuse_unfit(save: Path | None, content: bool, url: str | None, wanted: bool = True) -> None:
    """Options that cannot be followed end here, before a token is spent."""
    if (save or content) and not wanted:
        raise typer.BadParameter(
            "is for the trace: add --trace", param_hint="--save" if save else "--content"
        )
    if content and url:
        raise typer.BadParameter(
            "LiteLLM does not pass it on: leave --url out", param_hint="--content"
        )
    options.refuse_no_directory("--save", save)


def save_page(
    call: Call, save: Path | None, traces: Sequence[tuple[str, Trace]], content: bool
) -> None:
    """Write the traces as an HTML page, if --save and a trace are given."""
    from optictl.requests import smoke, tracing

    if save is not None and traces:
        versions = tracing.versions(call.config(), smoke.keys(call.paths, None).proxy)
        tracing.save(save, traces, content, versions)
        call.terminal.note(f"the page is {save.absolute()}")
