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
    """Read single keys from the terminal, without echo. The terminal is restored at the end.

    Yields a function that waits the given number of seconds for a key and returns it: "" when none
    was typed, or when standard input is not a terminal.
    """
    try:
        keyboard = sys.stdin.fileno()
        before = termios.tcgetattr(keyboard)
    except (OSError, ValueError, AttributeError, termios.error):  # no terminal, or stdin is closed
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
        gone = not typed  # at end of file, select() returns at once for ever
        return typed.decode(errors="replace")

    try:
        tty.setcbreak(keyboard)
        yield wait
    finally:
        with suppress(termios.error):  # the terminal may be gone by now
            termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
