"""A module that runs in a separate process while a block runs.

In the process of the block it would wait for that process's interpreter lock, and see itself.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from testing.support import ROOT


@contextmanager
def separate(module: str, *arguments: object, patience: float) -> Iterator[Callable[[], str]]:
    """Run `python -m module` during the block, from the line that it prints when it has started.

    Yields a function that ends it and returns what it has printed since. `patience`: seconds for
    this. The module ends when its standard input does.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield lambda: process.communicate(timeout=patience)[0]
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
