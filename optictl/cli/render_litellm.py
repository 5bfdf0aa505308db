"""render litellm: the entries that publish strategies in LiteLLM, printed or merged into a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optictl.cli.options import Call, DryRunOption, YesOption

if TYPE_CHECKING:
    from optictl.operations.litellm_file import Change

_MergeOption = Annotated[
    Path | None,
    typer.Option(
        "--merge",
        metavar="FILE",
        dir_okay=False,
        readable=False,  # our own error has a remedy
        help="Write the entries into this LiteLLM configuration, after a diff and a question.",
    ),
]
_LitellmConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--litellm-config",
        metavar="PATH",
        readable=False,
        help="LiteLLM's configuration with the prices of the base models. Default: the file of "
        "--merge, or the one that optictl.yaml names.",
    ),
]
_PricesOption = Annotated[
    Path | None,
    typer.Option(
        "--prices",
        metavar="FILE",
        readable=False,
        help="LiteLLM's price map, a JSON file. Default: that of the litellm on the PATH.",
    ),
]


def render_litellm(
    call: Call,
    merge: _MergeOption = None,
    litellm_config: _LitellmConfigOption = None,
    prices: _PricesOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
) -> None:
    """Print a file for LiteLLM to include: it publishes every strategy.

    Save it beside LiteLLM's configuration, and list its name under `include:` there. Or let
    --merge write the entries into that configuration.
    """
    from optictl.operations import litellm_file

    config = call.config()
    if merge is not None:
        change = litellm_file.plan(config, call.paths, merge, litellm_config or merge, prices)
        _apply(call, change, dry_run, yes)
        return
    source = litellm_config or litellm_file.named(config, call.config_path)
    call.terminal.raw(litellm_file.render(config, call.paths, source, prices))


def _apply(call: Call, change: Change, dry_run: bool, yes: bool) -> None:
    """Show what a merge would write, ask, and write it."""
    from optictl.cli.questions import ask
    from optictl.operations import litellm_file

    for kept in change.merged.kept:
        call.terminal.note(
            f"{kept.place} has {kept.name} already: it stays; remove it to use optictl's entry"
        )
    if not change.is_needed:
        call.terminal.message(f"No changes: {change.path} has the entries")
        return
    call.terminal.raw(change.diff)
    if dry_run:
        return
    call.terminal.flush()
    ask(yes, f"Write these entries into {change.path}?")
    aside = litellm_file.write(change)
    call.terminal.note(f"wrote {change.path}" + (f"; the old file is {aside}" if aside else ""))
    call.terminal.note("restart LiteLLM to use the entries")
