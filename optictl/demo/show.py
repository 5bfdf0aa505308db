"""`optictl demo`: runs the demonstration and prints its steps."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

from optictl.demo import model, run
from optictl.output import request_results
from optictl.output.check_results import Results
from optictl.output.console import Terminal
from optictl.output.plans import done
from optictl.proof import evidence
from optictl.results import Progress, Result, good

_STANDIN = "3. test every strategy (the stand-in answers, no model is called)"
_REAL = f"3. ask {model.TITLE} without a strategy, then through every strategy"
_SMALL = (
    f"The answers are real. The model is small ({model.PARAMETERS}): many answers are wrong, and a "
    "strategy may have no effect."
)


def demonstrate(
    terminal: Terminal, directory: Path | None, once: bool, *, is_real: bool = False
) -> int:
    """Install, run, check and smoke-test; then stop, or serve until Ctrl-C.

    `is_real`: a small real model answers. 0 if everything passed.
    """
    root = directory or run.directory()
    terminal.headline(f"1. install OptiLLM below {root}")
    with (
        terminal.progress("installing") as say,
        run.running(root, say, done(terminal), is_real=is_real) as demo,
    ):
        terminal.headline("2. check the running service")
        checked = demo.checks()
        terminal.preview(Results(checked))
        terminal.headline(_REAL if is_real else _STANDIN)
        smoked = _smokes(terminal, demo, say)
        proven = good(checked) and good(smoked)
        if not once and proven:
            _stay(terminal, demo)
    return 0 if proven else 1


def _smokes(terminal: Terminal, demo: run.Demo, say: Progress) -> list[Result]:
    """Ask for every strategy, and show the results; of a real model also its answers."""
    if demo.is_real:
        terminal.note(_SMALL)
        say(f"asking {demo.config.model}")
    plain = demo.plain()
    if demo.is_real:
        text = evidence.content(plain) or evidence.error_message(plain)
        request_results.answer(terminal, demo.config.model, text)
    smoked = []
    for name in demo.models:
        if demo.is_real:
            say(f"asking {name}")
        result = demo.smoke(name, plain)
        if demo.is_real:
            text = str((result.data or {}).get("answer") or result.found)
            request_results.answer(terminal, name, text)
        smoked.append(result)
    terminal.preview(Results(smoked))
    return smoked


def _stay(terminal: Terminal, demo: run.Demo) -> None:
    terminal.headline("The service is running. Try it from another terminal; Ctrl-C stops it.")
    terminal.example(
        f"curl -si {demo.config.url}/chat/completions -H 'content-type: application/json' "
        f'-H "authorization: Bearer $(cat {demo.paths.proxy_key})" '
        f"""-d '{{"model": "{demo.models[0]}", """
        """"messages": [{"role": "user", "content": "hello"}]}'"""
    )
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    ended.wait()
