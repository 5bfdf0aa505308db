"""demo: everything, on this machine, without root or LiteLLM."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from optictl.cli.options import SCREEN, command
from optictl.output.console import Terminal


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    example = "optictl demo --once"
    command(app, "demo", demo, example=example, shared=SCREEN, panel="Proof")


def demo(
    terminal: Terminal,
    once: Annotated[
        bool, typer.Option("--once", help="Stop when every check and smoke has ended.")
    ] = False,
    model: Annotated[
        bool,
        typer.Option(
            "--model",
            help="Ask a small real model (SmolLM2-135M-Instruct on llama.cpp) in place of the"
            " stand-in. Downloads 130 MB; needs no GPU and no key.",
        ),
    ] = False,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--directory",
            metavar="DIR",
            help="Keep the demonstration here instead of in the cache.",
        ),
    ] = None,
) -> int:
    """Install, run, check and smoke OptiLLM against an embedded stand-in for LiteLLM.

    Needs no root, no systemd and no LiteLLM; no model is asked. A second run reuses the release.

    With --model the answers are real, and often wrong: the model is one of the smallest there are.
    """
    from optictl.demo import show

    place = directory.absolute() if directory else None
    return show.demonstrate(terminal, place, once, is_real=model)
