"""compare: what strategies are worth."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optictl.cli import completion, options
from optictl.cli.options import Call

if TYPE_CHECKING:
    from optictl.requests.compare.session import Options, Session
    from optictl.requests.compare.summary import Prices


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    add = options.deployment_commands(app, "Proof")
    add(
        "compare",
        compare,
        example="optictl compare --budget-tokens 200000 --save worth.html",
        shared=options.DEPLOYMENT_AND_OUTPUT,
    )


_ModelsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--models",
        metavar="MODEL",
        autocompletion=completion.compared_models,
        help="Such as moa-jerry-xl. May be repeated. Default: all.",
    ),
]
_PromptsOption = Annotated[
    Path | None,
    typer.Option(
        "--prompts",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="Your own questions, a line each:"
        ' {"prompt": ..., "expected": text, {"number": ...} or {"regex": ...}}.',
    ),
]
_BudgetTokensOption = Annotated[
    int | None,
    typer.Option(
        "--budget-tokens", metavar="N", min=1, help="Stop before it takes more than N tokens."
    ),
]
_PricePromptOption = Annotated[
    float | None,
    typer.Option("--price-prompt", metavar="PRICE", min=0, help="Of a million prompt tokens."),
]
_PriceCompletionOption = Annotated[
    float | None,
    typer.Option(
        "--price-completion", metavar="PRICE", min=0, help="Of a million completion tokens."
    ),
]
_ResumeOption = Annotated[
    Path | None,
    typer.Option(
        "--resume",
        metavar="FILE",
        dir_okay=False,
        help="Resume from (or create) this results file.",
    ),
]
_PlainSamplesOption = Annotated[
    bool,
    typer.Option(
        "--plain-samples",
        help="Also ask the plain model as often as each strategy does, and let most answers win.",
    ),
]
_ContentOption = Annotated[
    bool, typer.Option("--content", help="Keep the texts of the answers, too.")
]
_TimeoutOption = Annotated[
    float | None,
    typer.Option(
        "--timeout", metavar="SECONDS", min=1, help="Per request. Default: timeouts.request."
    ),
]


def compare(
    call: Call,
    models: _ModelsOption = None,
    prompts: _PromptsOption = None,
    budget_tokens: _BudgetTokensOption = None,
    price_prompt: _PricePromptOption = None,
    price_completion: _PriceCompletionOption = None,
    save: options.SaveOption = None,
    resume: _ResumeOption = None,
    content: _ContentOption = False,
    timeout: _TimeoutOption = None,
    plain_samples: _PlainSamplesOption = False,
    yes: options.YesOption = False,
) -> int:
    """Ask the plain model and each strategy the same questions:
    what is right, what it costs, and what is noise.

    The plain model is asked at LiteLLM, strategies at the proxy, one request at a time.
    Costs tokens: it says how many, and their price where LiteLLM knows it, and asks on a terminal.
    The first question of each model comes first: a model that fails it is not asked again.
    With --plain-samples it also compares with what the same number of plain calls achieves.

    Every answer is kept in a file: an interrupted comparison can be resumed.
    """
    from optictl.requests.compare.session import Options

    options.refuse_no_directory("--save", save)
    options.refuse_no_directory("--resume", resume)
    chosen = Options(
        models=models or [],
        prompts=prompts and prompts.absolute(),
        budget=budget_tokens,
        prices=_prices(price_prompt, price_completion),
        save=save and save.absolute(),
        resume=resume and resume.absolute(),
        content=content,
        timeout=timeout,
        plain_samples=plain_samples,
    )
    return _compare(call, _begin(call, chosen), yes)


def _prices(prompt: float | None, completion: float | None) -> Prices | None:
    from optictl.requests.compare.summary import Prices

    if (prompt is None) != (completion is None):
        raise typer.BadParameter(
            "both prices are needed for a cost", param_hint="--price-prompt, --price-completion"
        )
    return None if prompt is None or completion is None else Prices(prompt, completion)


def _begin(call: Call, chosen: Options) -> Session:
    from optictl.requests.compare import session

    explicit = call.config_path if call.explicit else None
    begun = session.begin(chosen, call.config(), call.paths, explicit)
    if chosen.prices and len({s.base_model for s in begun.comparison.subjects}) > 1:
        raise typer.BadParameter(
            "prices are those of one base model: name its strategies with --models",
            param_hint="--price",
        )
    return begun


def _compare(call: Call, session: Session, yes: bool) -> int:
    """Say what is to come; on a terminal, ask. Then compare."""
    from optictl.cli.questions import ask
    from optictl.host import processes
    from optictl.output.request_results import Compared

    if session.may_ask:
        call.terminal.note(session.outlook)
        call.terminal.ready()
        ask(yes or not sys.stdin.isatty(), "Send these requests?")
    terminal, comparison, budget = call.terminal, session.comparison, session.options.budget
    steps = terminal.steps("comparing", session.left)
    try:
        with processes.raise_on_signals(), steps as say:
            is_whole = session.ask(say)
    except processes.TerminatedBySignal:
        terminal.note(f"{len(comparison.records)} answers are kept in {comparison.file}")
        terminal.note(f"go on: {session.again(budget)}")
        raise
    session.save()
    again = None if is_whole else session.again(comparison.enough)
    compared = Compared(session.rows(), str(comparison.file), budget, again)
    compared.tokens, compared.samples_left = session.tokens, len(comparison.samples_left)
    compared.page = str(session.options.save or "")
    return terminal.finish(compared)
