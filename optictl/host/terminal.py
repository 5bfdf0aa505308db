"""The keyboard of a terminal, key by key."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


def _sleep(seconds: float) -> str:
    time.sleep(seconds)
    return ""


@contextmanager
def keys() -> Iterator[Callable[[float], str]]:
    """Within the block keys count as they are typed, and are not shown; the terminal is put back whatever happens.

    What it yields waits so many seconds for a key: "" where none was typed, or where there is no terminal.
    """
    try:
        keyboard = sys.stdin.fileno()
        before = termios.tcgetattr(keyboard)
    except (OSError, ValueError, AttributeError, termios.error):  # no terminal, or no stdin at all
        yield _sleep
        return
    gone = False

    def wait(seconds: float) -> str:
        nonlocal gone
        if gone:
            return _sleep(seconds)
        if not select.select([keyboard], [], [], seconds)[0]:
            return ""
        typed = os.read(keyboard, 1)
        gone = not typed  # always readable from now on, and never with a key
        return typed.decode(errors="replace")

    try:
        tty.setcbreak(keyboard)
        yield wait
    finally:
        with suppress(termios.error):  # the terminal may be gone by now
            termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
