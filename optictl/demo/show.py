"""`optictl demo`: runs the demonstration and prints its steps."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

from optictl.demo import run
from optictl.output.check_results import Results
from optictl.output.console import Terminal
from optictl.output.plans import done
from optictl.results import good


def demonstrate(terminal: Terminal, directory: Path | None, once: bool) -> int:
    """Install, run, check and smoke-test; then stop, or serve until Ctrl-C.

    0 if everything passed.
    """
    root = directory or run.directory()
    terminal.headline(f"1. install OptiLLM below {root}")
    with (
        terminal.progress("installing") as say,
        run.running(root, say, done(terminal)) as demo,
    ):
        terminal.headline("2. check the running service")
        checked = demo.checks()
        terminal.preview(Results(checked))
        terminal.headline("3. test every strategy (the stand-in answers, no model is called)")
        smoked = list(demo.smokes())
        terminal.preview(Results(smoked))
        proven = good(checked) and good(smoked)
        if not once and proven:
            _stay(terminal, demo)
    return 0 if proven else 1


def _stay(terminal: Terminal, demo: run.Demo) -> None:
    model = f"{demo.config.strategies[0]}-{demo.config.model}"
    terminal.headline("The service is running. Try it from another terminal; Ctrl-C stops it.")
    terminal.example(
        f"curl -si {demo.config.url}/chat/completions -H 'content-type: application/json' "
        f'-H "authorization: Bearer $(cat {demo.paths.proxy_key})" '
        f"""-d '{{"model": "{model}", "messages": [{{"role": "user", "content": "hello"}}]}}'"""
    )
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    ended.wait()
